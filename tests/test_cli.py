"""The command line: what each command prints and writes, its exit codes, and one sentence for whatever goes wrong."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from goniometer.cli import main
from goniometer.probing.document import read_probe

TOYS = """
import os
import time
import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from goniometer.testing import MolecularToy, PeriodicToy

def emt():
    return EMT()

def toy(ell=2, strength=0.01):
    return MolecularToy(ell, (-1) ** ell, strength)

def crystal(strength=0.01):
    return PeriodicToy(2, 1, strength)

class Bad(Calculator):
    implemented_properties = ["energy", "forces"]

    def __init__(self, energy=0.0, forces=lambda n: np.zeros((n, 3))):
        super().__init__()
        self.answer = energy, forces

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        energy, forces = self.answer
        self.results = {"energy": energy, "forces": forces(len(atoms))}

def raises():
    def forces(n):
        raise RuntimeError("no weights\\nfor this one")
    return Bad(forces=forces)

def nan_energy():
    return Bad(energy=float("nan"))

def nan_forces():
    return Bad(forces=lambda n: np.full((n, 3), np.nan))

def wrong_shape():
    return Bad(forces=lambda n: np.zeros((n + 1, 3)))

def no_forces():
    calculator = Bad()
    calculator.implemented_properties = ["energy"]
    return calculator

def empty_forces():
    return Bad(forces=lambda n: None)

class Watched(MolecularToy):
    '''Counts structures by the file "calls"; stops, or waits, at the one that holds the atoms it is told.'''

    def __init__(self, at="", stop=True):
        super().__init__(2, 1, 0.01)
        self.at, self.stop = at, stop

    def turned(self, structure, matrices):
        with open("calls", "a") as log:
            print(structure.get_chemical_formula(), file=log)
        if structure.get_chemical_formula() == os.environ.get("STOP_AT"):
            if os.environ["STOP_HOW"] == "raise":
                raise KeyboardInterrupt
            open("waiting", "w").close()
            time.sleep(60)
        yield from super().turned(structure, matrices)

def watched():
    return Watched()
"""
TIMES = ("seconds", "peak_memory_bytes", "created")


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def sentences(self) -> list[str]:
        return self.err.splitlines()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with factories and structures."""
    monkeypatch.chdir(tmp_path)
    Path("toys.py").write_text(TOYS)
    for formula in ("CO", "H2O", "NH3"):
        write(f"{formula}.xyz", molecule(formula))
    write("gold.xyz", bulk("Au"))
    return tmp_path


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """Run the command line in this process."""

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["goniometer", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        streams = capsys.readouterr()
        return Outcome(int(left.value.code or 0), streams.out, streams.err)

    return call


def spawn(*arguments: object, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "goniometer.cli", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def assert_refused(outcome: Outcome, *words: str) -> None:
    """One sentence on the error stream that holds the words, and exit code 2."""
    assert outcome.code == 2, outcome
    assert len(outcome.sentences) == 1, outcome.err
    (sentence,) = outcome.sentences
    assert sentence.startswith("goniometer: ")
    for word in words:
        assert word in sentence


def timeless(path: str) -> object:
    """A document without what differs from one run to the next."""

    def strip(value: object) -> object:
        if isinstance(value, dict):
            return {key: strip(each) for key, each in value.items() if key not in TIMES}
        return [strip(each) for each in value] if isinstance(value, list) else value

    return strip(json.loads(Path(path).read_text()))


# Bad input


def broken(**changes: object) -> Atoms:
    atoms = molecule("CO")
    for name, value in changes.items():
        setattr(atoms, name, value)
    return atoms


def bad_structures() -> dict[str, tuple[object, tuple[str, ...]]]:
    nan, inf = np.zeros((2, 3)), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    nan[0, 1], inf[1, 2] = math.nan, math.inf
    coincident = bulk("Au", cubic=True)
    coincident.positions[1] = coincident.positions[0] + coincident.cell[0] + 0.01
    return {
        "empty": ("", ("empty",)),
        "text": ("these are\nnot atoms\n", ("not a structure file",)),
        "binary": (bytes(range(256)) * 4, ("not a structure file",)),
        "nan": (broken(positions=nan), ("atom 0", "NaN")),
        "infinite": (broken(positions=inf), ("atom 1", "infinite")),
        "no cell": (broken(pbc=True), ("periodic along a", "zero")),
        "coincident": (coincident, ("coincide", "atoms 0 and 1")),
        "unknown element": (Atoms("U2", [[0, 0, 0], [0, 0, 2.5]]), ("U", "EMT")),
        "no atoms": (Atoms(), ("no",)),
    }


@pytest.mark.parametrize("kind", bad_structures())
def test_a_structure_that_cannot_be_used_takes_one_sentence(run, kind):
    content, words = bad_structures()[kind]
    path = Path("bad.extxyz")
    if isinstance(content, Atoms):
        write(path, content)
    elif isinstance(content, str):
        path.write_text(content)
    else:
        path.write_bytes(content)
    assert_refused(run("probe", "toys.py:emt", path), "bad.extxyz" if kind != "unknown element" else "EMT", *words)


def test_an_element_that_the_packaged_model_does_not_know(run):
    assert_refused(run("probe", "pet-water", "gold.xyz"), "Au", "H")


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("raises", ("no weights for this one", "RuntimeError")),
        ("nan_energy", ("energy", "not finite")),
        ("nan_forces", ("forces", "not finite")),
        ("wrong_shape", ("forces of shape (3, 3)", "(2, 3)")),
        ("no_forces", ("does not compute forces",)),
        ("empty_forces", ("gave no forces",)),
        ("nothing", ("has no 'nothing'",)),
    ],
)
@pytest.mark.parametrize("command", ["probe", "plan"])
def test_a_calculator_that_fails_takes_one_sentence(run, command, factory, words):
    tolerance = ["--force", "1meV/Å"] if command == "plan" else []
    assert_refused(run(command, f"toys.py:{factory}", "CO.xyz", *tolerance), *words)


