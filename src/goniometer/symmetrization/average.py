"""The average of a potential over a rule: forces are the gradient of the averaged energy, memory does not grow."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from ase import Atoms
from jaxtyping import Float64

from goniometer.errors import GoniometerError, PotentialError
from goniometer.potentials.base import Potential, Prediction, Spread, inherit, placed
from goniometer.rotations import Rule, in_words
from goniometer.structures import called
from goniometer.symmetrization.responses import evaluated
from goniometer.symmetrization.verification import Verification, Verified

# After a batch has failed, the copy at fault is looked for among so many.
_SEARCHED = 1024


class Averaged(Verified):
    """A potential averaged over a rule of rotations.

        E(x) = Σ_k w_k E(g_k·x)        F(x) = Σ_k w_k F(g_k·x) R_k        W(x) = Σ_k w_k R_kᵀ W(g_k·x) R_k

    with the sums running over the response of :mod:`goniometer.symmetrization.responses`. The forces are the
    gradient of the averaged energy. Of the variance of the response, a rule of degree N leaves nothing at 1 ≤ ℓ ≤
    N; one that holds inversion leaves nothing that is odd. Predictions carry the spread over the orbit: the rms
    symmetry error of the potential that is averaged, for this structure.

    Copies are evaluated as the potential does it, in its own batches, and added up as they come: memory does not grow
    with the number of rotations.

    Parameters
    ----------
    potential
        What is averaged.
    over
        The rule.
    verify
        See :class:`goniometer.symmetrization.verification.Verified`.
    """

    def __init__(self, potential: Potential, over: Rule, *, verify: bool = True) -> None:
        self.potential, self.rule = potential, over
        self.name = f"{potential.name} averaged over {described(over)}"
        inherit(self, potential)
        self.verification = Verification(potential, over.matrices, verify)

    def turned(self, structure: Atoms, matrices: Float64[np.ndarray, "K 3 3"]) -> Iterator[Prediction]:
        """See :meth:`Potential.turned`: one prediction a copy, each the average over the whole rule."""
        self.verify(structure)
        elements = np.broadcast_to(self.rule.matrices, (len(matrices), *self.rule.matrices.shape))
        return averages(self.potential, structure, matrices, elements, self.rule)

    def turned_each(
        self, structure: Atoms, positions: Float64[np.ndarray, "K N 3"], matrices: Float64[np.ndarray, "K 3 3"]
    ) -> Iterator[Prediction]:
        """See :meth:`Potential.turned_each`: the copies of all structures in the batches of the potential."""
        self.verify(placed(structure, positions[0]) if len(positions) else structure)
        elements = np.broadcast_to(self.rule.matrices, (len(matrices), *self.rule.matrices.shape))
        yield averages_each(self.potential, structure, positions, matrices, elements, self.rule)


def described(over: Rule) -> str:
    """``octahedral with inversion (48)``, and how it was turned at random if it was."""
    return f"{over.name}{' with inversion' if over.inversion else ''} ({len(over)}){over.turn and ', '}{over.turn}"


def element(over: Rule, index: int) -> str:
    """What errors call an element of a rule, of one copy or the next."""
    return f"element {index % len(over)} (counted from 0) of {described(over)}"


def averages(
    potential: Potential,
    structure: Atoms,
    matrices: Float64[np.ndarray, "M 3 3"],
    elements: Float64[np.ndarray, "M K 3 3"],
    over: Rule,
) -> Iterator[Prediction]:
    """For every copy R_m·x of a structure, the average over its own elements g_mk with the weights of a rule.

    Raises :class:`PotentialError`, with the structure and the element at fault, if the model fails.
    """
    count = len(over)
    turns = elements.reshape(-1, 3, 3)
    copies = (elements @ matrices[:, None]).reshape(-1, 3, 3)
    mean = _Mean()
    for first, prediction in _evaluated(potential, structure, copies, over):
        start, end = first, first + len(prediction)
        while start < end:
            # A batch may hold the last elements of one copy and the first of the next.
            stop = min(end, start - start % count + count)
            part = slice(start - first, stop - first)
            weights = over.weights[start % count :][: stop - start]
            mean.add(weights, turns[start:stop], prediction, part)
            start = stop
            if start % count == 0:
                yield mean.prediction()
                mean = _Mean()


def averages_each(
    potential: Potential,
    structure: Atoms,
    positions: Float64[np.ndarray, "M N 3"],
    matrices: Float64[np.ndarray, "M 3 3"],
    elements: Float64[np.ndarray, "M K 3 3"],
    over: Rule,
) -> Prediction:
    """:func:`averages`, of copies with positions of their own, x_m: one prediction of M copies.

    For many small structures: the response at all M K copies is in memory at once.
    """
    shape = elements.shape[:2]
    copies = (elements @ matrices[:, None]).reshape(-1, 3, 3)
    repeated = np.repeat(positions, shape[1], axis=0)
    parts = [each for _, each in _evaluated(potential, structure, copies, over, repeated)]
    response = Prediction.joined(parts)
    energies, energy = _mean(response.energies.reshape(shape), over.weights)
    forces, force = _mean(response.forces.reshape(*shape, -1, 3) @ elements, over.weights, (2,))
    atomic = None if response.atomic is None else _mean(response.atomic.reshape(*shape, -1), over.weights)[0]
    if response.virials is None:
        return Prediction(energies, forces, None, atomic, Spread(energy, force))
    turned_back = elements.swapaxes(2, 3) @ response.virials.reshape(*shape, 3, 3) @ elements
    virials, virial = _mean(turned_back, over.weights, (1, 2))
    return Prediction(energies, forces, virials, atomic, Spread(energy, force, virial))


def _mean(values: np.ndarray, weights: np.ndarray, axes: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the second axis of (M, K, …), and the standard deviation, its square in the mean over some axes."""
    first = values[:, :1]
    differences = np.moveaxis(values - first, 1, -1)
    mean = differences @ weights
    square = (differences**2 @ weights - mean**2).mean(axis=axes) if axes else differences**2 @ weights - mean**2
    return first[:, 0] + mean, np.sqrt(np.maximum(square, 0.0))


