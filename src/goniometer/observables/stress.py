"""Stress and pressure: runs store neither, so their model says of stored frames what the virial was."""

from __future__ import annotations

import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from jaxtyping import Float64, Int64

from goniometer.dynamics.description import Run
from goniometer.dynamics.forces import Forces
from goniometer.errors import InputError
from goniometer.files.records import replacing
from goniometer.observables.result import Axis, Observable
from goniometer.observables.statics import Static, _one_replica, average
from goniometer.potentials.base import Prediction
from goniometer.potentials.loading import load
from goniometer.progress import Progress
from goniometer.symmetrization.average import averages
from goniometer.symmetrization.random import RandomlyTurned
from goniometer.symmetrization.tumbling import Tumbling
from goniometer.trajectories.h5md import DISCARD, Frames, Thinned, Trajectory, check_velocities

UNIT = "eV/Angstrom^3"
#: What :data:`UNIT` is in MPa.
MEGAPASCAL = 1e3 / units.GPa
#: Where virials of a run are kept, in its folder.
KEPT = "virials.npz"
# Seconds between two times that they are written.
_CHECKPOINT = 60.0
# eV an atom by which a model may differ from the energies of the run that it is said to have made.
_SAME = 1e-4


@dataclass(frozen=True)
class Virials:
    """What a potential says of frames of a trajectory.

    Attributes
    ----------
    steps : (F,)
        Of the frames.
    values : (F, 3, 3)
        W_ab = ∂E/∂ε_ab in eV, as in :class:`goniometer.potentials.Prediction`.
    full
        Whether all nine components are known; otherwise the antisymmetric part is lost.
    potential
        What it is called.
    """

    steps: Int64[np.ndarray, " F"]
    values: Float64[np.ndarray, "F 3 3"]
    full: bool
    potential: str

    def at(self, frames: Frames) -> Float64[np.ndarray, "T 3 3"]:
        """Of some of the frames. Raises KeyError for one that was not evaluated."""
        place = {step: index for index, step in enumerate(self.steps.tolist())}
        return self.values[[place[step] for step in frames.steps.tolist()]]


def pressure(
    trajectory: Trajectory,
    every: int = 1,
    model: Any = None,
    discard: float = DISCARD,
    progress: Progress | None = None,
) -> Observable:
    """p = −tr σ / 3 in eV/Å³, with σ the mean :func:`stress`: N kT/V − tr W / (3 V) by its parts.

    The centre of mass of a run is at rest, so that the first term is (N − 1) kT/V. See :func:`stress` for parameters.
    """
    found, kept = _evaluated(trajectory, every, model, discard, progress)
    return average(kept, pressure_static(trajectory, found), discard)


def stress(
    trajectory: Trajectory,
    every: int = 1,
    model: Any = None,
    discard: float = DISCARD,
    progress: Progress | None = None,
) -> Observable:
    """The mean stress in eV/Å³, virial and kinetic part together, positive under tension as in ASE:

        σ_ab = ⟨W_ab / V − Σ_i m_i v_ia v_ib / V⟩        W_ab = ∂E/∂ε_ab

    R. Clausius, Phil. Mag. 40, 122 (1870). Values have the axes part, i and j; the parts are

    =================  ===========================================================================================
    ``whole``          σ, as the model gives it
    ``deviator``       its symmetric part less its trace: zero in the mean of an isotropic liquid in a cubic cell
    ``antisymmetric``  (σ_ab − σ_ba)/2. The rotational gradient is dE/dω_c = V Σ_ab ε_cab σ_ab, zero in every frame of
                       a model that turns with the structure. Left out where a model gives six components alone
    =================  ===========================================================================================

    Errors are those of :meth:`goniometer.observables.blocks.Blocks.estimate`, which know of the correlation in time.

    Parameters
    ----------
    trajectory
        Periodic, with velocities. In the folder of a run virials are kept: what was evaluated once is read.
    every
        Evaluate every such frame.
    model
        What ``goniometer.load`` takes, evaluated as it is. By default the model of the run: raw; averaged, as
        well with multiple time steps, which sample the average; in the frame that was recorded, of a tumbling run.
    discard
        The part of the frames at the start that is left out.
    progress
        Is told how many frames are done, of how many, and what is going on.

    Raises :class:`InputError` where there is no cell, no velocity or no model, for a model without virials, and for one
    that does not say the energy that the run recorded.
    """
    found, kept = _evaluated(trajectory, every, model, discard, progress)
    return average(kept, stress_static(trajectory, found), discard)