PROBE = ("probe", "toys.py:toy", "CO.xyz")
PLAN = ("plan", "toys.py:toy", "CO.xyz")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("probe", "toys.py:toy", "missing.xyz"), ("missing.xyz", "no file")),
        (("probe", "toys.py:toy", "."), ("folder",)),
        (("probe", "toys.py:toy", "CO.xyz@7"), ("no structure", "7")),
        (("probe", "weights.pt", "CO.xyz"), ("weights.pt", "not a metatomic model")),
        (("probe", "missing.pt", "CO.xyz"), ("missing.pt", "no model file")),
        (("probe", "pet-watr", "CO.xyz"), ("did you mean 'pet-water'",)),
        ((*PROBE, "--rule", "cubic"), ("cubic", "octahedral")),
        ((*PROBE, "--rule", "gauss:15"), ("gauss", "14")),
        ((*PROBE, "--rule", "lebedev:1000"), ("lebedev",)),
        ((*PROBE, "--rule", "degree:999999"), ("degree",)),
        ((*PROBE, "--lmax", "-1"), ("lmax", "-1")),
        ((*PROBE, "--lmax", "99"), ("lmax", "99")),
        ((*PROBE, "--lmax", "many"), ("--lmax",)),
        ((*PROBE, "--batch", "0"), ("--batch", "1")),
        ((*PROBE, "--seed", "-1"), ("--seed",)),
        ((*PROBE, "--dtype", "float16"), ("float16", "float32")),
        ((*PROBE, "--device", "abacus"), ("device",)),
        ((*PROBE, "--forces", "none"), ("conservative",)),
        ((*PROBE, "--option", "ell"), ("'ell'", "key=value")),
        ((*PROBE, "--option", "colour=red"), ("colour",)),
        ((*PROBE, "--option", "ell=1", "--option", "ell=2"), ("twice",)),
        ((*PROBE, "--report", "missing/report.html"), ("missing", "no folder")),
        ((*PROBE, "--report", "."), ("folder",)),
        ((*PROBE, "--json", "missing/probe.json"), ("missing", "no folder")),
        ((*PROBE, "--json", "."), ("folder",)),
        ((*PROBE, "--fail-above", "force"), ("'force'", "force=1meV/Å")),
        ((*PROBE, "--fail-above", "force=-1meV/Å"), ("positive",)),
        ((*PROBE, "--fail-above", "force=1"), ("unit", "meV/Å")),
        ((*PROBE, "--fail-above", "force=1kcal/mol"), ("kcal/mol", "meV/Å")),
        ((*PROBE, "--fail-above", "mass=1u"), ("mass", "energy, force or stress")),
        ((*PROBE, "--resume", "missing.json"), ("missing.json",)),
        ((*PROBE, "--resume", "toys.py"), ("toys.py", "JSON")),
        ((*PROBE, "--resume", "other.json"), ("schema", "goniometer/probe/1")),
        (PLAN, ("tolerance", "--force")),
        ((*PLAN, "--force", "-1meV/Å"), ("positive",)),
        ((*PLAN, "--energy", "0eV"), ("positive",)),
        ((*PLAN, "--energy", "1meV/Å"), ("unit", "meV/atom")),
        ((*PLAN, "--force", "1meV/Å", "--lmax", "41"), ("lmax",)),
        ((*PLAN, "--force", "1meV/Å", "--json", "missing/plan.json"), ("no folder",)),
        ((*PLAN, "--force", "1meV/Å", "--model", "pet-water"), ("--model",)),
        ((*PLAN, "--stress", "1MPa"), ("stress",)),
        (("plan", "missing.json", "--force", "1meV/Å"), ("missing.json",)),
        (("plan", "other.json", "--force", "1meV/Å"), ("schema",)),
        (("plan", "other.json", "CO.xyz", "--force", "1meV/Å"), ("structures come from",)),
        (("plan", "other.json", "--lmax", "2", "--force", "1meV/Å"), ("lmax comes from",)),
        (("rules", "cubic"), ("cubic", "octahedral")),
        (("rules", "gauss:15"), ("14",)),
        (("rules", "--largest", "999999999"), ("999999999",)),
        (("check", "toys.py:toy", "missing.xyz"), ("missing.xyz",)),
        (("prob",), ("No such command 'prob'",)),
        (("probe",), ("model",)),
        (("probe", "--nonsense", "1"), ("--nonsense",)),
    ],
    ids=lambda value: " ".join(value) if value and value[0] in ("probe", "plan", "rules", "check", "prob") else "",
)
def test_wrong_arguments_take_one_sentence(run, arguments, words):
    Path("weights.pt").write_bytes(b"no archive")
    Path("other.json").write_text('{"schema": "somebody/else/1"}')
    assert_refused(run(*arguments), *words)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(run, folder):
    (folder / "locked").mkdir(mode=0o500)
    assert_refused(run(*PROBE, "--report", "locked/report.html"), "permission")


