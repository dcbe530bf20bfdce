"""What a probe finds, as plain data: the document ``goniometer/probe/1`` and its reading and writing.

Units are eV, Å and their combinations. A number that could not be measured is ``null``, never NaN.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from goniometer.files.records import replace_text

SCHEMA = "goniometer/probe/1"


@dataclass(frozen=True)
class Spectrum:
    """The response resolved by angular momentum and parity.

    ``plus`` and ``minus`` hold P_0 … P_L, the parts even and odd under inversion, in the unit of the quantity squared
    (per component for forces and stress); P_0^plus is the square of the mean. Without inversion in the rule the
    parities cannot be told apart: ``plus`` then holds their sum and ``minus`` is None. ``floor`` is, for each ℓ, what
    noise and the leak of unresolved variance put into each P_ℓ; ``unresolved`` the variance that Σ P_ℓ does not hold;
    ``resolved`` the least share of the variance that it does.
    """

    plus: list[float]
    minus: list[float] | None
    floor: list[float]
    unresolved: float
    resolved: float | None


@dataclass(frozen=True)
class Floor:
    """By how much operations that must not matter change one evaluation (rms, per component, over √2).

    ``value`` is the noise floor: the larger of ``repeat`` and of the noise of rounding. ``translation``,
    ``permutation`` and ``cell`` (another choice of cell vectors and periodic images) are no noise but symmetries that
    may be broken, and are not in it. ``rounding`` is the change under a change of positions by their rounding;
    ``rattled`` the same for a copy with displaced atoms, measured where ``rounding`` is larger than arithmetic
    explains: where it is far smaller, the potential is discontinuous at this structure, and ``rattled`` takes the place
    of ``rounding`` in ``value``. None is what was not or could not be measured.
    """

    value: float
    repeat: float
    translation: float | None
    permutation: float | None
    rounding: float | None
    cell: float | None = None
    rattled: float | None = None

    @property
    def discontinuous(self) -> bool:
        """Whether rounding of the positions changes the prediction here by far more than it does nearby."""
        return self.rattled is not None and (self.rounding or 0.0) > _JUMP * self.rattled

    def breaks(self, operation: str) -> bool:
        """Whether the change under an operation is far beyond noise, and beyond what a discontinuity explains."""
        change: float | None = getattr(self, operation)
        return change is not None and change > _BROKEN * max(self.value, self.rounding or 0.0)


# A rounding that changes a structure this many times as much as a copy with displaced atoms finds a discontinuity.
_JUMP = 100.0
# A symmetry whose operation changes the prediction by this many times the floor is broken.
_BROKEN = 10.0


@dataclass(frozen=True)
class Figure:
    """The symmetry error of one quantity: energy in eV per structure, forces in eV/Å, stress in eV/Å³ per component.

    ``mean`` is the mean response (for forces and stress the rms of its components), ``rms`` the root of the Haar
    variance, ``as_given`` the response at the identity less the mean (signed for the energy, rms over components
    otherwise), ``max`` the largest deviation of a component over the orbit, ``floor`` the part of ``rms`` that noise
    alone would give. In a pooled figure each is the root mean square over structures (``max`` the largest), and
    ``error`` the standard error of ``rms`` over structures, None for a single one. Of an energy, ``rms_per_atom``,
    ``floor_per_atom`` and ``error_per_atom`` are ``rms``, ``floor`` and ``error`` per atom; None for other quantities.

    ``special`` is the largest deviation (rms over components) in the input orientation and its octahedral copies,
    ``random`` the largest at the randomly oriented nodes. ``cause`` names what else than rotation contributes to
    ``rms``: ``"noise"``, ``"translation"`` or ``"discontinuity"``; ``rotation`` is then the rms error under rotation
    alone, from products of two independent evaluations in the same orientation, and ``rotation_least`` what it is at
    least (three standard errors below, 0 if it cannot be told from nothing).
    """

    unit: str
    mean: float
    rms: float
    as_given: float
    max: float
    floor: float
    floors: Floor
    spectrum: Spectrum
    rms_per_atom: float | None = None
    mae_as_given: float | None = None
    error: float | None = None
    floor_per_atom: float | None = None
    error_per_atom: float | None = None
    special: float | None = None
    random: float | None = None
    cause: str | None = None
    rotation: float | None = None
    rotation_least: float | None = None

    @property
    def at_floor(self) -> bool:
        """Whether the error cannot be told from noise: rms at most twice its floor, and as given at most five times."""
        special = max(abs(self.as_given), self.special or 0.0)
        quiet = self.rms <= 2.0 * self.floor and special <= 5.0 * self.floor
        return quiet and (self.cause is None or not self.directional)

    @property
    def directional(self) -> bool:
        """Whether random orientations show a dependence on direction that nothing else explains."""
        if self.cause is None:
            return self.rms > 2.0 * self.floor
        return (self.rotation_least or 0.0) > (0.0 if self.cause == "noise" else 2.0 * self.floor)

    @property
    def unresolved(self) -> float:
        """The most variance that may lie beyond the resolved ℓ, in the unit of the quantity squared."""
        least = max(self.spectrum.unresolved, 0.0)
        if self.spectrum.resolved is None:
            return least
        return max(least, (1.0 - self.spectrum.resolved) * self.rms**2)

    @property
    def singular(self) -> bool:
        """Whether an axis-aligned orientation deviates as no random one does."""
        if self.special is None or self.random is None:
            return False
        return self.special > SINGULAR * self.random and self.special > 5.0 * self.floor


#: An axis-aligned orientation that deviates by this many times the largest deviation at random nodes is singular.
SINGULAR = 3.0


@dataclass(frozen=True)
class Torque:
    """The rotational gradient dE/dω in eV (per radian): zero for a symmetric potential.

    ``norm`` as the structure stands; ``rms`` over the orbit, of the norm, None where only finite rotations could give
    it; ``expected`` the rms that the resolved spectrum implies, √Σ ℓ(ℓ+1) P_ℓ.
    """

    norm: float
    rms: float | None
    expected: float
    floor: float

    @property
    def at_floor(self) -> bool:
        """Whether the torque, as given and over the orbit, cannot be told from noise: at most twice its floor."""
        return max(self.norm, self.rms or 0.0) <= 2.0 * self.floor


@dataclass(frozen=True)
class Residual:
    """What a rule leaves in the mean of one quantity, root mean square per component.

    ``over_turns``: √Σ P_ℓ ρ_ℓ, in the mean over random two-sided turns of the rule; ``tail``: the most that the
    unresolved variance could add; ``as_it_stands``: for the rule as it stands, from the response reconstructed from the
    probe's nodes; ``measured``: by evaluating the rule, None where that was not done; ``special``: the largest in the
    input orientation and its octahedral copies, by evaluation where the elements of the rule are among these. For other
    rules it is an upper bound where one of these orientations is singular, and None where none is.
    """

    over_turns: float
    tail: float
    as_it_stands: float | None = None
    measured: float | None = None
    special: float | None = None

    @property
    def most(self) -> float:
        """The most that is predicted or was measured to remain: the one figure of headline, remedy and plan.

        max(√(max(over_turns, as_it_stands)² + tail²), measured, special).
        """
        predicted = math.hypot(max(self.over_turns, self.as_it_stands or 0.0), self.tail)
        return max(predicted, self.measured or 0.0, self.special or 0.0)


@dataclass(frozen=True)
class RuleResidual:
    """The residuals of one rule; ``n`` is the number of evaluations that it costs."""

    name: str
    n: int
    degree: int
    inversion: bool
    energy: Residual
    forces: Residual
    stress: Residual | None = None


@dataclass(frozen=True)
class SphereMap:
    """δE in eV against the direction, in the structure's frame, of a laboratory axis; averaged over turns about it.

    ``values[i][j]`` belongs to latitude i and longitude j (degrees); ``share`` is the share of the variance that it
    shows.
    """

    axis: str
    latitude: list[float]
    longitude: list[float]
    values: list[list[float]]
    share: float


@dataclass(frozen=True)
class Repeats:
    """Evaluations that were repeated in another order: ``count`` of them, of which ``differing`` gave another answer.

    ``kind`` is None for a deterministic calculator (to rounding), else ``"noise"`` (most differ), ``"outliers"`` (a
    few do) or ``"history"`` (an evaluation depends on those before it, and the same sequence gives the same again).
    ``energy`` in eV, ``forces`` in eV/Å and ``stress`` in eV/Å³ (None where there is none) are the largest differences
    of a component.
    """

    count: int
    differing: int
    kind: str | None
    energy: float
    forces: float
    stress: float | None = None


@dataclass(frozen=True)
class LeftOut:
    """An operation that was not applied to a structure, and the sentence that says why.

    ``operation`` is ``"inversion"``, ``"rotation"`` (other than those that map the axes onto each other),
    ``"translation"``, ``"permutation"``, ``"cell"`` or ``"rounding"``.
    """

    operation: str
    reason: str


@dataclass(frozen=True)
class StructureResult:
    """Everything found for one structure.

    ``symmetric`` says that every atom sits at a centre of inversion: forces vanish there whatever the potential is.
    """

    name: str
    n_atoms: int
    formula: str
    numbers: list[int]
    positions: list[list[float]]
    cell: list[list[float]]
    pbc: list[bool]
    evaluations: int
    seconds: float
    energy: Figure
    forces: Figure
    stress: Figure | None
    torque: Torque
    net_force: float
    force_rms_per_atom: list[float]
    orbit_energies: list[float]
    sphere: SphereMap
    rules: list[RuleResidual]
    repeats: Repeats | None = None
    left_out: list[LeftOut] = field(default_factory=list)
    symmetric: bool = False


@dataclass(frozen=True)
class Failure:
    """A structure that could not be probed, and the sentence that says why."""

    name: str
    error: str

    @property
    def sentence(self) -> str:
        """The error with the name of the structure in front."""
        return self.error if self.error.startswith(f"{self.name}:") else f"{self.name}: {self.error}"


@dataclass(frozen=True)
class Pooled:
    """The figures over all structures; energies per structure and per atom."""

    n_structures: int
    energy: Figure
    forces: Figure
    stress: Figure | None
    torque: Torque
    rules: list[RuleResidual]


@dataclass(frozen=True)
class ModelInfo:
    """The potential that was probed."""

    name: str
    dtype: str
    virial: str
    conservative: bool
    stochastic: bool


@dataclass(frozen=True)
class RuleInfo:
    """The rule that was used."""

    name: str
    n: int
    degree: int
    inversion: bool
    seed: int | None


@dataclass(frozen=True)
class ProbeResult:
    """The whole document.

    ``tail_factor`` is the most that the variance beyond lmax may be, as a multiple of what the spectra leave
    unresolved: a property of the rule. None in documents that were written before it was recorded. ``faults`` says on
    which structures an average over rotations would not be a potential, and why: the forces or the stress of rotated
    copies are not derivatives of their energies. ``without`` holds the operations that were left out by request.
    """

    model: ModelInfo
    rule: RuleInfo
    lmax: int
    structures: list[StructureResult]
    pooled: Pooled | None
    failures: list[Failure] = field(default_factory=list)
    complete: bool = True
    seconds: float = 0.0
    peak_memory_bytes: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""
    tail_factor: float | None = None
    faults: list[Failure] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    schema: str = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """The document as plain dictionaries and lists."""
        return asdict(self)

    def to_json(self) -> str:
        """The document as JSON; a number that is not finite raises ValueError."""
        return json.dumps(self.to_dict(), allow_nan=False, indent=1)

    def write(self, path: Path) -> None:
        """Write the document to a file."""
        replace_text(path, self.to_json())
