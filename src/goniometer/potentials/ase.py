"""Any ASE calculator as a potential: whole structures are rotated, and evaluated one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError, all_changes
from ase.stress import voigt_6_to_full_3x3_stress
from jaxtyping import Float64

from goniometer.errors import GoniometerError, InputError, PotentialError
from goniometer.potentials.base import Potential, Prediction, checked
from goniometer.structures.rotation import turned


class _NotImplementedError(PotentialError):
    """A property that a calculator claims to implement, and does not."""


# Antisymmetric part of a stress, relative to its largest component, beyond which it is no rounding.
_SKEW = 1e-6


class AsePotential(Potential):
    """The potential that an ASE calculator computes.

    The forces are the raw ones: constraints of the structure are not applied. The virial is the stress times the
    volume, for structures that are periodic in three directions, if the calculator implements the stress. In Voigt
    order it is symmetric; of a stress (3, 3), σ_ab = ∂E/∂ε_ab/V under x → x (1 + ε), the antisymmetric part is kept,
    and ``virial`` is ``full`` from the first evaluation on in which that part is not zero. The calculator is given a
    fresh copy each time, after a ``reset()`` and with everything declared changed, so that neither cached results nor
    neighbor lists with a skin carry over from one structure to the next. The energy is the property ``energy``. Cells
    are right-handed: the calculator is handed −a, −b, −c, the same lattice, where a, b, c would be left-handed. A
    stress that the calculator claims and does not implement is done without.

    Parameters
    ----------
    calculator
        An ASE calculator, or a function without arguments that makes one.
    name
        What reports call it; the name of the calculator's class by default.
    dtype
        The arithmetic of the calculator; ASE does not know it.
    conservative
        Whether its forces claim to be minus the gradient of its energy.

    Raises :class:`InputError` if it is not a calculator, and :class:`PotentialError` if it does not compute forces.
    """

    def __init__(
        self,
        calculator: Any,
        *,
        name: str | None = None,
        dtype: Literal["float32", "float64"] = "float64",
        conservative: bool = True,
    ) -> None:
        if not is_calculator(calculator) and callable(calculator):
            calculator = made_by(calculator, name or str(getattr(calculator, "__name__", "given")), {})
        if not is_calculator(calculator):
            raise InputError(f"an ASE calculator is needed, not {type(calculator).__name__}")
        self._calculator = calculator
        self.name = name or type(calculator).__name__
        self.dtype = dtype
        self.conservative = conservative
        # What does not say what it computes is asked for energy and forces.
        implemented = getattr(calculator, "implemented_properties", None) or ["energy", "forces"]
        for needed in ("energy", "forces"):
            if needed not in implemented:
                raise PotentialError(f"{self.name} does not compute {needed}, only {', '.join(sorted(implemented))}")
        self.virial = "symmetric" if "stress" in implemented else "none"
        self.atomic = "energies" in implemented
        #: Properties that the calculator claims and does not compute, each with what it said.
        self.absent: dict[str, str] = {}

    def turned(self, structure: Atoms, matrices: Float64[np.ndarray, "K 3 3"]) -> Iterator[Prediction]:
        """Evaluate turned copies, one at a time; see :meth:`goniometer.potentials.Potential.turned`."""
        free = structure.copy()
        free.set_constraint()
        for matrix in matrices:
            yield self._evaluated(turned(free, matrix))

    def as_handed(self, structure: Atoms) -> Prediction:
        """The answer of the calculator for a structure whose cell is handed to it unchanged, left-handed or not."""
        return self._evaluated(structure)

    def _evaluated(self, structure: Atoms) -> Prediction:
        count = len(structure)
        results = self._all_results(structure)
        virials = atomic = None
        if results.get("energies") is not None:
            atomic = self._array("energies", results["energies"], ((count,),))[None]
        if results.get("stress") is not None:
            stress = self._array("stress", results["stress"], ((6,), (3, 3)))
            full = voigt_6_to_full_3x3_stress(stress) if stress.shape == (6,) else stress
            if np.abs(full - full.T).max() > _SKEW * np.abs(full).max():
                # What the calculator gives is known only now. Nine components that are symmetric may have been made so,
                # and then say nothing of the rotational gradient.
                self.virial = "full"
            virials = full[None] * structure.get_volume()
        prediction = Prediction(
            self._array("energy", results.get("energy"), ((), (1,))).reshape(1),
            self._array("forces", results.get("forces"), ((count, 3),))[None],
            virials,
            atomic,
        )
        return checked(prediction, structure, self.name)

    def _all_results(self, structure: Atoms) -> dict[str, Any]:
        """What the calculator computes, without the optional properties that it claims and does not implement."""
        while True:
            stress_wanted = self.virial != "none" and bool(structure.pbc.all())
            optional = [*(["stress"] if stress_wanted else []), *(["energies"] if self.atomic else [])]
            try:
                # Calculators may wrap, sort or decorate what they are given.
                return self._results(structure.copy(), ["energy", "forces", *optional])
            except _NotImplementedError as error:
                if not optional:
                    raise
                # The one that it speaks of; else the one after the other.
                named = [name for name in optional if name in str(error)] or optional
                self.absent[named[0]] = str(error)
                if named[0] == "stress":
                    self.virial = "none"
                else:
                    self.atomic = False

    def _results(self, structure: Atoms, properties: list[str]) -> dict[str, Any]:
        """Whatever the calculator answers; any error it raises becomes a :class:`PotentialError`."""
        calculator = self._calculator
        try:
            if hasattr(calculator, "reset"):
                calculator.reset()
            if hasattr(calculator, "calculate") and hasattr(calculator, "results"):
                # All at once: asking for one property after another may compute each anew.
                calculator.calculate(structure, properties, list(all_changes))
                return {name: calculator.results.get(name) for name in properties}
            structure.calc = calculator
            getters = {
                "energy": structure.get_potential_energy,
                "forces": lambda: structure.get_forces(apply_constraint=False),
                "stress": lambda: structure.get_stress(apply_constraint=False),
                "energies": structure.get_potential_energies,
            }
            return {name: getters[name]() for name in properties}
        except GoniometerError:
            raise
        except PropertyNotImplementedError as error:
            raise _NotImplementedError(f"{self.name} does not compute what is needed: {sentence(error)}") from error
        except (Exception, SystemExit) as error:
            raise PotentialError(
                f"{self.name} failed on {structure.get_chemical_formula()}: {sentence(error)}"
            ) from error

    def _array(self, part: str, values: Any, shapes: tuple[tuple[int, ...], ...]) -> Float64[np.ndarray, "..."]:
        if values is None:
            raise PotentialError(f"{self.name} gave no {part}")
        try:
            array = np.array(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise PotentialError(f"{self.name} gave {part} that are not numbers: {sentence(error)}") from error
        if array.shape not in shapes:
            expected = " or ".join(str(shape) for shape in shapes)
            raise PotentialError(f"{self.name} gave {part} of shape {array.shape}; it must be {expected}")
        return array


def is_calculator(candidate: object) -> bool:
    """Whether this is an object that ASE could use as a calculator (and not the class of one)."""
    return not isinstance(candidate, type) and all(
        callable(getattr(candidate, method, None)) for method in ("get_potential_energy", "get_forces")
    )


def sentence(error: BaseException, limit: int = 300) -> str:
    """The message of a foreign error on one line, with its kind: ``No EMT-potential for O (NotImplementedError)``."""
    text = " ".join(str(error).split()).rstrip(".")
    kind = type(error).__name__
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return f"{text} ({kind})" if text else kind


def made_by(factory: Callable[..., Any], name: str, options: dict[str, Any]) -> Any:
    """What a factory returns; an error in it becomes an :class:`InputError`."""
    try:
        return factory(**options)
    except GoniometerError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"the factory {name} failed: {sentence(error)}") from error
