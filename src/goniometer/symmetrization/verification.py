"""Whether an average is still a potential: forces and virial of rotated copies against differences of their energies.

The average over a rule is invariant whatever the copies are. If a front end mishandles rotated or inverted copies (a
cell that is transposed, forces that are not rotated back, a stress with the wrong sign), the average is invariant and
wrong: its forces are not minus the gradient of its energy, or its stress is not the derivative with respect to strain,

    F(x) = −∂/∂x Σ_k w_k E(g_k·x)        W_ab(x) = ∂/∂ε_ab Σ_k w_k E(g_k·x (1 + ε))

Both hold for the average if they hold for each copy. They are tested on a few copies, the input orientation, proper and
improper ones, along one random displacement of all atoms and one random strain. The structure is first displaced by
0.02 Å and strained by 1 %: in a perfect crystal forces and shear stresses vanish and would hide everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from ase import Atoms
from jaxtyping import Float64

from goniometer.errors import GoniometerError, PotentialError
from goniometer.potentials.base import Potential
from goniometer.potentials.derivatives import Energies, central, extrapolated
from goniometer.rotations import Rule, random_rotations
from goniometer.structures import called
from goniometer.symmetrization.responses import Response, response

#: Copies that are tested: the input orientation, then two proper and three improper ones.
PROPER, IMPROPER = 2, 3
#: Displacements (Å per component) and strains of the differences, and those that the structure is first given.
_STEP, _STRAIN, _RATTLE, _STRAINED = 0.01, 0.002, 0.02, 0.01
#: Share of the largest slope that a difference may miss, at first and after extrapolation to small steps.
_SHARE, _EXTRAPOLATED = 2e-3, 1e-3
#: Mean of forces or virials over copies, relative to their rms, below which they are said to cancel.
_COLLAPSED = 0.7
#: Scatter of forces in the frames of proper copies, relative to their rms, up to which they are the same.
_ALIKE = 0.1
#: Displacements in Å whose second differences of the energy show its noise, and how many are made.
_SHIFT, _SHIFTS = 3e-6, 4
#: Mean deviation of energies over copies in eV per atom beyond which the cell is suspected.
_VARIES = 0.01


@dataclass(frozen=True)
class Copies:
    """Copies of a structure that is off every symmetry, and what a potential predicts for them.

    Attributes
    ----------
    potential, structure
        The structure has been displaced and strained.
    response
        In the frame of the structure, the input orientation first.
    noise
        Rounding of an energy in eV.
    """

    potential: Potential
    structure: Atoms
    response: Response
    noise: float

    @property
    def matrices(self) -> Float64[np.ndarray, "M 3 3"]:
        """The rotations."""
        return self.response.matrices

    @property
    def virials(self) -> Float64[np.ndarray, "M 3 3"] | None:
        """Symmetric part of the virials in the frame of the structure, in eV."""
        virials = self.response.virials
        return None if virials is None else (virials + virials.swapaxes(1, 2)) / 2.0

    def displaced(self, direction: Float64[np.ndarray, "N 3"]) -> Energies:
        """Energies along x + s u."""

        def energies(s: float) -> np.ndarray:
            copy = self.structure.copy()
            copy.positions = self.structure.positions + s * direction
            return self._energies(copy)

        return energies

    def strained(self, strain: Float64[np.ndarray, "3 3"]) -> Energies:
        """Energies along x (1 + s ε), positions and cell."""
        return lambda s: self._energies(strained(self.structure, s * strain))

    def _energies(self, structure: Atoms) -> np.ndarray:
        # Relative to the first: totals are large, and their differences small.
        return response(self.potential, structure, self.matrices).energies - self.response.energies


def strained(structure: Atoms, strain: Float64[np.ndarray, "3 3"]) -> Atoms:
    """A copy with positions and cell under x → x (1 + ε)."""
    copy = structure.copy()
    copy.positions = structure.positions @ (np.eye(3) + strain)
    copy.cell = structure.cell.array @ (np.eye(3) + strain)
    return copy


def copies(potential: Potential, structure: Atoms, matrices: Float64[np.ndarray, "K 3 3"], seed: int = 0) -> Copies:
    """Some copies under elements of a rule, of a structure that is displaced and strained at random."""
    rng = np.random.default_rng(seed)
    off = structure.copy()
    off.set_constraint()
    off.positions += _RATTLE * rng.standard_normal(off.positions.shape)
    off = strained(off, _STRAINED * _symmetric(rng))
    found = response(potential, off, _chosen(matrices, rng))
    energies, eps = found.energies, np.finfo(potential.dtype).eps
    # Totals that were summed in float32 say so by their digits, whatever the potential declares.
    single = bool(np.all(energies == energies.astype(np.float32)) and np.any(energies != 0.0))
    digits = float(np.finfo(np.float32 if single else np.float64).eps * np.abs(energies).max())
    return Copies(potential, off, found, 4.0 * digits + 32.0 * float(eps) * len(off) ** 0.5)


def _symmetric(rng: np.random.Generator) -> np.ndarray:
    raw = rng.standard_normal((3, 3))
    return np.asarray((raw + raw.T) / 2.0)


def _chosen(matrices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The identity, and a few of the others, those that invert among them."""
    turned = np.abs(matrices - np.eye(3)).max(axis=(1, 2)) > 1e-9
    signs = np.linalg.det(matrices)
    proper, improper = np.flatnonzero(turned & (signs > 0.0)), np.flatnonzero(signs < 0.0)
    picked = [
        rng.choice(each, min(count, len(each)), replace=False)
        for each, count in ((proper, PROPER), (improper, IMPROPER))
    ]
    return np.concatenate([np.eye(3)[None], matrices[np.concatenate(picked)]])


