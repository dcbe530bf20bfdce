"""The turns of a training step, drawn from the key (seed, step): a run that was killed draws them again."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from goniometer.rotations import random_rotations

#: Separates the streams that share a seed; 3 chooses what is held back.
TURNS, ORDER, WATCH = 1, 2, 4


def turns(group: str, count: int, seed: int, step: int, stream: int = TURNS) -> Float64[np.ndarray, "count 3 3"]:
    """Elements of O(3), uniform on the group: ``off`` (the identity), ``SO3`` or ``O3``."""
    if group == "off":
        return np.tile(np.eye(3), (count, 1, 1))
    generator = np.random.default_rng([seed, stream, step])
    matrices = random_rotations(count, generator)
    if group == "O3":
        matrices = matrices * generator.choice([-1.0, 1.0], size=(count, 1, 1))
    return matrices


def chosen(samples: int, batch: int, seed: int, step: int) -> list[int]:
    """The samples of a step: every pass goes through all of them once, in an order of its own."""
    numbers = range(step * batch, (step + 1) * batch)
    orders: dict[int, np.ndarray] = {}
    for passed in {number // samples for number in numbers}:
        orders[passed] = np.random.default_rng([seed, ORDER, passed]).permutation(samples)
    return [int(orders[number // samples][number % samples]) for number in numbers]
