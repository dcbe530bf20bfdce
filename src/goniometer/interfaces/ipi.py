"""i-PI's face of a potential: what its ``ffdirect`` calls in process, and its drivers over sockets.

i-PI counts in bohr and hartree, and holds a cell as columns, h = (a b c). Its virial V is minus the derivative of the
energy by the strain x → (1 + ε) x of column vectors; the W of a :class:`goniometer.potentials.Prediction` is that of
row vectors. Hence h = cellᵀ and V = −Wᵀ. Of V i-PI uses the upper triangle alone, the strains that keep h triangular:
the transpose matters wherever W is not symmetric, that is, for potentials whose symmetry is broken.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, TypeAlias
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from ase import Atoms
from ipi.utils.units import unit_to_internal
from jaxtyping import Float64

from goniometer.errors import InputError
from goniometer.potentials.base import Potential, checked
from goniometer.potentials.batching import ATOMS_AT_ONCE
from goniometer.potentials.loading import is_factory, load, parse_options
from goniometer.strategies import PLAN, symmetrize
from goniometer.structures import check_structure, read_structures
from goniometer.symmetrization.tumbling import Tumbling

# The units that i-PI calls angstrom and electronvolt, so that what it prints in them is what the potential saw and
# said. The force is their quotient: i-PI's own ev/ang differs from it by 1e-7, and would not be the gradient.
ANGSTROM: float = unit_to_internal("length", "angstrom", 1.0)  # bohr
ELECTRONVOLT: float = unit_to_internal("energy", "electronvolt", 1.0)  # hartree

# Parameters of :func:`pes` that are no text.
_KINDS: dict[str, type] = {
    **dict.fromkeys(("inversion", "proper", "space_group", "verify"), bool),
    **dict.fromkeys(("seed", "batch"), int),
    **dict.fromkeys(("timestep", "period", "memory"), float),
}

#: Energy (hartree), forces (N, 3; hartree/bohr), virial (3, 3; hartree), and text that i-PI keeps beside them.
Answer: TypeAlias = tuple[float, np.ndarray, np.ndarray, str]


class PotentialPES:
    """A potential as i-PI calls it, for structures like the one that is given.

    i-PI sends positions and a cell; the kinds of the atoms and the directions that are periodic are those of the
    structure, and so are cell vectors along directions that are not. Nothing is kept from one call to the next, but for
    the frame of a tumbling potential, which goes on with every new structure.

    Parameters
    ----------
    potential
        Any potential.
    structure
        A structure with the atoms of the simulation, in its order.
    name
        What errors call the structure.

    Raises :class:`InputError` if the structure cannot be used.
    """

    def __init__(self, potential: Potential, structure: Atoms, name: str = "the structure") -> None:
        check_structure(structure, name)
        self.potential, self.name = potential, name
        self.structure = structure.copy()
        self.structure.set_constraint()

    def __call__(self, cell: Any, positions: Any) -> Answer | list[Answer]:
        """Evaluate h (3, 3) and positions (N, 3) in bohr, or lists of them.

        Without a virial of the potential, that of i-PI is NaN: it is not zero, and no barostat can use it.

        Raises :class:`InputError` for structures that make no sense and :class:`PotentialError` if the model fails.
        """
        if isinstance(cell, list):
            if len(cell) > 1 and isinstance(self.potential, Tumbling):
                raise InputError(
                    "a tumbling frame follows one structure, and i-PI asks for several: use one bead and one system"
                )
            return [self.evaluate(*each) for each in zip(cell, positions, strict=True)]
        return self.evaluate(cell, positions)

    def evaluate(self, cell: Float64[np.ndarray, "3 3"], positions: np.ndarray) -> Answer:
        """Evaluate one structure."""
        atoms = self._received(cell, positions)
        prediction = checked(self.potential.follow(atoms), atoms, self.potential.name)
        virials = prediction.virials
        virial = np.full((3, 3), np.nan) if virials is None else -ELECTRONVOLT * virials[0].T
        return (
            ELECTRONVOLT * float(prediction.energies[0]),
            np.ascontiguousarray(prediction.forces[0] * (ELECTRONVOLT / ANGSTROM)),
            np.ascontiguousarray(virial),
            "",
        )

    def _received(self, cell: Float64[np.ndarray, "3 3"], positions: np.ndarray) -> Atoms:
        atoms = self.structure.copy()
        if positions.size != 3 * len(atoms):
            raise InputError(f"i-PI sends {positions.size // 3} atoms, but {self.name} has {len(atoms)}")
        atoms.positions = positions.reshape(-1, 3) / ANGSTROM
        atoms.cell = np.where(atoms.pbc[:, None], cell.T / ANGSTROM, atoms.cell.array)
        check_structure(atoms, "the structure that i-PI sends")
        return atoms


def pes(
    model: str,
    structure: str,
    *,
    rule: str | None = None,
    space_group: bool = False,
    options: str | list[str] | None = None,
    device: str | None = None,
    dtype: str | None = None,
    forces: str = "conservative",
    batch: int | None = None,
    **how: Any,
) -> PotentialPES:
    """The face of a model that is described by names and numbers, as in i-PI's input.

    Parameters
    ----------
    model, device, dtype, forces
        As for :func:`goniometer.load`.
    structure
        A file with one structure (``file.xyz@0`` chooses one of several), or the name of a packaged one.
    rule
        As for :func:`goniometer.symmetrize`. Without one the model stays as it is, or, with another strategy than
        ``average``, is turned alone, without its inverse. ``plan`` probes the structure when the potential is made.
    space_group
        Whether all structures keep the space group of this one.
    options
        Arguments of a factory: ``"epsilon=0.01 cutoff=5"``, or a list of such pairs.
    batch
        Copies evaluated at once; by default as many as have ``ATOMS_AT_ONCE`` atoms. Never chosen by a clock.
    **how
        ``inversion``, ``strategy``, ``seed``, ``proper``, ``key``, ``timestep``, ``period``, ``memory``,
        ``force_tolerance``, ``energy_tolerance`` and ``stress_tolerance``, as for :func:`goniometer.symmetrize`.
        ``tumble`` is for one system of one bead, whose forces are asked for once a step.

    Raises :class:`InputError` if there is no such thing.
    """
    _check_names(how)
    found = read_structures(str(structure))
    if len(found) != 1:
        raise InputError(f"'{structure}' holds {len(found)} structures; one is needed: write {structure}@0")
    name, atoms = found[0]
    check_structure(atoms, name)
    atoms.info["name"] = name
    if batch is None and not is_factory(model):
        batch = max(1, ATOMS_AT_ONCE // len(atoms))
    pairs = parse_options(options.split() if isinstance(options, str) else options or [])
    potential = load(model, device=device, dtype=dtype, forces=forces, batch=batch, options=pairs)
    how["space_group"] = atoms if space_group else None
    return PotentialPES(_symmetrized(potential, rule, found, how), atoms, name)


def _symmetrized(potential: Potential, rule: str | None, structures: list[Any], how: dict[str, Any]) -> Potential:
    """:func:`symmetrize`, with arguments that are None as good as not given, and no rule by default."""
    given = {name: value for name, value in how.items() if value is not None}
    if given.get("key") == "step":
        raise InputError("i-PI tells a potential no step: the key of a random turn is 'positions'")
    if rule is None and given.get("strategy", "average") == "average":
        for name in given.keys() - {"strategy"}:
            if given[name] != _DEFAULTS[name]:
                raise InputError(f"{name} goes with a rule, and none is given")
        return potential
    if rule is None:
        rule, given = "identity", {"inversion": False, **given}
    return symmetrize(potential, rule, structures=structures if rule == PLAN else None, **given)


def pes_from_input(**parameters: Any) -> PotentialPES:
    """:func:`pes`, from the ``<parameters>`` of i-PI's input or the ``-o`` of its driver, where values are of any type.

    Raises :class:`InputError` also for a parameter that does not exist.
    """
    given = {key: value for key, value in parameters.items() if key not in ("verbosity", "verbose")}
    _check_names(given)
    missing = [key for key in ("model", "structure") if key not in given]
    if missing:
        raise InputError(f"the parameters of the potential lack the {' and the '.join(missing)}")
    for key, value in given.items():
        kind = _KINDS.get(key, str)
        # i-PI has read a number in 5 and in a file called 1.
        if kind is str or (kind is float and type(value) is int):
            given[key] = value = kind(value)
        if type(value) is not kind:
            raise InputError(f"the parameter '{key}' is '{value}'; it must be of type {kind.__name__}")
    return pes(**given)


def forcefield(model: str, structure: str, *, name: str = "goniometer", **parameters: Any) -> str:
    """The line of i-PI's input that evaluates a model in process; ``parameters`` are those of :func:`pes`.

    Those that have their default are left out.

    Raises :class:`InputError` for a parameter that does not exist, or a value that i-PI's input cannot hold.
    """
    _check_names(parameters)
    options = parameters.pop("options", None)
    if options:
        parameters["options"] = options if isinstance(options, str) else " ".join(options)
    given = {"model": model, "structure": structure, **parameters}
    given = {key: value for key, value in given.items() if value is not None and value != _DEFAULTS[key]}
    for key, value in given.items():
        if set(str(value)) & set(",{}\n"):
            raise InputError(f"i-PI's input cannot hold the {key} '{value}': a comma, a brace or a new line is in it")
    listed = ", ".join(f"{key}: {value}" for key, value in given.items())
    # i-PI takes a file, which it enters under its stem among the modules: a name of its own, not that of a package.
    path = Path(__file__).with_name("ipi_pes.py")
    return (
        f"<ffdirect name={quoteattr(name)}><pes>custom</pes><pes_path>{escape(str(path))}</pes_path>"
        f"<parameters>{{{escape(listed)}}}</parameters></ffdirect>"
    )


def _check_names(parameters: dict[str, Any]) -> None:
    for key in parameters:
        if key not in _DEFAULTS:
            raise InputError(f"there is no parameter '{key}'; the parameters are {', '.join(_DEFAULTS)}")


def _defaults() -> dict[str, Any]:
    """The parameters of :func:`pes`, those that it hands on to :func:`symmetrize` included."""
    own = {name: each.default for name, each in inspect.signature(pes).parameters.items() if name != "how"}
    handed = inspect.signature(symmetrize).parameters.values()
    more = {each.name: each.default for each in handed if each.kind is each.KEYWORD_ONLY and each.name != "structures"}
    return {**own, **{name: default for name, default in more.items() if name not in own}}


_DEFAULTS = _defaults()
