"""What else than rotation changes a prediction is called what it is; a rotation error beside it is measured."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.build import molecule as named_molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.neighborlist import neighbor_list
from rich.console import Console

import goniometer
from goniometer.errors import InputError
from goniometer.planning.gate import breaches
from goniometer.planning.planner import plan
from goniometer.planning.tolerance import parse_limit
from goniometer.potentials import Potential
from goniometer.potentials.ase import AsePotential
from goniometer.probing.contributions import rotation_alone
from goniometer.probing.repetition import count_for
from goniometer.probing.result import ProbeResult
from goniometer.probing.symmetry import forces_vanish
from goniometer.reporting import print_probe, render_page, verdict
from goniometer.reporting.wording import remarks
from goniometer.testing import Noisy, PairToy, PeriodicToy
from goniometer.testing.faults import Aligned, EggBox, Fussy, History, Outliers
from structures import crystal, molecule


def probed(potential: Potential | Calculator, structure: Atoms, lmax: int = 2, **options: object) -> ProbeResult:
    result = goniometer.probe(potential, structure, **{"lmax": lmax, "measured": (), **options})
    assert not result.failures, result.failures
    print_probe(result, Console(file=io.StringIO()))
    return result


def said(result: ProbeResult) -> str:
    return " ".join([verdict(result), *remarks(result)])


# ---- permutation ----------------------------------------------------------------------------------------------------


class Springs(Calculator):
    """Bonds that are listed by the numbers of atoms; ``strength`` ℓ = 2 along z for each."""

    implemented_properties = ("energy", "forces")

    def __init__(self, reference: Atoms, strength: float) -> None:
        super().__init__()
        lengths = reference.get_all_distances()
        self.i, self.j = np.argwhere((lengths < 1.7) & (lengths > 0)).T
        self.lengths, self.strength = lengths[self.i, self.j], strength

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        edges = atoms.positions[self.i] - atoms.positions[self.j]
        r = np.linalg.norm(edges, axis=1)
        unit = edges / r[:, None]
        energy = np.sum(5.0 * (r - self.lengths) ** 2) + self.strength * np.sum(unit[:, 2] ** 2)
        field = np.zeros_like(unit)
        field[:, 2] = 2.0 * self.strength * unit[:, 2]
        gradient = (
            10.0 * (r - self.lengths)[:, None] * unit + (field - (field * unit).sum(1)[:, None] * unit) / r[:, None]
        )
        forces = np.zeros_like(atoms.positions)
        np.add.at(forces, self.i, -gradient)
        np.add.at(forces, self.j, gradient)
        self.results = {"energy": energy, "forces": forces}


def test_a_bonded_topology_is_recognised_and_its_rotation_error_measured() -> None:
    benzene = named_molecule("C6H6")
    result = probed(AsePotential(Springs(benzene, 0.005)), benzene)
    (found,) = result.structures
    i, j = np.argwhere((benzene.get_all_distances() < 1.7) & (benzene.get_all_distances() > 0)).T
    unit = benzene.positions[i] - benzene.positions[j]
    unit /= np.linalg.norm(unit, axis=1)[:, None]
    # Haar variance of ε Σ (u·z)²: ε² Σ_pq [(u_p·u_q)² − 1/3] · 2/15
    known = 0.005 * np.sqrt(2.0 / 15.0 * np.sum((unit @ unit.T) ** 2 - 1.0 / 3.0))
    assert found.energy.rms == pytest.approx(known, rel=1e-6)
    assert found.energy.floors.permutation > 1.0
    assert found.energy.floor < 1e-12
    assert verdict(result).startswith("Springs prefers directions")
    assert "depends on the order of the atoms" in said(result)
    assert "by the numbers of atoms, by design" in said(result)
    # Control: without the direction nothing is claimed of rotation.
    still = probed(AsePotential(Springs(benzene, 0.0)), benzene)
    assert "is at the floor" in verdict(still)
    assert "depends on the order of the atoms" in said(still)


class First(Calculator):
    """The first atom counts more: an index fault without any rotation error."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        arms = atoms.positions - atoms.positions[0]
        forces = -0.2 * arms
        forces[0] += 0.2 * arms.sum(axis=0)
        self.results = {"energy": 0.1 * float((arms**2).sum()), "forces": forces}