def test_errors_do_not_pass_as_a_sentence_where_they_are_bugs(run, monkeypatch):
    """The control: an error that no user caused keeps its traceback."""

    def bug(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("goniometer.structures.read_structures", bug)
    monkeypatch.setattr(sys, "argv", ["goniometer", *PROBE])
    with pytest.raises(ZeroDivisionError):
        main()


# The probe


def test_one_bad_structure_among_others_is_reported_and_the_rest_is_kept(run):
    write("mixed.xyz", [molecule("CO"), Atoms("CO", positions=np.zeros((2, 3))), molecule("N2")])
    outcome = run("probe", "toys.py:toy", "mixed.xyz", "H2O.xyz", "--lmax", 1, "--json", "probe.json")
    assert_refused(outcome, "mixed.xyz#1", "coincide")
    assert (outcome.err + outcome.out).count("coincide") == 1
    assert "failed  mixed.xyz#1" in outcome.out
    result = read_probe("probe.json")
    assert [each.name for each in result.structures] == ["mixed.xyz#0", "mixed.xyz#2", "H2O.xyz"]
    assert [each.name for each in result.failures] == ["mixed.xyz#1"]
    assert result.complete
    assert result.pooled is not None
    assert result.pooled.n_structures == 3


def test_the_document_has_the_keys_that_others_rely_on(run):
    outcome = run("probe", "toys.py:crystal", "gold.xyz", "CO.xyz", "--lmax", 2, "--seed", 5, "--json", "probe.json")
    assert outcome.code == 0
    assert outcome.err == ""
    assert "json: probe.json" in outcome.out

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    data = json.loads(Path("probe.json").read_text(), parse_constant=refuse)
    assert data["schema"] == "goniometer/probe/1"
    assert data["model"]["name"].startswith("PeriodicToy")
    assert data["rule"] == {"name": "gauss:4", "n": 86, "degree": 4, "inversion": True, "seed": 5}
    gold, carbon_monoxide = data["structures"]
    for entry, name, atoms in ((gold, "gold.xyz", 1), (carbon_monoxide, "CO.xyz", 2)):
        assert (entry["name"], entry["n_atoms"]) == (name, atoms)
    assert carbon_monoxide["stress"] is None
    for part in (gold, data["pooled"]):
        figures = [part[quantity] for quantity in ("energy", "forces", "stress")]
        for figure in figures:
            assert {"mean", "rms", "as_given", "max", "floor", "spectrum"} <= figure.keys()
            assert len(figure["spectrum"]["plus"]) == len(figure["spectrum"]["minus"]) == 3
        assert part["forces"]["mae_as_given"] is not None
        assert part["torque"]["norm"] >= 0
    energy = carbon_monoxide["energy"]
    assert energy["spectrum"]["plus"][0] == pytest.approx(energy["mean"] ** 2, rel=1e-9)
    assert sum(energy["spectrum"]["plus"][1:]) == pytest.approx(energy["rms"] ** 2, rel=1e-9)


def test_a_document_is_read_as_it_was_written(run):
    assert run(*PROBE, "--lmax", 2, "--json", "probe.json").code == 0
    result = read_probe("probe.json")
    result.write(Path("again.json"))
    assert Path("again.json").read_bytes() == Path("probe.json").read_bytes()
    assert read_probe("again.json") == result


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        (("lmax",), "many", "lmax"),
        (("structures", 0, "energy", "rms"), None, "structures.0.energy.rms"),
        (("structures", 0, "energy", "rms"), math.nan, "NaN"),
        (("structures", 0, "energy", "rms"), math.inf, "Infinity"),
        (("structures", 0, "positions"), [[0.0, 0.0, 0.0]], "structures.0"),
        (("structures", 0, "cell"), [[1.0], [2.0], [3.0]], "structures.0"),
        (("structures", 0, "rules"), [], "structures.0.rules"),
        (("rule",), [], "rule"),
    ],
)
def test_a_damaged_document_is_refused(run, where, value, words):
    assert run(*PROBE, "--lmax", 1, "--json", "probe.json").code == 0
    data = json.loads(Path("probe.json").read_text())
    part = data
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    Path("damaged.json").write_text(json.dumps(data))
    assert_refused(run("plan", "damaged.json", "--force", "1meV/Å"), "damaged.json", words)
    assert_refused(run(*PROBE, "--lmax", 1, "--resume", "damaged.json"), "damaged.json", words)


