"""Any potential as an ASE calculator, for relaxation, dynamics and everything else that ASE drives."""

from __future__ import annotations

from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from goniometer.potentials.base import Potential, Spread


class PotentialCalculator(Calculator):
    """The ASE calculator of a potential: energy (eV), forces (eV/Å) and stress (eV/Å³, Voigt order).

    The energies of the atoms as well, where the potential knows them. The stress is the symmetric part of the virial
    over the volume, for structures that are periodic in three directions and potentials that know a virial; asking for
    it otherwise raises ASE's ``PropertyNotImplementedError``. As with every ASE calculator, an unchanged structure is
    not evaluated again, unless the potential's ``moment`` has changed. Errors of the potential pass through.

    Attributes
    ----------
    spread
        Of an averaged potential: the :class:`goniometer.potentials.Spread` of the last evaluation. It is no property
        that ASE knows, and so not among the results.
    """

    def __init__(self, potential: Potential, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.potential = potential
        self.spread: Spread | None = None
        self._moment = potential.moment
        self.implemented_properties = ["energy", "free_energy", "forces"]
        if potential.atomic:
            self.implemented_properties.append("energies")
        if potential.virial != "none":
            self.implemented_properties.append("stress")

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What has changed since the last evaluation; the moment of the potential is part of it."""
        changes: list[str] = super().check_state(atoms, tol)
        return changes if self.potential.moment == self._moment else [*changes, "moment"]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Evaluate the structure and fill ``results``."""
        super().calculate(atoms, properties, system_changes)
        prediction = self.potential.follow(self.atoms)
        self._moment = self.potential.moment
        self.spread = prediction.spread
        energy = float(prediction.energies[0])
        self.results = {"energy": energy, "free_energy": energy, "forces": prediction.forces[0].copy()}
        if prediction.atomic is not None:
            self.results["energies"] = prediction.atomic[0].copy()
        if prediction.virials is not None and self.atoms.pbc.all():
            # The conversion takes the mean of both off-diagonal elements.
            self.results["stress"] = full_3x3_to_voigt_6_stress(prediction.virials[0] / self.atoms.get_volume())
