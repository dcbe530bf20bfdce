"""Model cards: what the training data span, and what was measured, written once and replaced by the next time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from goniometer.cli import main
from goniometer.errors import InputError
from goniometer.files.packaged import packaged_files
from goniometer.structures.labelled import Labelled, labelled
from goniometer.training.card import known_hashes, record_measured
from goniometer.training.validity import span
from labels import toy_water

HAND = """# mine

## Training

- 1 structure

{measured}## Structures

```text training structures
0123456789abcdef
```
"""


def lattice(spacing: float, energy: float, **info: float) -> Labelled:
    """Eight atoms of H and He in turn on a cubic lattice: every distance is known."""
    corners = np.array([[x, y, z] for x in range(2) for y in range(2) for z in range(2)])
    symbols = [("H", "He")[corner.sum() % 2] for corner in corners]
    atoms = Atoms(symbols, spacing * corners, cell=2 * spacing * np.eye(3), pbc=True, info=info)
    forces = np.zeros((8, 3))
    forces[3] = [0.3, 0.0, 0.4]
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return labelled(f"lattice {spacing}", atoms)


def test_the_span_is_that_of_the_data() -> None:
    samples = [lattice(2.0, -7.9, temperature=300.0), lattice(2.5, -8.1, temperature=350.0)]
    lines = span(samples)
    assert lines[0] == "2 structures of 8 atoms"
    # 4 H and 4 He of 1.008 and 4.0026 amu in (2a)³; 1 amu/Å³ is 1.66054 g/cm³.
    densities = [4 * (1.008 + 4.002602) * 1.66053907 / (2 * a) ** 3 for a in (2.5, 2.0)]
    assert lines[1] == f"density {densities[0]:.3f} to {densities[1]:.3f} g/cm³ (2 periodic structures)"
    assert "H–He 2.000 to 2.500 Å from one to the nearest" in lines
    assert f"H–H {2 * 2**0.5:.3f} to {2.5 * 2**0.5:.3f} Å from one to the nearest" in lines
    assert "energy -12.5 to 12.5 meV/atom, less what the composition explains" in lines
    assert "force on an atom up to 0.50 eV/Å" in lines
    assert lines[-1] == "temperature 300 to 350 K"
    assert not [line for line in span([samples[0], lattice(2.0, -8.0)]) if "temperature" in line]


def test_what_was_measured_is_written_and_replaced(tmp_path: Path) -> None:
    card = tmp_path / "mine.md"
    card.write_text(HAND.format(measured=""), encoding="utf-8")
    record_measured(card, ["first"])
    record_measured(card, ["second", "", "```text evaluated structures", "fedcba9876543210", "```"])
    text = card.read_text(encoding="utf-8")
    assert "first" not in text
    assert text.index("## Training") < text.index("second") < text.index("## Structures")
    assert text.count("## Measured") == 1
    # What was evaluated is not left out of the next evaluation.
    assert known_hashes(card) == {"0123456789abcdef": "training"}
    card.write_text(HAND.format(measured="## Measured\n\nBy hand.\n\n"), encoding="utf-8")
    with pytest.raises(InputError, match="was written by hand"):
        record_measured(card, ["third"])
    assert "By hand." in card.read_text(encoding="utf-8")


def test_the_command_records_errors_symmetry_and_spectrum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ase.io import write

    model = tmp_path / "mine.pt"
    model.write_bytes(packaged_files("models", ".pt")["pet-water"].read_bytes())
    write(tmp_path / "water.xyz", toy_water(2, molecules=1))
    monkeypatch.chdir(tmp_path)
    arguments = ["goniometer", "evaluate", "mine.pt", "water.xyz", "--card", "--grids", "none,O"]

    def run() -> int:
        monkeypatch.setattr("sys.argv", arguments)
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    assert run() == 2
    assert "there is no card mine.md to record in" in capsys.readouterr().err
    Path("mine.md").write_text(HAND.format(measured=""), encoding="utf-8")
    for _ in range(2):
        assert run() == 0
    said, text = capsys.readouterr().out, Path("mine.md").read_text("utf-8")
    assert text.count("## Measured") == 1
    (forces,) = [line.split("|") for line in text.splitlines() if line.startswith("| forces, meV/Å")]
    assert f"MAE {float(forces[2]):8.2f}   RMSE {float(forces[3]):8.2f}" in said
    assert "in float32 with conservative forces" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {"O", "H"} <= {row.split()[2] for row in rows if row.startswith("| of ")}
    assert [row.split()[1] for row in rows if row.split()[1] in ("none", "O")] == ["none", "O"]
    assert [row.split()[1] for row in rows][-7:] == ["0", "1", "2", "3", "4", "all", "beyond"]
    assert len(text[text.index("evaluated structures") :].split("```")[0].split()) == 2 + 2