@pytest.mark.parametrize(
    "text", ["", "{", '{"schema": "goniometer/probe/1"}', "[1, 2]", "null", "[" * 100_000, "1e999"]
)
def test_a_document_that_is_none_is_refused(run, text):
    Path("damaged.json").write_text(text)
    assert_refused(run("plan", "damaged.json", "--force", "1meV/Å"), "damaged.json")


def test_a_document_cut_anywhere_is_refused(run):
    assert run(*PROBE, "--lmax", 1, "--json", "probe.json").code == 0
    text = Path("probe.json").read_text()
    for cut in np.random.default_rng(0).integers(0, len(text) - 1, 10):
        Path("cut.json").write_text(text[:cut])
        assert_refused(run("plan", "cut.json", "--force", "1meV/Å"), "cut.json", "JSON")


def test_limits_are_a_gate(run):
    """The toy's rms is 0.01/√5 eV = 4.47 meV on two atoms; along z, as in the file, it deviates by 10 meV."""
    within = run(*PROBE, "--lmax", 2, "--fail-above", "energy=10.1meV", "--fail-above", "energy=5.1meV/atom")
    assert (within.code, within.err) == (0, "")
    along = run(*PROBE, "--lmax", 2, "--fail-above", "energy=9.9meV")
    assert along.code == 1
    assert "deviation in an axis-aligned orientation 0.01 eV exceeds 9.9meV" in along.err
    beyond = run(*PROBE, "--lmax", 2, "--fail-above", "energy=4.4meV", "--fail-above", "energy=2.2meV/atom",
                 "--fail-above", "force=1eV/Å", "--fail-above", "force=0.01meV/Å")  # fmt: skip
    assert beyond.code == 1
    assert len(beyond.sentences) == 3
    assert all(line.startswith("goniometer: CO.xyz: ") for line in beyond.sentences)
    assert "0.004472 eV exceeds 4.4meV" in beyond.sentences[0]
    assert "0.002236 eV/atom exceeds 2.2meV/atom" in beyond.sentences[1]
    assert_refused(run(*PROBE, "--lmax", 2, "--fail-above", "stress=1MPa"), "stress")


