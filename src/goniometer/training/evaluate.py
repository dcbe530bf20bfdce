"""Errors of a model against labelled data, and its symmetry error beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Float64

from goniometer.errors import InputError
from goniometer.potentials import Potential
from goniometer.rotations import GRIDS, Rule, check_grids, rule
from goniometer.structures.labelled import Labelled, composition_baseline
from goniometer.symmetrization import response

SCHEMA = "goniometer/evaluation/1"
REFERENCE = "3i"


@dataclass(frozen=True)
class Errors:
    """Mean absolute and root mean square error."""

    mae: float
    rmse: float

    @classmethod
    def of(cls, differences: np.ndarray) -> Errors:
        return cls(float(np.abs(differences).mean()), float(np.sqrt(np.square(differences).mean())))


@dataclass(frozen=True)
class GridErrors:
    """What averaging over a grid leaves.

    ``symmetry_energy`` (eV a structure) and ``symmetry_force`` (eV/Å a component) are mean absolute deviations from the
    grid 3i; ``energy`` (eV/atom, less its mean) and ``force`` (eV/Å) the mean absolute errors of the averaged model.
    """

    grid: str
    rotations: int
    symmetry_energy: float
    symmetry_force: float
    energy: float
    force: float


@dataclass(frozen=True)
class Pairs:
    """Given and predicted values, (2, M): energies in eV/atom less what the composition explains of those given, the
    predicted ones less their mean error as well; force components in eV/Å.
    """

    energies: Float64[np.ndarray, "2 S"]
    forces: Float64[np.ndarray, "2 M"]


@dataclass(frozen=True)
class Evaluation:
    """Errors of a model: energies in eV/atom, forces in eV/Å a component.

    ``shift`` is the mean error of the energy per atom, which a constant would mend; ``energy_shifted`` are the errors
    without it. ``left_out`` are structures that the model's card lists, by what they served for. No uncertainties: the
    structures are all there is, and how they scatter is in ``rmse``.
    """

    model: str
    structures: list[str]
    left_out: dict[str, list[str]]
    has_card: bool
    energy: Errors
    energy_shifted: Errors
    shift: float
    force: Errors
    force_by_element: dict[str, Errors]
    grids: list[GridErrors]
    pairs: Pairs = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The document ``goniometer/evaluation/1``: all but the pairs."""
        document = asdict(self)
        del document["pairs"]
        return {"schema": SCHEMA, **document}


def evaluate(
    potential: Potential,
    samples: Sequence[Labelled],
    known: dict[str, str] | None = None,
    *,
    grids: Sequence[str] = tuple(GRIDS),
    progress: Callable[[int, int, str], None] | None = None,
) -> Evaluation:
    """Measure a model against labelled structures.

    Structures whose hash is among ``known`` (see :func:`goniometer.training.card.known_hashes`; None: there is no card)
    are left out and named. ``grids`` are of ``rotations.GRIDS``; none are measured if it is empty. Cost: one
    evaluation a structure, and 276 for all grids.

    Raises :class:`InputError` for an unknown grid, and if no structure is left.
    """
    check_grids(grids)
    left_out: dict[str, list[str]] = {}
    kept = []
    for sample in samples:
        split = (known or {}).get(sample.hash)
        if split is None:
            kept.append(sample)
        else:
            left_out.setdefault(split, []).append(sample.name)
    if not kept:
        raise InputError("the model was trained or validated on every one of these structures; give it others")
    energies, forces, averages = [], [], []
    for number, sample in enumerate(kept):
        if progress is not None:
            progress(number, len(kept), sample.name)
        prediction = potential.predict(sample.atoms)
        energies.append((prediction.energies[0] - sample.energy) / len(sample.atoms))
        forces.append(prediction.forces[0] - sample.forces)
        if grids:
            averages.append(_averages(potential, sample, grids))
    shift = float(np.mean(energies))
    together = np.concatenate(forces)
    elements = np.concatenate([sample.atoms.numbers for sample in kept])
    return Evaluation(
        potential.name,
        [sample.name for sample in kept],
        left_out,
        known is not None,
        Errors.of(np.array(energies)),
        Errors.of(np.array(energies) - shift),
        shift,
        Errors.of(together),
        {chemical_symbols[z]: Errors.of(together[elements == z]) for z in np.unique(elements).tolist()},
        [_grid_errors(grid, kept, averages) for grid in grids],
        _pairs(kept, np.array(energies) - shift, together),
    )


