"""The experiments as a whole, in their smallest size."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import xarray
from typer.testing import CliRunner

from goniometer.cli.app import app
from goniometer.errors import InputError
from goniometer.experiments.gas import Interrupted, gas, summary

# Sixteen frames.
SHORT = {"length": 0.08, "frames_every": 5.0}


def test_the_lone_molecule_goes_on_after_an_interruption_and_is_drawn(tmp_path: Path) -> None:
    def interrupt(done: int, whole: int, label: str) -> None:
        if "2i" in label and done == 80:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="stopped in gas-nve-smoke-2i; the same command goes on"):
        gas(tmp_path, changes=SHORT, progress=interrupt)
    study = gas(tmp_path, changes=SHORT)
    assert len([each for each in tmp_path.iterdir() if each.is_dir()]) == 7
    assert set(study.free_energies) == {"raw", "2i", "by the response"}
    # What averaging is for, and the control.
    momentum = {name: found.about["largest_change"] for name, found in study.momenta.items()}
    assert momentum["2i"] < 1e-2 * momentum["raw"]
    torque = dict(zip(study.grids.axes["grid"].values.tolist(), study.grids.values[:, 0].tolist(), strict=True))
    assert torque["3i"] < torque["2i"] < 1e-2 * torque["none"]
    assert study.free_energies["by the response"].about["evaluations"] == 160 * 128
    lines = summary(study)
    assert lines[0] == "pet-water: one molecule in vacuum"
    assert len(lines) == 1 + 2 + 5 + 9 + 3

    saved = xarray.load_dataset(tmp_path / "gas-smoke-orientation-by-the-response.nc")
    assert "agrees_with_dynamics_p_value" not in saved.attrs
    arguments = ["experiment", "gas", "-o", str(tmp_path), "--set", "length=0.08", "--set", "frames_every=5.0"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert [each for each in shown.stdout.splitlines() if each] == lines
    assert (tmp_path / "gas-smoke.png").stat().st_size > 20_000
    assert "<svg" in (tmp_path / "gas-smoke.html").read_text("utf-8")


def test_an_unknown_experiment_is_refused(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["experiment", "stream", "-o", str(tmp_path)])
    assert isinstance(shown.exception, InputError)
    assert str(shown.exception) == "there is no experiment 'stream'; there is gas"
