"""The probe as a whole: figures of toys whose answer is known, noise floors, pooling, interruption and resumption."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from scipy.special import eval_legendre

import goniometer
from goniometer.errors import InputError
from goniometer.potentials import Potential, Prediction
from goniometer.potentials.ase import AsePotential
from goniometer.probing.document import read_probe
from goniometer.probing.pooling import pool
from goniometer.probing.result import ProbeResult, StructureResult
from goniometer.probing.spectrum import noise_by_ell
from goniometer.rotations import rule
from goniometer.testing import MolecularToy, Noisy, PairToy, PeriodicToy, SumOf
from structures import crystal, molecule

RELATIVE = 1e-9


def alloy() -> Atoms:
    """Copper and gold in a triclinic cell, shaken."""
    structure = bulk("Cu") * (2, 2, 1)
    structure.numbers[1] = 79
    strain = 0.2 * np.random.default_rng(3).standard_normal((3, 3))
    structure.set_cell(structure.cell.array + strain, scale_atoms=True)
    structure.rattle(0.1, seed=2)
    return structure


def slab() -> Atoms:
    structure = fcc111("Cu", (2, 2, 2), vacuum=5.0)
    structure.pbc = (True, True, False)
    structure.rattle(0.05, seed=1)
    return structure


def probe_one(potential: Potential, structure: Atoms, **options: object) -> StructureResult:
    """The result of one structure; nothing is measured besides unless it is asked for."""
    result = goniometer.probe(potential, structure, **{"measured": (), **options})
    assert not result.failures
    json.loads(result.to_json())  # raises on NaN and infinity
    return result.structures[0]


def parts(figure: object) -> np.ndarray:
    spectrum = figure.spectrum  # type: ignore[attr-defined]
    return np.array([spectrum.plus, spectrum.minus])


# ---- figures of toys ------------------------------------------------------------------------------------------------

TOYS = [
    (MolecularToy(1, -1, 0.02), molecule()),
    (MolecularToy(4, -1, 0.02), molecule()),
    (MolecularToy(3, 1, 0.02), molecule()),
    (PeriodicToy(2, 1, 0.02), crystal()),
    (PeriodicToy(3, -1, 0.02), crystal()),
    (PeriodicToy(4, 1, 0.02), slab()),
]


@pytest.mark.parametrize(("toy", "structure"), TOYS, ids=lambda value: getattr(value, "name", ""))
def test_the_figures_of_a_toy_are_the_known_ones(toy: MolecularToy | PeriodicToy, structure: Atoms) -> None:
    result = probe_one(toy, structure)
    base, sign = PairToy().predict(structure), 0 if toy.parity == 1 else 1
    energy = result.energy
    if isinstance(toy, MolecularToy):
        assert energy.rms == pytest.approx(0.02 / np.sqrt(2 * toy.ell + 1), rel=RELATIVE)
    assert energy.rms**2 == pytest.approx(toy.variance(structure), rel=RELATIVE)
    assert energy.mean == pytest.approx(base.energies[0], rel=RELATIVE)
    given = toy.predict(structure)
    assert energy.as_given == pytest.approx(given.energies[0] - base.energies[0], rel=1e-7)
    assert energy.rms_per_atom == energy.rms / len(structure)
    assert energy.max >= max(energy.rms, abs(energy.as_given))
    # Anisotropic forces keep the mean of the base, and deviate from it.
    np.testing.assert_allclose(result.forces.mean, np.sqrt(np.mean(base.forces**2)), rtol=RELATIVE)
    deviation = given.forces - base.forces
    assert result.forces.as_given == pytest.approx(np.sqrt(np.mean(deviation**2)), rel=RELATIVE)
    assert result.forces.mae_as_given == pytest.approx(np.abs(deviation).mean(), rel=RELATIVE)
    assert np.mean(np.square(result.force_rms_per_atom)) == pytest.approx(result.forces.rms**2, rel=RELATIVE)
    figures = [energy, result.forces, *([result.stress] if structure.pbc.all() else [])]
    assert (result.stress is None) == (not structure.pbc.all())
    for figure in figures:
        found = parts(figure)
        assert found[0, 0] == pytest.approx(figure.mean**2, rel=RELATIVE, abs=1e-20)
        assert found[sign, toy.ell] == pytest.approx(figure.rms**2, rel=RELATIVE)
        found[0, 0] = found[sign, toy.ell] = 0.0
        assert np.abs(found).max() < RELATIVE * figure.rms**2
        assert abs(figure.spectrum.unresolved) < RELATIVE * figure.rms**2
        assert figure.spectrum.resolved == pytest.approx(1.0, rel=RELATIVE)
        # The sum over ℓ is the second moment.
        assert parts(figure).sum() == pytest.approx(figure.mean**2 + figure.rms**2, rel=RELATIVE)
    known = np.sqrt(toy.ell * (toy.ell + 1) * toy.variance(structure))
    assert result.torque.expected == pytest.approx(known, rel=RELATIVE)
    assert result.torque.rms == pytest.approx(known, rel=RELATIVE)


def test_a_pseudoscalar_is_odd_without_angular_momentum() -> None:
    result = probe_one(PeriodicToy(0, -1, 0.02), crystal(), lmax=2)
    assert result.energy.spectrum.minus[0] == pytest.approx(result.energy.rms**2, rel=RELATIVE)
    assert abs(result.energy.as_given) == pytest.approx(result.energy.rms, rel=RELATIVE)
    assert result.torque.expected < 1e-6 * result.energy.rms  # no rotation changes it
    # Control: without inversion it cannot be seen at all.
    blind = probe_one(PeriodicToy(0, -1, 0.02), crystal(), lmax=2, inversion=False)
    assert blind.energy.spectrum.minus is None
    assert blind.energy.at_floor


def test_the_torque_of_a_calculator_is_the_known_one() -> None:
    """A molecule's comes from its forces; a crystal's from finite rotations, ASE's stress being symmetric."""
    toy = PeriodicToy(3, -1, 0.02)
    for structure in (molecule(), crystal()):
        exact = probe_one(toy, structure, lmax=3).torque
        found = probe_one(AsePotential(toy.calculator()), structure, lmax=3).torque
        assert found.norm == pytest.approx(exact.norm, rel=1e-3)  # h⁴ ℓ⁴ / 30 of the finite rotations, and some
        assert found.expected == pytest.approx(exact.expected, rel=RELATIVE)
        assert (found.rms is None) == bool(structure.pbc.any())
        assert not found.at_floor


