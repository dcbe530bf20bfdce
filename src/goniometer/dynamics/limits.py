"""What stops a run with a sentence: numbers that are none, a temperature or energy out of bounds, a broken molecule."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.geometry import find_mic
from jaxtyping import Float64

from goniometer.dynamics.description import Run
from goniometer.errors import GoniometerError

#: Atoms closer than this many sums of covalent radii are bonded.
BONDED = 1.25
# Standard deviations of the canonical distribution of the temperature.
_DEVIATIONS = 8.0


class RunError(GoniometerError, RuntimeError):
    """A run that a check has stopped; the message says at what time, and why."""


class Watch:
    """The checks of a run, over all of its replicas.

    Parameters
    ----------
    run
        The description.
    structure
        All atoms at the start.
    """

    def __init__(self, run: Run, structure: Atoms) -> None:
        self.run, self.structure = run, structure
        self._first, self._second, self._limits = self._bonds() if run.checks.molecules else (np.empty(0, int),) * 3

    def _bonds(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        radii = covalent_radii[self.structure.numbers]
        size = len(self.structure) // self.run.replicas
        first, second = np.triu_indices(size, 1)
        starts = size * np.arange(self.run.replicas)[:, None]
        first, second = (starts + first).ravel(), (starts + second).ravel()
        sums = radii[first] + radii[second]
        bonded = self._distances(self.structure.positions, first, second) < BONDED * sums
        factor = self.run.checks.molecules or np.inf
        return first[bonded], second[bonded], factor * sums[bonded]

    def _distances(self, positions: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        vectors = positions[second] - positions[first]
        return (
            find_mic(vectors, self.structure.cell, self.structure.pbc)[1]
            if self.structure.pbc.any()
            else (np.linalg.norm(vectors, axis=1))
        )

    def __call__(self, time: float, positions: Float64[np.ndarray, "N 3"], temperature: float, drift: float) -> None:
        """Look at a frame: time in fs, positions in Å, temperature in K, change of the conserved quantity in eV.

        Raises :class:`RunError`.
        """
        checks, atoms = self.run.checks, len(positions)
        if not (np.isfinite(positions).all() and np.isfinite(temperature) and np.isfinite(drift)):
            raise RunError(f"at {time:g} fs positions or energies are not finite (NaN or infinity)")
        if checks.temperature is not None:
            # A few atoms may well be this many times hotter than they are in the mean.
            limit = checks.temperature * self.run.temperature * (1.0 + _DEVIATIONS * np.sqrt(2.0 / (3.0 * atoms)))
            if temperature > limit:
                raise RunError(
                    f"at {time:g} fs the temperature is {temperature:.0f} K, above {limit:.0f} K: "
                    f"{checks.temperature:g} times {self.run.temperature:g} K and what {atoms} atoms fluctuate "
                    "(checks.temperature)"
                )
        if checks.energy is not None and 1e3 * abs(drift) > checks.energy * atoms:
            raise RunError(
                f"at {time:g} fs the conserved quantity has changed by {1e3 * drift / atoms:.1f} meV per atom, more "
                f"than {checks.energy:g} (checks.energy)"
            )
        lengths = self._distances(positions, self._first, self._second)
        broken = np.flatnonzero(lengths > self._limits)
        if len(broken):
            one, other = self._first[broken[0]], self._second[broken[0]]
            symbols = self.structure.symbols
            raise RunError(
                f"at {time:g} fs the bond between atoms {one} ({symbols[one]}) and {other} ({symbols[other]}), counted "
                f"from 0, is {lengths[broken[0]]:.2f} Å long: the molecule is broken (checks.molecules)"
            )
