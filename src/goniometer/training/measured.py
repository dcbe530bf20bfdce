"""What was measured of a model, as lines of its card."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from goniometer.potentials import Potential
from goniometer.probing.result import Figure, StructureResult
from goniometer.training.evaluate import REFERENCE, Errors, Evaluation


def measured_lines(
    model: Path,
    potential: Potential,
    evaluation: Evaluation,
    hashes: Sequence[str],
    probed: StructureResult | None = None,
) -> list[str]:
    """The errors of an evaluation and the spectrum of one probed structure, for the file that they are of.

    ``hashes`` are those of the structures evaluated.
    """
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    kind = "conservative" if potential.conservative else "non-conservative"
    left_out = sum(map(len, evaluation.left_out.values()))
    return [
        f"By goniometer {version('goniometer')} in {potential.dtype} with {kind} forces, of the file with the SHA-256 "
        f"`{digest}`, on "
        f"{len(evaluation.structures)} structures (hashes below; {left_out} that the model was trained or validated on "
        "were left out). The structures are all there is: no uncertainties, their scatter is in the RMSE.",
        "",
        *_errors(evaluation),
        *_grids(evaluation),
        *([] if probed is None else _spectra(probed)),
        "```text evaluated structures",
        *[" ".join(hashes[first : first + 6]) for first in range(0, len(hashes), 6)],
        "```",
    ]


def _errors(evaluation: Evaluation) -> list[str]:
    def row(what: str, errors: Errors) -> str:
        return f"| {what} | {1e3 * errors.mae:.2f} | {1e3 * errors.rmse:.2f} |"

    return [
        "| error | MAE | RMSE |",
        "| --- | --- | --- |",
        row("forces, meV/Å a component", evaluation.force),
        *(row(f"of {symbol}", each) for symbol, each in evaluation.force_by_element.items()),
        row(f"energy, meV/atom, without its mean of {1e3 * evaluation.shift:.2f}", evaluation.energy_shifted),
        "",
    ]


def _grids(evaluation: Evaluation) -> list[str]:
    if not evaluation.grids:
        return []
    return [
        f"Symmetry error: mean absolute deviation from the average over the grid {REFERENCE}.",
        "",
        "| averaged over | rotations | energy, meV a structure | forces, meV/Å a component |",
        "| --- | --- | --- | --- |",
        *(
            f"| {each.grid} | {each.rotations} | {1e3 * each.symmetry_energy:.3f} | {1e3 * each.symmetry_force:.3f} |"
            for each in evaluation.grids
        ),
        "",
    ]


def _spectra(probed: StructureResult) -> list[str]:
    """√P_ℓ, even and odd under inversion, beside the floor of each ℓ."""
    energy, forces = probed.energy, probed.forces
    return [
        f"Spectrum of the symmetry error of {probed.name}: √P_ℓ even and odd under inversion, floor in brackets.",
        "",
        "| ℓ | energy even, meV | energy odd, meV | forces even, meV/Å | forces odd, meV/Å |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {ell} | {' | '.join(_cells(energy, ell) + _cells(forces, ell))} |"
            for ell in range(len(energy.spectrum.plus))
        ),
        f"| all | {1e3 * energy.rms:.3f} | | {1e3 * forces.rms:.3f} | |",
        f"| beyond | {_root(energy.spectrum.unresolved):.3f} | | {_root(forces.spectrum.unresolved):.3f} | |",
        "",
    ]


def _cells(figure: Figure, ell: int) -> list[str]:
    spectrum = figure.spectrum
    floor = f" ({_root(spectrum.floor[ell]):.3f})"
    even = "" if ell == 0 else f"{_root(spectrum.plus[ell]):.3f}{floor}"
    return [even, "" if spectrum.minus is None else f"{_root(spectrum.minus[ell]):.3f}{floor}"]


def _root(square: float) -> float:
    """Of eV² or eV²/Å², in thousandths; estimates of nothing scatter about zero."""
    return 1e3 * math.sqrt(max(square, 0.0))