def test_the_torque_is_worked_out_where_there_is_no_virial() -> None:
    class Bare(PeriodicToy):
        """Says that it knows virials, and gives none where not all directions are periodic."""

        def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
            for part in super().turned(structure, matrices):
                yield Prediction(part.energies, part.forces, part.virials if structure.pbc.all() else None)

    for structure in (molecule(), slab()):
        found, exact = (probe_one(kind(2, 1, 0.02), structure, lmax=2).torque for kind in (Bare, PeriodicToy))
        assert found.norm == pytest.approx(exact.norm, rel=1e-3)


def test_content_above_lmax_is_unresolved_with_the_right_size() -> None:
    low, high = PeriodicToy(2, 1, 0.02), PeriodicToy(5, -1, 0.01)
    result = probe_one(SumOf([low, high]), crystal(), lmax=3, rule="gauss:10")  # its square as well
    spectrum, tail = result.energy.spectrum, high.variance(crystal())
    assert spectrum.unresolved == pytest.approx(tail, rel=RELATIVE)
    # Nothing says that the tail is at ℓ = 5, which the rule sees whole; at the worst ℓ more of it would go unseen.
    assert spectrum.resolved is not None
    assert 0.0 < spectrum.resolved <= 1.0 - tail / (tail + low.variance(crystal())) + RELATIVE
    assert spectrum.plus[2] == pytest.approx(low.variance(crystal()), rel=RELATIVE)
    assert result.energy.rms**2 == pytest.approx(tail + low.variance(crystal()), rel=RELATIVE)
    # What the residuals could hide is bounded: measured on a rule that leaves ℓ = 5 of proper rotations.
    row = next(row for row in result.rules if row.name == "tetrahedral" and not row.inversion)
    assert row.energy.tail > 0.0
    # Controls: a rule that does not resolve the square gets the size of the tail only in the mean over turns; one that
    # does not reach as far lets it leak, up to what the floor says.
    biased = probe_one(SumOf([low, high]), crystal(), lmax=3, rule="gauss:8").energy.spectrum
    assert abs(biased.unresolved / tail - 1.0) > 1e-3
    assert biased.unresolved == pytest.approx(tail, rel=0.5)
    leaky = probe_one(SumOf([low, high]), crystal(), lmax=4, rule="gauss:8").energy.spectrum
    assert 1e-3 * tail < leaky.minus[4] < 3.0 * leaky.floor[4]
    assert abs(leaky.minus[2]) < 1e-9 * tail  # 2 + 5 is within the degree


