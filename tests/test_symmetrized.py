"""`goniometer.symmetrize`: its arguments, planned rules, the ASE calculator, and the numbers of other packages."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.constraints import FixSymmetry
from ase.io.trajectory import Trajectory
from ase.optimize import BFGS
from ase.stress import full_3x3_to_voigt_6_stress

import goniometer
from goniometer import symmetrize
from goniometer.errors import InputError, PotentialError
from goniometer.files.packaged import packaged_files
from goniometer.potentials import AsePotential, Potential, Prediction
from goniometer.rotations import Rule, random_rotations, rule
from goniometer.strategies import STRATEGIES, Planned
from goniometer.structures import read_structures
from goniometer.structures.rotation import turned
from goniometer.symmetrization import Averaged, CrystalAveraged, RandomlyTurned, Tumbling, frozen
from goniometer.testing import MolecularToy, Noisy, PairToy, PeriodicToy, SumOf

EPS = float(np.finfo(np.float64).eps)
EPS32 = float(np.finfo(np.float32).eps)


def water() -> Atoms:
    return read_structures("molecule")[0].atoms


def rocksalt() -> Atoms:
    return bulk("NaCl", "rocksalt", 5.6, cubic=True)


class Counting(Potential):
    """Counts evaluations and copies; shares the energy evenly among the atoms."""

    virial, atomic = "full", True

    def __init__(self, potential: Potential) -> None:
        self.potential, self.name, self.calls, self.copies = potential, "counting", 0, 0

    def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
        self.calls += 1
        self.copies += len(matrices)
        for part in self.potential.turned(structure, matrices):
            atomic = np.repeat(part.energies[:, None] / len(structure), len(structure), axis=1)
            yield Prediction(part.energies, part.forces, part.virials, atomic)


# Arguments


def test_every_strategy_makes_its_potential() -> None:
    toy = MolecularToy(2, 1, 0.05)
    made = {
        "average": symmetrize(toy),
        "random": symmetrize(toy, "klein", strategy="random", seed=4, proper=True, key="step"),
        "frozen": symmetrize(toy, "klein", strategy="frozen", seed=4, proper=True),
        "tumble": symmetrize(toy, "klein", strategy="tumble", timestep=0.5, period=300.0, memory=900.0, seed=4),
    }
    assert tuple(made) == STRATEGIES
    kinds = [type(potential) for potential in made.values()]
    assert kinds == [Averaged, RandomlyTurned, Averaged, Tumbling]
    for potential in made.values():
        assert isinstance(potential, Potential)
        assert potential.potential is toy
        assert potential.rule.inversion
        assert potential.virial == "full"
    average, random, froze, tumble = made.values()
    assert (average.rule.name, len(average.rule)) == ("octahedral", 48)
    assert froze.name.endswith("averaged over klein with inversion (8), frozen by proper seed 4")
    assert (random.seed, random.proper, random.key) == (4, True, "step")
    assert (froze.rule.matrices == frozen(rule("klein", inversion=True), 4, proper=True).matrices).all()
    assert (tumble.timestep, tumble.period, tumble.memory, tumble.frame.seed) == (0.5, 300.0, 900.0, 4)
    assert isinstance(symmetrize(PeriodicToy(2), space_group=rocksalt()), CrystalAveraged)


def test_rules_come_by_name_or_as_they_are() -> None:
    toy = PairToy()
    assert len(symmetrize(toy, "degree:5").rule) == 120
    assert len(symmetrize(toy, "degree:5", inversion=False).rule) == 60
    own = rule("klein")
    assert symmetrize(toy, own).rule is own
    assert symmetrize(toy, own, inversion=False).rule is own


def test_what_can_be_loaded_can_be_symmetrized() -> None:
    for given in ("pet-water", EMT(), EMT):
        assert "averaged over klein with inversion (8)" in symmetrize(given, "klein").name
    with pytest.raises(InputError):
        symmetrize("no-such-model")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"strategy": "mean"}, "the strategy is 'average', 'random', 'frozen' or 'tumble', not 'mean'"),
        ({"rule": "cubic"}, "unknown rule 'cubic'"),
        ({"rule": rule("klein"), "inversion": True}, "the rule klein comes without inversion as it is"),
        ({"rule": rule("klein", True), "inversion": False}, "the rule klein comes with inversion as it is"),
        ({"strategy": "tumble"}, "needs the time step of the simulation: timestep=0.5, in fs"),
        ({"timestep": 0.5}, "timestep does not go with strategy 'average' and rule 'octahedral'"),
        ({"strategy": "random", "timestep": 0.5}, "timestep does not go with strategy 'random'"),
        ({"period": 500.0}, "period does not go with strategy 'average'"),
        ({"strategy": "frozen", "memory": 500.0}, "memory does not go with strategy 'frozen'"),
        ({"proper": True}, "proper does not go with strategy 'average'"),
        ({"key": "step"}, "key does not go with strategy 'average'"),
        ({"strategy": "random", "key": "time"}, "the key of a random turn is 'positions' or 'step', not 'time'"),
        ({"strategy": "random", "seed": -1}, "0 or more, not -1"),
        ({"strategy": "frozen", "space_group": rocksalt()}, "space_group does not go with strategy 'frozen'"),
        ({"structures": [water()]}, "structures does not go with strategy 'average' and rule 'octahedral'"),
        ({"force_tolerance": 0.1}, "a tolerance goes with rule='plan', not with 'octahedral'"),
        ({"rule": "plan"}, "a planned rule needs a tolerance, force_tolerance='0.1meV/Å' for instance"),
        ({"rule": "plan", "force_tolerance": 1.0, "strategy": "random"}, "goes with strategy 'average', not 'random'"),
        ({"rule": "plan", "force_tolerance": 1.0, "inversion": True}, "inversion does not go with .* rule 'plan'"),
        ({"rule": "plan", "force_tolerance": 1.0, "space_group": rocksalt()}, "space_group does not go with"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_what_does_not_go_together_is_refused_in_a_sentence(arguments: dict, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        symmetrize(PairToy(), **arguments)
    assert "\n" not in str(caught.value)


def test_every_argument_is_documented() -> None:
    from goniometer.strategies import symmetrize as function

    for name in inspect.signature(function).parameters:
        assert name in function.__doc__.partition("Parameters")[2], name


# Planned


def broken() -> Potential:
    """Needs degree 2 for 1 meV/Å, and no more."""
    return SumOf([PeriodicToy(1, -1, 0.02), PeriodicToy(2, 1, 0.02), PeriodicToy(6, 1, 1e-5)])


def test_a_planned_rule_is_probed_for_once_certified_and_kept() -> None:
    counted = Counting(broken())
    potential = symmetrize(counted, "plan", force_tolerance="1meV/Å")
    assert isinstance(potential, Planned)
    assert potential.plan is None
    assert counted.copies == 0
    structure = water()
    potential.predict(structure)
    plan, probed = potential.plan, counted.copies
    assert plan.certified
    assert probed > 100
    chosen = rule(plan.rule, plan.inversion)
    structure.positions += 0.05 * np.random.default_rng(0).standard_normal((3, 3))
    found = potential.predict(structure)
    assert counted.copies == probed + len(chosen)
    assert potential.plan is plan
    assert found.energies[0] == Averaged(broken(), chosen).predict(structure).energies[0]
    # It meets what it was made for, and a cheaper one, the control, does not.
    exact = 3.0 * PairToy().predict(structure).forces
    assert np.sqrt(np.mean((found.forces - exact) ** 2)) < 1e-3
    assert np.sqrt(np.mean((Averaged(broken(), rule("identity", True)).predict(structure).forces - exact) ** 2)) > 2e-3


def test_a_plan_is_made_at_once_if_structures_are_given() -> None:
    potential = symmetrize(broken(), "plan", force_tolerance="1meV/Å", energy_tolerance="1meV", structures="molecule")
    assert potential.plan is not None
    assert set(potential.plan.tolerances) == {"forces 1meV/Å", "energy 1meV"}
    assert "force 1meV/Å, energy 1meV" in potential.name


def test_what_cannot_be_certified_is_an_error() -> None:
    noisy = Noisy(MolecularToy(2, 1, 0.05), 1e-3, seed=0)
    with pytest.raises((PotentialError, InputError), match=r"floor|not certified"):
        symmetrize(noisy, "plan", force_tolerance="0.01meV/Å", structures=water())
    later = symmetrize(noisy, "plan", force_tolerance="0.01meV/Å")
    with pytest.raises((PotentialError, InputError), match=r"floor|not certified"):
        later.predict(water())
    with pytest.raises(InputError, match="tolerance"):
        symmetrize(broken(), "plan", force_tolerance="much", structures=water())


# The calculator


def calculator_of(potential: Potential, structure: Atoms) -> Atoms:
    structure.calc = potential.calculator()
    return structure


def test_a_calculator_says_what_it_implements() -> None:
    counted = symmetrize(Counting(PeriodicToy(2, 1, 0.05)), "klein").calculator()
    assert set(counted.implemented_properties) == {"energy", "free_energy", "forces", "energies", "stress"}
    plain = symmetrize(MolecularToy(2, 1, 0.05), "klein").calculator()
    assert set(plain.implemented_properties) == {"energy", "free_energy", "forces", "stress"}
    with pytest.raises(PropertyNotImplementedError):
        calculator_of(symmetrize(MolecularToy(2), "klein"), water()).get_potential_energies()
    with pytest.raises(PropertyNotImplementedError):
        calculator_of(symmetrize(MolecularToy(2), "klein"), water()).get_stress()


def test_a_calculator_evaluates_a_structure_once() -> None:
    counted = Counting(PeriodicToy(2, 1, 0.05))
    atoms = calculator_of(symmetrize(counted, "klein", verify=False), rocksalt())
    for _ in range(2):
        atoms.get_potential_energy()
        atoms.get_forces()
        atoms.get_stress()
        atoms.get_potential_energies()
    assert (counted.calls, counted.copies) == (1, 8)
    atoms.set_velocities(np.ones((8, 3)))
    atoms.get_forces()
    assert counted.calls == 1
    atoms.positions[0, 0] += 1e-9
    atoms.get_forces()
    assert counted.calls == 2


def test_results_are_those_of_the_potential_in_the_order_of_ase() -> None:
    structure = rocksalt()
    structure.rattle(0.1, seed=2)
    structure.set_cell(structure.cell.array + 0.1 * np.random.default_rng(2).standard_normal((3, 3)), scale_atoms=True)
    potential = symmetrize(Counting(PeriodicToy(4, 1, 0.05)), "klein")
    expected = potential.predict(structure)
    atoms = calculator_of(potential, structure)
    assert atoms.get_potential_energy() == expected.energies[0]
    assert (atoms.get_forces() == expected.forces[0]).all()
    assert (atoms.get_potential_energies() == expected.atomic[0]).all()
    symmetric = (expected.virials[0] + expected.virials[0].T) / 2.0 / structure.get_volume()
    np.testing.assert_allclose(atoms.get_stress(), full_3x3_to_voigt_6_stress(symmetric), atol=1e-15)
    # xx, yy, zz, yz, xz, xy: all different, so that an order is seen.
    assert atoms.get_stress()[3] == pytest.approx(symmetric[1, 2])
    assert np.diff(np.sort(atoms.get_stress())).min() > 1e-6
    assert atoms.calc.spread.energies == expected.spread.energies
    assert "spread" not in atoms.calc.results


def test_fixsymmetry_changes_nothing_of_an_average_over_the_group() -> None:
    potential = symmetrize(PeriodicToy(2, 1, 0.05), "octahedral")
    free, held = (calculator_of(potential, rocksalt()) for _ in range(2))
    held.set_constraint(FixSymmetry(held))
    np.testing.assert_allclose(held.get_forces(), free.get_forces(), atol=1e-10)
    np.testing.assert_allclose(held.get_stress(), free.get_stress(), atol=1e-10)
    raw = calculator_of(PeriodicToy(2, 1, 0.05), rocksalt())
    before = raw.get_stress()
    raw.set_constraint(FixSymmetry(raw))
    assert np.abs(raw.get_stress() - before).max() > 1e-6  # the control


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_results_are_written_and_read(strategy: str, tmp_path: Path) -> None:
    timestep = {"timestep": 0.5} if strategy == "tumble" else {}
    potential = symmetrize(Counting(PeriodicToy(2, 1, 0.05)), "klein", strategy=strategy, verify=False, **timestep)
    counted, atoms = potential.potential, calculator_of(potential, rocksalt())
    energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    ase.io.write(tmp_path / "frame.extxyz", atoms)
    with Trajectory(tmp_path / "frames.traj", "w", atoms) as trajectory:
        trajectory.write()
    assert counted.calls == 1
    for name in ("frame.extxyz", "frames.traj"):
        read = ase.io.read(tmp_path / name)
        assert read.get_potential_energy() == pytest.approx(energy, abs=1e-7)
        np.testing.assert_allclose(read.get_forces(), forces, atol=1e-7)
        np.testing.assert_allclose(read.get_stress(), stress, atol=1e-7)


def test_optimizers_write_trajectories(tmp_path: Path) -> None:
    atoms = calculator_of(symmetrize(MolecularToy(2, 1, 0.05)), water())
    assert BFGS(atoms, logfile=None, trajectory=str(tmp_path / "run.traj")).run(fmax=0.01, steps=100)
    frames = ase.io.read(tmp_path / "run.traj", ":")
    assert frames[-1].get_potential_energy() < frames[0].get_potential_energy()


def test_a_calculator_of_an_average_can_be_averaged_again() -> None:
    """Through ASE and back: a symmetrized potential is a potential."""
    toy, structure = PeriodicToy(2, 1, 0.05), rocksalt()
    around = AsePotential(symmetrize(Counting(toy), "octahedral").calculator())
    assert around.atomic
    found = symmetrize(around, "klein").predict(structure)
    exact = PairToy().predict(structure)
    assert found.energies[0] == pytest.approx(exact.energies[0], abs=1e-10)
    assert found.atomic.sum() == pytest.approx(found.energies[0], abs=1e-10)


# A metatomic model, and the numbers of others


def test_an_averaged_model_is_the_same_in_every_orientation() -> None:
    """To what degree 5 leaves of it, which is little of what there is."""
    raw = goniometer.load("pet-water", dtype="float64", batch=60)
    averaged = symmetrize(raw, "icosahedral")
    matrices = random_rotations(3, np.random.default_rng(0))
    energies = {
        potential: np.ptp([potential.predict(turned(water(), matrix)).energies[0] for matrix in matrices])
        for potential in (raw, averaged)
    }
    assert energies[averaged] < 1e-2 * energies[raw]
    found = averaged.predict(water())
    assert found.atomic.sum() == pytest.approx(found.energies[0], abs=1e-9)
    assert np.linalg.norm(np.cross(water().positions, found.forces[0]).sum(axis=0)) < 1e-2 * np.linalg.norm(
        np.cross(water().positions, raw.predict(water()).forces[0]).sum(axis=0)
    )


def wet_cell() -> Atoms:
    """Eight water molecules, each turned at random, in a triclinic cell."""
    rng = np.random.default_rng(4)
    cell = np.array([[6.2, 0.0, 0.0], [0.5, 6.3, 0.0], [-0.4, 0.3, 6.1]])
    sites = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) / 2.0 @ cell
    centred = water().positions - water().positions.mean(axis=0)
    turns = random_rotations(8, rng)
    positions = np.concatenate([site + centred @ turn.T for site, turn in zip(sites, turns, strict=True)])
    return Atoms("OH2" * 8, positions, cell=cell, pbc=True)


@pytest.mark.parametrize(
    ("build", "degree", "inversion"),
    [
        (water, 3, True),
        (wet_cell, 1, True),
        pytest.param(water, 5, False, marks=pytest.mark.nightly),
        pytest.param(wet_cell, 3, True, marks=pytest.mark.nightly),
    ],
    ids=["molecule", "crystal", "molecule, degree 5", "crystal, degree 3"],
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_numbers_are_those_of_metatomic_ase(build, degree: int, inversion: bool, dtype: str) -> None:
    """Over the rotations and weights that its calculator uses."""
    calculators = pytest.importorskip("metatomic_ase")
    torch = pytest.importorskip("torch")
    from metatomic.torch import load_atomistic_model

    model = load_atomistic_model(str(packaged_files("models", ".pt")["pet-water"]))
    if dtype == "float64":
        model = model.to(dtype=torch.float64)
        model.capabilities().dtype = "float64"
    peer = calculators.SymmetrizedCalculator(
        calculators.MetatomicCalculator(model, device="cpu"),
        l_max=degree,
        batch_size=8,
        include_inversion=inversion,
        store_rotational_std=True,
    )
    structure = build()
    wanted = ["energy", "energies", "forces", *(["stress"] if structure.pbc.all() else [])]
    with torch.jit.optimized_execution(False):  # it would compile for every new shape
        peer.calculate(structure, wanted, ["positions"])
    weights = peer.quadrature_weights / peer.quadrature_weights.sum()
    over = Rule("peer", peer.quadrature_rotations, weights, degree, inversion)
    potential = goniometer.load("pet-water", dtype=dtype, batch=8)
    found = symmetrize(potential, over).predict(structure)
    misses = {
        "energy": peer.results["energy"] - found.energies[0],
        "energies": peer.results["energies"] - found.atomic[0],
        "forces": peer.results["forces"] - found.forces[0],
        "spread": peer.results["energy_rot_std"] - found.spread.energies[0],
    }
    if structure.pbc.all():
        misses["virial"] = peer.results["stress"] * structure.get_volume() - found.virials[0]
    if dtype == "float64":
        allowed = dict.fromkeys(misses, 1e-10)
    else:
        floors = goniometer.probe(potential, structure, lmax=2).structures[0]
        # Its totals are float32 sums of some hundred eV an atom: that is the floor of energies.
        step = EPS32 * abs(found.energies[0])
        allowed = {"energy": step, "energies": step, "spread": step, "forces": floors.forces.floor}
        if structure.pbc.all():
            allowed["virial"] = floors.stress.floor * structure.get_volume()
        allowed = {name: 5.0 * value for name, value in allowed.items()}
    for name, values in misses.items():
        assert np.sqrt(np.mean(np.square(values))) < allowed[name], name
    # Control: there is something to average.
    raw = potential.predict(structure)
    assert np.sqrt(np.mean((raw.forces - found.forces) ** 2)) > 10 * allowed["forces"]


def orthogonal(matrices: np.ndarray) -> np.ndarray:
    """The nearest orthogonal matrices."""
    left, _, right = np.linalg.svd(matrices)
    return left @ right


@pytest.mark.parametrize("build", [water, wet_cell], ids=["molecule", "crystal"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_numbers_are_those_of_metatomics_symmetrized_model(build, dtype: str) -> None:
    """Energy and its gradient over the rotations that it uses."""
    calculators = pytest.importorskip("metatomic_ase")
    torch = pytest.importorskip("torch")
    from metatomic.torch import load_atomistic_model
    from metatomic.torch.o3 import SymmetrizedModel

    model = load_atomistic_model(str(packaged_files("models", ".pt")["pet-water"])).to(dtype=getattr(torch, dtype))
    model.capabilities().dtype = dtype
    wrapped = SymmetrizedModel.wrap(model, max_angular_momentum_grid=1, batch_size=8).to(dtype=getattr(torch, dtype))
    inner = wrapped.module
    rotations = torch.cat([batch._matrices for batch in inner._batches]).double().numpy()
    weights = inner._rotation_weights.double().numpy()
    structure = build()
    calculator = calculators.MetatomicCalculator(wrapped, device="cpu")
    with torch.jit.optimized_execution(False):
        calculator.calculate(structure, ["energy", "forces"], ["positions"])
    potential = goniometer.load("pet-water", dtype=dtype, batch=8)
    degree = 1
    if dtype == "float32":
        rotations, degree = orthogonal(rotations), 0  # the roundings of its matrices are no rule's
    over = Rule("peer", rotations, weights / weights.sum(), degree).with_inversion()
    found = symmetrize(potential, over).predict(structure)
    allowed = {"energy": 1e-10, "forces": 1e-10}
    if dtype == "float32":
        floor = goniometer.probe(potential, structure, lmax=2).structures[0].forces.floor
        allowed = {"energy": 5.0 * EPS32 * abs(found.energies[0]), "forces": 5.0 * floor}
    misses = {"energy": calculator.results["energy"] - found.energies[0]}
    misses["forces"] = calculator.results["forces"] - found.forces[0]
    for name, values in misses.items():
        assert np.abs(values).max() < allowed[name], name
    # Control: there is something to average.
    raw = potential.predict(structure)
    assert np.sqrt(np.mean((raw.forces - found.forces) ** 2)) > 10.0 * allowed["forces"]
