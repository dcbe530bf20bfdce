"""The rates at which printed errors, p-values, bands and certificates are false: none is off by more than a third."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
FIGURES = Path(__file__).parents[1] / "docs" / "figures"


@pytest.fixture
def calibration(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("measure_calibration")


def test_a_rate_that_is_off_is_seen(calibration: ModuleType) -> None:
    """The control: 12 % in the place of 5 % is off, and so is 1 % unless the statement holds at least as often."""
    assert not calibration.Line("too often", 0.05, 48, 400, at_most=True).calibrated()
    assert not calibration.Line("too seldom", 0.05, 2, 1000, at_most=False).calibrated()
    assert calibration.Line("too seldom", 0.05, 2, 1000, at_most=True).calibrated()
    assert calibration.Line("right", 0.05, 22, 400, at_most=False).calibrated()


def test_naive_statements_are_off(calibration: ModuleType) -> None:
    """The control: samples that are correlated in time, taken as independent."""
    rng, false = np.random.default_rng(0), 0
    for _ in range(200):
        series = calibration.correlated(rng, (1000,), 0.9)
        false += abs(series.mean()) > 1.96 * series.std() / np.sqrt(len(series))
    assert not calibration.Line("naive", 0.05, int(false), 200, at_most=True).calibrated()


def test_the_figure_in_the_documentation_is_calibrated(calibration: ModuleType) -> None:
    for each in json.loads((FIGURES / "calibration.json").read_text("utf-8")):
        kept = {name: each[name] for name in ("name", "nominal", "false", "repeats", "at_most")}
        assert calibration.Line(**kept).calibrated(), each["name"]


@pytest.mark.nightly
def test_no_statement_is_off_by_more_than_a_third(calibration: ModuleType) -> None:
    found = [line for line in calibration.lines(400, 100) if not line.calibrated()]
    off = [f"{line.name}: {line.rate}" for line in found]
    assert not off, "; ".join(off)