def test_without_inversion_rules_with_it_are_not_predicted() -> None:
    result = probe_one(PeriodicToy(2, 1, 0.02), crystal(), lmax=2, inversion=False, measured=[("octahedral", True)])
    for row in result.rules:
        assert (row.energy.as_it_stands is None) == row.inversion
        assert row.energy.measured is None or row.name in ("identity", "octahedral")


def test_predicted_residuals_are_the_measured_ones() -> None:
    """The whole chain: names, rows, means, for a response that the nodes resolve."""
    # Parities of different strength: equal ones cancel for proper rotations of a left-handed crystal.
    toy = SumOf([PeriodicToy(ell, parity, 0.017 + 0.004 * parity) for ell in (1, 2, 3, 4) for parity in (1, -1)])
    names = ("octahedral", "tetrahedral", "legendre:2", "lebedev:3")
    measured = [(name, inversion) for name in names for inversion in (False, True)]
    result = probe_one(toy, crystal(), measured=measured)
    rows = {(row.name, row.inversion): row for row in result.rules}
    for key in measured:
        for quantity in ("energy", "forces", "stress"):
            residual, figure = getattr(rows[key], quantity), getattr(result, quantity)
            assert residual.as_it_stands == pytest.approx(residual.measured, rel=1e-7, abs=1e-7 * figure.rms)
    assert rows["tetrahedral", False].forces.measured > 0.1 * result.forces.rms  # control: something is left
    identity = rows["identity", False]
    assert identity.energy.measured == pytest.approx(abs(result.energy.as_given), rel=RELATIVE)
    assert identity.energy.as_it_stands == pytest.approx(abs(result.energy.as_given), rel=1e-7)
    assert identity.energy.over_turns == pytest.approx(result.energy.rms, rel=RELATIVE)


def test_the_sphere_shows_the_energies() -> None:
    structure = molecule()
    result = probe_one(MolecularToy(2, 1, 0.02), structure, lmax=2)
    d = structure.positions[1] - structure.positions[0]
    d /= np.linalg.norm(d)
    theta, phi = np.meshgrid(np.radians(result.sphere.latitude), np.radians(result.sphere.longitude), indexing="ij")
    cosine = np.cos(theta) * np.cos(phi) * d[0] + np.cos(theta) * np.sin(phi) * d[1] + np.sin(theta) * d[2]
    np.testing.assert_allclose(result.sphere.values, 0.02 * eval_legendre(2, cosine), atol=1e-10)
    assert result.sphere.axis == "z"
    # The orbit holds deviations, in the order of the nodes.
    nodes = rule("gauss:4", True).turned_at_random(0)
    expected = 0.02 * eval_legendre(2, nodes.matrices[:, 2] @ d)
    np.testing.assert_allclose(result.orbit_energies, expected, atol=1e-10)


# ---- noise floors ---------------------------------------------------------------------------------------------------


