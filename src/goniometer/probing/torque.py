"""The rotational gradient dE/dω: from forces or virials where they hold it, from finite rotations otherwise."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from goniometer.potentials.base import Potential
from goniometer.probing.noise_floor import Quantity
from goniometer.probing.orientations import Respond
from goniometer.probing.result import Floor, Spectrum, Torque
from goniometer.progress import Advance
from goniometer.rotations import Rule
from goniometer.symmetrization import Response

#: Step, in radians, of the finite rotations that give the torque where virials are symmetric.
_STEP = 0.05
#: Fourth-order central difference: the points, in steps, and their weights.
STENCIL = ((-2.0, 1 / 12), (-1.0, -2 / 3), (1.0, 2 / 3), (2.0, -1 / 12))


def knows_torque(potential: Potential, structure: Atoms) -> bool:
    """Whether forces or virials say what dE/dω is; if not, finite rotations must."""
    return potential.conservative and (potential.virial == "full" or not structure.pbc.any())


def torques_of(structure: Atoms, whole: Response) -> Quantity | None:
    """dE/dω, (M, 3), in the frame of the structure: −Σ r × F of a molecule, Σ_ab ε_cab W_ab of what is periodic."""

    def from_forces(turned: Response) -> np.ndarray:
        arms = structure.positions - structure.positions.mean(axis=0)
        return -np.cross(arms, turned.forces).sum(axis=1)

    def from_virials(turned: Response) -> np.ndarray:
        skew = turned.virials - turned.virials.transpose(0, 2, 1)  # type: ignore[union-attr]
        return np.stack([skew[:, 1, 2], skew[:, 2, 0], skew[:, 0, 1]], axis=1)

    if not structure.pbc.any():
        return from_forces
    return from_virials if whole.virials is not None else None


def _expected_torque(spectrum: Spectrum) -> float:
    """√Σ ℓ(ℓ+1) P_ℓ, from the resolved spectrum."""
    ell = np.arange(len(spectrum.plus))
    powers = np.array(spectrum.plus) + np.array(spectrum.minus or [0.0] * len(ell))
    return float(np.sqrt(max(ell * (ell + 1) @ powers, 0.0)))


def torque_over_orbit(torques: np.ndarray, spectrum: Spectrum, floor: Floor, nodes: Rule) -> Torque:
    """``torques`` (1 + K, 3): as given first, then at the nodes."""
    norms = np.linalg.norm(torques, axis=1)
    rms = float(np.sqrt(nodes.weights @ norms[1:] ** 2))
    return Torque(float(norms[0]), rms, _expected_torque(spectrum), float(np.sqrt(3.0) * floor.value))


def torque_by_rotation(
    respond: Respond, structure: Atoms, spectrum: Spectrum, noise: float, progress: Advance | None
) -> Torque:
    """From finite rotations; ``noise`` is that of one energy."""
    gradient = _finite_rotations(respond, structure, progress)
    spread = np.sqrt(3.0 * sum(weight**2 for _, weight in STENCIL)) / _STEP
    floor = float(spread * noise)
    return Torque(float(np.linalg.norm(gradient)), None, _expected_torque(spectrum), floor)


def _finite_rotations(respond: Respond, structure: Atoms, progress: Advance | None) -> np.ndarray:
    """dE/dω by fourth-order central differences: rotations by ±h and ±2h about each axis."""
    from scipy.spatial.transform import Rotation

    turns = [point * _STEP * axis for axis in np.eye(3) for point, _ in STENCIL]
    energies = respond(structure, Rotation.from_rotvec(turns).as_matrix(), progress).energies
    weights = np.array([weight for _, weight in STENCIL]) / _STEP
    return (energies - energies.mean()).reshape(3, -1) @ weights
