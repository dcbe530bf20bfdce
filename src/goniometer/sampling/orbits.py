"""Frames in all the orientations that their lattice allows: an ensemble knows of them without having turned to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase import units
from jaxtyping import Float64, Int64
from scipy.special import logsumexp, softmax

from goniometer.observables.statics import Sampled, Static
from goniometer.rotations import Rule
from goniometer.trajectories.h5md import Frames

_SAME = 1e-6


@dataclass(frozen=True)
class Orbits:
    """What a potential U says of the copies g x of each frame x, for the elements g that map its lattice onto itself.

    A turned copy of a frame is as good a frame of the same cell, and for a potential that is the same in all
    orientations it has the same probability. So U gives frames and copies together the weights

        p(g|x) = exp(−U(g x)/kT) / Σ_h exp(−U(h x)/kT)        F(x) = −kT ln (1/|G| Σ_g exp(−U(g x)/kT))

    p of a copy among those of its frame, and exp(−F/kT) of all of them together. Which of them a run in equilibrium
    went through plays no part; what is left is how structures differ. (Of estimators that replace A by its conditional
    mean: C. R. Rao, Bull. Calcutta Math. Soc. 37, 81 (1945); D. Blackwell, Ann. Math. Stat. 18, 105 (1947).)

    Attributes
    ----------
    matrices : (C, 3, 3)
        A group, with inversion.
    energies : (F, C)
        U(g x) in eV.
    virials : (F, C, 3, 3) or None
        In eV, turned back to the orientation of the frame.
    """

    matrices: Float64[np.ndarray, "C 3 3"]
    energies: Float64[np.ndarray, "F C"]
    virials: Float64[np.ndarray, "F C 3 3"] | None = None

    def average(self, over: Rule) -> Orbits | None:
        """Of U averaged over a rule, Σ_s w_s U(s g x); None if one of its elements does not map the lattice."""
        places = products_among(over.matrices, self.matrices)
        if places is None:
            return None
        virials = None
        if self.virials is not None:
            virials = np.einsum("s,fcsij->fcij", over.weights, self.virials[:, places])
        return Orbits(self.matrices, self.energies[:, places] @ over.weights, virials)

    def invariant(self, energies: Float64[np.ndarray, " F"], virials: Float64[np.ndarray, "F 3 3"] | None) -> Orbits:
        """Of a potential with the same energy for all copies, that of the frame; nothing here checks that it is so.

        :func:`goniometer.sampling.invariance.residuals` measures it.
        """
        count = len(self.matrices)
        strained = None if virials is None else np.repeat(virials[:, None], count, axis=1)
        return Orbits(self.matrices, np.repeat(energies[:, None], count, axis=1), strained)

    def free_energies(self, temperature: float) -> Float64[np.ndarray, " F"]:
        """F(x) in eV."""
        thermal = units.kB * temperature
        return np.asarray(-thermal * logsumexp(-self.energies / thermal, axis=1, b=1.0 / len(self.matrices)))

    def weights(self, temperature: float) -> Float64[np.ndarray, "F C"]:
        """p(g|x)."""
        return np.asarray(softmax(-self.energies / (units.kB * temperature), axis=1))


def products_among(
    elements: Float64[np.ndarray, "S 3 3"], group: Float64[np.ndarray, "C 3 3"]
) -> Int64[np.ndarray, "C S"] | None:
    """Which element of a group s g is, for all s and all g of the group; None if an s is not of it."""
    products = np.einsum("sij,cjk->csik", elements, group)
    apart = np.abs(products[:, :, None] - group).max(axis=(3, 4))
    return None if apart.min(axis=2).max() > _SAME else apart.argmin(axis=2)


def sampled(
    frames: Frames,
    matrices: Float64[np.ndarray, "C 3 3"],
    weights: Sequence[Float64[np.ndarray, "F C"]],
    static: Callable[[int], Static],
) -> list[Sampled]:
    """Σ_g p(g|x) a(g x) of each frame, by several weights p, with what ``static`` says of each copy by its number."""
    if static(0).invariant:
        return [static(0).on(frames)] * len(weights)
    means: list[Any] = [0.0] * len(weights)
    for copy, matrix in enumerate(matrices):
        samples = static(copy).on(turned(frames, matrix)).samples
        for place, each in enumerate(weights):
            means[place] = means[place] + each[:, copy].reshape(-1, *[1] * (samples.ndim - 1)) * samples
    return [Sampled(static(0), each) for each in means]


def turned(frames: Frames, matrix: Float64[np.ndarray, "3 3"]) -> Frames:
    """Positions and velocities turned in a cell that is as before, since its lattice is."""
    return replace(frames, positions=frames.positions @ matrix.T, velocities=frames.velocities @ matrix.T)