def lennard_jones() -> AsePotential:
    return AsePotential(LennardJones(sigma=2.5, epsilon=0.01, rc=6.0))


INVARIANT: dict[str, tuple[Callable[[], Potential], Callable[[], Atoms]]] = {
    "Lennard-Jones, molecule": (lennard_jones, molecule),
    "Lennard-Jones, triclinic": (lennard_jones, crystal),
    "Lennard-Jones, slab": (lennard_jones, slab),
    "Lennard-Jones, dimer on an axis": (lennard_jones, lambda: Atoms("Ar2", [[0, 0, 0], [0, 0, 2.9]])),
    "Lennard-Jones, one atom": (lennard_jones, lambda: Atoms("Ar", [[0, 0, 0]])),
    "EMT, triclinic": (lambda: AsePotential(EMT()), alloy),
    "EMT, perfect crystal": (lambda: AsePotential(EMT()), lambda: bulk("Cu", cubic=True)),
    "PairToy, molecule": (PairToy, molecule),
    "PairToy, triclinic": (PairToy, crystal),
}


@pytest.mark.parametrize("name", INVARIANT)
def test_exactly_invariant_calculators_are_at_the_floor(name: str) -> None:
    make, structure = INVARIANT[name]
    for seed in (0, 1):
        result = probe_one(make(), structure(), lmax=2, seed=seed)
        figures = {"energy": result.energy, "forces": result.forces, "stress": result.stress, "torque": result.torque}
        for quantity, figure in figures.items():
            assert figure is None or figure.at_floor, (quantity, figure)
        # A floor that is anything but rounding would hide what it should tell.
        assert result.energy.floor < 1e-10
        assert result.forces.floor < 1e-10


def test_a_small_anisotropy_is_not_at_the_floor() -> None:
    """The control: parts in 10¹¹ of the energy, some thousand roundings, are seen."""
    for structure in (crystal(), molecule()):
        result = probe_one(PeriodicToy(2, 1, 1e-11), structure, lmax=2)
        assert not result.energy.at_floor
        assert not result.forces.at_floor
        assert not result.torque.at_floor


def test_every_source_of_noise_is_found() -> None:
    """A toy that depends on where the atoms are, one that depends on their order, and the control."""

    class Place(PairToy):
        def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
            for part in super().turned(structure, matrices):
                yield replace(part, energies=part.energies + 1e-3 * np.sin(structure.positions[:, 0].sum()))

    class Order(PairToy):
        def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
            for part in super().turned(structure, matrices):
                yield replace(part, energies=part.energies + 1e-3 * structure.numbers[0])

    class Coarse(PairToy):
        """As if its arithmetic had five digits."""

        dtype = "float32"

        def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
            for part in super().turned(structure, matrices):
                jitter = np.sin(1e7 * structure.positions.sum())
                yield replace(part, energies=part.energies + 1e-3 * jitter)

    for toy, source in ((Place, "translation"), (Order, "permutation"), (Coarse, "rounding")):
        floors = probe_one(toy(), molecule(), lmax=1).energy.floors
        assert getattr(floors, source) > 1e-4, source
        assert floors.repeat == 0.0
        # Noise is the floor; a broken symmetry is none.
        assert floors.value == pytest.approx(getattr(floors, source)) if source == "rounding" else floors.value < 1e-12
    floors = probe_one(PairToy(), molecule(), lmax=1).energy.floors
    assert floors.value < 1e-12


