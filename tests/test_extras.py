"""What works with the core alone, and what a command says whose extra is not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import ase.io
import pytest
from ase.build import bulk
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from goniometer.extras import EXTRAS, remedy

PYPROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: Modules whose distribution has another name.
DISTRIBUTIONS = {"metatensor": "metatensor-torch", "metatomic": "metatomic-torch"}
#: Modules that come with another one: markupsafe with jinja2.
WITH_ANOTHER = {"markupsafe"}

# Runs the command line with the modules of all extras blocked, as if they were not installed.
CORE = """
import sys
sys.path.insert(0, ".")
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
{program}
"""
BLOCKED = {module for modules in EXTRAS.values() for module in modules} - {"matplotlib"}  # ASE brings matplotlib
CALCULATOR = (
    "def make():\n    from ase.calculators.lj import LennardJones\n    return LennardJones(rc=5.0, smooth=True)\n"
)


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "lj.py").write_text(CALCULATOR, encoding="utf-8")
    crystal = bulk("Ar", "fcc", a=5.2, cubic=True)
    crystal.rattle(0.05, seed=1)
    ase.io.write(folder / "ar.xyz", crystal)
    return subprocess.run(
        [sys.executable, "-c", CORE.format(blocked=BLOCKED, program=program)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "COLUMNS": "100"},
    )


def command(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return run(f"sys.argv[1:] = {line.split()!r}; from goniometer.cli import main; main()", folder)


def test_the_core_probes_plans_and_averages(tmp_path: Path) -> None:
    probed = command("probe lj.py:make ar.xyz --lmax 2 --json probe.json", tmp_path)
    assert probed.returncode == 0, probed.stderr
    assert json.loads((tmp_path / "probe.json").read_text())["schema"] == "goniometer/probe/1"
    planned = command("plan lj.py:make ar.xyz --force 1meV/Å", tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert "certified" in planned.stdout
    averaged = run(
        "import ase.io, goniometer, lj\n"
        "atoms = ase.io.read('ar.xyz')\n"
        "atoms.calc = goniometer.symmetrize(goniometer.load('lj.py:make'), 'octahedral').calculator()\n"
        "one = atoms.get_potential_energy()\n"
        "atoms.calc = lj.make()\n"
        "print(abs(one - atoms.get_potential_energy()) < 1e-9)",
        tmp_path,
    )
    assert averaged.stdout.split() == ["True"], averaged.stderr


@pytest.mark.parametrize(
    ("line", "extra"),
    [
        ("probe pet-water molecule", "metatomic"),
        ("run gas -o out", "dynamics"),
        ("observe out --observable drift", "dynamics"),
        ("probe lj.py:make ar.xyz --lmax 2 --report page.html", "report"),
        ("train pet-water --data ar.xyz -o out", "train"),
    ],
)
def test_a_command_names_the_extra_that_it_needs(tmp_path: Path, line: str, extra: str) -> None:
    done = command(line, tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout, "the extra is named before any work"
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("goniometer: ")
    assert f"pip install 'goniometer[{extra}]'" in last


def test_another_module_that_is_missing_is_no_matter_of_extras() -> None:
    assert remedy(ModuleNotFoundError("No module named 'nosuch'", name="nosuch")) is None


def test_extras_hold_the_modules_that_are_said_of_them() -> None:
    """Each module is of a distribution that the extra requires, and the core requires ten at most and none of these."""
    core = {canonicalize_name(Requirement(each).name) for each in PYPROJECT["dependencies"]}
    assert len(core) <= 10
    for extra, modules in EXTRAS.items():
        required = {canonicalize_name(Requirement(each).name) for each in PYPROJECT["optional-dependencies"][extra]}
        distributions = {DISTRIBUTIONS.get(module, module) for module in set(modules) - WITH_ANOTHER}
        assert distributions <= required, extra
        assert not distributions & core, extra
