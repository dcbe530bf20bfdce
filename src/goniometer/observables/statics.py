"""Static observables of liquids: means over frames, of one trajectory or of any reweighted one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from ase import units
from ase.data import atomic_numbers
from jaxtyping import Float64
from scipy.special import erf, sph_harm_y

from goniometer.errors import InputError
from goniometer.observables.blocks import Blocks
from goniometer.observables.molecules import Molecules, find_molecules
from goniometer.observables.orientation import images, moments
from goniometer.observables.result import Axis, Observable
from goniometer.trajectories.h5md import DISCARD, Frames, Trajectory, check_velocities

#: Distance in Å to which the study goes, the width of its Gaussian kernel, and the spacing of points.
FARTHEST, KERNEL, SPACING = 8.0, 0.1, 0.02
#: Distance in Å from which c_uu(r)/g(r) of water is known: closer it is the ratio of two numbers next to nothing.
CLOSEST = 2.5
# Share of the momenta of all atoms below which their sum is none: the digits of text files.
_AT_REST = 1e-5
# Frames whose samples are held at a time: they may be larger than the frames.
_AT_ONCE = 64
# Bins of distance in a width of the kernel, and widths at which it ends.
_FINE, _ENDS = 20, 6.0


@dataclass(frozen=True)
class Static:
    """An observable f(⟨a⟩) of the mean of what each frame holds.

    Attributes
    ----------
    name, unit, axes
        Of the values.
    samples
        Frames to a (T, ...).
    finish
        ⟨a⟩ to values.
    about
        Settings of the estimator.
    invariant
        Whether a is the same of a frame that is turned.
    """

    name: str
    unit: str
    axes: Mapping[str, Axis]
    samples: Callable[[Frames], np.ndarray]
    finish: Callable[[np.ndarray], np.ndarray]
    about: Mapping[str, object] = field(default_factory=dict)
    invariant: bool = False

    def on(self, frames: Frames) -> Sampled:
        """What these frames hold."""
        return Sampled(self, np.asarray(self.samples(frames)))


@dataclass(frozen=True)
class Sampled:
    """A static observable and what some frames hold of it.

    Attributes
    ----------
    of
        The observable.
    samples : (F, ...)
        a of each frame.
    """

    of: Static
    samples: np.ndarray


def average(trajectory: Trajectory, of: Static, discard: float = DISCARD) -> Observable:
    """A static observable of a trajectory, with the error of :meth:`goniometer.observables.blocks.Blocks.estimate`.

    ``about`` holds the number of frames, and the autocorrelation time in frames and, where times are known, in fs.
    """
    blocks, times = Blocks(), []
    for frames in trajectory.settled(discard):
        for start in range(0, len(frames), _AT_ONCE):
            blocks.add(of.samples(frames[start : start + _AT_ONCE]))
        times += [frames.times[0], frames.times[-1]]
    values, errors, time = blocks.estimate(of.finish)
    spacing = (times[-1] - times[0]) / max(1, len(blocks) - 1)
    about = {**of.about, "frames": len(blocks), "length_ps": 1e-3 * float(times[-1] - times[0])}
    about |= {"autocorrelation_time_frames": time, "autocorrelation_time_fs": float(time * spacing)}
    return Observable(of.name, of.unit, values, errors, of.axes, about)


class Pairs:
    """Distances between sites, smoothed with a Gaussian.

    Of pairs in a frame, Σ_pairs a δ(r − r_ij) is collected in bins of a twentieth of the kernel's width, and smoothed
    afterwards: K(r, r') normal in r − r'. The same is done to the distances of an ideal gas, whose shells hold
    4π (r² + σ²) per unit of density after smoothing, so that g(r) = 1 for it at all distances.

    Parameters
    ----------
    structure
        Cell and boundary.
    first, second
        Indices of the sites at both ends; the same for pairs of one kind.
    farthest, kernel, spacing
        In Å.
    """

    def __init__(
        self,
        trajectory: Trajectory,
        first: np.ndarray,
        second: np.ndarray,
        farthest: float = FARTHEST,
        kernel: float = KERNEL,
        spacing: float = SPACING,
    ) -> None:
        _one_replica(trajectory)
        if not kernel > 0.0 or not farthest > spacing:
            raise InputError(f"the kernel is wider than 0 Å and the farthest distance is above {spacing:g} Å")
        self.first, self.second, self.kernel = first, second, kernel
        self.same = np.array_equal(first, second)
        if not self.same and np.intersect1d(first, second).size:
            raise InputError("pairs are of sites of one kind, or of two kinds that have no site in common")
        self.periodic = trajectory.replica.pbc
        if not self.periodic.all():
            raise InputError(f"'{trajectory.name}' is not periodic in three directions: it has no density")
        limit = 0.5 * float(np.min(_heights(trajectory.replica.cell.array)))
        self.points = np.arange(1, int(min(farthest, limit) / spacing + 1e-9) + 1) * spacing
        self.width = kernel / _FINE
        self.bins = int(np.ceil((self.points[-1] + _ENDS * kernel) / self.width))
        centres = (np.arange(self.bins) + 0.5) * self.width
        offsets = (self.points[:, None] - centres) / kernel
        self.smooth = np.where(
            np.abs(offsets) < _ENDS, np.exp(-0.5 * offsets**2) / (np.sqrt(2.0 * np.pi) * kernel), 0.0
        )
        from vesin import NeighborList  # it imports torch

        self._search = NeighborList(cutoff=self.bins * self.width, full_list=False)
        self._chosen = np.union1d(first, second)
        self._is_first = np.isin(self._chosen, first)

    @property
    def ideal(self) -> np.ndarray:
        """What a density of one pair per Å³ has, smoothed."""
        r, s = self.points, self.kernel
        # ∫_0^∞ 4π r'² K(r, r') dr'
        inside = 0.5 * (1.0 + erf(r / (np.sqrt(2.0) * s)))
        edge = np.exp(-0.5 * (r / s) ** 2) / np.sqrt(2.0 * np.pi)
        return np.asarray(4.0 * np.pi * ((r**2 + s**2) * inside + r * s * edge))

    def found(self, positions: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Every pair once: its sites i and j, counted along both kinds in their order, the vector, and the bin."""
        chosen = positions[self._chosen]
        i, j, vectors, lengths = self._search.compute(chosen, cell, True, "ijDd")
        i, j = i.astype(int), j.astype(int)
        if not self.same:
            wanted = self._is_first[i] != self._is_first[j]
            i, j, vectors, lengths = i[wanted], j[wanted], vectors[wanted], lengths[wanted]
        bins = (lengths / self.width).astype(int)
        inside = bins < self.bins
        return i[inside], j[inside], vectors[inside], bins[inside]

    def each(self, frames: Frames, of: Callable[[int, np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        """``of(number, positions, cell)`` of every frame."""
        assert frames.cells is not None
        held = zip(frames.positions[:, 0], frames.cells, strict=True)
        return np.stack([of(number, positions, cell) for number, (positions, cell) in enumerate(held)])

    def per_pair(self, cell: np.ndarray) -> float:
        """V over the number of pairs."""
        count = len(self.first) * (len(self.second) - self.same) / (1 + self.same)
        return float(abs(np.linalg.det(cell)) / count)


def pair_distribution(
    trajectory: Trajectory, pair: str = "O-O", farthest: float = FARTHEST, kernel: float = KERNEL
) -> Static:
    """g(r) of two elements,

        g_αβ(r) = V / (N_α (N_β − δ_αβ)) ⟨Σ_{i∈α} Σ_{j∈β, j≠i} K(r − r_ij)⟩ / ∫ 4π r'² K(r − r') dr'

    with a Gaussian kernel K (0.1 Å in arXiv 2406.17747). It goes to half the smallest height of the cell at most:
    farther away correlations of images with each other would count. N_β − 1 makes it 1 for an ideal gas of any size.
    """
    pairs = Pairs(trajectory, *_sites(trajectory, pair), farthest, kernel)
    ideal = pairs.ideal

    def counts(number: int, positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
        *_, bins = pairs.found(positions, cell)
        return np.bincount(bins, minlength=pairs.bins) * pairs.per_pair(cell)

    def samples(frames: Frames) -> np.ndarray:
        return pairs.each(frames, counts) @ pairs.smooth.T / ideal

    axes = {"r": Axis(pairs.points, "Angstrom")}
    about = {"kernel": kernel, "pair": pair}
    return Static(f"g_{pair.replace('-', '')}", "", axes, samples, lambda mean: mean, about, invariant=True)


def pair_moments(trajectory: Trajectory, pair: str = "O-O", degree: int = 2) -> Static:
    """g(r) resolved by direction: its real spherical harmonics of one degree, √(4π) times the normalized ones,

        g_ℓm(r) = V / (N_α (N_β − δ_αβ)) √(4π) ⟨Σ_ij K(r − r_ij) Y_ℓm(r̂_ij)⟩ / ∫ 4π r'² K(r − r') dr'

    which vanish in an isotropic liquid. (A cubic cell has ℓ = 4 of its own, where correlations reach its faces.) Values
    have the axes m and r. The degree is even: others vanish for pairs of one kind by themselves.
    """
    if degree < 2 or degree % 2:
        raise InputError(f"the degree is 2, 4 and so on, not {degree}")
    pairs = Pairs(trajectory, *_sites(trajectory, pair))
    orders = np.arange(-degree, degree + 1)

    def sums(number: int, positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
        _, _, vectors, bins = pairs.found(positions, cell)
        theta = np.arccos(np.clip(vectors[:, 2] / np.linalg.norm(vectors, axis=1), -1.0, 1.0))
        phi = np.arctan2(vectors[:, 1], vectors[:, 0])
        each = [np.bincount(bins, _real_harmonic(degree, int(m), theta, phi), pairs.bins) for m in orders]
        return np.stack(each) * pairs.per_pair(cell)

    def samples(frames: Frames) -> np.ndarray:
        return pairs.each(frames, sums) @ pairs.smooth.T / pairs.ideal

    axes = {"m": Axis(orders), "r": Axis(pairs.points, "Angstrom")}
    about = {"pair": pair, "degree": degree}
    return Static(f"g_{pair.replace('-', '')}_moments", "", axes, samples, lambda mean: mean, about)


def _real_harmonic(degree: int, m: int, theta: np.ndarray, phi: np.ndarray) -> np.ndarray:
    harmonic = sph_harm_y(degree, abs(m), theta, phi)
    part = harmonic.imag if m < 0 else harmonic.real
    return np.asarray(np.sqrt(4.0 * np.pi) * part * (1.0 if m == 0 else np.sqrt(2.0)))


def dipole_correlation(trajectory: Trajectory, molecules: Molecules | None = None, closest: float = CLOSEST) -> Static:
    """c_uu(r) of the directions u of molecules, longitudinal and transverse, over g(r), as in arXiv 2406.17747:

        c_l(r) = ⟨Σ_ij K(r − r_ij) (u_i·r̂)(u_j·r̂)⟩ / ⟨Σ_ij K(r − r_ij)⟩      c_t: the same of u_i·u_j − (u_i·r̂)(u_j·r̂)

    Distances are those of the first atoms (the oxygens of water). NaN where there are no pairs, and at distances
    shorter than ``closest`` (Å), where hardly any are. Values have the axes part and r.
    """
    chosen = molecules or find_molecules(trajectory.replica)
    sites = chosen.atoms[:, 0]
    pairs = Pairs(trajectory, sites, sites)
    if not 0.0 <= closest < pairs.points[-1]:
        raise InputError(f"the closest distance is below the farthest, {pairs.points[-1]:.3g} Å, and not negative")
    # The search takes sites by their indices.
    rank = np.argsort(sites)

    def samples(frames: Frames) -> np.ndarray:
        directions = chosen.directions(frames)[:, rank]

        def sums(number: int, positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
            i, j, vectors, bins = pairs.found(positions, cell)
            unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            one, other = directions[number][i], directions[number][j]
            along = np.einsum("pj,pj->p", one, unit) * np.einsum("pj,pj->p", other, unit)
            across = np.einsum("pj,pj->p", one, other) - along
            return np.stack([np.bincount(bins, each, pairs.bins) for each in (None, along, across)])

        return pairs.each(frames, sums) @ pairs.smooth.T

    def finish(mean: np.ndarray) -> np.ndarray:
        # Beyond the tails of the kernel there is nothing to divide by.
        known = (mean[0] > 1e-6 * mean[0].max()) & (pairs.points >= closest)
        count = np.where(known, mean[0], np.nan)
        return np.asarray(mean[1:] / count)

    axes = {"part": Axis(np.array(["longitudinal", "transverse"])), "r": Axis(pairs.points, "Angstrom")}
    about = {"kernel": KERNEL, "closest": closest, "molecules": len(chosen)}
    return Static("c_uu_of_r", "", axes, samples, finish, about, invariant=True)


def dipole_fluctuation(trajectory: Trajectory, molecules: Molecules | None = None) -> Static:
    """G_ij = 3 ⟨M_i M_j⟩ / M with M = Σ u over the M molecules: isotropic in an isotropic liquid.

    A third of its trace is the Kirkwood factor of the cell. Values have the axes i and j.
    """
    chosen = molecules or find_molecules(trajectory.replica)
    _one_replica(trajectory)

    def samples(frames: Frames) -> np.ndarray:
        total = chosen.directions(frames).sum(axis=1)
        return np.asarray(3.0 / len(chosen) * np.einsum("ti,tj->tij", total, total))

    axes = {"i": Axis(np.array(["x", "y", "z"])), "j": Axis(np.array(["x", "y", "z"]))}
    return Static("dipole_fluctuation", "", axes, samples, lambda mean: mean, {"molecules": len(chosen)})


def orientation(trajectory: Trajectory, frame: str = "laboratory", molecules: Molecules | None = None) -> Static:
    """−ln (4π P(cos θ, φ)) in kT of the directions of all molecules of a liquid.

    The estimator is that of :func:`goniometer.observables.orientation.free_energy`, from counts on a fifth of the
    kernel's width. ``frame`` is ``laboratory``, or ``model``: as the model saw them, where a run recorded that.
    """
    chosen = molecules or find_molecules(trajectory.replica)
    _one_replica(trajectory)
    if frame not in ("laboratory", "model"):
        raise InputError(f"the frame is 'laboratory' or 'model', not {frame!r}")
    cosines, angles = np.linspace(-1.0, 1.0, 101), np.linspace(-np.pi, np.pi, 201)
    # In the middle of bins of 0.02 and π/100.
    at_cosine, at_angle = 0.5 * (cosines[1:] + cosines[:-1]), 0.5 * (angles[1:] + angles[:-1])
    mirrored = images(cosines, [at_cosine, 2.0 - at_cosine, -2.0 - at_cosine], KERNEL)
    around = images(angles, [at_angle, at_angle + 2.0 * np.pi, at_angle - 2.0 * np.pi], KERNEL)
    # What the sum over bins makes of directions that are all alike: 1/(4π) but for rounding.
    uniform = mirrored.mean(axis=1)[:, None] * around.mean(axis=1)

    def samples(frames: Frames) -> np.ndarray:
        u = chosen.directions(frames)
        if frame == "model":
            if "frame" not in frames.observables:
                raise InputError(f"'{trajectory.name}' records no frame of the model: it is that of the laboratory")
            u = np.einsum("tij,tmj->tmi", frames.observables["frame"].reshape(-1, 3, 3), u)
        row = np.clip(((u[..., 2] + 1.0) * 50.0).astype(int), 0, 99)
        column = np.clip(((np.arctan2(u[..., 1], u[..., 0]) / np.pi + 1.0) * 100.0).astype(int), 0, 199)
        counts = [np.bincount(each, minlength=20000) for each in 200 * row + column]
        return np.stack(counts).reshape(-1, 100, 200) / len(chosen)

    def finish(mean: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.asarray(-np.log(mirrored @ mean @ around.T / uniform))

    axes = {"cos_theta": Axis(cosines), "phi": Axis(angles, "rad")}
    about = {"kernel": KERNEL, "molecules": len(chosen), "frame": frame}
    return Static("orientational_free_energy", "kT", axes, samples, finish, about)


def potential_energy(trajectory: Trajectory) -> Static:
    """The potential energy in eV per atom, of runs that recorded it."""
    return _recorded(trajectory, "potential_energy", "eV", len(trajectory.replica))


def temperature(trajectory: Trajectory) -> Static:
    """The temperature in K: the recorded one of a run, of other files that of the velocities, T = Σ m v² / (g k).

    The number of degrees of freedom g is 3N, less 3 for each atom that FixAtoms holds; without such atoms it is 3N − 3
    if the centre of mass is at rest in the first frame.

    Raises :class:`InputError` for frames without velocities.
    """
    first = next(trajectory.chunks(1), None)
    if first is None or "temperature" in first.observables:
        return _recorded(trajectory, "temperature", "K", 1)
    _one_replica(trajectory)
    check_velocities(first, trajectory.name, "a temperature")
    masses = trajectory.replica.get_masses()
    fixed = int(trajectory.attributes.get("fixed_atoms", 0))
    momenta = masses[:, None] * first.velocities[0, 0]
    at_rest = np.abs(momenta.sum(axis=0)).max() <= _AT_REST * np.abs(momenta).sum()
    degrees = 3 * (len(masses) - fixed) - (3 if at_rest and not fixed and len(masses) > 1 else 0)

    def samples(frames: Frames) -> np.ndarray:
        check_velocities(frames, trajectory.name, "a temperature")
        doubled = np.einsum("a,tai->t", masses, frames.velocities[:, 0] ** 2) / units.fs**2
        return np.asarray(doubled / (degrees * units.kB))

    about = {"degrees_of_freedom": degrees, "from": "the velocities of the file"}
    return Static("temperature", "K", {}, samples, np.asarray, about)


def _recorded(trajectory: Trajectory, name: str, unit: str, parts: int) -> Static:
    _one_replica(trajectory)

    def samples(frames: Frames) -> np.ndarray:
        if name not in frames.observables:
            raise InputError(f"'{trajectory.name}' holds no {name}")
        return np.asarray(frames.observables[name].reshape(len(frames)) / parts)

    return Static(name, unit, {}, samples, lambda mean: np.asarray(mean))


def direction_moments(trajectory: Trajectory, degree: int = 4, molecules: Molecules | None = None) -> Static:
    """⟨√(4π) Y_ℓm(u)⟩ of the directions of molecules for 1 ≤ ℓ ≤ degree: zero where all are alike. Axis ``moment``."""
    chosen = molecules or find_molecules(trajectory.replica)
    _one_replica(trajectory)

    def samples(frames: Frames) -> np.ndarray:
        # As "replicas" of one molecule each: the mean over molecules of every frame.
        return moments(chosen.directions(frames).swapaxes(0, 1), degree)

    names = [f"{ell},{m}" for ell in range(1, degree + 1) for m in range(-ell, ell + 1)]
    about = {"molecules": len(chosen), "degree": degree}
    return Static("direction_moments", "", {"moment": Axis(np.array(names))}, samples, lambda mean: mean, about)


def _sites(trajectory: Trajectory, pair: str) -> tuple[np.ndarray, np.ndarray]:
    names = pair.split("-")
    if len(names) != 2 or not all(name in atomic_numbers for name in names):
        raise InputError(f"a pair is two elements, as in O-H, not '{pair}'")
    found = []
    for name in names:
        sites = np.flatnonzero(trajectory.replica.numbers == atomic_numbers[name])
        if not len(sites):
            elements = ", ".join(sorted(set(trajectory.replica.symbols)))
            raise InputError(f"'{trajectory.name}' holds no {name}: its elements are {elements}")
        found.append(sites)
    if len(found[0]) < 2 and names[0] == names[1]:
        raise InputError(f"'{trajectory.name}' holds a single {names[0]}: there are no pairs")
    return found[0], found[1]


def _heights(cell: Float64[np.ndarray, "3 3"]) -> np.ndarray:
    """Distances between opposite faces."""
    return np.asarray(1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0))


def _one_replica(trajectory: Trajectory) -> None:
    if trajectory.replicas > 1:
        raise InputError(
            f"'{trajectory.name}' is of {trajectory.replicas} replicas, and this observable is of a liquid"
        )
