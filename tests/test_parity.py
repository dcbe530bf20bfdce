"""The parity plot: pairs that are those of the errors, dots or a density, and a file that is what its name says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from goniometer.errors import InputError
from goniometer.plotting.parity import MANY, parity_figure
from goniometer.potentials import load
from goniometer.reporting.figures import check_figure_path, write_parity
from goniometer.structures.labelled import labelled
from goniometer.training.evaluate import Evaluation, evaluate
from labels import toy_water
from test_evaluate import Wrong

FIELD = 0.2


def evaluated(boxes: int) -> Evaluation:
    samples = [labelled(f"box#{number}", box) for number, box in enumerate(toy_water(boxes, molecules=8))]
    return evaluate(load(Wrong(shift=0.01, field=FIELD)), samples, grids=())


def test_the_pairs_have_the_errors_and_the_figure_says_them() -> None:
    found = evaluated(3)
    given, predicted = found.pairs.forces
    assert np.abs(predicted - given).mean() == pytest.approx(found.force.mae, rel=1e-12)
    given, predicted = found.pairs.energies
    # Energies of −470 eV a molecule in float64.
    assert np.sqrt(np.square(predicted - given).mean()) == pytest.approx(found.energy_shifted.rmse, abs=1e-11)
    assert abs((predicted - given).mean()) < 1e-11
    # All boxes are of one composition, which explains their mean.
    assert abs(given.mean()) < 1e-11
    words = [text.get_text() for axes in parity_figure(found).axes for text in axes.texts]
    # The field is off by 0.2 on O and 0.1 on each H, in one of three components.
    assert f"MAE {1e3 * (FIELD + 2 * FIELD / 2) / 9:.1f} meV/Å" in words[1]
    assert "meV/atom" in words[0]


@pytest.mark.parametrize(("boxes", "dense"), [(3, False), (1 + MANY // 72, True)])
def test_few_points_are_dots_and_many_a_density(boxes: int, dense: bool) -> None:
    found = evaluated(boxes)
    figure = parity_figure(found)
    collections = [each for axes in figure.axes[:2] for each in axes.collections]
    assert bool(collections) == dense
    assert len(figure.axes) == 2 + dense
    if dense:
        # Every pair is counted once.
        assert collections[0].get_array().sum() == found.pairs.forces.shape[1]


def test_the_file_is_what_its_name_says(tmp_path: Path) -> None:
    found = evaluated(3)
    write_parity(found, tmp_path / "parity.png")
    assert (tmp_path / "parity.png").read_bytes().startswith(b"\x89PNG")
    write_parity(found, tmp_path / "parity.html")
    page = (tmp_path / "parity.html").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in page
    assert "var(--blue)" in page
    assert "#0072b2" not in page.split("</style>")[1]
    with pytest.raises(InputError, match=r"a figure ends in .png, or in .html"):
        check_figure_path(tmp_path / "parity.pdf")
    with pytest.raises(InputError, match="there is no folder"):
        check_figure_path(tmp_path / "nowhere" / "parity.png")


def test_the_command_draws_and_refuses_before_it_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ase.io import write

    from goniometer.cli import main

    monkeypatch.chdir(tmp_path)
    write("water.xyz", toy_water(2, molecules=1))
    for file, code in (("parity.png", 0), ("parity.jpg", 2)):
        arguments = ["evaluate", "pet-water", "water.xyz", "--no-symmetry", "--parity", file]
        monkeypatch.setattr("sys.argv", ["goniometer", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code or 0) == code
        assert Path(file).exists() == (code == 0)
    assert "a figure ends in .png" in capsys.readouterr().err