def test_an_option_reaches_the_factory(run):
    for ell in (1, 3):
        assert run(*PROBE, "--lmax", 3, "--option", f"ell={ell}", "--json", "probe.json").code == 0
        spectrum = read_probe("probe.json").structures[0].energy.spectrum
        assert spectrum.minus is not None
        assert int(np.argmax(spectrum.minus)) == ell


def test_the_packaged_model_writes_a_page_and_says_where(run):
    outcome = run("probe", "pet-water", "molecule", "--lmax", 1, "--batch", 8, "--report", "page.html")
    assert outcome.code == 0
    assert "report: page.html" in outcome.out
    assert Path("page.html").read_text().lstrip().lower().startswith("<!doctype html")


def test_the_given_rule_is_used(run):
    assert run(*PROBE, "--rule", "octahedral", "--no-inversion", "--json", "probe.json").code == 0
    result = read_probe("probe.json")
    assert (result.rule.name, result.rule.n, result.rule.inversion, result.lmax) == ("octahedral", 24, False, 1)


# Stopping and going on

THREE = ("probe", "toys.py:watched", "CO.xyz", "H2O.xyz", "NH3.xyz", "--lmax", 1)


@pytest.mark.parametrize("json_file", ["probe.json", pytest.param(None, marks=pytest.mark.nightly)])
def test_ctrl_c_keeps_what_is_finished_and_resume_goes_on(run, monkeypatch, json_file):
    assert run(*THREE, "--json", "whole.json").code == 0
    wanted = ["--json", json_file] if json_file else []
    kept = json_file or "goniometer-probe.partial.json"
    monkeypatch.setenv("STOP_AT", "H3N")
    monkeypatch.setenv("STOP_HOW", "raise")
    stopped = run(*THREE, *wanted)
    assert stopped.code == 130
    (sentence,) = stopped.sentences
    assert sentence == (f"goniometer: stopped after 2 of 3 structures; go on with the same command and --resume {kept}")
    partial = read_probe(kept)
    assert [each.name for each in partial.structures] == ["CO.xyz", "H2O.xyz"]
    assert not partial.complete
    monkeypatch.delenv("STOP_AT")
    Path("calls").unlink()
    assert run(*THREE, "--json", "resumed.json", "--resume", kept).code == 0
    assert set(Path("calls").read_text().split()) == {"H3N"}
    assert timeless("resumed.json") == timeless("whole.json")


def test_ctrl_c_before_anything_is_finished_leaves_nothing_behind(run, monkeypatch):
    monkeypatch.setenv("STOP_AT", "CO")
    monkeypatch.setenv("STOP_HOW", "raise")
    stopped = run(*THREE)
    assert (stopped.code, stopped.err) == (130, "goniometer: stopped after 0 of 3 structures\n")
    assert not Path("goniometer-probe.partial.json").exists()
    planned = run("plan", *THREE[1:], "--force", "1meV/Å")
    assert (planned.code, planned.err) == (130, "goniometer: stopped\n")
    monkeypatch.setenv("STOP_AT", "H2O")
    planned = run("plan", *THREE[1:], "--force", "1meV/Å")
    assert (planned.code, planned.err) == (130, "goniometer: stopped\n")


def test_an_earlier_result_of_something_else_is_not_continued(run):
    assert run(*PROBE, "--lmax", 1, "--json", "probe.json").code == 0
    for change in (
        ["--lmax", 2],
        ["--lmax", 1, "--seed", 3],
        ["--lmax", 1, "-o", "strength=0.02"],
        ["--lmax", 1, "--without", "cell"],
    ):
        assert_refused(run(*PROBE, *change, "--resume", "probe.json"), "cannot be continued")
    # A structure that has changed under its name is probed again.
    atoms = molecule("CO")
    atoms.positions[1] += 0.1
    write("CO.xyz", atoms)
    assert run(*PROBE, "--lmax", 1, "--resume", "probe.json", "--json", "new.json").code == 0
    new, old = read_probe("new.json").structures[0], read_probe("probe.json").structures[0]
    assert new.positions != old.positions
    assert new.energy != old.energy


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_process_that_is_ended_leaves_a_whole_file(folder, run, number):
    process = spawn(*THREE, "--json", "probe.json", STOP_AT="H3N", STOP_HOW="wait")
    patience = time.monotonic() + 60
    while not Path("waiting").exists() and process.poll() is None and time.monotonic() < patience:
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    if number == signal.SIGINT:
        assert process.returncode == 130, err
        assert re.fullmatch(r"goniometer: stopped after 2 of 3 .* --resume probe\.json\n", err)
    partial = read_probe("probe.json")
    assert [each.name for each in partial.structures] == ["CO.xyz", "H2O.xyz"]
    assert not partial.complete
    assert run(*THREE, "--json", "probe.json", "--resume", "probe.json").code == 0
    assert len(read_probe("probe.json").structures) == 3


