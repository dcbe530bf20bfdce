"""An experiment from its runs to its figures and the document that reports are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import matplotlib.figure

from goniometer.dynamics.checkpoint import PACKAGES, read_sessions
from goniometer.dynamics.description import Run, read_runs
from goniometer.dynamics.run import digest
from goniometer.errors import InputError
from goniometer.files.records import hardware, make_folder, versions
from goniometer.progress import Progress
from goniometer.reporting.figures import write_figure
from goniometer.reporting.panel import panel
from goniometer.rotations import GRIDS
from goniometer.studies.experiments import check_options, costs, gas, ice, liquid
from goniometer.studies.experiments.gas import SHOWN
from goniometer.studies.experiments.numbers import gas_numbers, ice_numbers, liquid_numbers
from goniometer.studies.plots.gas import gas_figure
from goniometer.studies.plots.ice import ice_figure
from goniometer.studies.plots.liquid import convergence_figure, cost_figure, drift_figure, liquid_figure
from goniometer.studies.report.chapter import Chapter

EXPERIMENTS = ("gas", "liquid", "ice")
#: Title and caption of every figure.
CAPTIONS = {
    "gas": (
        "one molecule in vacuum",
        "Angular momentum of the first replica; rms torque by grid with its error over replicas; power spectra; free "
        "energies of the direction of the molecule, of water that of its dipole.",
    ),
    "liquid": (
        "water in bulk",
        "Free energies of the direction of the dipole; pair distribution of the oxygens; correlation of dipoles, "
        "longitudinal and transverse; mean squared displacement of the oxygens; reorientation of the dipoles. Bands "
        "are standard errors, absent where a run is too short for any. All curves are from the stretch of time that "
        "the shortest run has.",
    ),
    "ice": (
        "proton orders",
        "Relative energies of relaxed cells of other protons, averaged, and what the raw model adds to them, on a "
        "scale of its own; what each grid leaves of the errors of starting structures.",
    ),
    "liquid-drift": (
        "heat",
        "The conserved quantity of each strategy for each molecule, in means over hundredths of a run, less the first: "
        "what the integrator and the strategy add. With tumbling the work of the frame is taken off; that the "
        "thermostat has to take as well. Bands are standard errors, where there are four runs or more.",
    ),
    "liquid-convergence": (
        "what is left by grid",
        "Symmetry error on frames of the raw runs; of the change that averaging would make in static observables, by "
        "reweighting the same frames, the share that each grid leaves; and how many errors that change is, with a mark "
        "where the band of 90 % for the whole of an observable ends, from six runs or fifty independent frames on. "
        "Open markers: the change is not resolved, so that what falls is its noise. No marker: a grid leaves nothing.",
    ),
    "liquid-cost": (
        "what strategies cost",
        "Slope of the conserved quantity, and temperature, with standard errors; by observable, where anything can be "
        "said, what the largest bias of each strategy is below with 95 % confidence, with a line down to the largest "
        "difference that was seen. Open markers: of the potential that a strategy samples alone, against the finest "
        "grid, without what the integrator does. No strategy is both faster and better known than those that the grey "
        "line joins.",
    ),
}
# Settings of ice, by the keys that all experiments share.
_ICE = {"potential.model": "model", "potential.dtype": "dtype", "seed": "seed"}


def experiment(
    name: str,
    folder: Path,
    *,
    size: str = "smoke",
    changes: dict[str, Any] | None = None,
    only: Sequence[str] = (),
    walkers: liquid.Walkers | None = None,
    frames: int | None = None,
    grids: Sequence[str] | None = None,
    starts: str | None = None,
    progress: Progress | None = None,
) -> Chapter:
    """Run what is not finished of an experiment, draw it, and write ``NAME-SIZE.json`` beside the figures.

    Parameters
    ----------
    name
        ``gas``, ``liquid`` or ``ice``.
    folder
        Of runs, results and figures.
    size, changes
        See :func:`goniometer.dynamics.description.read_runs`; of ice the model, the dtype, the seed, the
        molecules of each cell and the number of steps can be changed.
    only, walkers, frames, grids, starts
        Of the liquid alone, see :func:`goniometer.studies.experiments.liquid.liquid`.

    Raises :class:`goniometer.interruption.Interrupted` after Ctrl-C, :class:`InputError` for what cannot be run.
    """
    if name not in EXPERIMENTS:
        raise InputError(f"there is no experiment '{name}'; there are gas, liquid and ice")
    given = {"only": only or None, "walkers": walkers, "frames": frames, "grids": grids, "starts": starts}
    check_options(name, [key for key, value in given.items() if value is not None])
    make_folder(folder)
    changes, figures = changes or {}, {}
    runs: list[dict[str, Run]] = []
    if name == "gas":
        lone = gas.gas(folder, size=size, changes=changes, progress=progress)
        figures, lines, model, values = {"gas": gas_figure(lone)}, gas.summary(lone), lone.model, gas_numbers(lone)
        runs = [read_runs(each, size=size, only=chosen, changes=changes) for each, chosen in _GAS]
    elif name == "ice":
        ice.check_settings({key: value for key, value in changes.items() if key not in _ICE})
        settings = {_ICE.get(key, key): value for key, value in changes.items()}
        solid = ice.ice(folder, size=size, progress=progress, **settings)
        lines, model, values = ice.summary(solid), solid.model, ice_numbers(solid)
        figures = {"ice": ice_figure(ice.relative_energies(solid), solid.grids)}
    else:
        changes = liquid.with_starts(changes, starts, size)
        bulk = liquid.liquid(
            folder,
            size=size,
            only=only,
            walkers=walkers,
            frames=frames,
            grids=tuple(GRIDS) if grids is None else grids,
            changes=changes,
            progress=progress,
        )
        figures, lines, model = _liquid_figures(bulk), liquid.summary(bulk), bulk.model
        values = {**liquid_numbers(bulk), "costs": costs.document(bulk)}
        runs = [
            read_runs(liquid.DESCRIPTION, size=size, only=names, changes={**changes, "seed": seed})
            for seed, names in liquid.walks(size, only, walkers, changes)
        ]
    drawings = []
    for kind, figure in figures.items():
        title, caption = CAPTIONS[kind]
        stem, _, rest = kind.partition("-")
        path = folder / "-".join(each for each in (stem, size, rest) if each)
        for suffix in (".png", ".html"):
            write_figure(figure, path.with_suffix(suffix), f"{model}: {title}", caption)
        drawings.append(panel(f"{kind}-{sha256(model.encode()).hexdigest()[:8]}", title, figure, caption))
    found = Chapter(name, size, model, values, lines, drawings, _provenance(folder, size, runs))
    found.write(folder / f"{name}-{size}.json")
    return found


_GAS = (("gas-nve", ()), ("gas-nvt", SHOWN))


def _liquid_figures(bulk: liquid.LiquidStudy) -> dict[str, matplotlib.figure.Figure]:
    figures = {"liquid": liquid_figure(bulk), "liquid-drift": drift_figure(bulk)}
    if bulk.grids is not None:
        figures["liquid-convergence"] = convergence_figure(bulk)
    figures["liquid-cost"] = cost_figure(bulk)
    return figures


def _provenance(folder: Path, size: str, runs: Iterable[dict[str, Run]]) -> dict[str, Any]:
    """Name of a run to what it was: lengths, numbers, seconds, dates, versions, hardware; of several seeds together."""
    found: dict[str, Any] = {}
    for each in runs:
        for name, run in each.items():
            key = name.replace(f"-{size}-", " ")
            sessions = read_sessions(folder / f"{name}-{digest(run)}", run.steps)
            said = found.setdefault(
                key,
                {
                    "ps": 0.0,
                    "runs": 0,
                    "replicas": run.replicas,
                    "seconds": 0.0,
                    "days": [],
                    "hardware": [],
                    "versions": [],
                },
            )
            said["ps"] += run.length
            said["runs"] += 1
            said["seconds"] += sum(session["seconds"] for session in sessions)
            for session in sessions:
                known = {
                    "days": [session["began"][:10], session["ended"][:10]],
                    "hardware": [session.get("hardware", "not recorded")],
                    "versions": [session["versions"]],
                }
                for kind, each_of in known.items():
                    said[kind] += [one for one in each_of if one not in said[kind]]
    return {"analysis": {"versions": versions(PACKAGES), "hardware": hardware()}, **found}
