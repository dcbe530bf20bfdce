"""Batch sizes: they climb while it pays, and keep within the memory whatever came before."""

from __future__ import annotations

import pytest

from goniometer.errors import InputError
from goniometer.potentials.batching import BatchSizes

GIB = 2**30


class Machine:
    """A high-water mark of memory, as the system reports it: it never falls."""

    def __init__(self) -> None:
        self.mark = GIB // 2

    def run(self, size: int, bytes_per_copy: float) -> None:
        self.mark = max(self.mark, int(GIB / 2 + size * bytes_per_copy))


def climb(sizes: BatchSizes, machine: Machine, key: str, units: int, per_copy: float, copies: int = 480) -> int:
    """Evaluate copies whose time per copy falls with the batch; the largest batch that was taken."""
    largest, left = 0, copies
    while left:
        size = sizes.next(key, left, units)
        machine.run(size, per_copy)
        sizes.record(key, size, 1.0 + 0.01 * size, units)
        largest, left = max(largest, size), left - size
    return largest


def test_memory_is_bounded_for_every_structure_in_turn() -> None:
    """Growth below an earlier peak is invisible in a high-water mark: what a unit takes must be carried over."""
    machine = Machine()
    sizes = BatchSizes(memory_limit=4 * GIB, memory=lambda: machine.mark)
    for number, units in enumerate((5000, 5100, 5300, 5500, 5800)):
        largest = climb(sizes, machine, f"structure {number}", units, per_copy=units * 5e4)
        assert largest > 1
        assert largest * units * 5e4 <= 4 * GIB


def test_without_a_limit_it_climbs_as_long_as_it_pays() -> None:
    """The control: the same machine, nothing to hold it."""
    machine = Machine()
    sizes = BatchSizes(memory_limit=10**15, memory=lambda: machine.mark)
    assert climb(sizes, machine, "structure", 5000, per_copy=5000 * 5e4) > 64


def test_small_structures_are_not_held_back_by_large_ones() -> None:
    machine = Machine()
    sizes = BatchSizes(memory_limit=4 * GIB, memory=lambda: machine.mark)
    climb(sizes, machine, "large", 50_000, per_copy=2 * GIB)
    assert climb(sizes, machine, "small", 9, per_copy=9 * 5e4) > 64


def trial(sizes: BatchSizes, seconds: dict[int, float], units: int = 5000) -> list[int]:
    """The sizes that are tried in turn, each with the time that it takes."""
    tried = []
    for _ in range(20):
        size = sizes.next("box", 480, units)
        sizes.record("box", size, seconds[size], units)
        tried.append(size)
    return tried


def test_it_stops_where_larger_batches_are_slower() -> None:
    tried = trial(BatchSizes(memory=lambda: 0), {1: 1.0, 2: 1.5, 4: 4.0, 8: 9.0})
    assert tried[:8] == [1, 1, 2, 2, 4, 4, 8, 8]
    assert set(tried[8:]) == {2}


def test_one_size_that_is_slow_by_bad_luck_does_not_end_the_climb() -> None:
    assert trial(BatchSizes(memory=lambda: 0), {1: 1.0, 2: 9.0, 4: 2.0, 8: 9.0, 16: 20.0})[-1] == 4


def test_batches_that_leave_the_caches_are_not_tried() -> None:
    seconds = dict.fromkeys((1, 2, 4, 8, 16, 32), 1.0)  # twice as fast a copy with each
    assert set(trial(BatchSizes(memory=lambda: 0, enough=16384), seconds)) == {1, 2}
    assert set(trial(BatchSizes(memory=lambda: 0, enough=16384), seconds, units=42_000)) == {1}
    assert 32 in trial(BatchSizes(memory=lambda: 0), {**seconds, 64: 9.0, 128: 20.0})  # the control


def test_small_structures_begin_with_as_many_copies_as_are_small_together() -> None:
    assert BatchSizes(memory=lambda: 0).next("molecule", 480, 9) == 128
    assert BatchSizes(memory=lambda: 0).next("molecule", 48, 9) == 48
    assert BatchSizes(memory=lambda: 0).next("box", 480, 5000) == 1


@pytest.mark.parametrize("fixed", [0, -3])
def test_a_fixed_size_is_at_least_one(fixed: int) -> None:
    with pytest.raises(InputError, match="must be at least 1"):
        BatchSizes(fixed=fixed)


def test_a_fixed_size_is_kept() -> None:
    sizes = BatchSizes(fixed=8)
    sizes.record("box", 8, 1.0, 5000)
    assert [sizes.next("box", left, 5000) for left in (480, 8, 3)] == [8, 8, 3]