def test_an_index_fault_is_no_rotation_error() -> None:
    result = probed(AsePotential(First()), named_molecule("C6H6"))
    assert "is at the floor" in verdict(result)
    assert "depends on the order of the atoms" in said(result)
    assert "a fault of the model otherwise" in said(result)
    assert "order of the atoms" not in said(probed(PairToy(), molecule()))  # control


# ---- translation and cell -------------------------------------------------------------------------------------------


def test_an_egg_box_is_named_and_claims_no_direction() -> None:
    result = probed(EggBox(PairToy(), 0.003), molecule())
    figure = result.structures[0].forces
    assert figure.cause == "translation"
    assert not figure.directional
    assert figure.floor < 1e-12 < 1e-3 < figure.floors.translation
    assert verdict(result).startswith("EggBox(PairToy) breaks the symmetry of translation")
    assert "prefers" not in said(result)
    assert "No dependence on direction can be told" in verdict(result)
    assert "breaks the symmetry of translation" in render_page(result)


def test_a_rotation_error_beside_an_egg_box_is_measured() -> None:
    """The control of the control: what rotation alone changes is found within its error."""
    toy = PeriodicToy(2, 1, 0.05)
    result = probed(EggBox(toy, 0.003), molecule())
    known = probed(toy, molecule()).structures[0].forces.rms
    figure = result.structures[0].forces
    assert figure.rms < 2.5 * figure.floors.translation  # the egg box is of its size
    assert figure.rotation == pytest.approx(known, rel=0.25)
    assert 0.0 < figure.rotation_least < figure.rotation
    assert verdict(result).startswith("EggBox(")
    assert "prefers directions" in verdict(result)
    assert "breaks the symmetry of translation" in verdict(result)


@pytest.mark.nightly
def test_a_rotation_error_is_claimed_where_there_is_none_hardly_ever() -> None:
    rng = np.random.default_rng(0)
    claims = 0
    for _ in range(4000):
        square, error = rotation_alone(rng.standard_normal((64, 1)), rng.standard_normal((64, 1)))
        claims += square > 3.0 * error
    assert claims / 4000 < 0.01
    truth = rng.standard_normal((64, 1))
    square, error = rotation_alone(truth + rng.standard_normal((64, 1)), truth + rng.standard_normal((64, 1)))
    assert square > 3.0 * error


def test_a_dependence_on_the_choice_of_the_cell_is_named() -> None:
    class Shape(PairToy):
        """Depends on the lengths of the cell vectors that it is given, though the lattice is the same."""

        def turned(self, structure, matrices):
            for part in super().turned(structure, matrices):
                yield type(part)(
                    part.energies + 0.01 * structure.cell.lengths().sum(), 1.0001 * part.forces, part.virials
                )

    result = probed(Shape(), crystal())
    assert result.structures[0].energy.floors.cell > 1e-3
    assert "depends on the choice of the cell" in said(result)
    assert "is at the floor" in verdict(result)
    assert result.structures[0].energy.floors.translation < 1e-12
    assert "choice of the cell" not in said(probed(PairToy(), crystal()))  # control
    assert probed(PairToy(), molecule()).structures[0].energy.floors.cell is None


# ---- discontinuities ------------------------------------------------------------------------------------------------


