"""How many copies to evaluate at once, found by measurement while real work is done."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from goniometer.errors import InputError

#: Atoms and pairs beyond which a batch leaves the caches of a CPU, and gains nothing by more copies.
CPU_UNITS = 2**14

#: Atoms evaluated at once, over all copies of a batch, where the size of a batch must not depend on a clock.
ATOMS_AT_ONCE = 768

#: Memory that the evaluation of one batch may take, unless told otherwise.
MEMORY_LIMIT_BYTES = 4 * 2**30

# A larger batch must be this much faster per copy to be preferred: small ones keep the cache and the memory free.
_WORTH_IT = 0.97
# Only so many sizes in a row that are not preferred end the climb: one may be bad luck on a busy machine.
_PATIENCE = 2
# Batches of fewer atoms and pairs take as long as the calls that start them; no clock is needed to see that.
_SMALL = 2048
# Each size is run twice; the first run pays for allocation and for the specialisation of compiled code.
_RUNS = 2


def peak_memory_bytes() -> int:
    """The largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


@dataclass
class _Ladder:
    """What is known of the batch sizes for one kind of structure: the one on trial, and the best before it."""

    size: int
    runs: int = 0
    per_copy: float = float("inf")
    best: int = 1
    best_per_copy: float = float("inf")
    disappointments: int = 0
    chosen: int | None = None


class BatchSizes:
    """Chooses batch sizes by climbing …, 2, 4, 8, … as long as the time per copy falls and the memory allows.

    Small structures begin with as many copies as are small together.

    Structures with the same key (kind of evaluation, about the same size) share what was learned. ``fixed``
    switches the measurement off: results are then the same from run to run to the last bit, since no size depends on a
    clock. ``memory`` reads the high-water mark that the growth of a batch is judged by. A batch of several copies holds
    at most ``enough`` units.
    """

    def __init__(
        self,
        fixed: int | None = None,
        memory_limit: int = MEMORY_LIMIT_BYTES,
        largest: int = 4096,
        memory: Callable[[], int] = peak_memory_bytes,
        enough: int | None = None,
    ) -> None:
        if fixed is not None and fixed < 1:
            raise InputError(f"the batch size is {fixed}; it must be at least 1")
        self.fixed = fixed
        self.memory_limit = memory_limit
        self.largest = largest
        self.memory = memory
        self.enough = enough
        self._ladders: dict[Hashable, _Ladder] = {}
        self._before: int | None = None
        self._peak = 0
        self._per_unit = 0.0

    def next(self, key: Hashable, remaining: int, units: int) -> int:
        """The size of the next batch, at most ``remaining``, of copies of so many ``units`` (atoms and pairs)."""
        if self.fixed is not None:
            return min(self.fixed, remaining)
        if self._before is None:
            self._before = self._peak = self.memory()
        if key not in self._ladders:
            small = 1 << max(0, (_SMALL // max(1, units)).bit_length() - 1)
            self._ladders[key] = _Ladder(min(small, self.largest))
        ladder = self._ladders[key]
        return min(ladder.chosen or ladder.size, remaining)

    def record(self, key: Hashable, size: int, seconds: float, units: int) -> None:
        """Tell how long a batch of ``size`` copies of so many ``units`` (atoms and pairs) took.

        The high-water mark of the memory rises only for a batch that takes more than any before it; it tells what a
        unit takes, and so what a larger batch of this or of another kind of structure will.
        """
        peak = self.memory()
        if self._before is not None and peak > self._peak:
            self._per_unit = max(self._per_unit, (peak - self._before) / (size * units))
            self._peak = peak
        ladder = self._ladders.get(key)
        if self.fixed is not None or ladder is None or ladder.chosen is not None or size != ladder.size:
            return
        ladder.per_copy = min(seconds / size, ladder.per_copy)
        ladder.runs += 1
        if ladder.runs < _RUNS:
            return
        if ladder.per_copy < _WORTH_IT * ladder.best_per_copy:
            ladder.best, ladder.best_per_copy, ladder.disappointments = size, ladder.per_copy, 0
        else:
            ladder.disappointments += 1
        needed = 2 * size * units * self._per_unit
        full = 2 * size > self.largest or (self.enough is not None and 2 * size * units > self.enough)
        if ladder.disappointments == _PATIENCE or needed > self.memory_limit or full:
            ladder.chosen = ladder.best
        else:
            ladder.size, ladder.runs, ladder.per_copy = 2 * size, 0, float("inf")
