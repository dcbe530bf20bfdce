"""Numbers of the results pages: made from the measured documents, and measured as the pages say."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from scipy.spatial.transform import Rotation

import goniometer
from goniometer.potentials import Potential, Prediction
from goniometer.studies.ice_cells import ice

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
tables = import_module("make_results_tables")
measure = import_module("measure_symmetry_errors")
orientations = import_module("measure_orientation")
FIELD = np.array([0.0003, -0.0008, 0.0005])  # eV


class Field(Potential):
    """E = a·Σu: what acts on nothing but the net dipole of water."""

    virial = "none"
    name = "a uniform field"
    dtype = "float64"

    def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
        total = measure.dipole(structure)[0]
        energies = np.einsum("kij,j,i->k", matrices, total, FIELD)
        yield Prediction(energies, np.zeros((len(matrices), len(structure), 3)), None)


@pytest.mark.parametrize("page", tables.PAGES)
def test_tables_of_the_pages_agree_with_what_was_measured(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert tables.filled(text, tables.load()) == text, "run python scripts/make_results_tables.py"


def test_a_changed_measurement_is_seen() -> None:
    # The control of the test above: another number makes another page.
    data = copy.deepcopy(tables.load())
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    data["pet-water"]["sets"]["liquid"]["energy_meV"]["none"][0] *= 1.1
    assert tables.filled(text, data) != text


def test_every_mean_has_an_error_and_single_frames_have_none() -> None:
    for name in tables.MODELS:
        for which, found in tables.load().get(name, {"sets": {}})["sets"].items():
            if "energy_meV" in found:
                single = found["structures"] == 1
                assert all((each[1] is None) == single for each in found["energy_meV"].values()), (name, which)


def test_the_dipole_is_found_across_the_cell_and_turns_with_it() -> None:
    (cell,) = ice(16, seed=3)
    total, count = measure.dipole(cell)
    assert count == 16
    assert np.linalg.norm(total) < 0.1  # ice without a net dipole
    polar = measure.genice("11i", (1, 1, 1), 0)
    total, count = measure.dipole(polar)
    assert np.linalg.norm(total) / count > 0.5
    turned = polar.copy()
    matrix = Rotation.from_euler("zyx", (20.0, 50.0, -70.0), degrees=True).as_matrix()
    turned.set_cell(polar.cell.array @ matrix.T)
    turned.positions = polar.positions @ matrix.T + 1.0
    turned.wrap()
    np.testing.assert_allclose(measure.dipole(turned)[0], total @ matrix.T, atol=1e-9)


def test_a_field_on_the_dipole_is_recovered_and_inversion_removes_it(tmp_path: Path) -> None:
    cells = [measure.genice("1h", (2, 1, 1), seed) for seed in range(6)]
    for cell in cells:
        cell.info["energy"] = 0.0
        cell.arrays["forces"] = np.zeros((len(cell), 3))
    write(tmp_path / "cells.xyz", cells)
    found = measure.dipole_relation(Field(), tmp_path / "cells.xyz")
    np.testing.assert_allclose(found["slope_meV"], 1e3 * FIELD, rtol=1e-4)
    assert found["R2"] > 1.0 - 1e-9
    assert found["intact"]["structures"] == 6
    seen = measure.row(Field(), "polar", cells[0], "2i")
    total = np.array(seen["dipole"])
    assert abs(seen["dE"]["none"] - 1e3 * FIELD @ total) < 1e-3
    assert abs(seen["dE"]["i"]) < 1e-9
    # The field has ℓ = 1: its mean square over all orientations is |a|²|Σu|²/3.
    assert abs(seen["spread"] / (1e3 * np.linalg.norm(FIELD) * np.linalg.norm(total) / 3**0.5) - 1) < 1e-4


def test_the_depth_of_a_free_energy_has_no_scatter_between_directions() -> None:
    # ΔV = ε u·z gives −ln P = (ε/kT) cos θ + const, whose extremes are 2 ε/kT apart, whatever the geometries.
    over, rng = goniometer.rule(orientations.RULE), np.random.default_rng(0)
    axes = rng.normal(size=(3, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    vectors = np.einsum("kij,gj->gki", over.matrices, axes)
    found = orientations.DirectionalResponse(vectors, 0.1 * vectors[..., 2], over.weights)
    assert abs(orientations.extent(found, np.arange(3)) - 0.2) < 1e-3
    # The control: the smoothed estimate of so few geometries has extremes that are farther apart.
    spun = vectors[..., 2] + np.einsum("kij,j->ki", over.matrices, [0.0, 1.0, 0.0])[None, :, 0]
    other = orientations.DirectionalResponse(vectors, 0.1 * spun, over.weights)
    assert other.free_energy().about["range"] > 1.2 * orientations.extent(other, np.arange(3))


def test_errors_of_means_come_from_blocks() -> None:
    series = np.repeat(np.random.default_rng(0).normal(size=200), 10)  # ten equal values in a row
    single, blocks = measure.mean_with_error(series), measure.mean_with_error(series, block=10)
    assert single[0] == pytest.approx(blocks[0])
    assert blocks[1] == pytest.approx(1 / 200**0.5, rel=0.2)
    assert single[1] < 0.4 * blocks[1]  # the control: values that are not independent
    assert measure.mean_with_error([1.0]) == [1.0, None]


def test_the_script_measures_a_file_and_keeps_what_it_has(tmp_path: Path) -> None:
    (molecule,) = goniometer.read_structures("molecule")
    write(tmp_path / "frames.xyz", [molecule.atoms] * 50)
    out = tmp_path / "found.json"
    measure.main(["pet-water", "--molecule", str(tmp_path / "frames.xyz"), "-o", str(out)])
    document = json.loads(out.read_text(encoding="utf-8"))
    found = document["sets"]["molecule"]
    assert found["structures"] == 50
    assert found["energy_meV"]["i"][0] < 0.1 * found["energy_meV"]["none"][0]
    assert found["rms_torque_meV"]["3i"][0] < 1e-2 * found["rms_torque_meV"]["none"][0]
    document["sets"]["molecule"]["structures"] = 7
    out.write_text(json.dumps(document), encoding="utf-8")
    measure.main(["pet-water", "--molecule", str(tmp_path / "frames.xyz"), "-o", str(out)])
    assert json.loads(out.read_text(encoding="utf-8"))["sets"]["molecule"]["structures"] == 7


def test_numbers_are_written_with_the_digits_of_their_errors() -> None:
    assert tables.pair([6.4551, 1.4321]) == "6.5 ± 1.4"
    assert tables.pair([1.0521, 0.0382]) == "1.05 ± 0.04"
    assert tables.pair([0.0000438, 0.0000016]) == "(4.38 ± 0.16)·10⁻⁵"
    assert tables.pair([41.23, None]) == "41.2"
    assert tables.pair([-1.21, 1.4]) == "−1.2 ± 1.4"
    assert tables.plain(0.00002) == "2·10⁻⁵"