class Nearest(Calculator):
    """Pairs with the ten nearest neighbors of each atom; ties go by the order in the list."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        i, j, d, edges = neighbor_list("ijdD", atoms, 3.5)
        order = np.lexsort((d, i))
        kept = order[np.concatenate([np.flatnonzero(i[order] == atom)[:10] for atom in range(len(atoms))])]
        i, j, d, edges = i[kept], j[kept], d[kept], edges[kept]
        forces = np.zeros_like(atoms.positions)
        pull = (np.exp(-d) / d)[:, None] * edges
        np.add.at(forces, i, pull)
        np.add.at(forces, j, -pull)
        self.results = {"energy": -float(np.exp(-d).sum()), "forces": forces}


def test_a_discontinuity_is_neither_noise_nor_a_direction() -> None:
    perfect = bulk("Cu", cubic=True)
    result = probed(AsePotential(Nearest()), perfect)
    figure = result.structures[0].forces
    assert figure.floors.rounding > 1e-3
    assert figure.floors.discontinuous
    assert figure.floor < 1e-12
    assert not figure.at_floor
    assert verdict(result).startswith("Nearest is discontinuous at Cu4")
    assert "prefers" not in said(result)
    assert "egg box" not in said(result)
    # Control: off the ties there is none.
    rattled = perfect.copy()
    rattled.rattle(0.05, seed=1)
    assert "is at the floor" in verdict(probed(AsePotential(Nearest()), rattled))


# ---- perfect crystals -----------------------------------------------------------------------------------------------

ELEMENTS = ("Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt")
CALCULATORS: dict[str, Callable[[], Calculator]] = {
    "EMT": EMT,
    "LJ": lambda: LennardJones(sigma=2.3, epsilon=0.1, rc=5.0),
}


@pytest.mark.parametrize("element", [ELEMENTS[1], *(pytest.param(e, marks=pytest.mark.nightly) for e in ELEMENTS)])
@pytest.mark.parametrize("name", CALCULATORS)
def test_rounding_of_a_perfect_crystal_is_no_preference(name: str, element: str) -> None:
    for structure in (bulk(element), bulk(element, cubic=True)):
        result = probed(AsePotential(CALCULATORS[name]()), structure)
        assert "is at the floor" in verdict(result), verdict(result)
        assert "By symmetry no atom of" in said(result)
        assert "not deterministic" not in said(result)


def test_a_crystal_is_named_where_symmetry_forbids_every_force() -> None:
    shaken = bulk("NaCl", "rocksalt", 5.6, cubic=True)
    assert forces_vanish(shaken)
    shaken.rattle(0.02, seed=1)
    assert not forces_vanish(shaken)
    polar = bulk("ZnO", "wurtzite", 3.25, c=5.2)  # its axis is free: a force along it is allowed
    assert not forces_vanish(polar)
    assert forces_vanish(bulk("GaAs", "zincblende", 5.6))  # no centre of inversion, yet no invariant vector
    assert not forces_vanish(molecule())


# ---- what is not deterministic --------------------------------------------------------------------------------------


def test_noise_is_called_noise() -> None:
    result = probed(Noisy(PairToy(), 1e-3, 0), crystal())
    repeats = result.structures[0].repeats
    assert repeats.kind == "noise"
    assert repeats.differing == repeats.count == 87
    assert verdict(result).startswith("Noisy(PairToy) is not deterministic: 87 of 87 evaluations")
    assert "prefers" not in said(result)
    # A rotation error beside it is measured; a deterministic potential is not called noisy.
    signal = probed(Noisy(PeriodicToy(2, 1, 0.02), 1e-3, 0), crystal())
    assert "prefers directions" in verdict(signal)
    assert "not deterministic" in verdict(signal)
    assert signal.structures[0].forces.rotation == pytest.approx(
        probed(PeriodicToy(2, 1, 0.02), crystal()).structures[0].forces.rms, rel=0.15
    )
    assert "not deterministic" not in said(probed(PeriodicToy(2, 1, 0.02), crystal()))


def test_rare_outliers_are_seen_and_called_so() -> None:
    result = probed(Outliers(PairToy(), 0.02, 0.5, 1), crystal(), lmax=4)
    assert result.structures[0].repeats.kind == "outliers"
    assert "as rare outliers" in verdict(result)
    assert "prefers" not in said(result)
    assert "deviates in axis-aligned orientations" not in said(result)
    toy = PeriodicToy(2, 1, 0.02)
    beside = probed(Outliers(toy, 0.02, 0.5, 1), crystal(), lmax=4).structures[0].energy
    assert beside.rotation == pytest.approx(np.sqrt(toy.variance(crystal())), rel=0.2)
    assert beside.directional


class Unsteady(Calculator):
    """EMT whose answers take one of two values, by the number of the call: energies and forces, or the stress alone."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, part: str) -> None:
        super().__init__()
        self.part, self.inner, self.calls = part, EMT(), 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.inner.calculate(self.atoms, ["energy", "forces", "stress"], all_changes)
        self.results = {name: np.array(self.inner.results[name]) for name in self.implemented_properties}
        self.calls += 1
        if self.calls % 2:
            if self.part == "stress":
                self.results["stress"] *= 1.1
            else:
                self.results["energy"] += 1e-3
                self.results["forces"] *= 1.01


