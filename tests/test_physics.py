"""What dynamics with the packaged model must do over the study's own times."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest

from goniometer.dynamics.description import read_runs
from goniometer.dynamics.run import run
from goniometer.observables.gas import angular_momentum, by_grid, drift
from goniometer.potentials.loading import load
from goniometer.trajectories.h5md import Trajectory, read_trajectory

pytestmark = pytest.mark.nightly

LENGTH = 25.0  # ps


@pytest.fixture(scope="module")
def trajectories(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Callable[[str], Trajectory]:
    """The run of that strategy: once for all workers, and both at once where there are two."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "physics"
    folder.mkdir(exist_ok=True)
    changes = {"length": LENGTH, "replicas": 1, "frames_every": 5.0, "potential.dtype": "float64"}
    runs = read_runs("gas-nve", size="laptop", only=("raw", "2i"), changes=changes)

    @functools.cache
    def trajectory(strategy: str) -> Trajectory:
        name = f"gas-nve-laptop-{strategy}"
        return read_trajectory(run(runs[name], folder, name=name, wait=True).folder)

    return trajectory


@pytest.mark.parametrize("name", ["2i", "raw"])
def test_the_energy_is_conserved(name: str, trajectories: Callable[[str], Trajectory]) -> None:
    found = drift(trajectories(name))
    assert np.isfinite(found.errors)
    assert abs(found.values) + 2.0 * found.errors < 1e-3


def test_the_averaged_molecule_keeps_its_angular_momentum_as_the_torque_predicts(
    trajectories: Callable[[str], Trajectory],
) -> None:
    raw, averaged = trajectories("raw"), trajectories("2i")
    model = load("pet-water", dtype="float64")
    torques = dict(zip(("none", "2i"), by_grid(raw, model, ("none", "2i")).values[:, 0].tolist(), strict=True))
    changes = {name: float(angular_momentum(trajectories(name)).about["largest_change"]) for name in ("raw", "2i")}
    # A torque that never changed its direction would give the rms torque times the time: no more than that, but for
    # what rounding adds in 50000 steps.
    bound = torques["2i"] * 1e3 * LENGTH
    rounding = 1e-9
    assert changes["2i"] < bound + rounding
    # The control, in units of its own torque: raw leaves that bound by far.
    assert changes["raw"] > 10.0 * bound
    assert len(averaged) == len(raw) == 5001