def test_the_floor_of_a_noisy_potential_is_its_noise() -> None:
    sigma, results = 1e-3, []
    for seed in range(12):
        results.append(probe_one(Noisy(PairToy(), sigma, seed), crystal(), lmax=2, seed=seed))
    for quantity, components in (("energy", 1), ("forces", 3 * len(crystal()))):
        floors = [getattr(result, quantity).floors for result in results]
        for source in ("repeat", "translation", "permutation", "rounding"):
            square = np.mean([getattr(each, source) ** 2 for each in floors])
            # Mean of 12 × 8 squares of normal deviates of √2 σ, per component; the spread of χ².
            assert square == pytest.approx(sigma**2, rel=5.0 * np.sqrt(2.0 / (12 * 8 * components)))
        assert all(getattr(result, quantity).at_floor for result in results)
    # What the noise puts into each P_ℓ is what the floor says, in the mean.
    nodes = rule("gauss:4", True)
    spectra = np.array([parts(result.forces)[:, 1:] for result in results])
    expected = noise_by_ell(nodes, sigma**2, 2)[1:]
    np.testing.assert_allclose(spectra.mean(axis=(0, 1)), expected, rtol=0.25)
    floors = np.mean([result.forces.spectrum.floor for result in results], axis=0)[1:]
    assert (floors > 0.8 * expected).all()
    # Control: a signal of five times the noise is not taken for it.
    signal = Noisy(PeriodicToy(2, 1, 0.1), sigma, 0)
    assert not probe_one(signal, crystal(), lmax=2).energy.at_floor


# ---- documents ------------------------------------------------------------------------------------------------------


def test_the_document_has_the_promised_keys_and_comes_back(tmp_path: Path) -> None:
    result = goniometer.probe(PeriodicToy(2, 1, 0.02), [crystal(), molecule()], lmax=2, seed=5)
    document = json.loads(result.to_json())
    assert document["schema"] == "goniometer/probe/1"
    assert document["rule"] == {"name": "gauss:4", "n": 86, "degree": 4, "inversion": True, "seed": 5}
    figure = {"mean", "rms", "as_given", "max", "floor", "spectrum"}
    for holder in (*document["structures"], document["pooled"]):
        assert figure <= holder["energy"].keys()
        assert figure | {"mae_as_given"} <= holder["forces"].keys()
        assert len(holder["energy"]["spectrum"]["plus"]) == len(holder["energy"]["spectrum"]["minus"]) == 3
        assert holder["torque"]["norm"] >= 0.0
    assert [each["n_atoms"] for each in document["structures"]] == [4, 5]
    assert figure <= document["structures"][0]["stress"].keys()
    assert document["structures"][1]["stress"] is None
    result.write(tmp_path / "probe.json")
    assert read_probe(tmp_path / "probe.json") == result


class Odd(Calculator):
    """Answers with whatever it was given."""

    implemented_properties = ("energy", "forces")

    def __init__(self, energy: float, forces: float) -> None:
        super().__init__()
        self.answer = energy, forces

    def calculate(self, atoms: Atoms, properties: object, changes: object) -> None:
        energy, forces = self.answer
        self.results = {"energy": energy, "forces": np.full((len(atoms), 3), forces)}


def test_a_wrong_number_of_predictions_is_a_failure() -> None:
    class Few(PairToy):
        extra = -1

        def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
            count = len(matrices) + self.extra
            yield from super().turned(structure, np.resize(matrices, (count, 3, 3)))

    class Many(Few):
        extra = 2

    for kind in (Few, Many):
        result = goniometer.probe(kind(), molecule(), lmax=1)
        assert "predictions" in result.failures[0].error
        assert "copies" in result.failures[0].error


def test_no_number_is_ever_not_finite() -> None:
    answers = [(np.nan, 0.0), (0.0, np.inf), (1e200, 0.0), (0.0, -1e300), (0.0, 0.0), (1e-200, 1e-300)]
    for energy, forces in answers:
        result = goniometer.probe(AsePotential(Odd(energy, forces)), [molecule(), crystal()], lmax=1)
        json.loads(result.to_json(), parse_constant=pytest.fail)  # writing raises already
        assert len(result.structures) + len(result.failures) == 2
        assert len(result.failures) == (0 if abs(energy) < 1.0 and abs(forces) < 1.0 else 2)
        for failure in result.failures:
            assert "finite" in failure.error or "large" in failure.error


# ---- many structures ------------------------------------------------------------------------------------------------


