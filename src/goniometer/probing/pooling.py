"""Figures pooled over structures: root mean squares, and the error that the choice of structures leaves in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from goniometer.probing.result import Figure, Floor, Pooled, Residual, RuleResidual, Spectrum, StructureResult, Torque


def pool(structures: Sequence[StructureResult]) -> Pooled | None:
    """The pooled figures, None without structures. Stress is pooled over the structures that have one."""
    if not structures:
        return None
    stresses = [each.stress for each in structures if each.stress is not None]
    with_stress = [each for each in structures if each.stress is not None]
    rows = zip(*(each.rules for each in structures), strict=True)
    stress_rows = list(zip(*(each.rules for each in with_stress), strict=True))
    return Pooled(
        n_structures=len(structures),
        energy=_figure([each.energy for each in structures]),
        forces=_figure([each.forces for each in structures]),
        stress=_figure(stresses) if stresses else None,
        torque=_torque([each.torque for each in structures]),
        rules=[_rule(row, stress_rows[index] if stress_rows else ()) for index, row in enumerate(rows)],
    )


def _quadratic(values: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _error(values: Sequence[float]) -> float | None:
    """Standard error of a root mean square over structures, from that of the mean square."""
    if len(values) < 2:
        return None
    root = _quadratic(values)
    return float(np.std(np.square(values), ddof=1) / np.sqrt(len(values)) / (2.0 * root)) if root > 0 else 0.0


def _figure(figures: Sequence[Figure]) -> Figure:
    def over(value: Callable[[Figure], float | None]) -> float | None:
        values = [value(each) for each in figures]
        return None if None in values else _quadratic([each for each in values if each is not None])

    def root(value: Callable[[Figure], float]) -> float:
        return _quadratic([value(each) for each in figures])

    per_atom = [each.rms_per_atom for each in figures if each.rms_per_atom is not None]
    absolute = [each.mae_as_given for each in figures if each.mae_as_given is not None]
    return Figure(
        unit=figures[0].unit,
        mean=root(lambda each: each.mean),
        rms=root(lambda each: each.rms),
        as_given=root(lambda each: each.as_given),
        max=max(each.max for each in figures),
        floor=root(lambda each: each.floor),
        floors=_floor([each.floors for each in figures]),
        spectrum=_spectrum(figures),
        rms_per_atom=over(lambda each: each.rms_per_atom),
        mae_as_given=float(np.mean(absolute)) if len(absolute) == len(figures) else None,
        floor_per_atom=over(lambda each: each.floor_per_atom),
        error=_error([each.rms for each in figures]),
        error_per_atom=_error(per_atom) if len(per_atom) == len(figures) else None,
        special=_largest([each.special for each in figures]),
        random=_largest([each.random for each in figures]),
        **_rotation(figures),
    )


def _floor(floors: Sequence[Floor]) -> Floor:
    def root(name: str) -> float | None:
        """Over the structures that have it."""
        known = [value for each in floors if (value := getattr(each, name)) is not None]
        return _quadratic(known) if known else None

    return Floor(
        value=_quadratic([each.value for each in floors]),
        repeat=_quadratic([each.repeat for each in floors]),
        translation=root("translation"),
        permutation=root("permutation"),
        rounding=root("rounding"),
        cell=root("cell"),
        rattled=root("rattled"),
    )


def _largest(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None


def _rotation(figures: Sequence[Figure]) -> dict[str, Any]:
    """What else than rotation contributes, and the error under rotation alone, over structures."""
    caused = [each for each in figures if each.cause is not None]
    if not caused:
        return {}

    def alone(each: Figure) -> float:
        return each.rms if each.rotation is None else each.rotation

    def least(each: Figure) -> float:
        if each.cause is not None:
            return each.rotation_least or 0.0
        return each.rms if each.directional else 0.0

    return {
        "cause": max(caused, key=lambda each: each.rms).cause,
        "rotation": _quadratic([alone(each) for each in figures]),
        "rotation_least": _quadratic([least(each) for each in figures]),
    }


def _spectrum(figures: Sequence[Figure]) -> Spectrum:
    spectra = [each.spectrum for each in figures]

    def mean(name: str) -> list[float]:
        return np.mean([getattr(each, name) for each in spectra], axis=0).tolist()

    even, odd = mean("plus"), mean("minus") if all(each.minus is not None for each in spectra) else None
    unresolved = float(np.mean([each.unresolved for each in spectra]))
    variances = [each.rms**2 for each in figures]
    resolved = sum(share * (each.resolved or 0.0) for share, each in zip(variances, spectra, strict=True))
    return Spectrum(even, odd, mean("floor"), unresolved, resolved / sum(variances) if sum(variances) > 0 else None)


def _torque(torques: Sequence[Torque]) -> Torque:
    known = [each.rms for each in torques if each.rms is not None]
    return Torque(
        norm=_quadratic([each.norm for each in torques]),
        rms=_quadratic(known) if len(known) == len(torques) else None,
        expected=_quadratic([each.expected for each in torques]),
        floor=_quadratic([each.floor for each in torques]),
    )


def _rule(row: Sequence[RuleResidual], stress_row: Sequence[RuleResidual]) -> RuleResidual:
    first = row[0]
    return RuleResidual(
        name=first.name,
        n=first.n,
        degree=first.degree,
        inversion=first.inversion,
        energy=_residual([each.energy for each in row]),
        forces=_residual([each.forces for each in row]),
        stress=_residual([each.stress for each in stress_row if each.stress is not None]) if stress_row else None,
    )


def _residual(residuals: Sequence[Residual]) -> Residual:
    def known(name: str) -> float | None:
        values = [getattr(each, name) for each in residuals]
        return None if None in values else _quadratic(values)

    return Residual(
        over_turns=_quadratic([each.over_turns for each in residuals]),
        tail=_quadratic([each.tail for each in residuals]),
        as_it_stands=known("as_it_stands"),
        measured=known("measured"),
        special=_quadratic([each.special or 0.0 for each in residuals])
        if any(each.special is not None for each in residuals)
        else None,
    )
