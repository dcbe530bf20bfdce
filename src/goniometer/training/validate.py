"""What a row of the learning curve holds: the errors on the structures held back, and the symmetry error of some."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from goniometer.training.augment import WATCH, turns
from goniometer.training.checkpoint import Row
from goniometer.training.network import Network, turned
from goniometer.training.step import Prepared

#: Structures and turns of each that the symmetry error is measured with: 24 evaluations, which took 4 % of the time of
#: 250 steps of the recipe pet-water.
WATCHED, TURNS_OF_EACH = 4, 6


def errors(network: Network, held: Sequence[Prepared]) -> Row:
    """meV/Å and meV/atom; energies less their mean error, whose value is another column."""
    offsets, absolute, square = [], [], []
    for sample in held:
        energies, forces = network.predict([sample.system], training=False)
        off = forces[0].detach() - sample.forces
        absolute.append(float(off.abs().mean()))
        square.append(float(off.square().mean()))
        offsets.append((float(energies.detach()[0]) - sample.energy) / len(sample.system))
    bias = float(np.mean(offsets))
    return _thousandths(
        force_mae=np.mean(absolute),
        force_rmse=np.sqrt(np.mean(square)),
        energy_mae=np.mean(np.abs(np.array(offsets) - bias)),
        energy_bias=bias,
    )


def symmetry_errors(network: Network, held: Sequence[Prepared], seed: int, step: int) -> Row:
    """Mean absolute deviation over O(3) of the back-rotated forces (meV/Å a component) and the energy (meV/atom).

    Of K turns drawn from the key (seed, step), √(K/(K−1)) mean |r_k − r̄|: of normal deviations the mean absolute one,
    without the bias of the estimated mean. No error is given; the turns of the next row are others.
    """
    chosen = np.unique(np.linspace(0, len(held) - 1, WATCHED).astype(int))
    matrices = turns("O3", TURNS_OF_EACH, seed, step, stream=WATCH)
    forces, energies = [], []
    for sample in (held[index] for index in chosen):
        said, pulls = network.predict([turned(sample.system, matrix) for matrix in matrices], training=False)
        back = torch.stack(
            [part.detach() @ torch.as_tensor(m, dtype=part.dtype) for part, m in zip(pulls, matrices, strict=True)]
        )
        forces.append(float((back - back.mean(dim=0)).abs().mean()))
        energies.append(float((said - said.mean()).detach().abs().mean()) / len(sample.system))
    unbiased = np.sqrt(TURNS_OF_EACH / (TURNS_OF_EACH - 1))
    return _thousandths(symmetry_force=unbiased * np.mean(forces), symmetry_energy=unbiased * np.mean(energies))


def _thousandths(**values: float | np.floating) -> Row:
    """In meV instead of eV, to the digit that a reader of the table can use."""
    return {name: round(1e3 * float(value), 3) for name, value in values.items()}
