"""How many copies to evaluate at once, found by measurement while real work is done."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

#: Memory that the evaluation of one batch may take, unless told otherwise.
MEMORY_LIMIT_BYTES = 4 * 2**30

# A larger batch must be this much faster per copy to be preferred: small ones keep the cache and the memory free.
_WORTH_IT = 0.97
# Each size is run twice; the first run pays for allocation and for the specialisation of compiled code.
_RUNS = 2


def peak_memory_bytes() -> int:
    """The largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


@dataclass
class _Ladder:
    """What is known of the batch sizes 1, 2, 4, … for one kind of structure."""

    memory_before: int
    size: int = 1
    runs: int = 0
    seconds: dict[int, float] = field(default_factory=dict)
    chosen: int | None = None


class BatchSizes:
    """Chooses batch sizes by climbing 1, 2, 4, … as long as the time per copy falls and the memory allows.

    Structures with the same key (kind of evaluation, number of atoms and of pairs) share what was learned. ``fixed``
    switches the measurement off: results are then the same from run to run to the last bit, since no size depends on a
    clock. ``memory`` reads the high-water mark that the growth of a batch is judged by.
    """

    def __init__(
        self,
        fixed: int | None = None,
        memory_limit: int = MEMORY_LIMIT_BYTES,
        largest: int = 4096,
        memory: Callable[[], int] = peak_memory_bytes,
    ) -> None:
        self.fixed = fixed
        self.memory_limit = memory_limit
        self.largest = largest
        self.memory = memory
        self._ladders: dict[Hashable, _Ladder] = {}

    def next(self, key: Hashable, remaining: int) -> int:
        """The size of the next batch, at most ``remaining``."""
        if self.fixed is not None:
            return min(self.fixed, remaining)
        ladder = self._ladders.setdefault(key, _Ladder(self.memory()))
        return min(ladder.chosen or ladder.size, remaining)

    def record(self, key: Hashable, size: int, seconds: float) -> None:
        """Tell how long a batch of ``size`` copies took."""
        ladder = self._ladders.get(key)
        if self.fixed is not None or ladder is None or ladder.chosen is not None or size != ladder.size:
            return
        per_copy = seconds / size
        ladder.seconds[size] = min(per_copy, ladder.seconds.get(size, per_copy))
        ladder.runs += 1
        if ladder.runs < _RUNS:
            return
        best = min(ladder.seconds, key=lambda other: (ladder.seconds[other], other))
        needed = 2 * (self.memory() - ladder.memory_before)
        slower = ladder.seconds[size] > _WORTH_IT * ladder.seconds.get(size // 2, float("inf"))
        if slower or needed > self.memory_limit or 2 * size > self.largest:
            ladder.chosen = best
        else:
            ladder.size, ladder.runs = 2 * size, 0