def fault(potential: Potential, structure: Atoms, matrices: Float64[np.ndarray, "K 3 3"]) -> str | None:
    """Why the average over these elements of O(3) is no potential, in a sentence that names the likely cause.

    None if nothing speaks against it, and where it cannot be tested: the potential is stochastic or not deterministic,
    or fails on smaller displacements. Forces that do not claim to be conservative are compared between copies only. It
    takes 30 evaluations, and some hundred more to measure the noise and to find the cause if something is wrong.

    Raises whatever the potential raises on copies of the structure, displaced and strained.
    """
    if potential.stochastic:
        return None
    sample = copies(potential, structure, matrices)
    try:
        found = _fault(sample)
        if found is None or _differs(sample):
            return None
        # What looks like a fault may be noise that the dtype does not reveal.
        found = _fault(replace(sample, noise=max(sample.noise, _measured_noise(sample))))
    except GoniometerError:
        return None
    if found is None:
        return None
    agree = float(np.ptp(sample.response.energies)) <= 10.0 * sample.noise
    adapter = "; the energies of all copies agree, so that this is a fault of the adapter" if agree else ""
    return f"the average of {potential.name} over rotations is not a potential on {called(structure)}: {found}{adapter}"


def _differs(sample: Copies) -> bool:
    """Whether a second evaluation of the copies, in the reverse order, differs by more than rounding."""
    again = response(sample.potential, sample.structure, sample.matrices[::-1])
    energies, forces = again.energies[::-1], again.forces[::-1]
    largest = float(np.abs(sample.response.forces).max(initial=1.0))
    share = np.sqrt(float(np.finfo(sample.potential.dtype).eps))
    return bool(
        np.abs(energies - sample.response.energies).max() > 10.0 * sample.noise
        or np.abs(forces - sample.response.forces).max() > share * largest
    )


def _measured_noise(sample: Copies) -> float:
    """Noise of an energy in eV: its largest second difference, E(x + d) + E(x − d) − 2 E(x), for tiny displacements."""
    rng = np.random.default_rng(3)
    largest = 0.0
    for _ in range(_SHIFTS):
        energies = sample.displaced(rng.standard_normal(sample.structure.positions.shape))
        largest = max(largest, float(np.abs(energies(_SHIFT) + energies(-_SHIFT)).max()))
    return largest


def _fault(sample: Copies) -> str | None:
    from goniometer.symmetrization.diagnosis import cell_fault, force_fault, virial_fault

    if not sample.potential.conservative:
        virials = sample.virials
        return cancelled("forces", sample.response.forces, sample.matrices) or (
            None if virials is None else cancelled("stress components", virials, sample.matrices)
        )
    energies = sample.response.energies
    varies = float(np.ptp(energies)) > _VARIES * len(sample.structure)
    rng = np.random.default_rng(1)
    forces = misses_of_forces(sample, rng)
    stress = misses_of_virials(sample, rng)
    if not (varies or forces.any() or stress.any()):
        return None
    found = cell_fault(sample)
    if found is None and forces.any():
        found = force_fault(sample, forces)
    if found is None and stress.any():
        found = virial_fault(sample, stress)
    return found


def misses_of_forces(sample: Copies, rng: np.random.Generator) -> np.ndarray:
    """Whether the forces of each copy miss the slope of its energy along a random displacement, (M,)."""
    forces = sample.response.forces
    direction = rng.standard_normal(forces.shape[1:])
    claimed = -np.einsum("kia,ia->k", forces, direction)
    scale = np.linalg.norm(forces.reshape(len(forces), -1), axis=1)
    return _missed(sample.displaced(direction), claimed, scale, _STEP, sample.noise)


def misses_of_virials(sample: Copies, rng: np.random.Generator) -> np.ndarray:
    """Whether the virial of each copy misses the slope of its energy under a random strain, (M,)."""
    virials = sample.virials
    if virials is None:
        return np.zeros(len(sample.matrices), dtype=bool)
    strain = _symmetric(rng)
    claimed = np.einsum("kab,ab->k", virials, strain)
    scale = np.linalg.norm(virials, axis=(1, 2)) * np.linalg.norm(strain)
    return _missed(sample.strained(strain), claimed, scale, _STRAIN, sample.noise)


