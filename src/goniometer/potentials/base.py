"""What a potential is: structures in, energies, forces and virials of any number of turned copies out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from ase import Atoms
from jaxtyping import Float64

from goniometer.errors import PotentialError

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

#: What a potential knows of the derivative with respect to strain: all nine components, the six symmetric ones, none.
VirialKind = Literal["full", "symmetric", "none"]


@dataclass(frozen=True)
class Spread:
    """Standard deviation of the back-rotated response over the elements that an average was taken over.

    Attributes
    ----------
    energies : (K,)
        In eV.
    forces : (K, N)
        Of each atom, root mean square per component, in eV/Å.
    virials : (K,) or None
        Root mean square per component, in eV.
    """

    energies: Float64[np.ndarray, " K"]
    forces: Float64[np.ndarray, "K N"]
    virials: Float64[np.ndarray, " K"] | None = None


@dataclass(frozen=True)
class Prediction:
    """What a model says of K turned copies of one structure, each in the frame of its own copy.

    Attributes
    ----------
    energies : (K,)
        Total energies in eV, summed in float64.
    forces : (K, N, 3)
        Forces in eV/Å.
    virials : (K, 3, 3) or None
        W_ab = ∂E/∂ε_ab in eV under the strain x → x (1 + ε) of positions and cell (row vectors): the stress times the
        volume, with ASE's sign. Its antisymmetric part is the rotational gradient, dE/dω_c = Σ_ab ε_cab W_ab.
    atomic : (K, N) or None
        Energies of the atoms in eV, where the model has them; their sum is the total energy.
    spread
        Of an average over rotations: how much the terms differ.
    """

    energies: Float64[np.ndarray, " K"]
    forces: Float64[np.ndarray, "K N 3"]
    virials: Float64[np.ndarray, "K 3 3"] | None = None
    atomic: Float64[np.ndarray, "K N"] | None = None
    spread: Spread | None = None

    def __len__(self) -> int:
        return len(self.energies)

    def part(self, copies: slice) -> Prediction:
        """Some of the copies, without their spread."""
        virials, atomic = self.virials, self.atomic
        return Prediction(
            self.energies[copies],
            self.forces[copies],
            None if virials is None else virials[copies],
            None if atomic is None else atomic[copies],
        )

    @classmethod
    def joined(cls, predictions: Iterable[Prediction], order: np.ndarray | None = None) -> Prediction:
        """Predictions of some copies each as one, in that order or another one; without their spread.

        Virials and energies of atoms are kept if every part has them.
        """
        parts = list(predictions)

        def whole(values: list[np.ndarray | None]) -> np.ndarray | None:
            given = [each for each in values if each is not None]
            if len(given) < len(parts):
                return None
            joined = np.concatenate(given)
            return joined if order is None else joined[order]

        energies, forces = whole([each.energies for each in parts]), whole([each.forces for each in parts])
        assert energies is not None  # every prediction has them
        assert forces is not None
        return cls(energies, forces, whole([each.virials for each in parts]), whole([each.atomic for each in parts]))


class Potential(ABC):
    """A model of the energy of a structure. A symmetrized potential is a potential as well.

    A subclass sets the attributes and writes :meth:`turned`; :func:`goniometer.testing.check_potential` checks it.

    Attributes
    ----------
    name
        What reports call it.
    dtype
        ``"float32"`` or ``"float64"``: the arithmetic of the model.
    virial
        ``"full"``, ``"symmetric"`` (its antisymmetric part is lost, as in a stress in Voigt order) or ``"none"``.
    conservative
        Whether the forces claim to be minus the gradient of the energy.
    atomic
        Whether predictions hold the energies of the atoms.
    stochastic
        Whether two evaluations of the same structure, or of the same to rounding, may differ by intent.
    """

    name: str
    dtype: Literal["float32", "float64"] = "float64"
    virial: VirialKind = "none"
    conservative: bool = True
    atomic: bool = False
    stochastic: bool = False

    @abstractmethod
    def turned(self, structure: Atoms, matrices: Float64[np.ndarray, "K 3 3"]) -> Iterator[Prediction]:
        """Evaluate copies of a structure whose positions and cell are turned, x @ R_kᵀ, in the order given.

        Yields predictions of one or more copies each, K in all: how many at a time is the potential's choice, and
        bounds the memory. The structure is not changed. Raises :class:`PotentialError` if the model fails, and
        :class:`InputError` if it does not take this structure.
        """

    def turned_each(
        self,
        structure: Atoms,
        positions: Float64[np.ndarray, "K N 3"],
        matrices: Float64[np.ndarray, "K 3 3"],
    ) -> Iterator[Prediction]:
        """:meth:`turned`, of copies that have positions of their own, x_k @ R_kᵀ; all else is that of the structure.

        Copies in a row with the same positions go to :meth:`turned` together. A potential overrides this where it can
        evaluate different positions at once.
        """
        start = 0
        while start < len(positions):
            stop = start + 1
            while stop < len(positions) and np.array_equal(positions[stop], positions[start]):
                stop += 1
            yield from self.turned(placed(structure, positions[start]), matrices[start:stop])
            start = stop

    def predict(self, structure: Atoms) -> Prediction:
        """Evaluate the structure as it stands: a prediction of one copy."""
        (prediction,) = self.turned(structure, np.eye(3)[None])
        return prediction

    def follow(self, structure: Atoms) -> Prediction:
        """Evaluate the next structure of a trajectory: :meth:`predict`, but for what depends on time and goes on."""
        return self.predict(structure)

    def verify(self, structure: Atoms) -> None:  # noqa: B027 - a model has nothing to test
        """Test a potential that is made of rotated copies of another one; the default does nothing.

        Raises :class:`PotentialError`, with the likely cause, if it is not a potential on structures of this kind. See
        :mod:`goniometer.symmetrization.verification`.
        """

    @property
    def moment(self) -> Hashable:
        """What an answer depends on besides the structure, a step of time for instance; calculators heed it."""
        return None

    def calculator(self) -> Calculator:
        """An ASE calculator of this potential."""
        from goniometer.potentials.calculator import PotentialCalculator

        return PotentialCalculator(self)


def inherit(outer: Potential, potential: Potential) -> None:
    """A potential made of another one knows what that knows."""
    for attribute in ("dtype", "virial", "conservative", "atomic", "stochastic"):
        setattr(outer, attribute, getattr(potential, attribute))


def placed(structure: Atoms, positions: Float64[np.ndarray, "N 3"]) -> Atoms:
    """A copy of a structure with other positions, without constraints."""
    atoms = structure.copy()
    atoms.set_constraint()
    atoms.positions = positions
    return atoms


def checked(prediction: Prediction, structure: Atoms, potential: str) -> Prediction:
    """The prediction, if it is finite and its shapes fit the structure; a :class:`PotentialError` otherwise."""
    copies, atoms = len(prediction.energies), len(structure)
    if prediction.forces.shape != (copies, atoms, 3):
        raise PotentialError(
            f"{potential} gave forces of shape {prediction.forces.shape[1:]} for a structure of {atoms} atoms; "
            f"they must be ({atoms}, 3)"
        )
    parts = {
        "an energy that is": prediction.energies,
        "forces that are": prediction.forces,
        "a virial that is": prediction.virials,
        "energies of atoms that are": prediction.atomic,
    }
    if prediction.atomic is not None and prediction.atomic.shape != (copies, atoms):
        raise PotentialError(
            f"{potential} gave energies of atoms of shape {prediction.atomic.shape[1:]} for a structure of {atoms} "
            f"atoms; they must be ({atoms},)"
        )
    for part, values in parts.items():
        if values is not None and not np.isfinite(values).all():
            raise PotentialError(f"{potential} gave {part} not finite (NaN or infinity)")
    return prediction