def readable(unit: str) -> tuple[float, str]:
    """What a value is multiplied by to be read, and its unit then: stresses are in MPa, all else as it is."""
    return (MEGAPASCAL, "MPa") if unit == UNIT else (1.0, unit)


def in_readable_units(found: Observable) -> Observable:
    """The observable in its :func:`readable` unit."""
    scale, unit = readable(found.unit)
    return replace(found, unit=unit, values=np.asarray(scale * found.values), errors=np.asarray(scale * found.errors))


def pressure_static(trajectory: Trajectory, virials: Virials) -> Static:
    """:func:`pressure` of frames whose virials are known."""
    masses = trajectory.replica.get_masses()

    def samples(frames: Frames) -> np.ndarray:
        return np.asarray(-np.trace(total(frames, virials.at(frames), masses, trajectory.name), axis1=1, axis2=2) / 3.0)

    return Static("pressure", UNIT, {}, samples, np.asarray, {"potential": virials.potential})


def stress_static(trajectory: Trajectory, virials: Virials) -> Static:
    """:func:`stress` of frames whose virials are known."""
    masses, parts = trajectory.replica.get_masses(), ["whole", "deviator", "antisymmetric"]
    if not virials.full:
        del parts[2]

    def samples(frames: Frames) -> np.ndarray:
        return total(frames, virials.at(frames), masses, trajectory.name)

    def finish(mean: np.ndarray) -> np.ndarray:
        symmetric = 0.5 * (mean + mean.T)
        found = [mean, symmetric - np.eye(3) * np.trace(mean) / 3.0, mean - symmetric]
        return np.stack(found[: len(parts)])

    directions = Axis(np.array(["x", "y", "z"]))
    axes = {"part": Axis(np.array(parts)), "i": directions, "j": directions}
    return Static("stress", UNIT, axes, samples, finish, {"potential": virials.potential})


def total(
    frames: Frames,
    virials: Float64[np.ndarray, "T 3 3"],
    masses: Float64[np.ndarray, " N"],
    name: str = "the trajectory",
) -> Float64[np.ndarray, "T 3 3"]:
    """(W − Σ m v v)/V of each frame. Raises :class:`InputError` for one without velocities."""
    assert frames.cells is not None  # those of periodic structures have them
    velocities = frames.velocities[:, 0]
    check_velocities(frames, name, "the kinetic part of a stress")
    kinetic = np.einsum("a,tai,taj->tij", masses, velocities, velocities) / units.fs**2
    return np.asarray((virials - kinetic) / np.abs(np.linalg.det(frames.cells))[:, None, None])


def structure_at(trajectory: Trajectory, frames: Frames, index: int) -> Atoms:
    """A frame of a trajectory of one replica as a structure."""
    replica = trajectory.replica
    cell = replica.cell if frames.cells is None else frames.cells[index]
    return Atoms(replica.numbers, frames.positions[index, 0], cell=cell, pbc=replica.pbc)


# ---- evaluation ------------------------------------------------------------------------------------------------------


def _evaluated(
    trajectory: Trajectory, every: int, model: Any, discard: float, progress: Progress | None
) -> tuple[Virials, Trajectory]:
    """Virials of every such frame that is not discarded, and the trajectory of these frames."""
    _one_replica(trajectory)
    if not trajectory.replica.pbc.all():
        raise InputError(f"'{trajectory.name}' is not periodic in three directions: it has no volume, and no stress")
    if every < 1:
        raise InputError(f"'every' is 1 for all frames, 2 for every second one and so on, not {every}")
    kept = Thinned(trajectory, every)
    seen = _Seen(trajectory, model)
    steps = np.concatenate([frames.steps for frames in kept.settled(discard)])
    with _store(trajectory, seen) as known:
        done = 0
        for frames in kept.settled(discard):
            for index, step in enumerate(frames.steps.tolist()):
                if step not in known:
                    known.add(step, seen.virial(frames, index))
                done += 1
                if progress is not None:
                    progress(done, len(steps), "virials of frames")
        values = np.stack([known[step] for step in steps.tolist()])
    return Virials(steps, values, seen.potential.virial == "full", seen.potential.name), kept