def _missed(energies: Energies, claimed: np.ndarray, scale: np.ndarray, step: float, noise: float) -> np.ndarray:
    slopes = central(energies, step)
    largest = max(float(scale.max()), float(np.abs(slopes).max()))
    if (np.abs(slopes - claimed) <= _SHARE * largest + 3.0 * noise / step).all():
        return np.zeros(len(claimed), dtype=bool)
    values, errors = extrapolated(energies, step, noise)
    beyond = np.abs(values - claimed) - 3.0 * errors > _EXTRAPOLATED * largest
    return np.asarray(beyond.all(axis=0))


def cancelled(name: str, values: Float64[np.ndarray, "M ..."], matrices: Float64[np.ndarray, "M 3 3"]) -> str | None:
    """Whether forces or virials of copies, rotated back, cancel in the mean since they were never rotated.

    Those of proper copies in the frame of the copy are then the same, which those of a model that prefers directions
    are not, nor the rounding of forces that vanish.
    """
    proper = np.linalg.det(matrices) > 0.0
    if len(values) < PROPER + 1 or proper.sum() < PROPER:
        return None
    flat = values.reshape(len(values), -1)
    rms = float(np.sqrt(np.mean(flat**2)))
    mean = float(np.sqrt(np.mean(flat.mean(axis=0) ** 2)))
    if rms == 0.0 or mean >= _COLLAPSED * rms:
        return None
    in_frame = values @ matrices.transpose(0, 2, 1)
    if name != "forces":  # tensors rotate from both sides
        in_frame = matrices @ in_frame
    scatter = float(np.sqrt(np.mean((in_frame[proper] - in_frame[proper].mean(axis=0)) ** 2)))
    if scatter > _ALIKE * rms:
        return None
    return (
        f"the {name} of rotated copies, rotated back, cancel in the mean (to {100 * mean / rms:.0f} % of their size): "
        f"the {name} of the model are probably not rotated back with the structure"
    )


def refused(potential: Potential, structures: Sequence[Atoms], over: Rule) -> str | None:
    """:func:`fault` of an average over a rule on any of the structures, as a reason not to certify it."""
    verification = Verification(potential, over.matrices)
    for structure in structures:
        found = verification.fault(structure)
        if found is not None:
            return f"refused: {found}"
    return None


_Kind: TypeAlias = tuple[bytes, bytes, int, bool]


class Verified(Potential):
    """A potential made of rotated copies of another one, which is tested to be a potential before it is used.

    The test is made on the first structure of every kind that is evaluated, or before by :meth:`verify`, unless
    ``verify=False`` was given to the constructor. It takes 30 evaluations of the other potential, once.
    """

    verification: Verification

    def verify(self, structure: Atoms) -> None:
        """See :meth:`Potential.verify`."""
        self.verification(structure)


class Verification:
    """Tests an average once for every kind of structure.

    Structures are of one kind if they have the same species, as many atoms, the same periodic directions, and both a
    tilted or both an orthogonal cell.

    Parameters
    ----------
    potential
        What is averaged.
    elements : (K, 3, 3)
        Of the average.
    wanted
        Otherwise every structure is accepted.
    """

    def __init__(self, potential: Potential, elements: Float64[np.ndarray, "K 3 3"], wanted: bool = True) -> None:
        self.potential, self.elements, self.wanted = potential, elements, wanted
        self._known: dict[_Kind, str | None] = {}

    def accept(self, structures: Sequence[Atoms]) -> None:
        """Take structures for tested, and those of their kinds."""
        self._known.update({_kind(each): None for each in structures})

    def fault(self, structure: Atoms) -> str | None:
        """:func:`fault` on the first structure of this kind."""
        kind = _kind(structure)
        if kind not in self._known:
            try:
                self._known[kind] = fault(self.potential, structure, self.elements)
            except Exception:  # the average itself fails at that element and names it; it is tested next time
                return None
        return self._known[kind]

    def __call__(self, structure: Atoms) -> None:
        """Raise :class:`PotentialError` if the average is not a potential on structures of this kind."""
        said = self.fault(structure) if self.wanted else None
        if said is not None:
            raise PotentialError(f"{said}; verify=False averages it nevertheless")


def _kind(structure: Atoms) -> _Kind:
    tilted = not structure.cell.orthorhombic
    return np.unique(structure.numbers).tobytes(), structure.pbc.tobytes(), len(structure), tilted


def some_elements(proper: bool) -> Float64[np.ndarray, "K 3 3"]:
    """Elements of SO(3) or O(3) in place of those that are drawn at random."""
    matrices = random_rotations(2 * (PROPER + IMPROPER), np.random.default_rng(2))
    return matrices if proper else matrices * np.resize([1.0, -1.0], len(matrices))[:, None, None]