def test_pooled_figures_are_root_mean_squares() -> None:
    toy, structures = PeriodicToy(2, 1, 0.02), [crystal(seed) for seed in range(3)] + [molecule()]
    result = goniometer.probe(toy, structures, lmax=2, measured=())
    pooled, each = result.pooled, result.structures
    assert pooled.n_structures == 4
    assert pooled.energy.rms == pytest.approx(np.sqrt(np.mean([s.energy.rms**2 for s in each])))
    assert pooled.energy.rms**2 == pytest.approx(np.mean([toy.variance(s) for s in structures]), rel=RELATIVE)
    assert pooled.energy.rms_per_atom == pytest.approx(np.sqrt(np.mean([s.energy.rms_per_atom**2 for s in each])))
    assert pooled.forces.mae_as_given == pytest.approx(np.mean([s.forces.mae_as_given for s in each]))
    assert pooled.energy.max == max(s.energy.max for s in each)
    assert pooled.stress.rms == pytest.approx(np.sqrt(np.mean([s.stress.rms**2 for s in each[:3]])))
    assert pooled.energy.spectrum.plus[2] == pytest.approx(pooled.energy.rms**2, rel=RELATIVE)
    assert pooled.energy.spectrum.resolved == pytest.approx(1.0, rel=RELATIVE)
    assert pooled.torque.rms == pytest.approx(np.sqrt(6.0) * pooled.energy.rms, rel=RELATIVE)
    row = {(row.name, row.inversion): row for row in pooled.rules}["identity", False]
    assert row.energy.over_turns == pytest.approx(pooled.energy.rms, rel=RELATIVE)
    assert row.energy.measured == pytest.approx(pooled.energy.as_given, rel=RELATIVE)
    assert goniometer.probe(toy, molecule(), lmax=1, measured=()).pooled.energy.error is None
    assert pool([]) is None


def test_the_error_bar_of_a_pooled_rms_is_that_of_a_bootstrap() -> None:
    one = probe_one(PeriodicToy(2, 1, 0.02), crystal(), lmax=1)
    rng = np.random.default_rng(0)
    values = rng.gamma(1.5, 0.01, 80)
    pooled = pool([replace(one, energy=replace(one.energy, rms=value, rms_per_atom=value / 4)) for value in values])
    drawn = values[rng.integers(0, len(values), (4000, len(values)))]
    bootstrap = np.sqrt(np.mean(drawn**2, axis=1)).std()
    assert pooled.energy.error == pytest.approx(bootstrap, rel=0.06)
    assert pooled.energy.error_per_atom == pytest.approx(bootstrap / 4, rel=0.06)
    # Control: it is not the spread of the values themselves, nor the standard error of their mean.
    assert abs(values.std() / np.sqrt(80) / bootstrap - 1.0) > 0.08


def test_failures_are_kept_and_the_order_as_well() -> None:
    close = Atoms("H2", [[0, 0, 0], [0, 0, 0.001]])
    far = Atoms("Na2", [[0, 0, 0], [0, 0, 30.0]])  # no pair within the cutoff: odd ℓ has nothing to look at
    given = [crystal(), close, molecule(), far, crystal(2)]
    result = goniometer.probe(PeriodicToy(1, -1, 0.02), given, lmax=1, measured=())
    assert [each.name[-1] for each in result.structures] == ["0", "2", "4"]
    assert [failure.name[-1] for failure in result.failures] == ["1", "3"]
    assert "coincide" in result.failures[0].error
    assert "unlike" in result.failures[1].error
    assert result.complete
    assert result.pooled.n_structures == 3
    everything = goniometer.probe(PeriodicToy(1, -1, 0.02), [close, far], lmax=1, measured=())
    assert everything.pooled is None
    assert "pooled" in json.loads(everything.to_json())


class Counted(PeriodicToy):
    """Counts the copies it evaluates, and is interrupted at one of them."""

    def __init__(self, stop: int | None = None) -> None:
        super().__init__(2, 1, 0.02)
        self.copies, self.stop = 0, stop

    def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
        for part in super().turned(structure, matrices):
            self.copies += len(part)
            if self.stop is not None and self.copies > self.stop:
                raise KeyboardInterrupt
            yield part