# The other commands


def test_a_plan_of_a_model_is_certified_and_written(run):
    outcome = run(*PLAN, "--energy", "0.1meV", "--lmax", 2, "--json", "plan.json")
    assert (outcome.code, outcome.err) == (0, "")
    assert "certified" in outcome.out
    plan = json.loads(Path("plan.json").read_text())
    assert plan["schema"] == "goniometer/plan/1"
    assert (plan["rule"], plan["n"], plan["certified"]) == ("gauss:2", 11, True)


def test_a_plan_from_a_file_with_and_without_the_model(run):
    assert run(*PROBE, "--lmax", 2, "--json", "probe.json").code == 0
    alone = run("plan", "probe.json", "--energy", "0.1meV", "--json", "alone.json")
    assert alone.code == 0
    assert "not measured" in alone.out
    assert alone.out.split("CO.xyz")[-1].split("rms")[0].split()[-1] == "0.100"  # the tolerance, in the last column
    assert json.loads(Path("alone.json").read_text())["certified"] is None
    measured = run("plan", "probe.json", "--energy", "0.1meV", "--model", "toys.py:toy", "--json", "measured.json")
    assert measured.code == 0
    assert json.loads(Path("measured.json").read_text())["certified"] is True
    other = run("plan", "probe.json", "--energy", "0.1meV", "--model", "toys.py:toy", "-o", "strength=1.0")
    assert_refused(other, "cannot be certified with")


def test_the_only_structure_that_fails_is_explained_once(run):
    write("bad.xyz", Atoms("CO", positions=np.zeros((2, 3))))
    for command in (("probe", "toys.py:toy", "bad.xyz"), (*PLAN[:2], "bad.xyz", "--energy", "0.1meV")):
        outcome = run(*command)
        assert_refused(outcome, "bad.xyz", "coincide")
        assert (outcome.err + outcome.out).count("coincide") == 1


def test_the_reason_of_a_failure_names_the_structure(run):
    outcome = run("probe", "toys.py:nan_forces", "CO.xyz", "H2O.xyz", "--lmax", 1)
    assert outcome.code == 2
    assert [sentence.split(": ")[1] for sentence in outcome.sentences] == ["CO.xyz", "H2O.xyz"]


def test_a_plan_says_what_it_leaves_out(run):
    write("mixed.xyz", [molecule("CO"), Atoms("CO", positions=np.zeros((2, 3)))])
    outcome = run("plan", "toys.py:toy", "mixed.xyz", "--energy", "0.1meV", "--lmax", 2)
    assert_refused(outcome, "left out of the plan", "mixed.xyz#1")
    assert "certified" in outcome.out


def test_rules_are_listed(run):
    everything = run("rules", "--largest", 100)
    assert everything.code == 0
    for name in ("identity", "klein", "octahedral", "icosahedral", "legendre:3", "lebedev:"):
        assert name in everything.out
    one = run("rules", "octahedral", "--inversion", "--lmax", 8)
    assert one.code == 0
    assert "48" in one.out
    assert "4: 0.11" in one.out  # one invariant among the nine of ℓ = 4
    assert "5:" not in one.out  # which it removes besides its degree


def test_check_passes_a_potential_that_keeps_the_contract_and_fails_one_that_does_not(run):
    passed = run("check", "toys.py:toy", "CO.xyz")
    assert (passed.code, passed.err) == (0, "")
    assert "passed" in passed.out
    failed = run("check", "toys.py:Bad", "CO.xyz", "-o", "energy=nan")
    assert failed.code in (1, 2)
    assert len(failed.sentences) == 1


@pytest.mark.parametrize("command", [[], ["probe"], ["plan"], ["rules"], ["check"]])
def test_every_command_has_help(run, command):
    outcome = run(*command, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert "Usage: goniometer" in outcome.out


def test_version(run):
    import goniometer

    assert run("--version") == (0, f"{goniometer.__version__}\n", "")


def test_a_real_process_ends_with_one_sentence(folder):
    process = spawn("probe", "pet-water", "missing.xyz")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("goniometer: there is no file 'missing.xyz'")
    assert err.count("\n") == 1