class _Seen:
    """What the model of a run says of its frames, as the run had it."""

    def __init__(self, trajectory: Trajectory, model: Any) -> None:
        self.trajectory, self.given = trajectory, model is not None
        if model is None:
            description = trajectory.attributes.get("description")
            if not description:
                raise InputError(f"'{trajectory.name}' does not say which model made it: name one (model)")
            potential = Forces(Run.model_validate(description), trajectory.replica).potentials[-1]
        else:
            potential = load(model)
        if potential.virial == "none":
            raise InputError(f"{potential.name} has no virials: there is no stress")
        self.potential = potential

    def virial(self, frames: Frames, index: int) -> Float64[np.ndarray, "3 3"]:
        """W of one frame, in eV."""
        atoms = structure_at(self.trajectory, frames, index)
        prediction = self._prediction(atoms, frames, index)
        if prediction.virials is None:
            raise InputError(f"{self.potential.name} gave no virial for the frame of step {frames.steps[index]}")
        self._check(float(prediction.energies[0]), frames, index)
        return prediction.virials[0]

    def _prediction(self, atoms: Atoms, frames: Frames, index: int) -> Prediction:
        if self.given or not isinstance(self.potential, Tumbling):
            return self.potential.predict(atoms)
        if "frame" not in frames.observables:
            raise InputError(f"'{self.trajectory.name}' tumbled, and does not say how its model saw it turned")
        over = self.potential.rule
        elements = over.matrices @ frames.observables["frame"][index].reshape(3, 3)
        (prediction,) = averages(self.potential.potential, atoms, np.eye(3)[None], elements[None], over)
        return prediction

    def _check(self, energy: float, frames: Frames, index: int) -> None:
        """That it is the model of the run. Random turns are drawn anew here, and say nothing of it."""
        recorded = frames.observables.get("potential_energy")
        if self.given or recorded is None or isinstance(self.potential, RandomlyTurned):
            return
        was = float(np.ravel(recorded[index])[0])
        if abs(energy - was) > _SAME * len(self.trajectory.replica):
            raise InputError(
                f"{self.potential.name} gives the frame of step {frames.steps[index]} of '{self.trajectory.name}' "
                f"{energy:.6g} eV, and the run recorded {was:.6g} eV: its model has changed since; name the one that "
                "is meant (model)"
            )


class _Known(dict[int, np.ndarray]):
    """Virials by step, written to a file now and then."""

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self.path, self.saved, self.more = path, time.monotonic(), False
        if path is not None and path.exists():
            try:
                with np.load(path) as held:
                    self.update(zip(held["steps"].tolist(), held["virials"], strict=True))
            except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
                pass  # they are evaluated again

    def add(self, step: int, virial: np.ndarray) -> None:
        """One more."""
        self[step], self.more = virial, True
        if time.monotonic() - self.saved > _CHECKPOINT:
            self.save()

    def save(self) -> None:
        """Write what is not written; a folder that is not ours to write to is let be."""
        if self.path is None or not self.more:
            return
        steps = sorted(self)
        try:
            with replacing(self.path) as partial:
                np.savez_compressed(partial, steps=np.array(steps), virials=np.stack([self[step] for step in steps]))
        except InputError:
            return
        self.saved, self.more = time.monotonic(), False


@contextmanager
def _store(trajectory: Trajectory, seen: _Seen) -> Iterator[_Known]:
    """What is known of a run from before; kept when it ends, however it does."""
    folder = trajectory.paths[0].parent
    known = _Known(folder / KEPT if not seen.given and (folder / "description.yaml").exists() else None)
    try:
        yield known
    finally:
        known.save()
