"""Which structures are held back for validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from goniometer.structures.labelled import Labelled

#: Separates this stream from the others of a seed.
_SPLIT = 3


def held_back(samples: Sequence[Labelled], seed: int) -> tuple[list[Labelled], list[Labelled]]:
    """Training and validation: a tenth of the structures, at random by the seed; none of fewer than ten.

    Structures that come twice stay on one side.
    """
    hashes = list(dict.fromkeys(sample.hash for sample in samples))
    order = np.random.default_rng([seed, _SPLIT]).permutation(len(hashes))
    held = {hashes[index] for index in order[: len(hashes) // 10]}
    return [s for s in samples if s.hash not in held], [s for s in samples if s.hash in held]
