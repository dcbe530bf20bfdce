"""Another potential's static observables from the frames of this one's, and how small a difference can be seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from jaxtyping import Float64, Int64

from goniometer.errors import InputError
from goniometer.observables.blocks import Blocks
from goniometer.observables.result import Axis, Observable
from goniometer.observables.statics import Sampled, Static
from goniometer.observables.stress import Virials, pressure_static, stress_static, structure_at
from goniometer.potentials.base import Potential, Prediction
from goniometer.rotations import Rule, check_grids, grid_rule, joined
from goniometer.sampling.orbits import Orbits, sampled
from goniometer.symmetrization.crystal import lattice_elements
from goniometer.symmetrization.responses import Response, response
from goniometer.trajectories.h5md import DISCARD, Frames, Trajectory

#: Frames that are evaluated anew by default.
FRAMES = 100
#: What a potential says of a frame, and another one says otherwise; see :meth:`Reevaluated.static`.
SAID = ("potential-energy", "pressure", "stress")

# Energies, forces and virials by grid, and what the potential says of copies.
_Said = tuple[np.ndarray, np.ndarray, np.ndarray | None, Orbits | None]


@dataclass(frozen=True)
class Reevaluated:
    """What averages over grids say of frames of a trajectory.

    Attributes
    ----------
    frames : (F,)
        Their numbers.
    grids
        Names, in the order of the second axis.
    energies : (F, G)
        In eV.
    forces : (F, G, N, 3)
        In eV/Å.
    virials : (F, G, 3, 3) or None
        In eV, where the potential has them.
    full
        Whether these have all nine components.
    steps : (F,) or None
        Of the frames, where virials are known.
    orbits
        What the potential itself says of frames turned by what maps their lattice onto itself; None for averages alone.
    """

    frames: Int64[np.ndarray, " F"]
    grids: tuple[str, ...]
    energies: Float64[np.ndarray, "F G"]
    forces: Float64[np.ndarray, "F G N 3"]
    virials: Float64[np.ndarray, "F G 3 3"] | None = None
    full: bool = True
    steps: Int64[np.ndarray, " F"] | None = None
    orbits: Orbits | None = None

    def static(self, trajectory: Trajectory, kind: str, grid: str) -> Static:
        """``pressure``, ``stress`` or ``potential-energy`` of the frames, as the average over a grid says it.

        These change with the potential itself, and not only with how often it comes by a frame.
        """
        return self._static(trajectory, kind, grid, *self.said(grid))

    def said(self, grid: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Energies (F,) and virials (F, 3, 3) by the average over a grid."""
        place = self.place(grid)
        return self.energies[:, place], None if self.virials is None else self.virials[:, place]

    def _static(
        self, trajectory: Trajectory, kind: str, grid: str, energies: np.ndarray, virials: np.ndarray | None
    ) -> Static:
        if self.steps is None:
            raise InputError(f"the frames of '{trajectory.name}' were evaluated without what {kind} takes")
        if kind == "potential-energy":
            known = dict(zip(self.steps.tolist(), energies / len(trajectory.replica), strict=True))

            def samples(frames: Frames) -> np.ndarray:
                return np.array([known[step] for step in frames.steps.tolist()])

            return Static("potential_energy", "eV", {}, samples, np.asarray, {"grid": grid})
        if virials is None:
            raise InputError(f"the potential has no virials: there is no {kind}")
        made = {"pressure": pressure_static, "stress": stress_static}[kind]
        return made(trajectory, Virials(self.steps, virials, self.full, grid))

    def side(self, trajectory: Trajectory, of: str | Static, grid: str) -> ReweightedSide:
        """The average over a grid as one side of a comparison. ``of`` is an observable, or one of :data:`SAID`."""
        static = self.static(trajectory, of, grid) if isinstance(of, str) else of
        return ReweightedSide(static.on(trajectory.taken(self.frames)), self.correction(grid))

    def by_orbit(self, reference: str) -> dict[str, Orbits]:
        """Of the grids whose averages are known of frames in all orientations of their lattice, what they say of these.

        None, and grids of elements that map the lattice onto itself; and the reference, if that has inversion, as if it
        had the same energy in all orientations: whether it has is for the caller to measure, see
        :func:`goniometer.sampling.invariance.residuals`.
        """
        if self.orbits is None:
            return {}
        averages = {grid: self.orbits.average(grid_rule(grid)) for grid in self.grids}
        found = {grid: each for grid, each in averages.items() if each is not None}
        if reference not in found and grid_rule(reference).inversion:
            found[reference] = self.orbits.invariant(*self.said(reference))
        return found

    def sides_by_orbit(
        self, trajectory: Trajectory, of: str | Static, orbits: Mapping[str, Orbits], temperature: float
    ) -> dict[str, ReweightedSide]:
        """By grid the same as :meth:`side` of the frames in all orientations of their lattice.

        ``orbits`` is what :meth:`by_orbit` gave. The temperature is in K.
        """
        frames, none = trajectory.taken(self.frames), orbits["none"]
        weights = [each.weights(temperature) for each in orbits.values()]
        if isinstance(of, str):
            samples = []
            for each, known in zip(weights, orbits.items(), strict=True):
                samples += sampled(frames, none.matrices, [each], self._static_of_copies(trajectory, of, *known))
        else:
            samples = sampled(frames, none.matrices, weights, lambda _: of)
        free = none.free_energies(temperature)
        return {
            grid: ReweightedSide(each, orbits[grid].free_energies(temperature) - free)
            for grid, each in zip(orbits, samples, strict=True)
        }

    def _static_of_copies(
        self, trajectory: Trajectory, kind: str, grid: str, orbits: Orbits
    ) -> Callable[[int], Static]:
        def static(copy: int) -> Static:
            matrix = orbits.matrices[copy]
            virials = None if orbits.virials is None else matrix @ orbits.virials[:, copy] @ matrix.T
            return self._static(trajectory, kind, grid, orbits.energies[:, copy], virials)

        return static

    def place(self, grid: str) -> int:
        """Of a grid along the second axis."""
        if grid not in self.grids:
            raise InputError(f"grid '{grid}' was not evaluated; there are {', '.join(self.grids)}")
        return self.grids.index(grid)

    def correction(self, grid: str, base: str = "none") -> Float64[np.ndarray, " F"]:
        """ΔV = V_grid − V_base in eV."""
        return np.asarray(self.energies[:, self.place(grid)] - self.energies[:, self.place(base)])


