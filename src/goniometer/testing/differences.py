"""Checks of derivatives: forces, their unit, virial and rotational gradient against differences of energies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import ase.units
import numpy as np
from ase import Atoms
from scipy.spatial.transform import Rotation

from goniometer.errors import GoniometerError
from goniometer.symmetrization.diagnosis import cell_fault, measured_virials, virial_cause
from goniometer.symmetrization.verification import copies
from goniometer.testing.subject import CheckItem, Subject

# Directions that each derivative is taken along; six energies each.
_FORCE_DIRECTIONS, _STRAIN_DIRECTIONS, _AXES = 4, 3, 2

# Lengths over which an energy changes its course: Å, strain, radians.
_FORCE_LENGTH, _STRAIN_LENGTH, _ANGLE = 0.05, 0.02, 0.5

# Shares of a slope that count as that of a cutoff: always, and if smaller steps miss by no more than a share of it.
_TINY, _SMALL, _CONVERGED = 1e-6, 0.02, 0.2
# By how much smaller these steps are.
_FINER = (4.0, 16.0, 64.0, 256.0)

_RATIOS = {
    "kcal/mol against eV": ase.units.mol / ase.units.kcal,
    "kJ/mol against eV": ase.units.mol / ase.units.kJ,
    "hartree against eV": 1.0 / ase.units.Hartree,
    "bohr against Å": ase.units.Bohr,
    "hartree/bohr against eV/Å": ase.units.Bohr / ase.units.Hartree,
    "meV against eV": 1e3,
}


@dataclass(frozen=True)
class Slopes:
    """Derivatives along several directions: from energies, as claimed, and by how much these may differ."""

    measured: np.ndarray
    claimed: np.ndarray
    tolerance: np.ndarray
    #: The same derivatives from smaller steps, (4, D).
    finer: Callable[[], np.ndarray]

    @property
    def miss(self) -> np.ndarray:
        return np.abs(self.measured - self.claimed)

    @property
    def worst(self) -> int:
        return int(np.argmax(self.miss / self.tolerance))

    @property
    def resolution(self) -> float:
        """The largest share of the measured slope that differences of energies could not see."""
        scale = float(np.sqrt(np.mean(self.measured**2)))
        return float(self.tolerance.max() / scale) if scale > 0.0 else np.inf

    @property
    def share(self) -> float:
        """The largest miss, as a share of the rms slope."""
        scale = float(np.sqrt(np.mean(self.measured**2)))
        return float(self.miss.max() / scale) if scale > 0.0 else np.inf

    def cutoff(self) -> str | None:
        """Says that a miss is small and that of a cutoff, None if it is not.

        A wrong derivative is missed by the same amount whatever the step is. Where pairs cross a cutoff at which the
        energy is not smooth, smaller steps, which fewer pairs cross, come to the derivative.
        """
        if self.share < _TINY:
            return f"but for {self.share:.1g} of it: a cutoff that is not quite smooth is the usual cause"
        if self.share > _SMALL:
            return None
        beyond = self.miss > self.tolerance
        closest = np.abs(self.finer() - self.claimed).min(axis=0)
        if (closest[beyond] > _CONVERGED * self.miss[beyond]).any():
            return None
        return (
            f"but for {self.share:.1g} of it over long steps: the energy is not smooth within them, as where pairs "
            "cross a cutoff"
        )

    def ratio(self) -> float | None:
        """measured / claimed, if one number says it all and it is resolved; None otherwise."""
        across, square = float(self.measured @ self.claimed), float(self.claimed @ self.claimed)
        alike = across**2 >= 0.98 * square * float(self.measured @ self.measured)
        if square == 0.0 or not alike or self.resolution > 0.05:
            return None
        return across / square


def slope(energy: Callable[[float], float], step: float, noise: float) -> tuple[float, float]:
    """dE/ds at s = 0 and its uncertainty, by central differences of sixth order from s = ±h, ±2h, ±3h.

    The uncertainty is that of the noise (√2 · 1.1 noise/h at one standard deviation; the noise given is a generous one)
    and ten times the distance to the fourth-order result, which is also large where the energy is not smooth.
    """
    odd = [energy(n * step) - energy(-n * step) for n in (1, 2, 3)]
    fourth = (8.0 * odd[0] - odd[1]) / (12.0 * step)
    sixth = (45.0 * odd[0] - 9.0 * odd[1] + odd[2]) / (60.0 * step)
    return sixth, noise / step + 10.0 * abs(sixth - fourth)


def _slopes(subject: Subject, paths: Sequence[Callable[[float], Atoms]], claimed: np.ndarray, length: float) -> Slopes:
    """Slopes of the energy along paths s ↦ structure; ``claimed`` is what the potential says they are."""
    # Noise and truncation of a sixth-order difference balance at a step of about (relative noise)^(1/7) lengths.
    relative = subject.noise.energy / len(subject.structure) ** 0.5
    step = length * min(0.5, max(subject.eps, relative) ** (1 / 7))

    def energy(path: Callable[[float], Atoms], s: float) -> float:
        return float(subject.potential.predict(path(s)).energies[0] - subject.reference.energies[0])

    def slopes(step: float) -> np.ndarray:
        found = [slope(lambda s, path=path: energy(path, s), step, subject.noise.energy) for path in paths]  # type: ignore[misc]
        return np.array(found).T

    measured, errors = slopes(step)
    return Slopes(measured, claimed, errors, lambda: np.array([slopes(step / n)[0] for n in _FINER]))


def force_slopes(subject: Subject) -> Slopes:
    """Derivatives along normally distributed displacements u of all atoms, claimed to be −F·u."""
    shape = subject.structure.positions.shape
    displacements = subject.rng.standard_normal((_FORCE_DIRECTIONS, *shape))
    paths = [lambda s, u=u: subject.moved(subject.structure.positions + s * u) for u in displacements]
    claimed = -np.einsum("dia,ia->d", displacements, subject.reference.forces[0])
    slopes = _slopes(subject, paths, claimed, _FORCE_LENGTH)
    # u has √3N components of one, so this is what the forces' own rounding does to F·u.
    return replace(slopes, tolerance=slopes.tolerance + subject.noise.forces * np.sqrt(np.prod(shape)))


def virial_slopes(subject: Subject, virial: np.ndarray) -> Slopes:
    """Derivatives along symmetric strains of positions and cell, claimed to be Σ_ab ε_ab W_ab."""
    raw = subject.rng.standard_normal((_STRAIN_DIRECTIONS, 3, 3))
    strains = (raw + raw.transpose(0, 2, 1)) / 2.0
    paths = [lambda s, strain=strain: subject.strained(np.eye(3) + s * strain) for strain in strains]
    return _virial_slopes(subject, paths, np.einsum("dab,ab->d", strains, virial), _STRAIN_LENGTH)


def rotation_slopes(subject: Subject, virial: np.ndarray) -> Slopes:
    """Derivatives along rigid rotations of atoms and cell by s about random axes, claimed to be Σ_ab A_ab W_ab."""
    axes = subject.rng.standard_normal((_AXES, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    # x Rᵀ = x (1 + A) to first order, with A_ab = Σ_c ε_cab ω_c.
    generators = np.array([np.cross(axis, np.eye(3)) for axis in axes])
    paths = [lambda s, axis=axis: subject.turned(Rotation.from_rotvec(s * axis).as_matrix()) for axis in axes]
    return _virial_slopes(subject, paths, np.einsum("dab,ab->d", generators, virial), _ANGLE)


def _virial_slopes(
    subject: Subject, paths: Sequence[Callable[[float], Atoms]], claimed: np.ndarray, length: float
) -> Slopes:
    slopes = _slopes(subject, paths, claimed, length)
    return replace(slopes, tolerance=slopes.tolerance + 3.0 * subject.noise.virial)


def check_forces(subject: Subject, slopes: Slopes) -> CheckItem:
    """Forces are minus the gradient of the energy, or are reported with how far they are from it."""
    components = np.sqrt(3.0 * len(subject.structure))
    value, tolerance = float(slopes.miss[slopes.worst] / components), float(slopes.tolerance[slopes.worst] / components)
    agree = bool((slopes.miss <= slopes.tolerance).all())
    if not subject.potential.conservative:
        rms, scale = _rms(slopes.miss) / components, _rms(slopes.measured) / components
        share = f", {100 * rms / scale:.2g} % of the gradient's {scale:.3g} eV/Å" if scale > 0.0 else ""
        said = "cannot be told from minus the gradient after all" if agree else f"miss minus the gradient{share}"
        return CheckItem("forces", True, f"the forces are not conservative and {said}", float(rms), None, "eV/Å")
    sentence = f"the forces are minus the gradient of the energy{_resolved(slopes)}"
    small = None if agree else slopes.cutoff()
    if small is not None:
        sentence = f"the forces are minus the gradient of the energy, {small}"
        return CheckItem("forces", True, sentence, value, tolerance, "eV/Å", warning=True)
    if not agree:
        ratio = slopes.ratio()
        sign = ": they are plus the gradient" if ratio is not None and abs(ratio + 1.0) < 0.05 else ""
        sentence = f"the forces are not minus the gradient of the energy{sign}"
    return CheckItem("forces", agree, sentence, value, tolerance, "eV/Å")


def check_units(subject: Subject, slopes: Slopes) -> CheckItem:
    """Energies and forces agree on their units; a factor that both share cannot be seen."""
    ratio = slopes.ratio()
    if ratio is None:
        return CheckItem("units", True, "whether energies and forces agree on units could not be told here")
    off = abs(abs(ratio) - 1.0)
    if off <= 0.05:
        return CheckItem("units", True, "energies in eV change as forces in eV/Å say", off, 0.05, "relative")
    sentence = f"energies change {abs(ratio):.5g} times as fast as the forces say{_guess(abs(ratio), _RATIOS)}"
    return CheckItem("units", False, sentence, off, 0.05, "relative")


def check_virial(subject: Subject) -> CheckItem:
    """The symmetric part of the virial is the derivative with respect to strain."""
    if subject.reference.virials is None:
        return CheckItem("virial", True, f"skipped: {_no_virial(subject)}", skipped=True)
    slopes = virial_slopes(subject, subject.reference.virials[0])
    return _virial_item("virial", "symmetric strain of positions and cell", subject, slopes, _cause(subject))


def _no_virial(subject: Subject) -> str:
    said = getattr(subject.potential, "absent", {}).get("stress")
    return f"the calculator claims a stress and does not compute it ({said})" if said else "there is no virial here"


def _cause(subject: Subject) -> Callable[[], str]:
    """What is likely wrong with the virial of the structure as it stands, from all its components."""

    def cause() -> str:
        try:
            sample = copies(subject.potential, subject.structure, np.eye(3)[None])
        except GoniometerError:
            return ""
        assert sample.virials is not None  # the virial of the structure itself was compared
        cells = [sample.structure.cell]
        said = cell_fault(sample) or virial_cause(
            sample.virials, measured_virials(sample), cells, len(subject.structure)
        )
        return "" if said is None else f": {said}"

    return cause


def check_rotational_gradient(subject: Subject) -> CheckItem:
    """The antisymmetric part of the virial is the derivative with respect to rotations of atoms and cell."""
    virials, name = subject.reference.virials, "rotational gradient"
    if virials is None or subject.potential.virial != "full":
        said = _no_virial(subject) if virials is None else "the virial holds no antisymmetric part"
        return CheckItem(name, True, f"skipped: {said}", skipped=True)
    slopes = rotation_slopes(subject, virials[0])

    def cause() -> str:
        ratio = slopes.ratio()
        said = "" if ratio is None else _guess(ratio, {"its sign": -1.0})
        if not subject.structure.pbc.all():
            return said
        skew = (virials[0] - virials[0].T) / 2.0
        largest = float(np.abs(skew).max() / subject.structure.get_volume())
        return f"{said}: the stress is not symmetric, by {largest:.2g} eV/Å³"

    return _virial_item(name, "rigid rotation of atoms and cell", subject, slopes, cause)


def _virial_item(name: str, path: str, subject: Subject, slopes: Slopes, cause: Callable[[], str]) -> CheckItem:
    value, tolerance = float(slopes.miss[slopes.worst]), float(slopes.tolerance[slopes.worst])
    agree = bool((slopes.miss <= slopes.tolerance).all())
    sentence = f"the virial is the derivative of the energy under {path}{_resolved(slopes)}"
    small = None if agree else slopes.cutoff()
    if small is not None:
        sentence = f"the virial is the derivative of the energy under {path}, {small}"
        return CheckItem(name, True, sentence, value, tolerance, "eV", warning=True)
    if not agree:
        sentence = f"the virial is not the derivative of the energy under {path}{cause()}"
        if not subject.potential.conservative:
            sentence += ", nor does the potential claim to be conservative"
    passed = agree or not subject.potential.conservative
    return CheckItem(name, passed, sentence, value, tolerance, "eV")


def _guess(ratio: float, known: dict[str, float]) -> str:
    for meaning, factor in known.items():
        if abs(ratio / factor - 1.0) < 0.03 or abs(ratio * factor - 1.0) < 0.03:
            return f" ({meaning}?)"
    return ""


def _resolved(slopes: Slopes) -> str:
    if slopes.resolution >= 1.0:
        return ", as far as can be told: differences of energies do not resolve it"
    return f", resolved to {100 * slopes.resolution:.2g} %"


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))
