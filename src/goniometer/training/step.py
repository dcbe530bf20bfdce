"""One step: turned copies of a few structures, their errors, and the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from goniometer.structures.labelled import Labelled
from goniometer.training.augment import chosen, turns
from goniometer.training.network import Network, turned
from goniometer.training.recipe import Loss, Recipe


@dataclass(frozen=True)
class Prepared:
    """A sample in memory: the structure with its neighbors, its energy less the baseline (eV), its forces (eV/Å)."""

    system: Any
    energy: float
    forces: torch.Tensor


def prepare(network: Network, samples: Sequence[Labelled], dtype: torch.dtype) -> list[Prepared]:
    """All samples with their neighbors, once."""
    return [
        Prepared(
            network.prepare(sample.atoms, dtype),
            sample.energy - sum(network.baseline[int(z)] for z in sample.atoms.numbers),
            torch.as_tensor(sample.forces, dtype=dtype),
        )
        for sample in samples
    ]


def loss_of_step(
    network: Network, samples: Sequence[Prepared], recipe: Recipe, seed: int, step: int, energy_weight: float
) -> tuple[torch.Tensor, float]:
    """The loss of a step, and its mean absolute force error in eV/Å."""
    copies = recipe.augmentation.copies
    batch = [samples[index] for index in chosen(len(samples), recipe.batch, seed, step)]
    matrices = turns(recipe.augmentation.group, len(batch) * copies, seed, step)
    repeated = [sample for sample in batch for _ in range(copies)]
    systems = [turned(sample.system, matrix) for sample, matrix in zip(repeated, matrices, strict=True)]
    energies, forces = network.predict(systems, training=True)
    back = [part @ torch.as_tensor(matrix, dtype=part.dtype) for part, matrix in zip(forces, matrices, strict=True)]
    squares = step < recipe.loss.squares_until
    losses, errors = [], []
    for index, sample in enumerate(repeated):
        off = back[index] - sample.forces
        per_atom = (energies[index] - sample.energy) / len(sample.system)
        losses.append(_loss(off, per_atom, recipe.loss, energy_weight, squares))
        errors.append(float(off.detach().abs().mean()))
    loss = torch.stack(losses).mean()
    if recipe.augmentation.consistency:
        spread = [
            _variance(torch.stack(back[first : first + copies]), energies[first : first + copies])
            for first in range(0, len(repeated), copies)
        ]
        loss = loss + recipe.augmentation.consistency * torch.stack(spread).mean()
    return loss, float(np.mean(errors))


def _loss(off: torch.Tensor, per_atom: torch.Tensor, settings: Loss, weight: float, squares: bool) -> torch.Tensor:
    if squares:
        return off.square().mean() + 0.1 * per_atom.square()
    force = _soft(off.square().sum(dim=1), settings.force_width).mean()
    return force + weight * _soft(per_atom.square(), settings.energy_width)


def _soft(square: torch.Tensor, width: float) -> torch.Tensor:
    return torch.sqrt(square + width**2) - width


def _variance(forces: torch.Tensor, energies: torch.Tensor) -> torch.Tensor:
    """Variance over copies: of the force components, plus that of the energy per atom."""
    return forces.var(dim=0).mean() + (energies / forces.shape[1]).var()