@pytest.mark.parametrize("part", ["forces", "stress"])
def test_answers_of_two_values_are_no_preference_for_directions(part: str) -> None:
    copper = bulk("Cu", cubic=True)
    copper.rattle(0.05, seed=2)
    result = probed(Unsteady(part), copper)
    repeats = result.structures[0].repeats
    assert repeats.kind is not None
    assert repeats.differing > 0.1 * repeats.count
    assert verdict(result).startswith("Unsteady is not deterministic")
    assert "prefers" not in said(result)
    assert not result.faults, "nor is it a fault of the front end"
    assert (repeats.stress > 1e-4) is (part == "stress")


@pytest.mark.nightly
def test_an_outlier_rate_of_two_per_cent_is_seen_in_nineteen_of_twenty() -> None:
    kinds = []
    for seed in range(40):
        found = goniometer.probe(Outliers(PairToy(), 0.02, 0.5, seed), crystal(), lmax=4, measured=(), seed=seed)
        kinds.append(found.structures[0].repeats.kind)
        assert "prefers" not in said(found)
    assert kinds.count("outliers") >= 38


def test_a_dependence_on_history_is_called_so() -> None:
    result = probed(History(PairToy(), 0.01), crystal())
    assert result.structures[0].repeats.kind == "history"
    assert "state is carried from one call to the next" in verdict(result)
    assert "prefers" not in said(result)


def test_the_repetitions_are_spread_over_structures() -> None:
    assert (count_for(1, 480), count_for(3, 480), count_for(300, 480), count_for(1, 22)) == (150, 50, 8, 23)
    assert 1.0 - 0.98 ** count_for(1, 480) > 0.95
    # A probe takes some tens of per cent more than its nodes, its rules and eight of each operation.
    result = goniometer.probe(PairToy(), molecule())
    assert result.structures[0].evaluations < 1.3 * (1 + 480 + 32 + 86)


# ---- special orientations -------------------------------------------------------------------------------------------


def test_an_orientation_that_random_ones_do_not_show_is_named_gated_and_planned_for() -> None:
    along = named_molecule("CO")  # along z, as in a file
    result = probed(potential := Aligned(PairToy(), 0.01), along, measured=(("octahedral", True),))
    figure = result.structures[0].energy
    assert figure.rms < 1e-12
    assert figure.special == pytest.approx(0.01)
    assert figure.singular
    assert verdict(result).startswith("Aligned(PairToy) deviates in axis-aligned orientations as in no random one")
    assert len(breaches(result, [parse_limit("energy=1meV")])) == 1
    assert breaches(result, [parse_limit("energy=11meV")]) == []
    rows = {(row.name, row.inversion): row.energy for row in result.structures[0].rules}
    assert rows["identity", False].most == pytest.approx(0.01)
    assert rows["octahedral", True].most == pytest.approx(0.01 / 3.0)  # a third of the copies lie along z
    made = plan(result, energy="1meV", potential=potential)
    assert made.rule not in ("identity", "octahedral", "klein", "tetrahedral")
    assert made.certified is True
    # Control: off the axes nothing is special.
    tilted = along.copy()
    tilted.rotate(37.0, (1.0, 2.0, -0.5))
    still = probed(Aligned(PairToy(), 0.01), tilted)
    assert "is at the floor" in verdict(still)
    assert breaches(still, [parse_limit("energy=1meV")]) == []


def test_no_more_is_promised_than_was_measured() -> None:
    result = probed(
        PeriodicToy(2, 1, 0.02), named_molecule("CO"), measured=(("octahedral", True), ("legendre:2", True))
    )
    for row in result.structures[0].rules:
        for residual in (row.energy, row.forces):
            assert residual.most >= max(residual.measured or 0.0, residual.as_it_stands or 0.0, residual.over_turns)
    # The input orientation counts in the gate: P_2 along z is 1, its rms 1/√5.
    figure = result.structures[0].energy
    limit = parse_limit(f"energy={1.1 * figure.rms!r}eV")
    (line,) = breaches(result, [limit])
    assert "axis-aligned orientation" in line


