"""What dynamics with the packaged model must do over the study's own times."""

from __future__ import annotations

import numpy as np
import pytest

from goniometer.data.trajectory import Trajectory, read_trajectory
from goniometer.dynamics.description import read_runs
from goniometer.dynamics.run import run
from goniometer.observables.gas import angular_momentum, by_grid, drift
from goniometer.potentials.loading import load

pytestmark = pytest.mark.nightly

LENGTH = 25.0  # ps


@pytest.fixture(scope="module")
def trajectories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trajectory]:
    folder = tmp_path_factory.mktemp("runs")
    changes = {"length": LENGTH, "replicas": 1, "frames_every": 5.0, "potential.dtype": "float64"}
    runs = read_runs("gas-nve", size="laptop", only=("raw", "2i"), changes=changes)
    return {name: read_trajectory(run(each, folder, name=name).folder) for name, each in runs.items()}


def test_the_averaged_molecule_keeps_its_angular_momentum_as_the_torque_predicts(
    trajectories: dict[str, Trajectory],
) -> None:
    raw, averaged = trajectories["gas-nve-laptop-raw"], trajectories["gas-nve-laptop-2i"]
    model = load("pet-water", dtype="float64")
    torques = dict(zip(("none", "2i"), by_grid(raw, model, ("none", "2i")).values[:, 0].tolist(), strict=True))
    changes = {name: float(angular_momentum(each).about["largest_change"]) for name, each in trajectories.items()}
    # A torque that never changed its direction would give the rms torque times the time: no more than that, but for
    # what rounding adds in 50000 steps.
    bound = torques["2i"] * 1e3 * LENGTH
    rounding = 1e-9
    assert changes["gas-nve-laptop-2i"] < bound + rounding
    # The control, in units of its own torque: raw leaves that bound by far.
    assert changes["gas-nve-laptop-raw"] > 10.0 * bound
    assert len(averaged) == len(raw) == 5001


@pytest.mark.parametrize("name", ["raw", "2i"])
def test_the_energy_is_conserved(name: str, trajectories: dict[str, Trajectory]) -> None:
    found = drift(trajectories[f"gas-nve-laptop-{name}"])
    assert np.isfinite(found.errors)
    assert abs(found.values) + 2.0 * found.errors < 1e-3