def _pairs(kept: Sequence[Labelled], energies: np.ndarray, forces: np.ndarray) -> Pairs:
    """From the errors of energies, per atom and less their mean, and of forces."""
    baseline = composition_baseline(kept)
    given = np.array([(s.energy - sum(baseline[int(z)] for z in s.atoms.numbers)) / len(s.atoms) for s in kept])
    components = np.concatenate([sample.forces for sample in kept]).ravel()
    return Pairs(np.stack([given, given + energies]), np.stack([components, components + forces.ravel()]))


_Average = tuple[float, Float64[np.ndarray, "N 3"]]


def _averages(potential: Potential, sample: Labelled, grids: Sequence[str]) -> dict[str, _Average]:
    """Energy and forces averaged over each grid and the reference.

    A grid with inversion holds the one without: each orbit is evaluated once.
    """
    wanted = dict.fromkeys([*grids, REFERENCE])
    found: dict[str, _Average] = {}
    for family in dict.fromkeys(GRIDS[grid][0] for grid in wanted):
        members = [grid for grid in wanted if GRIDS[grid][0] == family]
        inverted = any(GRIDS[grid][1] for grid in members)
        whole = rule(family, inversion=inverted)
        answer = response(potential, sample.atoms, whole.matrices)
        for grid in members:
            weights = whole.weights if GRIDS[grid][1] == inverted else _proper(whole)
            found[grid] = float(weights @ answer.energies), np.einsum("k,kni->ni", weights, answer.forces)
    return found


def _proper(whole: Rule) -> Float64[np.ndarray, " K"]:
    weights = np.where(np.linalg.det(whole.matrices) > 0.0, whole.weights, 0.0)
    return weights / weights.sum()


def _grid_errors(grid: str, samples: Sequence[Labelled], averages: Sequence[dict[str, _Average]]) -> GridErrors:
    energies = np.array([(each[grid][0] - s.energy) / len(s.atoms) for s, each in zip(samples, averages, strict=True)])
    forces = np.concatenate([each[grid][1] - s.forces for s, each in zip(samples, averages, strict=True)])
    name, inversion = GRIDS[grid]
    return GridErrors(
        grid,
        len(rule(name, inversion=inversion).weights),
        float(np.mean([abs(each[grid][0] - each[REFERENCE][0]) for each in averages])),
        float(np.abs(np.concatenate([each[grid][1] - each[REFERENCE][1] for each in averages])).mean()),
        float(np.abs(energies - energies.mean()).mean()),
        float(np.abs(forces).mean()),
    )


def table(evaluation: Evaluation) -> str:
    """The figures as text, laid out like the paper's tables: meV, meV/Å."""
    force, energy = evaluation.force, evaluation.energy_shifted
    lines = [
        f"{evaluation.model} on {len(evaluation.structures)} structures",
        f"forces   MAE {1e3 * force.mae:8.2f}   RMSE {1e3 * force.rmse:8.2f}   meV/Å",
        *(
            f"  {symbol:<6} MAE {1e3 * each.mae:8.2f}   RMSE {1e3 * each.rmse:8.2f}   meV/Å"
            for symbol, each in evaluation.force_by_element.items()
        ),
        f"energy   MAE {1e3 * energy.mae:8.3f}   RMSE {1e3 * energy.rmse:8.3f}   meV/atom, without the mean error of "
        f"{1e3 * evaluation.shift:.2f}",
    ]
    if evaluation.grids:
        lines += ["", "averaged over       none = as the model is", _GRID_HEAD]
        lines += [
            f"{each.grid:<6}{each.rotations:>9}{1e3 * each.symmetry_energy:>16.3f}{1e3 * each.symmetry_force:>16.3f}"
            f"{1e3 * each.energy:>16.3f}{1e3 * each.force:>16.2f}"
            for each in evaluation.grids
        ]
        lines.append(
            f"symmetry: mean |grid − {REFERENCE}|, energy meV a structure, forces meV/Å; error: MAE, meV/atom, meV/Å"
        )
    for split, names in evaluation.left_out.items():
        lines.append(
            f"left out, since the model's {split} saw them: {len(names)} ({names[0]}{' …' * (len(names) > 1)})"
        )
    if not evaluation.has_card:
        lines.append("the model has no card beside it: nothing tells whether it was trained on these structures")
    return "\n".join(lines)


_GRID_HEAD = f"{'grid':<6}{'rotations':>9}{'symmetry, E':>16}{'symmetry, F':>16}{'error, E':>16}{'error, F':>16}"