@dataclass(frozen=True)
class ReweightedSide:
    """One of two potentials that are compared on frames of V: what it says of them, and V_it − V in eV.

    Of frames in all orientations of their lattice these are the means of :func:`goniometer.sampling.orbits.sampled`,
    and F_it − F.
    """

    sampled: Sampled
    correction: Float64[np.ndarray, " F"]

    def less(self, other: ReweightedSide) -> Part:
        """This one compared with the other."""
        return Part(other.sampled, self.correction, self.sampled, other.correction)


@dataclass(frozen=True)
class Part:
    """Frames of one run of V at constant temperature, and what other potentials say of them.

    Attributes
    ----------
    plain
        A of the frames, the same observable for all parts; see :meth:`goniometer.observables.statics.Static.on`.
    correction : (F,)
        ΔV in eV; see :meth:`Reevaluated.correction`.
    changed
        A′ where V + ΔV does not say the same of a frame as what it is compared with, see :meth:`Reevaluated.static`.
    base : (F,)
        ΔV₀ in eV, if V + ΔV is compared with V + ΔV₀ in the place of V.
    """

    plain: Sampled
    correction: Float64[np.ndarray, " F"]
    changed: Sampled | None = None
    base: Float64[np.ndarray, " F"] | None = None


def symmetry_errors(tables: Sequence[Reevaluated], reference: str = "3i") -> Observable:
    """⟨|E_grid − E_reference|⟩ in eV and ⟨|F_grid − F_reference|⟩ a component in eV/Å: the study's table.

    Over the frames of one run or of several, which know nothing of each other. Errors are those of the mean over
    frames, with their correlation. Axes grid and quantity.
    """
    blocks, grids = Blocks(), tables[0].grids
    for each in tables:
        place = each.place(reference)
        energy = np.abs(each.energies - each.energies[:, place : place + 1])
        force = np.abs(each.forces - each.forces[:, place : place + 1]).mean(axis=(2, 3))
        blocks.begin()
        blocks.add(np.stack([energy, force], axis=-1))
    values, errors, _ = blocks.independent().estimate(lambda mean: mean)
    axes = {"grid": Axis(np.array(grids)), "quantity": Axis(np.array(["energy", "forces"]))}
    about = {"frames": len(blocks), "reference": reference}
    return Observable("symmetry_error_by_grid", "eV, eV/Angstrom", values, errors, axes, about)


