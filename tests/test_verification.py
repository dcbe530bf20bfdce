"""An average is handed out only if it is a potential: every fault of a front end is found, and named by its cause."""

import json
from collections.abc import Callable
from pathlib import Path

import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixInternals
from ase.io import write
from ase.stress import voigt_6_to_full_3x3_stress as full

import goniometer
from goniometer.cli import main
from goniometer.dynamics.checkpoint import read_state, write_state
from goniometer.errors import PotentialError
from goniometer.planning.planner import plan
from goniometer.potentials import AsePotential
from goniometer.rotations import rule
from goniometer.symmetrization import Averaged
from goniometer.symmetrization.verification import Verification, fault
from goniometer.testing import MolecularToy, Noisy, NonConservative, PairToy, PeriodicToy, SumOf, check_potential
from structures import crystal, molecule


class Front(Calculator):
    """EMT behind a front end: ``handed`` changes the structure, ``answered`` what comes back."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, handed: Callable | None = None, answered: Callable | None = None) -> None:
        super().__init__()
        self.handed, self.answered, self.count = handed, answered, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.count += 1
        copy, back = self.atoms.copy(), np.eye(3)
        if self.handed is not None:
            back = self.handed(copy)
        copy.calc = EMT()
        energy, forces, stress = copy.get_potential_energy(), copy.get_forces(), copy.get_stress()
        if self.answered is not None:
            energy, forces, stress = self.answered(energy, forces, stress, back, self.atoms)
        self.results = {"energy": energy, "forces": forces, "stress": stress}


def transposed(atoms: Atoms) -> None:
    atoms.cell = atoms.cell.array.T


def lengths(atoms: Atoms) -> None:
    atoms.cell = atoms.cell.lengths()


def diagonal(atoms: Atoms) -> None:
    atoms.cell = np.diag(atoms.cell.array)


def lower(atoms: Atoms) -> None:
    atoms.cell = np.tril(atoms.cell.array)


def cellpar(atoms: Atoms) -> None:
    atoms.cell = atoms.cell.standard_form()[0]


def standard(atoms: Atoms) -> np.ndarray:
    scaled = atoms.get_scaled_positions(wrap=False)
    cell, rotation = atoms.cell.standard_form()
    atoms.set_cell(cell)
    atoms.set_scaled_positions(scaled)
    return rotation


def changed(stress: Callable) -> Callable:
    return lambda e, f, s, back, atoms: (e, f, stress(s))


CELLS = {
    "transposed": (Front(transposed), "transposed"),
    "lengths": (Front(lengths), "only the lengths"),
    "diagonal": (Front(diagonal), "only the diagonal"),
    "lower": (Front(lower), "above its diagonal"),
    "cellpar": (Front(cellpar), "lengths and angles"),
}
FORCES = {
    "standard": (Front(standard), "not rotated back from the standard"),
    "sign": (Front(None, lambda e, f, s, b, a: (e, -f, s)), "sign is opposite"),
    "unit": (Front(None, lambda e, f, s, b, a: (e, f * ase.units.Bohr, s)), "eV/bohr"),
}
STRESSES = {
    "standard": (Front(standard, lambda e, f, s, b, a: (e, f @ b, s)), "not rotated back from the standard"),
    "voigt": (Front(None, changed(lambda s: s[[0, 1, 2, 5, 4, 3]])), "order xy xz yz"),
    "voigt of VASP": (Front(None, changed(lambda s: s[[0, 1, 2, 5, 3, 4]])), "order xy yz xz"),
    "GPa": (Front(None, changed(lambda s: s / ase.units.GPa)), "GPa"),
    "kbar": (
        Front(None, changed(lambda s: -s / ase.units.GPa * 10)),
        "kbar where eV/Å³ is expected, and of the opposite",
    ),
    "sign": (Front(None, changed(lambda s: -s)), "sign is opposite"),
    "diagonal": (Front(None, changed(lambda s: s * [2, 2, 2, 1, 1, 1])), "diagonal components are twice"),
    "shear": (Front(None, changed(lambda s: s * [1, 1, 1, 2, 2, 2])), "shear components are twice"),
    "one side": (Front(None, changed(lambda s: s + np.array([0, 0, 0, 0, 0, 0.002]))), "one side"),
    "volume": (Front(None, lambda e, f, s, b, a: (e, f, s * a.get_volume())), "a stress times the volume"),
    "left": (
        Front(None, lambda e, f, s, b, a: (e, f, s * [0.7, 1, 1, 1, 1, 1])),
        "derivative of the energy with respect to strain",
    ),
}


def copper() -> Atoms:
    structure = bulk("Cu", "fcc", 3.65, cubic=True)
    structure.set_cell(structure.cell.array + np.array([[0, 0, 0], [0.3, 0, 0], [0.1, -0.2, 0]]), scale_atoms=True)
    structure.rattle(0.05, seed=1)
    return structure


ELEMENTS = rule("octahedral").matrices


@pytest.mark.parametrize(
    ("calculator", "said"),
    [*CELLS.values(), *FORCES.values(), *STRESSES.values()],
    ids=[
        f"{kind}-{name}" for kind, part in (("cell", CELLS), ("forces", FORCES), ("stress", STRESSES)) for name in part
    ],
)
def test_every_fault_of_a_front_end_is_found_and_named(calculator: Front, said: str) -> None:
    found = fault(AsePotential(calculator), copper(), ELEMENTS)
    assert found is not None
    assert "is not a potential on Cu4" in found
    assert said in found


@pytest.mark.parametrize(
    ("potential", "structure"),
    [
        (AsePotential(Front()), copper()),
        (AsePotential(LennardJones(sigma=2.3, epsilon=0.2, rc=5.0)), copper()),
        (AsePotential(EMT()), bulk("Cu", cubic=True)),
        (SumOf([PeriodicToy(1, -1, 0.3), PeriodicToy(2, 1, 0.3)]), crystal()),
        (SumOf([MolecularToy(1, -1, 0.3), MolecularToy(4, 1, 0.3)]), molecule()),
        (Noisy(PairToy(), 0.1, seed=0), crystal()),
        (NonConservative(PairToy(), 0.3), crystal()),
        (PairToy(), Atoms("He")),
    ],
    ids=["front end", "Lennard-Jones", "EMT", "periodic", "molecular", "noisy", "not conservative", "one atom"],
)
def test_sound_potentials_pass_however_strong_their_symmetry_error_is(potential, structure) -> None:
    assert fault(potential, structure, ELEMENTS) is None


def test_forces_that_no_energy_vouches_for_are_compared_between_copies() -> None:
    """Declared as non-conservative they need not be a gradient, but they must rotate with the structure."""
    found = fault(AsePotential(Front(standard), conservative=False), copper(), ELEMENTS)
    assert "cancel in the mean" in found
    curl = fault(
        AsePotential(Front(None, lambda e, f, s, b, a: (e, 0.8 * f, s)), conservative=False), copper(), ELEMENTS
    )
    assert curl is None


@pytest.mark.parametrize("strategy", ["average", "random", "frozen", "tumble"])
def test_symmetrize_refuses_at_the_first_structure_and_only_once_for_each_kind(strategy: str) -> None:
    more = {"timestep": 0.5} if strategy == "tumble" else {}
    potential = goniometer.symmetrize(Front(standard), "octahedral", strategy=strategy, **more)
    with pytest.raises(PotentialError, match=r"not rotated back .*; verify=False averages it nevertheless"):
        potential.predict(copper())
    sound = Front()
    potential = goniometer.symmetrize(sound, "klein", strategy=strategy, **more)
    potential.predict(copper())
    first = sound.count
    for seed in range(3):
        structure = copper()
        structure.rattle(0.01, seed=seed)
        potential.predict(structure)
    assert sound.count == first + 3 * 8  # an evaluation is no dearer than the rule
    goniometer.symmetrize(Front(standard), "klein", strategy=strategy, verify=False, **more).predict(copper())


def test_a_plan_is_not_certified_and_the_probe_warns(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["goniometer", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        return int(left.value.code or 0)

    file = tmp_path / "fronts.py"
    here = Path(__file__).parent
    file.write_text(
        f"import sys; sys.path.append({str(here)!r})\n"
        "from test_verification import Front, changed\n"
        "def gpa(): return Front(None, changed(lambda s: s * 160.2))\n"
    )
    write(tmp_path / "cu.xyz", copper())
    arguments = [f"{file}:gpa", str(tmp_path / "cu.xyz")]
    assert run("probe", *arguments, "--lmax", "1", "--json", str(tmp_path / "probe.json")) == 0
    assert "in GPa where eV/Å³ is expected" in capsys.readouterr().err
    assert json.loads((tmp_path / "probe.json").read_text())["faults"]
    assert run("probe", *arguments, "--lmax", "1", "--fail-above", "force=1eV/Å") == 1
    capsys.readouterr()
    assert run("plan", *arguments, "--lmax", "1", "--force", "1meV/Å", "--json", str(tmp_path / "plan.json")) == 1
    made = json.loads((tmp_path / "plan.json").read_text())
    assert made["certified"] is False
    assert "in GPa" in made["reason"]
    # A probe from before, or of the model without its fault, is not what is certified.
    document = json.loads((tmp_path / "probe.json").read_text())
    del document["faults"]
    (tmp_path / "old.json").write_text(json.dumps(document))
    again = plan(tmp_path / "old.json", force="1meV/Å", potential=f"{file}:gpa")
    assert again.certified is False


# ---- check ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("calculator", "item", "said"),
    [
        (*CELLS["transposed"][:1], "cell", "transposed"),
        (*CELLS["lengths"][:1], "cell", "only the lengths"),
        (*FORCES["standard"][:1], "rotated forces", "not rotated back"),
        (*STRESSES["standard"][:1], "rotated virial", "not rotated back"),
        (*STRESSES["GPa"][:1], "virial", "GPa"),
        (*STRESSES["voigt"][:1], "virial", "order xy xz yz"),
    ],
)
def test_check_names_the_fault_in_the_item_that_is_meant_for_it(calculator: Front, item: str, said: str) -> None:
    report = check_potential(AsePotential(calculator), copper())
    assert item in report.failed
    assert said in report[item].sentence


def test_check_sees_the_antisymmetric_part_of_a_stress_that_is_none_of_the_energy() -> None:
    skew = 0.002 * np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 0]])
    report = check_potential(AsePotential(Front(None, changed(lambda s: full(s) + skew))), copper())
    assert report.failed == ["rotational gradient"]
    assert "not symmetric, by 0.002 eV/Å³" in report["rotational gradient"].sentence
    assert check_potential(AsePotential(Front(None, changed(full))), copper()).passed


def test_check_goes_on_without_a_stress_that_is_not_implemented_and_with_constraints() -> None:
    class NoStress(Front):
        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            if "stress" in properties:
                raise PropertyNotImplementedError("stress")
            super().calculate(atoms, properties, system_changes)

    structure = copper()
    structure.set_constraint(FixInternals(dihedrals_deg=[[60.0, [0, 1, 2, 3]]]))
    report = check_potential(AsePotential(NoStress()), structure)
    assert report.passed, str(report)
    assert report["virial"].skipped
    assert "does not compute it" in report["virial"].sentence
    assert "skip" in str(report)
    assert report["permutation"].value is not None  # it went to the end


def test_check_warns_of_a_cutoff_that_is_smooth_in_name_only() -> None:
    structure = bulk("Cu", cubic=True) * (2, 2, 2)
    del structure[5]
    structure.rattle(0.1, seed=4)
    for seed in range(2):
        report = check_potential(AsePotential(EMT()), structure, seed=seed)
        assert report.passed, str(report)
    rough = check_potential(AsePotential(LennardJones(sigma=2.3, epsilon=0.2, rc=4.42)), structure)
    assert rough.passed, str(rough)
    assert rough["forces"].warning
    assert "cutoff" in rough["forces"].sentence
    # Control: an error of the same size that does not depend on the step of the differences.
    wrong = AsePotential(Front(None, lambda e, f, s, b, a: (e, f * (1 + 1e-5), s)))
    assert "forces" in check_potential(wrong, copper()).failed


def opposite(energy, forces, stress, back, atoms):
    return energy, forces, -stress


class Rounded(EMT):
    """Energies with noise of some size that positions decide, as of a network in float32 whose sum is in float64."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.noise = noise

    def calculate(self, *arguments) -> None:
        super().calculate(*arguments)
        seed = int(np.abs(self.atoms.positions.sum() * 1e12)) % 2**32
        self.results["energy"] += self.noise * np.random.default_rng(seed).standard_normal()


