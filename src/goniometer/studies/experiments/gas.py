"""The lone molecule: figure 1 of arXiv 2406.17747 with any model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from goniometer.dynamics.description import Run, read_runs
from goniometer.dynamics.run import run, structure_of, trajectory_of
from goniometer.errors import InputError
from goniometer.interruption import Interrupted
from goniometer.observables.gas import (
    SPECTRUM_TIMES,
    angular_momentum,
    by_grid,
    drift,
    potential_spectrum,
    power_spectrum,
)
from goniometer.observables.heat import corrections
from goniometer.observables.orientation import DirectionalResponse, agreement, default_direction, directions, response
from goniometer.observables.registry import orientation
from goniometer.observables.result import Observable
from goniometer.potentials import Potential
from goniometer.potentials.loading import load
from goniometer.progress import Progress, named
from goniometer.rotations import grid_rule, rule
from goniometer.studies.experiments.results import GasStudy
from goniometer.symmetrization import Averaged
from goniometer.trajectories.h5md import DISCARD, Trajectory

#: Replicas whose correction V_2i − V_raw is evaluated anew on every frame, for its spectrum.
_CORRECTED = 2
# Degree and number of geometries of free energies without dynamics.
_RULE, _GEOMETRIES = "gauss:7", 200
# Frames that a slope with an error takes.
_DRIFT_FRAMES = 3
# Replicas from which on dynamics are compared with them.
_COMPARED = 60
#: Runs that have a place in the figure; of those at constant energy there are others, for their drift.
SHOWN = ("raw", "2i")

#: Description and trajectory by the name of the run.
Trajectories = dict[str, tuple[Run, Trajectory]]


def gas(
    folder: Path, *, size: str = "smoke", changes: dict[str, Any] | None = None, progress: Progress | None = None
) -> GasStudy:
    """Run what is not finished, and work out what figure 1 shows; each result is saved as netCDF beside the runs.

    Raises :class:`Interrupted` after Ctrl-C, :class:`goniometer.errors.InputError` for what cannot be run.
    """
    check_gas(size, changes)
    constant = trajectories("gas-nve", folder, size, (), changes, progress)
    heated = trajectories("gas-nvt", folder, size, SHOWN, changes, progress)
    description, raw = constant["raw"]
    model = loaded(description)
    corrected = corrections(raw, Averaged(model, grid_rule("2i")), replicas=_CORRECTED)
    correction = power_spectrum(corrected, description.frames_every, name="spectrum_of_2i_minus_raw")
    free_energies = {name: orientation(each) for name, (_, each) in heated.items()}
    description, averaged = heated["2i"]
    found = response(averaged, model, rule(_RULE), description.temperature, geometries=_GEOMETRIES)
    free_energies["by the response"] = _with_agreement(found, heated["raw"][1])
    study = GasStudy(
        momenta={name: angular_momentum(constant[name][1]) for name in SHOWN},
        grids=by_grid(raw, model),
        spectra={"V": potential_spectrum(raw), "V averaged − V": correction},
        free_energies=free_energies,
        drifts={name: drift(each) for name, (_, each) in constant.items()},
        model=description.potential.model,
    )
    kinds = {"angular-momentum": study.momenta, "orientation": study.free_energies, "drift": study.drifts}
    for kind, results in kinds.items():
        for name, each in results.items():
            each.save(folder / f"gas-{size}-{kind}-{name.replace(' ', '-')}.nc")
    study.grids.save(folder / f"gas-{size}-grids.nc")
    for name, each in zip(("potential", "correction"), study.spectra.values(), strict=True):
        each.save(folder / f"gas-{size}-spectrum-{name}.nc")
    return study


def check_gas(size: str, changes: dict[str, Any] | None) -> None:
    """Refuse, before the first step, what the experiment could not analyse after the runs.

    Raises :class:`goniometer.errors.InputError` for a structure that is periodic or a single atom, and for runs with
    too few frames for a power spectrum.
    """
    for name, only in (("gas-nve", ()), ("gas-nvt", SHOWN)):
        for label, description in read_runs(name, size=size, only=only, changes=changes).items():
            molecule = structure_of(description)
            if molecule.pbc.any():
                raise InputError(
                    f"'{description.structure}' is periodic, and the experiment gas is of one molecule in vacuum: take "
                    "the experiment liquid, or remove the periodic boundaries"
                )
            default_direction(molecule)
            frames = description.steps // description.stride + 1
            needed = SPECTRUM_TIMES if label.endswith("-raw") and name == "gas-nve" else _DRIFT_FRAMES
            if frames < needed:
                raise InputError(
                    f"the run '{label}' would hold {frames} frames, and its analysis takes {needed} or more: give a "
                    "greater length, or a smaller frames_every"
                )


def _with_agreement(found: DirectionalResponse, raw: Trajectory) -> Observable:
    about: dict[str, Any] = {"evaluations": found.evaluations}
    if raw.replicas >= _COMPARED:
        vectors = directions(raw)
        about["agrees_with_dynamics_p_value"] = agreement(vectors[int(DISCARD * len(vectors)) :], found)
    free_energy = found.free_energy()
    return replace(free_energy, about={**free_energy.about, **about})


def summary(study: GasStudy) -> list[str]:
    """Figures of the study as lines of text."""
    lines = [f"{study.model}: one molecule in vacuum"]
    for name, momentum in study.momenta.items():
        lines.append(f"  angular momentum, {name}: |ΔL| up to {momentum.about['largest_change']:.3g} eV fs")
    for name, found in study.drifts.items():
        value, error = 1e3 * float(found.values), 1e3 * float(found.errors)
        lines.append(f"  drift at constant energy, {name}: {value:.3g} ± {error:.1g} meV/ps")
    grids = study.grids
    for index, grid in enumerate(grids.axes["grid"].values):
        torque, energy, forces = 1e3 * grids.values[index]
        lines.append(f"  {grid!s:>4}: torque {torque:.3g} meV, energy {energy:.3g} meV, forces {forces:.3g} meV/Å")
    for name, found in study.free_energies.items():
        lines.append(f"  orientations, {name}: {_spread(found)}")
    return lines


def _spread(found: Observable) -> str:
    said = ""
    for key, what in (("uniform_p_value", "uniform"), ("agrees_with_dynamics_p_value", "as the raw dynamics")):
        if key in found.about:
            said += f", {what} with p = {found.about[key]:.2g}"
    return f"{found.about['range']:.2f} kT between extremes{said}"


def loaded(description: Run) -> Potential:
    """The model of a run."""
    settings = description.potential
    return load(
        settings.model, device=settings.device, dtype=settings.dtype, forces=settings.forces, options=settings.options
    )


def trajectories(
    name: str, folder: Path, size: str, only: tuple[str, ...], changes: dict[str, Any] | None, progress: Progress | None
) -> Trajectories:
    """Run what is not finished of a packaged description."""
    found = {}
    for label, description in read_runs(name, size=size, only=only, changes=changes).items():
        result = run(description, folder, name=label, progress=named(progress, label))
        if not result.finished:
            raise Interrupted(f"stopped in {label}; the same command goes on")
        found[label.removeprefix(f"{name}-{size}-")] = (description, trajectory_of(description, result.folder))
    return found
