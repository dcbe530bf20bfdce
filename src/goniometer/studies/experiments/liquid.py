"""Water in bulk: figures 2 and 3 of arXiv 2406.17747 and its supplement with any model."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from goniometer.comparison.runs import common_window, left_out_time, within
from goniometer.dynamics.description import Run, read_runs
from goniometer.dynamics.run import structure_of
from goniometer.dynamics.starts import check_count, read_starts
from goniometer.errors import InputError
from goniometer.files.records import replace_text, replacing
from goniometer.observables import observe, statics
from goniometer.observables.equilibration import Equilibration, discarded, equilibration
from goniometer.observables.gas import conserved, drift
from goniometer.observables.molecules import find_molecules
from goniometer.observables.result import Observable
from goniometer.observables.statistics import few_samples
from goniometer.observables.stress import readable
from goniometer.progress import Progress
from goniometer.rotations import GRIDS, check_grids, grid_rule
from goniometer.sampling.invariance import Residual, residuals
from goniometer.sampling.orbits import Orbits
from goniometer.sampling.reweighting import Reevaluated, ReweightedSide, reevaluate, reweighted, spread, symmetry_errors
from goniometer.studies.experiments import costs
from goniometer.studies.experiments.gas import Trajectories, loaded, trajectories
from goniometer.studies.experiments.results import LiquidStudy
from goniometer.symmetrization.average import Averaged
from goniometer.trajectories.h5md import Trajectory

#: Of the runs.
DESCRIPTION = "liquid-nvt"
#: What is drawn of every run: name to observable and options.
DRAWN: dict[str, tuple[str, dict[str, Any]]] = {
    "orientation": ("orientation", {}),
    "g_OO": ("pair-distribution", {"pair": "O-O"}),
    "c_uu(r)": ("dipole-correlation", {}),
    "displacement": ("displacement", {}),
    "c_uu(t)": ("reorientation", {}),
}
#: Static observables whose convergence with the grid is worked out from the raw runs alone.
REWEIGHTED: dict[str, Callable[[Trajectory], statics.Static]] = {
    "g_OO": statics.pair_distribution,
    "g_OH": partial(statics.pair_distribution, pair="O-H"),
    "g_HH": partial(statics.pair_distribution, pair="H-H"),
    "c_uu(r)": statics.dipole_correlation,
    "direction moments": statics.direction_moments,
    "pair moments": statics.pair_moments,
    "dipole fluctuation": statics.dipole_fluctuation,
}
#: The same of what the potential itself says of a frame.
SAID = {"potential energy": "potential-energy", "pressure": "pressure", "stress": "stress"}
# Independent runs by size, where it is not one; and frames that are evaluated over all grids.
_WALKERS = {"laptop": 8}
#: In a mapping of walkers, those of the strategies that it does not name.
OTHERS = "others"
# What strategies may differ in.
_OF_ONE = {"strategy", "length", "checks"}
#: Independent runs: of each strategy, or by name.
Walkers = Mapping[str, int] | int
# Frames of all runs together on whose rotated copies the reference is measured.
_ROTATED = 8
_FRAMES = {"smoke": 4, "laptop": 120, "paper": 200}


def liquid(
    folder: Path,
    *,
    size: str = "smoke",
    only: Sequence[str] = (),
    walkers: Walkers | None = None,
    frames: int | None = None,
    grids: Sequence[str] = tuple(GRIDS),
    changes: dict[str, Any] | None = None,
    starts: str | None = None,
    progress: Progress | None = None,
) -> LiquidStudy:
    """Run what is not finished, and work out what figures 2 and 3 show, the table by grid, and the verdict on each run.

    Parameters
    ----------
    folder
        Of runs and results.
    size, only, changes
        See :func:`goniometer.dynamics.description.read_runs`; ``raw`` is always among them.
    walkers
        Independent runs of each strategy, with seeds from that of the description on: by default one in the sizes
        smoke and paper, and eight in laptop; six are the fewest that can differ in so many observables. By name,
        ``{"raw": 8, "others": 4}``, where strategies have different numbers; ``runs.2i.length`` among the changes gives
        one a length of its own.
    starts
        The file of a starting ensemble (``goniometer equilibrate``): each independent run has a configuration of its
        own. Without one all runs start from the packaged box, rotated by elements of its lattice: they are not
        independent until several correlation times of the slowest observable have passed.
    frames, grids
        How many frames of all raw runs together are evaluated anew (by default 4, 120 and 200 in the three sizes; 0
        leaves it out), and over which averages; the reference is 3i, or the finest grid if that is not among them.

    Raises :class:`goniometer.interruption.Interrupted` after Ctrl-C, :class:`goniometer.errors.InputError` for what
    cannot be run.
    """
    wanted = averages(grids) if frames_of(size, frames) else ()
    changes = with_starts(changes or {}, starts, size)
    _check_water(size, changes)
    check_starts(changes, size, walks(size, only, walkers, changes))
    found: dict[str, list[tuple[Run, Trajectory]]] = {}
    for seed, names in walks(size, only, walkers, changes or {}):
        runs: Trajectories = trajectories(DESCRIPTION, folder, size, names, {**(changes or {}), "seed": seed}, progress)
        for name, each in runs.items():
            found.setdefault(name, []).append(each)
    by_run = {name: [trajectory for _, trajectory in each] for name, each in found.items()}
    description = found["raw"][0][0]
    measured = {name: equilibration(runs) for name, runs in by_run.items()}
    left_out = {name: discarded(runs, None, measured[name]) for name, runs in by_run.items()}
    too_short = {name: said for name, (_, said) in left_out.items() if said}
    # Curves that are drawn together are of one stretch of time, and so reach to the same lags.
    window = common_window(
        [each for runs in by_run.values() for each in runs],
        max(left_out_time(runs, left_out[name][0]) for name, runs in by_run.items()),
    )
    cut = {name: [within(each, window) for each in runs] for name, runs in by_run.items()}
    drawn = {
        kind: {
            name: _without_errors(_drawn(runs, known, options), too_short.get(name, "")) for name, runs in cut.items()
        }
        for kind, (known, options) in DRAWN.items()
    }
    study = LiquidStudy(
        model=description.potential.model,
        molecules=len(find_molecules(found["raw"][0][1].replica)),
        lengths={name: sum(run.length for run, _ in each) for name, each in found.items()},
        drawn=drawn,
        window=(1e-3 * window[0], 1e-3 * window[1]),
        conserved={name: pooled([conserved(each) for each in runs]) for name, runs in by_run.items()},
        drifts={name: pooled([drift(each) for each in runs]) for name, runs in by_run.items()},
        grids=None,
        differences={},
        costs={},
        verdicts=costs.beside(by_run, "raw", measured),
        too_short=too_short,
    )
    if wanted:
        kept, count = folder / f"liquid-{size}-frames.npz", frames_of(size, frames)
        shares = left_out["raw"][0]
        tables = _evaluated(kept, found["raw"], wanted, count, shares, progress)
        reference = max(wanted, key=lambda grid: len(grid_rule(grid)))
        residual = _residual(folder / f"liquid-{size}-residual.json", description, tables, reference)
        same = grid_rule(reference).inversion and _negligible(residual, tables, description.temperature, reference)
        changed, remaining = differences(
            tables, description.temperature, reference, too_short.get("raw", ""), same=same
        )
        errors = symmetry_errors([each for _, each in tables], reference)
        about = {
            "residual_of_reference_meV": 1e3 * residual.averaged,
            "residual_of_reference_error_meV": 1e3 * residual.error,
            "same_in_all_orientations": int(same),  # netCDF has no truth values
        }
        study = replace(
            study,
            grids=replace(errors, about={**errors.about, **about}),
            differences=changed,
            remaining=remaining,
        )
    study = _with_costs(study, found, measured)
    _save(study, folder, f"liquid-{size}")
    return study


def with_starts(changes: dict[str, Any], starts: str | None, size: str) -> dict[str, Any]:
    """Changes by which independent runs start from the configurations of an ensemble, if there is one."""
    if starts is None:
        return changes
    (raw,) = read_runs(DESCRIPTION, size=size, only=("raw",), changes=changes).values()
    return {**changes, "starts.file": str(Path(starts).resolve()), "starts.first": raw.seed}


def check_starts(changes: dict[str, Any], size: str, walks: Sequence[tuple[int, tuple[str, ...]]]) -> None:
    """Raise :class:`InputError` if there are more independent runs than configurations to start from."""
    (raw,) = read_runs(DESCRIPTION, size=size, only=("raw",), changes=changes).values()
    if raw.starts is not None:
        check_count(read_starts(raw.starts.file, raw.starts.key), walks[-1][0] - raw.starts.first + 1)


def _check_water(size: str, changes: dict[str, Any]) -> None:
    (raw,) = read_runs(DESCRIPTION, size=size, only=("raw",), changes=changes).values()
    try:
        find_molecules(structure_of(raw))
    except InputError as error:
        raise InputError(
            f"the experiment liquid is one of water ({error}); for other liquids there are goniometer run, observe and "
            "compare"
        ) from None


def walks(
    size: str, only: Sequence[str], walkers: Walkers | None, changes: dict[str, Any]
) -> list[tuple[int, tuple[str, ...]]]:
    """Seeds of independent runs, and the strategies that have a run with each."""
    wanted = read_runs(DESCRIPTION, size=size, only=chosen(only), changes=changes)
    names = [each.removeprefix(f"{DESCRIPTION}-{size}-") for each in wanted]
    shared = [each.model_dump(exclude=_OF_ONE) for each in wanted.values()]
    for name, each in zip(names, shared, strict=True):
        for key, value in each.items():
            if value != shared[0][key]:
                raise InputError(
                    f"{key} of {name} is another than of {names[0]}: strategies may differ in length, strategy and "
                    "checks alone"
                )
    given = dict(walkers) if isinstance(walkers, Mapping) else {} if walkers is None else {OTHERS: walkers}
    for name, count in given.items():
        if name not in (*names, OTHERS):
            raise InputError(f"walkers are of '{name}', which is not run; the strategies are {', '.join(names)}")
        if count < 1:
            raise InputError(f"there are {count} walkers of '{name}': wanted is one or more")
    counts = {name: given.get(name, given.get(OTHERS, _WALKERS.get(size, 1))) for name in names}
    first = next(iter(wanted.values())).seed
    again = read_runs(DESCRIPTION, size=size, only=chosen(only), changes={**changes, "seed": first + 1})
    if any(each.seed == first for each in again.values()):
        raise InputError("a strategy has no seed of its own, for its walkers would all have that: set seed")
    return [
        (first + place, tuple(name for name in names if counts[name] > place)) for place in range(max(counts.values()))
    ]


def frames_of(size: str, frames: int | None) -> int:
    """How many are evaluated anew."""
    return _FRAMES.get(size, 0) if frames is None else frames


def averages(grids: Sequence[str]) -> tuple[str, ...]:
    """What frames are evaluated over, none among them. Raises :class:`InputError` for grids that are no average."""
    check_grids(grids)
    wanted = tuple(dict.fromkeys(("none", *grids)))
    if len(wanted) < 2:
        raise InputError("frames are evaluated over grids besides none: name one, for instance 2i, or take no frames")
    return wanted


def chosen(only: Sequence[str]) -> tuple[str, ...]:
    """The runs of the description that are wanted, raw among them; all if none are named."""
    return tuple(dict.fromkeys(("raw", *only))) if only else ()


def _drawn(runs: Sequence[Trajectory], name: str, options: Mapping[str, Any]) -> Observable:
    found = [observe(each, name, {**options, "discard": 0.0}) for each in runs]
    return pooled_free_energy(found) if name == "orientation" else pooled(found)


def _without_errors(found: Observable, too_short: str) -> Observable:
    """Of runs that are too short: their scatter is no error of the ensemble."""
    if not too_short:
        return found
    about = {**found.about, "too_short": too_short}
    return replace(found, errors=np.full_like(found.errors, np.nan), about=about)


def pooled(found: Sequence[Observable]) -> Observable:
    """The mean of an observable over independent runs of one length.

    The error is the scatter over four runs or more, with Student's factor for their number
    (:func:`goniometer.observables.statistics.few_samples`), and of fewer that of each put together. Axes are cut to the
    shortest. Raises :class:`InputError` for runs that do not have their values at the same points.
    """
    if len(found) == 1:
        return found[0]
    for each in found[1:]:
        axis = each.disagreeing_axis(found[0])
        if axis is not None:
            raise InputError(f"{found[0].name} of several runs has other points along {axis} in one than in another")
    shape = tuple(min(sizes) for sizes in zip(*(each.values.shape for each in found), strict=True))
    part = tuple(slice(0, size) for size in shape)
    values = np.stack([each.values[part] for each in found])
    errors = np.sqrt((np.stack([each.errors[part] for each in found]) ** 2).sum(axis=0)) / len(found)
    if len(found) >= 4:
        errors = few_samples(len(found)) * values.std(axis=0, ddof=1) / np.sqrt(len(found))
    axes = {
        name: replace(axis, values=axis.values[:size])
        for (name, axis), size in zip(found[0].axes.items(), shape, strict=True)
    }
    about = {**found[0].about, "runs": len(found)}
    return replace(found[0], values=np.asarray(values.mean(axis=0)), errors=np.asarray(errors), axes=axes, about=about)


def pooled_free_energy(found: Sequence[Observable]) -> Observable:
    """−ln of the mean of P over independent runs: that of all their directions together, see :func:`pooled`."""
    chances = [np.exp(-each.values) for each in found]
    mean = pooled([replace(each, values=p, errors=p * each.errors) for each, p in zip(found, chances, strict=True)])
    with np.errstate(divide="ignore", invalid="ignore"):
        return replace(mean, values=np.asarray(-np.log(mean.values)), errors=np.asarray(mean.errors / mean.values))


def differences(
    tables: Sequence[tuple[Trajectory, Reevaluated]],
    temperature: float,
    reference: str,
    too_short: str = "",
    *,
    same: bool = True,
) -> tuple[dict[str, dict[str, Observable]], dict[str, dict[str, Observable]]]:
    """Kind of observable to grid to what averaging over it changes in the raw runs, by reweighting; and what remains.

    What remains is the ensemble of the reference less that of the average over the grid, or of raw. Frames are taken in
    all orientations of their lattice; but what remains of grids that have other elements than that is taken from the
    frames as they are, and what such a grid changes is the change by the reference less what remains. Runs that are
    ``too_short`` have no bounds.

    A reference of other elements has the same energy in all orientations of the lattice only where it resolves the
    model (see :func:`goniometer.sampling.invariance.residuals`); without that (``same``) all frames are taken as
    they are.
    """
    grids = [grid for grid in tables[0][1].grids if grid != "none"]
    strained = all(each.virials is not None for _, each in tables)
    orbits = [table.by_orbit(reference) for _, table in tables]
    of_lattice = tables[0][1].orbits is not None and tables[0][1].orbits.average(grid_rule(reference)) is not None
    known = orbits[0] if reference in orbits[0] and (same or of_lattice) else {}
    alone = [grid for grid in ("none", *grids) if grid not in known]

    def less(second: Sequence[ReweightedSide], first: Sequence[ReweightedSide]) -> Observable:
        return reweighted([one.less(other) for one, other in zip(second, first, strict=True)], temperature, too_short)

    changed: dict[str, dict[str, Observable]] = {}
    remaining: dict[str, dict[str, Observable]] = {}
    for kind in (*REWEIGHTED, *(each for each in SAID if strained or SAID[each] == "potential-energy")):
        of = [(table, raw, SAID.get(kind) or REWEIGHTED[kind](raw)) for raw, table in tables]
        found = [
            table.sides_by_orbit(raw, each, seen, temperature) if known else {}
            for (table, raw, each), seen in zip(of, orbits, strict=True)
        ]
        in_all = {grid: [sides[grid] for sides in found] for grid in known}
        as_they_are = {
            grid: [table.side(raw, each, grid) for table, raw, each in of] for grid in {*alone, reference} if alone
        }
        remaining[kind] = {}
        for grid in ("none", *grids):
            if grid != reference:
                sides = as_they_are if grid in alone else in_all
                remaining[kind][grid] = less(sides[reference], sides[grid])
        whole, changed[kind] = remaining[kind]["none"], {}
        for grid in grids:
            if grid == reference:
                changed[kind][grid] = whole
            elif grid in alone:
                changed[kind][grid] = _without(whole, remaining[kind][grid])
            else:
                changed[kind][grid] = less(in_all[grid], in_all["none"])
    return changed, remaining


def _without(change: Observable, remaining: Observable) -> Observable:
    """What a grid changes that leaves so much of the change by the reference."""
    values, errors = change.values - remaining.values, np.hypot(change.errors, remaining.errors)
    return replace(change, values=np.asarray(values), errors=np.asarray(errors))


def _with_costs(
    study: LiquidStudy,
    runs: dict[str, list[tuple[Run, Trajectory]]],
    measured: Mapping[str, Equilibration | None],
) -> LiquidStudy:
    by_run = {name: [trajectory for _, trajectory in each] for name, each in runs.items()}
    found = {}
    for name, each in runs.items():
        shares, _ = discarded(by_run[name], None, measured[name])
        temperatures = [
            observe(one, "temperature", {"discard": share}) for one, share in zip(by_run[name], shares, strict=True)
        ]
        found[name] = costs.cost(each, pooled(temperatures), study.drifts[name])
    reference, bounds = costs.bounds(by_run, found, study.differences, study.verdicts, measured)
    bounds = {name: costs.unbounded(each) if name in study.too_short else each for name, each in bounds.items()}
    found = {name: replace(each, bounds=bounds[name]) for name, each in found.items()}
    if study.grids is not None:
        strategies = {name: each[0][0].strategy for name, each in runs.items()}
        finest = str(study.grids.about["reference"])
        potentials = costs.potential_bounds(strategies, study.remaining, finest)
        found = {name: replace(each, potential=potentials[name]) for name, each in found.items()}
    return replace(study, costs=found, reference=reference)


def _evaluated(
    path: Path,
    runs: Sequence[tuple[Run, Trajectory]],
    grids: tuple[str, ...],
    frames: int,
    left_out: Sequence[float],
    progress: Progress | None,
) -> list[tuple[Trajectory, Reevaluated]]:
    """As many frames of each run, the first ones of one more if that does not come out even."""
    shares = [frames // len(runs) + (place < frames % len(runs)) for place in range(len(runs))]
    shares = [
        len(spread(raw, share, discard)) if share else 0
        for (_, raw), share, discard in zip(runs, shares, left_out, strict=True)
    ]
    whole, before, found = sum(shares), 0, []
    for (description, raw), share, discard in zip(runs, shares, left_out, strict=True):
        if not share:
            continue

        def told(done: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, whole, "frames over all grids")

        kept = path.with_name(f"{path.stem}-{description.seed}{path.suffix}")
        found.append((raw, _evaluated_run(kept, description, raw, grids, share, discard, told)))
        before += share
    return found


def _evaluated_run(
    path: Path,
    description: Run,
    raw: Trajectory,
    grids: tuple[str, ...],
    frames: int,
    discard: float,
    told: Callable[[int, int], None],
) -> Reevaluated:
    """What was evaluated before, or evaluated now and kept."""
    first = int(discard * len(raw))
    key = f"{raw.paths[0].parent.name} {len(raw)} {frames} {grids} with copies from {first}"
    key = sha256(key.encode()).hexdigest()
    # A file that was cut or garbled is evaluated again.
    with suppress(OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error), np.load(path) as kept:
        if str(kept["key"]) == key:
            known = kept["frames"], grids, kept["energies"], kept["forces"], kept.get("virials")
            copies = Orbits(kept["copies"], kept["energies_of_copies"], kept.get("virials_of_copies"))
            return Reevaluated(*known, bool(kept["full"]), kept["steps"], copies)
    found = reevaluate(raw, loaded(description), grids, frames=frames, discard=discard, progress=told)
    parts = {name: getattr(found, name) for name in ("frames", "energies", "forces", "virials", "full", "steps")}
    assert found.orbits is not None  # as there are grids
    parts |= {"copies": found.orbits.matrices, "energies_of_copies": found.orbits.energies}
    parts["virials_of_copies"] = found.orbits.virials
    with replacing(path) as partial:
        np.savez_compressed(partial, key=key, **{name: each for name, each in parts.items() if each is not None})
    return found


def _residual(
    path: Path, description: Run, tables: Sequence[tuple[Trajectory, Reevaluated]], reference: str
) -> Residual:
    """How far the average over the reference depends on the orientation of the lattice; measured once, and kept."""
    known = tables[0][1].orbits
    if known is not None and known.average(grid_rule(reference)) is not None:
        return Residual(0.0, 0.0, 0)  # by symmetry
    names = [(raw.paths[0].parent.name, each.frames.tolist()) for raw, each in tables]
    key = sha256(json.dumps([reference, names]).encode()).hexdigest()
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept.get("key") == key:
            return Residual(kept["averaged"], kept["unsymmetrized"], kept["degrees"])
    average, count = Averaged(loaded(description), grid_rule(reference)), max(1, _ROTATED // len(tables))
    found = []
    for place, (raw, each) in enumerate(tables):
        _, of_lattice = residuals(raw, average, each.frames, frames=count, seed=place)
        assert of_lattice is not None  # as copies of the lattice are asked for
        found.append(of_lattice)
    pooled_over_runs = Residual.pooled(found)
    replace_text(path, json.dumps({"key": key, **asdict(pooled_over_runs)}) + "\n")
    return pooled_over_runs


def _negligible(
    residual: Residual, tables: Sequence[tuple[Trajectory, Reevaluated]], temperature: float, reference: str
) -> bool:
    orbits = [each.by_orbit(reference) for _, each in tables]
    free = [[known[grid].free_energies(temperature) for known in orbits] for grid in (reference, "none")]
    return residual.negligible(np.concatenate(free[0]) - np.concatenate(free[1]), temperature)


def _save(study: LiquidStudy, folder: Path, name: str) -> None:
    for kind, by_run in {**study.drawn, "conserved": study.conserved, "drift": study.drifts}.items():
        for run, each in by_run.items():
            each.save(folder / f"{name}-{_plain(kind)}-{run}.nc")
    if study.grids is not None:
        study.grids.save(folder / f"{name}-grids.nc")
    for kind, by_grid in study.differences.items():
        for grid, each in by_grid.items():
            each.save(folder / f"{name}-{_plain(kind)}-{grid}-less-raw.nc")
    for kind, by_grid in study.remaining.items():
        for grid, each in by_grid.items():
            each.save(folder / f"{name}-{_plain(kind)}-remaining-{grid}.nc")
    costs.save(study, folder / f"{name}-costs.json")


def _plain(kind: str) -> str:
    return kind.replace("(", "-of-").replace(")", "").replace(" ", "-")


def summary(study: LiquidStudy) -> list[str]:
    """Figures of the study as lines of text."""
    from goniometer.plotting.comparison import in_words

    lines = [f"{study.model}: water in bulk"]
    lines += [f"  {name}, no bounds: {said}" for name, said in study.too_short.items()]
    lines += costs.lines(study)
    for name, each in study.drawn["g_OO"].items():
        r, g = each.axes["r"].values, each.values
        peak = int(np.argmax(g))
        height = f"{g[peak]:.3g}" + (f" ± {each.errors[peak]:.1g}" if np.isfinite(each.errors[peak]) else "")
        lines.append(f"  g_OO, {name}: first peak {height} at {r[peak]:.2f} Å")
    for name, each in study.drifts.items():
        value, error = 1e3 * float(each.values), 1e3 * float(each.errors)
        lines.append(f"  conserved quantity, {name}: {value:.3g} ± {error:.1g} meV/ps")
    if study.grids is not None:
        about = study.grids.about
        if "residual_of_reference_meV" in about:
            value, error = about["residual_of_reference_meV"], about["residual_of_reference_error_meV"]
            taken = (
                "all orientations of their lattice" if about["same_in_all_orientations"] else "their own orientation"
            )
            lines.append(
                f"  {about['reference']} leaves {value:.2g} ± {error:.1g} meV over these orientations: frames are "
                f"reweighted in {taken}"
            )
        for index, grid in enumerate(study.grids.axes["grid"].values):
            (energy, forces), (energy_error, force_error) = study.grids.values[index], study.grids.errors[index]
            lines.append(
                f"  {grid!s:>4}: energy {1e3 * energy:.3g} ± {1e3 * energy_error:.1g} meV, "
                f"forces {1e3 * forces:.3g} ± {1e3 * force_error:.1g} meV/Å"
            )
    for grid, each in next(iter(study.differences.values()), {}).items():
        count, share, scatter = (each.about[key] for key in ("frames", "effective_share", "spread_meV"))
        lines.append(
            f"  {grid} less raw, over orientations: {scatter:.2g} meV rms, {count} frames count for {share * count:.3g}"
        )
    for kind, by_grid in study.differences.items():
        for grid, each in by_grid.items():
            scale, unit = readable(each.unit)
            unit = unit and f" {unit}"
            size, uncertainty, t = each.largest
            said = f"largest seen {scale * size:.2g} ± {scale * uncertainty:.1g}{unit}, t up to {t:.2g}"
            if "too_short" in each.about:
                said = f"largest seen {scale * size:.2g}{unit}, without an error: too short"
            lines.append(f"  {kind}, {grid} less raw by reweighting: {said}")
    for name, report in study.verdicts.items():
        if isinstance(report, str):
            lines.append(f"  raw and {name}: {report}")
            continue
        if report.too_short:
            names = ", ".join(each.name for each in report.verdicts)
            lines.append(f"  raw and {name}, undecided in {names}: {report.too_short}")
        else:
            lines += [f"  raw and {name}, {each.name}: {in_words(each, report)}" for each in report.verdicts]
        lines += [f"  raw and {name}: {report.frozen}"] if report.frozen else []
        lines += [f"  raw and {name}, {what}: not compared, {why}" for what, why in report.skipped.items()]
    return lines