# ---- operations that a calculator does not take ---------------------------------------------------------------------


def box() -> Atoms:
    structure = bulk("NaCl", "rocksalt", 5.6, cubic=True)
    structure.set_cell(structure.cell.array * [[1.0], [1.1], [1.0]], scale_atoms=True)
    structure.rattle(0.1, seed=1)
    return structure


@pytest.mark.parametrize(
    ("fault", "option"),
    [("inversion", "--no-inversion"), ("rotation", "--without rotation"), ("permutation", "--without permutation")],
)
def test_what_a_calculator_takes_is_measured_and_the_rest_named(fault: str, option: str) -> None:
    toy = PeriodicToy(2, 1, 0.02)
    result = probed(Fussy(toy, fault, box()), box())
    (found,) = result.structures
    assert [each.operation for each in found.left_out] == [fault]
    assert option in said(result)
    assert option in render_page(result)
    assert "prefers directions" in verdict(result)
    known = probed(toy, box()).structures[0]
    if fault != "rotation":
        assert found.energy.rms == pytest.approx(known.energy.rms, rel=1e-9)
        assert plan(result, energy="1meV", potential=Fussy(toy, fault, box())).certified is True
    else:
        assert found.energy.special == pytest.approx(known.energy.special, rel=0.05)
        assert "orientations along the axes alone cannot tell" in verdict(result)
        with pytest.raises(InputError, match="only in orientations that exchange the axes"):
            plan(result, energy="0.1meV", potential=Fussy(toy, fault, box()))
    # Control: a potential without a fault leaves nothing out.
    assert known.left_out == []


def test_an_operation_is_left_out_if_asked() -> None:
    result = probed(Fussy(PairToy(), "permutation", box()), box(), without=("permutation", "cell"))
    (found,) = result.structures
    assert found.left_out == []
    assert (found.energy.floors.permutation, found.energy.floors.cell) == (None, None)
    assert "is at the floor" in verdict(probed(Fussy(PairToy(), "rotation"), box(), without=["rotation"]))
    for name in ("inversion", "translations"):
        with pytest.raises(InputError, match="no operation that can be left out"):
            probed(PairToy(), box(), without=[name])


def test_a_structure_on_which_everything_fails_says_so() -> None:
    tilted = box()
    tilted.rotate(20.0, "z", rotate_cell=True)
    result = goniometer.probe(Fussy(PairToy(), "rotation"), [tilted, box()], lmax=1, measured=())
    assert "the box is not orthogonal" in result.failures[0].error
    assert len(result.structures) == 1  # the other one is kept


# ---- shares ---------------------------------------------------------------------------------------------------------


def test_the_headline_and_the_resolved_share_are_of_the_same_variance() -> None:
    """Content at ℓ = 1 and beyond L: shares add up to the whole, and what may be unresolved is named."""
    from goniometer.testing import SumOf

    toy = SumOf([PeriodicToy(1, -1, 0.05), PeriodicToy(4, 1, 0.1)])
    result = probed(toy, crystal(), lmax=1)
    forces = result.pooled.forces
    assert 0.5 < forces.spectrum.resolved < 0.99
    sentence = next(part for part in verdict(result).split(". ") if "of the force variance" in part)
    assert sentence.startswith("Between ")
    least = float(sentence.removeprefix("Between ").split(" %")[0])
    unresolved = float(sentence.split("up to ")[1].split(" %")[0])
    assert least == pytest.approx(100.0 * forces.spectrum.resolved, abs=1.0)
    assert least + unresolved == pytest.approx(100.0, abs=1.0)
    # Control: where everything is resolved, one share is given and nothing is unresolved.
    whole = verdict(probed(PeriodicToy(1, -1, 0.05), crystal(), lmax=2))
    assert "Nearly all of the force variance sits at ℓ = 1" in whole
    assert "not resolved" not in whole