def test_an_interrupted_probe_keeps_what_is_finished_and_goes_on(tmp_path: Path) -> None:
    structures = [crystal(seed) for seed in range(4)]
    whole = goniometer.probe(counted := Counted(), structures, lmax=2, seed=3)
    each = whole.structures[0].evaluations
    # The test that the average is a potential, once for structures of one kind, is not of any structure.
    verified = counted.copies - 4 * each
    assert 0 < verified <= 40
    stopped = goniometer.probe(Counted(stop=2 * each + 20 + verified), structures, lmax=2, seed=3)
    assert not stopped.complete
    assert [s.name for s in stopped.structures] == [s.name for s in whole.structures[:2]]
    assert stopped.pooled.n_structures == 2
    stopped.write(tmp_path / "part.json")
    resumed = goniometer.probe(
        again := Counted(), structures, lmax=2, seed=3, resume=read_probe(tmp_path / "part.json")
    )
    assert again.copies == 2 * each + verified  # nothing twice, but for the kind of structure in another process
    assert resumed.complete
    assert [s.energy for s in resumed.structures] == [s.energy for s in whole.structures]
    assert resumed.pooled == whole.pooled
    assert resumed.seconds > stopped.seconds
    # A structure that was changed in the meantime is not taken over.
    structures[0].positions[0, 0] += 0.01
    goniometer.probe(moved := Counted(), structures, lmax=2, seed=3, resume=whole)
    assert moved.copies == each + verified


def test_stopping_before_the_first_structure_is_finished_leaves_a_document() -> None:
    result = goniometer.probe(Counted(stop=1), [crystal()], lmax=1)
    assert (result.complete, result.structures, result.pooled) == (False, [], None)
    json.loads(result.to_json())


def test_what_was_measured_otherwise_is_not_continued() -> None:
    toy, structure = PeriodicToy(2, 1, 0.02), crystal()
    earlier = goniometer.probe(toy, structure, lmax=2, seed=3, measured=())

    def resumed(potential: Potential = toy, **options: object) -> ProbeResult:
        return goniometer.probe(potential, structure, **{"lmax": 2, "seed": 3, "resume": earlier, **options})

    assert resumed(measured=()).structures == earlier.structures
    for changed in ({"seed": 4}, {"lmax": 3}, {"rule": "gauss:5"}, {"inversion": False}):
        with pytest.raises(InputError, match="cannot be continued"):
            resumed(**changed)
    with pytest.raises(InputError, match="model"):
        resumed(PeriodicToy(2, 1, 0.03))


def test_progress_counts_up_to_the_whole() -> None:
    told: list[tuple[int, int, str]] = []
    counts: list[str] = []
    goniometer.probe(
        Counted(),
        [crystal(), Atoms("H2", [[0, 0, 0], [0, 0, 0.001]]), molecule()],
        lmax=1,
        progress=lambda done, whole, name: told.append((done, whole, name)),
        finished=lambda record: counts.append(record.name),
    )
    done = [each[0] for each in told]
    assert done == sorted(done)
    assert done[-1] == told[0][1] == told[-1][1]
    assert [name[-1] for name in counts] == ["0", "1", "2"]


def test_a_probe_is_the_same_from_the_same_seed() -> None:
    one, two, other = (
        goniometer.probe(PeriodicToy(2, 1, 0.02), crystal(), lmax=1, seed=seed, measured=()).structures[0]
        for seed in (0, 0, 1)
    )
    assert one.orbit_energies == two.orbit_energies
    assert one.energy == two.energy
    assert one.orbit_energies != other.orbit_energies


def test_what_cannot_be_done_is_said() -> None:
    for options, said in (({"lmax": -1}, "lmax"), ({"lmax": 41}, "lmax"), ({"rule": "cubic"}, "unknown rule")):
        with pytest.raises(InputError, match=said):
            goniometer.probe(PairToy(), molecule(), **options)