@pytest.mark.parametrize("noise", [1e-6, 1e-4])
@pytest.mark.parametrize("cubic", [False, True])
def test_noise_that_the_dtype_does_not_tell_of_is_no_fault(noise: float, cubic: bool) -> None:
    for constant in (3.5, 3.55, 3.6, 3.65, 3.7):
        assert fault(AsePotential(Rounded(noise)), bulk("Cu", a=constant, cubic=cubic), ELEMENTS) is None
    # The control: a fault that is larger than the noise is one.
    assert fault(AsePotential(Front(answered=opposite)), copper(), ELEMENTS) is not None


@pytest.mark.parametrize("structure", [bulk("Cu"), Atoms("Cu"), bulk("Cu", cubic=True)], ids=["cell", "atom", "cubic"])
def test_forces_that_vanish_by_symmetry_do_not_cancel(structure: Atoms) -> None:
    assert fault(AsePotential(EMT(), conservative=False), structure, ELEMENTS) is None


def test_an_error_that_passes_is_not_taken_for_a_sound_average() -> None:
    class Starting(Front):
        """Fails once, and gives stresses of the wrong sign after."""

        def calculate(self, *arguments, **more) -> None:
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls == 1:
                raise RuntimeError("out of memory")
            super().calculate(*arguments, **more)

    verification = Verification(AsePotential(Starting(answered=opposite)), ELEMENTS)
    assert verification.fault(copper()) is None
    assert verification.fault(copper()) is not None