def reevaluate(
    trajectory: Trajectory,
    potential: Potential,
    grids: Sequence[str] | Mapping[str, Potential] = ("none", "i", "2i"),
    *,
    frames: int = FRAMES,
    discard: float = DISCARD,
    copies: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Reevaluated:
    """Evaluate averages over grids on so many frames, evenly spaced; or other potentials by name, besides none.

    A rotation that several grids hold is evaluated once. The potential itself is evaluated on the copies of
    :func:`goniometer.symmetrization.crystal.lattice_elements` as well, beside other potentials only if ``copies``.

    Raises :class:`InputError` for a grid that is not known, and for replicas.
    """
    if trajectory.replicas > 1:
        raise InputError(f"'{trajectory.name}' is of {trajectory.replicas} replicas, and this is for a liquid")
    if isinstance(grids, Mapping):
        elements = lattice_elements(trajectory.replica) if copies else None
        names, said_of = ("none", *grids), _potentials([potential, *grids.values()], elements)
    else:
        names, said_of = tuple(grids), _averages(potential, grids, trajectory.replica)
    chosen = spread(trajectory, frames, discard)
    taken = trajectory.taken(chosen)
    said = []
    for done in range(len(taken)):
        said.append(said_of(structure_at(trajectory, taken, done)))
        if progress is not None:
            progress(done + 1, len(chosen))
    energies, forces, virials, orbits = zip(*said, strict=True)
    strained = None if any(each is None for each in virials) else np.array(virials, dtype=float)
    found = np.array(energies), np.array(forces), strained
    return Reevaluated(chosen, names, *found, potential.virial == "full", taken.steps, _joined(orbits))


def evaluated_elements(grids: Sequence[str], structure: Atoms) -> int:
    """How many elements of O(3) :func:`reevaluate` takes for each frame."""
    return len(joined(_rules(grids, structure))[0])


def _rules(grids: Sequence[str], structure: Atoms) -> list[Rule]:
    """Those of grids, and one of the elements of the lattice."""
    check_grids(grids)
    elements = lattice_elements(structure)
    lattice = Rule("lattice", elements, np.full(len(elements), 1.0 / len(elements)), degree=0, inversion=True)
    return [*(grid_rule(name) for name in grids), lattice]


def _joined(copies: Sequence[Orbits | None]) -> Orbits | None:
    """Of all frames."""
    known = [each for each in copies if each is not None]
    if len(known) < len(copies):
        return None
    virials = [each.virials for each in known if each.virials is not None]
    strained = np.concatenate(virials) if len(virials) == len(known) else None
    return Orbits(known[0].matrices, np.concatenate([each.energies for each in known]), strained)


def _potentials(potentials: Sequence[Potential], elements: np.ndarray | None) -> Callable[[Atoms], _Said]:
    """What each says, and the first of the copies by these elements."""

    def said_of(atoms: Atoms) -> _Said:
        joined = Prediction.joined([each.predict(atoms) for each in potentials])
        copies = None if elements is None else _copies(elements, response(potentials[0], atoms, elements))
        return joined.energies, joined.forces, joined.virials, copies

    return said_of


def _averages(potential: Potential, grids: Sequence[str], structure: Atoms) -> Callable[[Atoms], _Said]:
    """The averages over grids, (G, ...), from the response at all elements that any of them or the lattice holds."""
    elements, weights = joined(_rules(grids, structure))
    weights, held = weights[:-1], np.flatnonzero(weights[-1])

    def mean(values: np.ndarray) -> np.ndarray:
        # Relative to the first: energies are large and alike.
        return np.asarray(values[0] + np.tensordot(weights, values - values[0], 1))

    def said_of(atoms: Atoms) -> _Said:
        found = response(potential, atoms, elements)
        virials = None if found.virials is None else mean(found.virials)
        return mean(found.energies), mean(found.forces), virials, _copies(elements, found, held)

    return said_of


def _copies(elements: np.ndarray, found: Response, held: np.ndarray | slice = slice(None)) -> Orbits:
    """Of one frame, from the response at all elements or at those that map its lattice."""
    virials = None if found.virials is None else found.virials[None, held]
    return Orbits(elements[held], found.energies[None, held], virials)


def spread(trajectory: Trajectory, frames: int, discard: float = DISCARD) -> Int64[np.ndarray, " F"]:
    """The numbers of so many frames, or of all that there are: the middles of equally long stretches."""
    first = int(discard * len(trajectory))
    count = min(frames, len(trajectory) - first)
    return first + ((np.arange(count) + 0.5) * (len(trajectory) - first) / count).astype(np.int64)


def reweighted(parts: Sequence[Part], temperature: float, too_short: str = "") -> Observable:
    """⟨A⟩_{V+ΔV} − ⟨A⟩_V from frames of V alone, for a static observable A = f(⟨a⟩).

        f(Σ_f w_f a_f / Σ_f w_f) − f(Σ_f a_f / F)        w = exp(−ΔV / kT)

    Of two potentials neither of which made the frames, V + ΔV and V + ΔV₀, the second term has weights exp(−ΔV₀ / kT).

    R. W. Zwanzig, J. Chem. Phys. 22, 1420 (1954). To first order −Cov(A, ΔV)/kT. The noise of A is in both terms, and
    cancels: with ΔV of some meV a difference is resolved that two runs show only if each is 2 (kT/σ(ΔV))² times longer.
    The error is that of blocks left out of both terms at once; of :data:`goniometer.observables.blocks.RUNS` runs or
    more that of whole runs, which then have one weight each, however many frames they have.

    Parameters
    ----------
    parts
        Frames of one run or of several, which know nothing of each other: all have one mean, and errors know which
        frames remember which.
    temperature
        In K.
    too_short
        Why the runs are too short, see :func:`goniometer.observables.equilibration.equilibration`. There is then no
        error (NaN), no band and no :func:`bound` (infinite): frames of such runs are no sample of their ensemble.

    Where V + ΔV does not say the same of a frame as V the result is ⟨A′⟩_{V+ΔV} − ⟨A⟩_V.

    ``about`` holds the effective share of frames, (Σ w)² / (F Σ w²), the smaller one of both terms, and σ(ΔV − ΔV₀) in
    meV: a share far below one means that the frames of V say little. ``simultaneous_90`` is how many errors wide the
    band of 90 % is that holds for all values at once. Raises :class:`InputError` for parts that do not go together.
    """
    if not parts or len({(each.changed is None, each.base is None) for each in parts}) > 1:
        raise InputError("reweighting takes frames, and either of all parts what has changed, and a base, or of none")
    for part in parts:
        frames = len(part.plain.samples)
        for corrections in (part.correction, part.correction if part.base is None else part.base):
            if frames != len(corrections):
                raise InputError(f"there are {frames} frames and {len(corrections)} corrections of their energy")
    correction = np.concatenate([each.correction for each in parts])
    base = np.concatenate([np.zeros_like(each.correction) if each.base is None else each.base for each in parts])
    weights, base_weights = (np.exp(-(each - each.mean()) / (units.kB * temperature)) for each in (correction, base))
    of, other = parts[0].plain.of, (parts[0].changed or parts[0].plain).of
    shape = parts[0].plain.samples.shape[1:]
    blocks, ends = Blocks(), np.cumsum([len(each.correction) for each in parts])[:-1]
    for part, *factors in zip(parts, np.split(weights, ends), np.split(base_weights, ends), strict=True):
        sides = [
            np.column_stack([each, each[:, None] * side.samples.reshape(len(each), -1)])
            for each, side in zip(factors, (part.changed or part.plain, part.plain), strict=True)
        ]
        blocks.begin()
        blocks.add(np.concatenate(sides, axis=1))
    blocks = blocks.independent()

    def difference(mean: np.ndarray) -> np.ndarray:
        changed, plain = (each[1:] / each[0] for each in np.split(mean, 2))
        return np.asarray(other.finish(changed.reshape(shape)) - of.finish(plain.reshape(shape)))

    values, errors, _ = blocks.estimate(difference)
    if too_short:
        errors = np.full_like(errors, np.nan)
    share = min(float(each.sum() ** 2 / (len(each) * (each**2).sum())) for each in (weights, base_weights))
    scatter = 1e3 * float((correction - base).std())
    about = {**of.about, "frames": len(weights), "effective_share": share, "spread_meV": scatter}
    about["simultaneous_90"] = float("inf") if too_short else blocks.simultaneous(difference)
    if too_short:
        about["too_short"] = too_short
    return Observable(f"{of.name}_difference", of.unit, values, errors, of.axes, about)


def margin(found: Observable) -> np.ndarray:
    """Half the width of the band of 90 % that holds for all values at once; none where nothing ever changes."""
    with np.errstate(invalid="ignore"):
        return np.where(found.errors == 0.0, 0.0, found.about["simultaneous_90"] * found.errors)


def bound(found: Observable) -> float:
    """How large the true difference can be anywhere, one-sided, with 95 % confidence: max (|value| + c · error).

    With c of ``simultaneous_90``, as of two ensembles in :meth:`goniometer.comparison.curves.Comparison.bound`.
    Infinite for runs that are too short and for fewer than six runs whose frames are not fifty independent ones, NaN
    where there is no error at all.

    Parameters
    ----------
    found
        What :func:`reweighted` gave.
    """
    if "too_short" in found.about:
        return float("inf")
    largest = np.abs(found.values) + margin(found)
    largest = largest[~np.isnan(largest)]
    return float(largest.max()) if largest.size else float("nan")