def _evaluated(
    potential: Potential, structure: Atoms, copies: np.ndarray, over: Rule, positions: np.ndarray | None = None
) -> Iterator[tuple[int, Prediction]]:
    """See :func:`evaluated`; errors say on what structure and where in the rule."""
    done = 0
    try:
        for first, prediction in evaluated(potential, structure, copies, positions):
            yield first, prediction
            done = first + len(prediction)
    except PotentialError as error:
        raise PotentialError(f"{error}: {_where(potential, structure, copies, done, over, positions)}") from error
    except GoniometerError:
        raise
    except Exception as error:  # a fault of the adapter, whose traceback is wanted as it is
        error.add_note(f"{potential.name} failed: {_where(potential, structure, copies, done, over, positions)}")
        raise


def _where(
    potential: Potential,
    structure: Atoms,
    copies: np.ndarray,
    done: int,
    over: Rule,
    positions: np.ndarray | None = None,
) -> str:
    """The structure, and the element of the rule at which a potential fails; or those before which it did not."""

    def fails(start: int, size: int) -> bool:
        part = slice(done + start, min(done + start + size, done + _SEARCHED))
        try:
            for _ in evaluated(potential, structure, copies[part], None if positions is None else positions[part]):
                pass
        except Exception:
            return True
        return False

    copy_of = "" if positions is None else f"number {{}} (counted from 0) of {len(copies) // len(over)} copies of "
    culprit = _culprit(fails, min(len(copies) - done, _SEARCHED))
    if culprit is None:
        return f"on {copy_of.format(done // len(over))}{called(structure)}, from {element(over, done)} on"
    index = done + culprit
    which = copy_of.format(index // len(over))
    return f"on {which}{called(structure)}, at {element(over, index)}, {in_words(copies[index])}"


def _culprit(fails: Callable[[int, int], bool], count: int) -> int | None:
    """The first copy at which a potential fails, if it fails there alone; in batches that double, then halve."""
    start, size = 0, 1
    while start < count and not fails(start, size):
        start, size = start + size, 2 * size
    if start >= count:
        return None
    while size > 1:
        size //= 2
        if not fails(start, size):
            start += size
    return start if fails(start, 1) else None


class _Mean:
    """Weighted sums of a response, and of its squares, relative to its first value: energies are large and alike."""

    def __init__(self) -> None:
        self._origin: tuple[float, np.ndarray, np.ndarray | None, np.ndarray | None] | None = None

    def add(self, weights: np.ndarray, turns: np.ndarray, prediction: Prediction, part: slice) -> None:
        """Take a part of a prediction into the mean, turned back."""
        energies, forces = prediction.energies[part], prediction.forces[part] @ turns
        virials = prediction.virials
        if virials is not None:
            virials = turns.transpose(0, 2, 1) @ virials[part] @ turns
        atomic = None if prediction.atomic is None else prediction.atomic[part]
        if self._origin is None:
            self._origin = (
                float(energies[0]),
                forces[0],
                None if virials is None else virials[0],
                None if atomic is None else atomic[0],
            )
            self._energy, self._force, self._virial, self._atomic = (_Moments() for _ in range(4))
        origin = self._origin
        self._energy.add(weights, energies - origin[0])
        self._force.add(weights, forces - origin[1], (2,))
        if virials is not None and origin[2] is not None:
            self._virial.add(weights, virials - origin[2], (1, 2))
        if atomic is not None and origin[3] is not None:
            self._atomic.add(weights, atomic - origin[3])

    def prediction(self) -> Prediction:
        """The mean as a prediction of one copy."""
        assert self._origin is not None  # a rule has one element or more
        energy, force, virial, atomic = self._origin
        return Prediction(
            energies=np.asarray(energy + self._energy.mean)[None],
            forces=(force + self._force.mean)[None],
            virials=None if virial is None else (virial + self._virial.mean)[None],
            atomic=None if atomic is None else (atomic + self._atomic.mean)[None],
            spread=Spread(
                self._energy.deviation()[None],
                self._force.deviation()[None],
                None if virial is None else self._virial.deviation()[None],
            ),
        )


class _Moments:
    """Σ w d and Σ w d², the latter in the mean over some axes."""

    def __init__(self) -> None:
        self.mean: np.ndarray | float = 0.0
        self._square: np.ndarray | float = 0.0
        self._axes: tuple[int, ...] = ()

    def add(self, weights: np.ndarray, values: np.ndarray, axes: tuple[int, ...] = ()) -> None:
        self._axes = tuple(axis - 1 for axis in axes)
        self.mean = self.mean + np.tensordot(weights, values, 1)
        self._square = self._square + np.tensordot(weights, np.mean(values**2, axis=axes), 1)

    def deviation(self) -> np.ndarray:
        variance = self._square - np.mean(np.square(self.mean), axis=self._axes)
        return np.asarray(np.sqrt(np.maximum(variance, 0.0)))
