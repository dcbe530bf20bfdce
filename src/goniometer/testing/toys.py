"""Toy potentials whose broken symmetry is known: a dialled-in ℓ and parity, exact forces and full virials, in float64.

Every toy is an energy of vectors d_p that turn with the structure (between atoms, or between centroids of atoms),

    E = E_base + ε s Σ_p f(|d_p|) P_ℓ(d_p·a / |d_p|)

with a an axis that stays in the laboratory, and s = 1, or a pseudoscalar ±1 of the structure where the wanted parity
is not (−1)^ℓ. By the addition theorem the response E(g) then has the variance

    ε² Σ_pp' f_p f_p' P_ℓ(d̂_p·d̂_p') / (2ℓ+1)

all of it at this ℓ and parity. The back-rotated forces and virials are derivatives of E(g) with respect to the
structure and do not touch g: what varies in them has the same ℓ and parity.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from jaxtyping import Float64
from numpy.polynomial import Legendre
from scipy.sparse import csr_array
from scipy.special import eval_legendre

from goniometer.errors import InputError
from goniometer.potentials.base import Potential, Prediction, checked

# Vectors held at a time, over all copies of a batch: some tens of MB.
_BATCH = 200_000


@dataclass(frozen=True)
class Vectors:
    """Vectors d_p = Σ_i C_pi x_i + t_p of a structure that turn with it.

    Attributes
    ----------
    values : (P, 3)
        The vectors, in Å.
    combination : (P, N)
        C, sparse; its rows sum to zero, so that the vectors do not see translations.
    contact : (P,)
        Sum of the covalent radii of the two ends in Å, the length scale of a pair.
    """

    values: Float64[np.ndarray, "P 3"]
    combination: csr_array
    contact: Float64[np.ndarray, " P"]


def pairs(structure: Atoms, cutoff: float, like: bool = True) -> Vectors:
    """Every pair closer than the cutoff (Å) once, images included; its vector points from the lighter to the heavier.

    Pairs of like atoms have no such direction: theirs is arbitrary, and ``like=False`` leaves them out.
    """
    from vesin import NeighborList  # it may import torch

    first, second, shift, values = NeighborList(cutoff=cutoff, full_list=True).compute(
        points=structure.positions,
        box=structure.cell.array * structure.pbc[:, None],
        periodic=structure.pbc,
        quantities="ijSD",
    )
    first, second = first.astype(np.intp), second.astype(np.intp)
    light, heavy = structure.numbers[first], structure.numbers[second]
    # Of the two copies (i, j, S) and (j, i, −S) of a pair of like atoms, keep the lexicographically positive one.
    sense = np.sign(second - first)
    for axis in range(3):
        sense = np.where(sense == 0, np.sign(shift[:, axis]), sense)
    keep = (light < heavy) | ((light == heavy) & (sense > 0) & like)
    first, second = first[keep], second[keep]
    count = len(first)
    rows = np.arange(count)
    combination = csr_array(
        (np.repeat([1.0, -1.0], count), (np.tile(rows, 2), np.concatenate([second, first]))),
        shape=(count, len(structure)),
    )
    contact = covalent_radii[structure.numbers[first]] + covalent_radii[structure.numbers[second]]
    return Vectors(values[keep], combination, contact)


def envelope(r: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """(1 − (r/r_c)²)³ below the cutoff and zero beyond, with its derivative: twice continuously differentiable."""
    inside = np.maximum(1.0 - (r / cutoff) ** 2, 0.0)
    return inside**3, -6.0 * r / cutoff**2 * inside**2


def superposed(parts: Sequence[Prediction]) -> Prediction:
    """The sum of predictions for the same copies. Virials are kept if every term has them."""
    virials = [part.virials for part in parts if part.virials is not None]
    return Prediction(
        np.sum([part.energies for part in parts], axis=0),
        np.sum([part.forces for part in parts], axis=0),
        np.sum(virials, axis=0) if len(virials) == len(parts) else None,
    )


class Toy(Potential):
    """E = E_base + ε s Σ_p f(|d_p|) P_ℓ(d̂_p·a): what the toys of this module share.

    A toy says which vectors it looks at, how it weighs them by length, and which pseudoscalar s it can offer.
    """

    virial = "full"

    def __init__(
        self,
        ell: int,
        parity: int,
        strength: float,
        axis: Sequence[float] = (0.0, 0.0, 1.0),
        base: Potential | None = None,
    ) -> None:
        norm = float(np.linalg.norm(axis))
        if ell < 0:
            raise InputError(f"ell of a toy is an angular momentum, 0 or more, not {ell}")
        if parity not in (1, -1):
            raise InputError(f"parity of a toy is +1 (even under inversion) or -1 (odd), not {parity}")
        if np.shape(axis) != (3,) or not np.isfinite(norm) or norm == 0.0:
            raise InputError(f"axis of a toy is a vector of three finite numbers that is not zero, not {axis}")
        self.ell, self.parity, self.strength, self.base = ell, parity, strength, base
        self.axis = np.asarray(axis, dtype=np.float64) / norm
        self.name = f"{type(self).__name__}(ell={ell}, parity={parity:+d}, strength={strength:g})"
        if base is not None:
            self.virial, self.dtype = _weakest([self, base])
            self.conservative, self.stochastic = base.conservative, base.stochastic

    @property
    def unnatural(self) -> bool:
        """Whether the parity is not that of P_ℓ, (−1)^ℓ, so that a pseudoscalar is needed."""
        return self.parity != (-1) ** self.ell

    @abstractmethod
    def _vectors(self, structure: Atoms) -> Vectors:
        """The vectors d_p."""

    @abstractmethod
    def _radial(self, r: np.ndarray, contact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """f and f' at distances r, for pairs with these contact distances."""

    @abstractmethod
    def _pseudoscalar(self, structure: Atoms) -> float:
        """±1, constant under small displacements, that changes sign under inversion."""

    def turned(self, structure: Atoms, matrices: Float64[np.ndarray, "K 3 3"]) -> Iterator[Prediction]:
        """Evaluate turned copies, see :meth:`goniometer.potentials.Potential.turned`."""
        vectors = self._vectors(structure)
        strength = self.strength * (self._pseudoscalar(structure) if self.unnatural else 1.0)
        batch = max(1, _BATCH // max(1, len(vectors.values)))
        for start in range(0, len(matrices), batch):
            part = matrices[start : start + batch]
            signed = strength * (np.sign(np.linalg.det(part)) if self.unnatural else np.ones(len(part)))
            terms = [self._evaluated(vectors, part, signed)]
            if self.base is not None:
                terms.append(Prediction.joined(self.base.turned(structure, part)))
            yield checked(superposed(terms), structure, self.name)

    def _evaluated(self, vectors: Vectors, matrices: np.ndarray, strength: np.ndarray) -> Prediction:
        legendre = Legendre.basis(self.ell)
        d = vectors.values @ matrices.transpose(0, 2, 1)
        # Coincident atoms have no direction; the NaN that follows is refused by `checked`, in a sentence.
        with np.errstate(invalid="ignore", divide="ignore"):
            r = np.linalg.norm(d, axis=-1)
            unit = d / r[..., None]
            cosine = unit @ self.axis
            f, df = self._radial(r, vectors.contact)
            p, dp = legendre(cosine), legendre.deriv()(cosine)
            along, across = df * p - f * dp * cosine / r, f * dp / r
        gradient = strength[:, None, None] * (along[..., None] * unit + across[..., None] * self.axis)
        copies, count, atoms = len(matrices), len(vectors.values), vectors.combination.shape[1]
        by_vector = gradient.transpose(1, 0, 2).reshape(count, copies * 3)
        forces = -(vectors.combination.T @ by_vector).reshape(atoms, copies, 3).transpose(1, 0, 2)
        return Prediction(
            strength * (f * p).sum(axis=1),
            np.ascontiguousarray(forces),
            d.transpose(0, 2, 1) @ gradient,
        )

    def variance(self, structure: Atoms) -> float:
        """Haar variance over O(3) of the energy in eV², from the addition theorem; no rotation is involved.

        ε² Σ_pp' f_p f_p' P_ℓ(d̂_p·d̂_p') / (2ℓ+1), and zero for ℓ = 0 of even parity, a constant. It holds for an
        invariant base.
        """
        if self.ell == 0 and self.parity == 1:
            return 0.0
        vectors = self._vectors(structure)
        r = np.linalg.norm(vectors.values, axis=1)
        unit = vectors.values / r[:, None]
        weights, _ = self._radial(r, vectors.contact)
        kernel = eval_legendre(self.ell, np.clip(unit @ unit.T, -1.0, 1.0))
        return float(self.strength**2 * (weights @ kernel @ weights) / (2 * self.ell + 1))


class PairToy(Toy):
    """An exactly invariant potential of smoothly cut Morse pairs; bond lengths are sums of covalent radii.

    E = Σ_pairs D [(1 − exp(−α (r − r_0)))² − 1] (1 − (r/r_c)²)³; it gives the other toys gradients to follow.

    Parameters
    ----------
    depth, steepness, cutoff
        D in eV, α in 1/Å, r_c in Å.
    """

    def __init__(self, depth: float = 1.0, steepness: float = 1.5, cutoff: float = 4.0) -> None:
        super().__init__(0, 1, depth)
        self.steepness, self.cutoff = steepness, cutoff
        self.name = "PairToy"

    def _vectors(self, structure: Atoms) -> Vectors:
        return pairs(structure, self.cutoff)

    def _radial(self, r: np.ndarray, contact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cut, dcut = envelope(r, self.cutoff)
        decay = np.exp(-self.steepness * (r - contact))
        well, dwell = (1.0 - decay) ** 2 - 1.0, 2.0 * self.steepness * decay * (1.0 - decay)
        return well * cut, dwell * cut + well * dcut

    def _pseudoscalar(self, structure: Atoms) -> float:
        raise NotImplementedError("an invariant potential needs none")


class MolecularToy(Toy):
    """An isolated molecule with the energy E_base + ε P_ℓ(n·a), n the direction between two groups of its atoms.

    Its response has the rms ε/√(2ℓ+1) for every molecule. A parity other than (−1)^ℓ multiplies by the handedness
    of the first four atoms, which must then not lie in a plane.

    Parameters
    ----------
    ell, parity
        Where the whole variance is; ``parity`` is +1 if the response is even under inversion, −1 if it is odd.
    strength
        ε in eV.
    axis : (3,)
        a, fixed in the laboratory.
    base
        An invariant potential that is added; :class:`PairToy` by default.
    direction
        Two groups of atoms: n points from the centroid of the first to that of the second.
    """

    def __init__(
        self,
        ell: int,
        parity: int = 1,
        strength: float = 0.01,
        axis: Sequence[float] = (0.0, 0.0, 1.0),
        base: Potential | None = None,
        direction: tuple[Sequence[int], Sequence[int]] = ((0,), (1,)),
    ) -> None:
        super().__init__(ell, parity, strength, axis, base if base is not None else PairToy())
        self.direction = direction

    def _vectors(self, structure: Atoms) -> Vectors:
        tail, head = (list(group) for group in self.direction)
        if structure.pbc.any():
            raise InputError(f"{self.name} is for isolated molecules, and this structure is periodic; use PeriodicToy")
        if max(tail + head) >= len(structure):
            raise InputError(
                f"{self.name} needs {max(tail + head) + 1} atoms or more, this structure has {len(structure)}"
            )
        row = np.zeros(len(structure))
        row[head] += 1.0 / len(head)
        row[tail] -= 1.0 / len(tail)
        return Vectors((row @ structure.positions)[None], csr_array(row[None]), np.ones(1))

    def _radial(self, r: np.ndarray, contact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.ones_like(r), np.zeros_like(r)

    def _pseudoscalar(self, structure: Atoms) -> float:
        edges = structure.positions[1:4] - structure.positions[0]
        volume = float(np.linalg.det(edges)) if len(edges) == 3 else 0.0
        if abs(volume) < 1e-6 * np.prod(np.linalg.norm(edges, axis=1)) or volume == 0.0:
            raise InputError(
                f"{self.name} has an unnatural parity and needs four first atoms that do not lie in a plane"
            )
        return float(np.sign(volume))


class PeriodicToy(Toy):
    """Any structure, with the energy E_base + ε Σ_pairs (1 − (r/r_c)²)³ P_ℓ(r̂·a), each pair counted once.

    Odd ℓ needs pairs that have a direction: it counts those of unlike atoms alone, from the lighter to the heavier. A
    parity other than (−1)^ℓ multiplies by the handedness of the surroundings, the sign of v_0·(v_1 × v_2) with
    v_n = Σ (1 − (r/2r_c)²)³ cos(nπr/r_c) r̂ over the pairs of unlike atoms closer than 2 r_c, which must tell right from
    left: a cell that is left-handed says nothing, the same lattice has a right-handed one.
    :meth:`variance` gives the known answer for a structure.

    Parameters
    ----------
    ell, parity, strength, axis, base
        As for :class:`MolecularToy`.
    cutoff
        r_c in Å.
    """

    def __init__(
        self,
        ell: int,
        parity: int = 1,
        strength: float = 0.01,
        cutoff: float = 4.0,
        axis: Sequence[float] = (0.0, 0.0, 1.0),
        base: Potential | None = None,
    ) -> None:
        super().__init__(ell, parity, strength, axis, base if base is not None else PairToy())
        self.cutoff = cutoff

    def _vectors(self, structure: Atoms) -> Vectors:
        vectors = pairs(structure, self.cutoff, like=self.ell % 2 == 0)
        if self.ell % 2 == 1 and len(vectors.values) == 0:
            raise InputError(
                f"{self.name} needs two unlike atoms closer than {self.cutoff:g} Å, this structure has none"
            )
        return vectors

    def _radial(self, r: np.ndarray, contact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return envelope(r, self.cutoff)

    def _pseudoscalar(self, structure: Atoms) -> float:
        values = pairs(structure, 2.0 * self.cutoff, like=False).values
        r = np.linalg.norm(values, axis=1)
        weights = envelope(r, 2.0 * self.cutoff)[0] * np.cos(np.pi * np.arange(3)[:, None] * r / self.cutoff)
        sums = (weights / r) @ values
        volume = float(np.linalg.det(sums))
        if abs(volume) < 1e-9 * np.prod(np.abs(weights).sum(axis=1)) or volume == 0.0:
            raise InputError(
                f"{self.name} has an unnatural parity and needs pairs of unlike atoms closer than "
                f"{2.0 * self.cutoff:g} Å that tell right from left, and this structure has none"
            )
        return float(np.sign(volume))


def _weakest(potentials: Sequence[Potential]) -> tuple:
    """The virial and the dtype that a sum of potentials can claim."""
    kinds, dtypes = [p.virial for p in potentials], [p.dtype for p in potentials]
    return min(kinds, key=("none", "symmetric", "full").index), min(dtypes)


class SumOf(Potential):
    """The sum of potentials, so that several (ℓ, parity) can be mixed; their variances add where these differ."""

    def __init__(self, potentials: Sequence[Potential]) -> None:
        if not potentials:
            raise InputError("a sum of potentials needs one potential or more")
        self.potentials = tuple(potentials)
        self.name = " + ".join(potential.name for potential in potentials)
        self.virial, self.dtype = _weakest(potentials)
        self.conservative = all(potential.conservative for potential in potentials)
        self.stochastic = any(potential.stochastic for potential in potentials)

    def turned(self, structure: Atoms, matrices: Float64[np.ndarray, "K 3 3"]) -> Iterator[Prediction]:
        """Evaluate turned copies, see :meth:`goniometer.potentials.Potential.turned`."""
        for start in range(0, len(matrices), 64):
            part = matrices[start : start + 64]
            yield superposed([Prediction.joined(potential.turned(structure, part)) for potential in self.potentials])


class Wrapped(Potential):
    """A potential whose predictions are changed."""

    def __init__(self, potential: Potential) -> None:
        self.potential = potential
        self.name = f"{type(self).__name__}({potential.name})"
        self.dtype, self.virial = potential.dtype, potential.virial
        self.conservative, self.stochastic = potential.conservative, potential.stochastic


class Noisy(Wrapped):
    """White noise of standard deviation σ on every energy (eV) and every force component (eV/Å) of a potential.

    The noise depends on how often the potential was called before, not on the structure: it is stochastic.
    """

    def __init__(self, potential: Potential, sigma: float, seed: int) -> None:
        super().__init__(potential)
        self.stochastic = True
        self.sigma = sigma
        self._rng = np.random.default_rng(seed)

    def turned(self, structure: Atoms, matrices: Float64[np.ndarray, "K 3 3"]) -> Iterator[Prediction]:
        """Evaluate turned copies, see :meth:`goniometer.potentials.Potential.turned`."""
        for part in self.potential.turned(structure, matrices):
            energies = part.energies + self.sigma * self._rng.standard_normal(part.energies.shape)
            forces = part.forces + self.sigma * self._rng.standard_normal(part.forces.shape)
            yield Prediction(energies, forces, part.virials)


class NonConservative(Wrapped):
    """Adds forces that no energy has, yet that turn with the structure: pairs in which only one atom feels the other.

    The later atom i of every pair feels κ (1 − (r/r_c)²)³ r̂, the earlier one feels nothing; so ∂F_i/∂x_j ≠ ∂F_j/∂x_i,
    the field has a curl, and the net force is not zero.

    Parameters
    ----------
    potential
        What it is added to.
    strength
        κ in eV/Å.
    cutoff
        r_c in Å.
    """

    def __init__(self, potential: Potential, strength: float = 0.1, cutoff: float = 4.0) -> None:
        super().__init__(potential)
        self.conservative = False
        self.strength, self.cutoff = strength, cutoff

    def turned(self, structure: Atoms, matrices: Float64[np.ndarray, "K 3 3"]) -> Iterator[Prediction]:
        """Evaluate turned copies, see :meth:`goniometer.potentials.Potential.turned`."""
        vectors = pairs(structure, self.cutoff)
        r = np.linalg.norm(vectors.values, axis=1)
        cut, _ = envelope(r, self.cutoff)
        felt = self.strength * (cut / r)[:, None] * vectors.values
        extra = vectors.combination.maximum(0.0).T @ felt
        done = 0
        for part in self.potential.turned(structure, matrices):
            turn = matrices[done : done + len(part)]
            done += len(part)
            yield Prediction(part.energies, part.forces + extra @ turn.transpose(0, 2, 1), part.virials)