# ---- runs, relaxations and experiments ------------------------------------------------------------------------------

HERE = Path(__file__).parent
RUNS = {
    "raw": {"kind": "raw"},
    "average": {"kind": "average", "rule": "klein"},
    "random": {"kind": "random"},
    "tumble": {"kind": "tumble", "period": 100.0},
    "mts": {"kind": "mts", "rule": "klein", "ratio": 2},
    "mts, rotated at random": {"kind": "mts", "rule": "identity", "ratio": 2, "outer": "random"},
}


def halved(energy, forces, stress, back, atoms):
    """An adapter whose answers for inverted structures lack half of the neighbors."""
    sign = np.sign(np.linalg.det(atoms.positions[1:4] - atoms.positions[0]))
    share = 1.0 if sign == np.sign(np.linalg.det(copper().positions[1:4] - copper().positions[0])) else 0.5
    return share * energy, forces, share * stress


FRONTS = {
    "standard": lambda: Front(standard),
    "opposite": lambda: Front(None, changed(lambda s: -s)),
    "halved": lambda: Front(None, halved),
    "sound": Front,
}


def standing() -> Atoms:
    """As i-PI wants its cells."""
    structure = copper()
    scaled = structure.get_scaled_positions()
    structure.set_cell(structure.cell.standard_form()[0])
    structure.set_scaled_positions(scaled)
    return structure


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable:
    """Run a command in a folder with a structure and a model for every fault; exit code and standard error."""
    factories = "".join(f"def {name}(): return FRONTS[{name!r}]()\n" for name in FRONTS)
    (tmp_path / "fronts.py").write_text(
        f"import sys; sys.path.append({str(HERE)!r})\nfrom test_verification import FRONTS\n{factories}"
    )
    write(tmp_path / "cu.xyz", standing())
    monkeypatch.chdir(tmp_path)

    def called(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["goniometer", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        return int(left.value.code or 0), capsys.readouterr().err

    return called


def described(model: str, strategy: str, **more: object) -> None:
    settings = {"potential": {"model": f"fronts.py:{model}"}, "structure": "cu.xyz", "strategy": RUNS[strategy]}
    Path("run.yaml").write_text(json.dumps({**settings, "length": 0.002, "frames_every": 1.0, **more}))


@pytest.mark.parametrize(
    ("model", "said", "strategy"),
    [
        *(("standard", "not rotated back", name) for name in RUNS if name != "raw"),
        ("opposite", "sign is opposite", "average"),
        ("halved", "not in inverted copies", "random"),
    ],
)
def test_no_run_starts_on_an_average_that_is_no_potential(command, model: str, said: str, strategy: str) -> None:
    described(model, strategy)
    before = set(Path().rglob("*"))
    code, errors = command("run", "run.yaml", "-o", "made/runs")
    assert code == 2
    assert "is not a potential on cu.xyz" in errors
    assert said in errors
    assert errors.count("goniometer: ") == 1
    assert {each for each in Path().rglob("*") if "__pycache__" not in str(each)} == before
    code, _ = command("run", "run.yaml", "-o", "made/runs", "--set", "verify=false")
    assert code == 0


def test_a_run_is_tested_once_and_a_resumed_one_not_again(command, monkeypatch: pytest.MonkeyPatch) -> None:
    tested = []
    monkeypatch.setattr("goniometer.symmetrization.verification.fault", lambda *given: tested.append(given))
    described("sound", "average")
    assert command("run", "run.yaml")[0] == 0
    assert len(tested) == 1
    assert command("run", "run.yaml", "--set", "length=0.004")[0] == 0
    assert len(tested) == 1
    (folder,) = (each for each in Path("runs").iterdir() if each.is_dir())
    state = read_state(folder)
    assert state["verified"]
    # The record of an older version says nothing: the run is tested when it is resumed.
    write_state(folder, {name: value for name, value in state.items() if name != "verified"})
    assert command("run", "run.yaml", "--set", "length=0.006")[0] == 0
    assert len(tested) == 2
    described("sound", "raw")
    assert command("run", "run.yaml")[0] == 0
    assert len(tested) == 2  # nothing is averaged


def test_no_relaxation_starts_on_an_average_that_is_no_potential(command) -> None:
    arguments = ["relax", "cu.xyz", "--rule", "klein", "--steps", "2", "-o", "made", "--model"]
    code, errors = command(*arguments, "fronts.py:standard")
    assert code == 2
    assert "not rotated back" in errors
    assert not Path("made").exists()
    assert command(*arguments, "fronts.py:standard", "--no-verify")[0] == 0
    assert command(*arguments, "fronts.py:sound")[0] == 0


def test_a_test_that_an_error_prevented_is_made_with_the_next_structure() -> None:
    class Starting(Front):
        def calculate(self, *arguments, **more) -> None:
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls == 1:
                raise RuntimeError("out of memory")
            super().calculate(*arguments, **more)

    averaged = Averaged(AsePotential(Starting(None, changed(lambda s: -s))), rule("klein"))
    averaged.verify(copper())
    with pytest.raises(PotentialError, match="sign is opposite"):
        averaged.verify(copper())


def test_a_structure_whose_cell_becomes_tilted_is_of_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    tested = []
    monkeypatch.setattr("goniometer.symmetrization.verification.fault", lambda *given: tested.append(given))
    averaged = Averaged(AsePotential(Front()), rule("klein"))
    for structure in (bulk("Cu", cubic=True), copper(), copper(), bulk("Cu", cubic=True)):
        averaged.predict(structure)
    assert len(tested) == 2
