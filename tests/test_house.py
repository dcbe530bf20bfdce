"""The house stands: layers, documents, packaged files, and an import that costs nothing."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import units
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import goniometer

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "goniometer"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


# The public face


def test_import_brings_in_nothing_heavy() -> None:
    code = "import sys, goniometer; goniometer.__version__; print(*sys.modules)"
    loaded = run([sys.executable, "-c", code]).stdout.split()
    assert "goniometer" in loaded
    assert not {"torch", "matplotlib", "metatomic", "scipy", "ase", "numpy"} & set(loaded)


def test_everything_in_the_face_is_there_and_callable() -> None:
    for name in set(goniometer.__all__) - {"__version__"}:
        assert callable(getattr(goniometer, name)), name
        assert inspect.signature(getattr(goniometer, name)).parameters, name
    assert set(goniometer.__all__) <= set(dir(goniometer))
    with pytest.raises(AttributeError, match="no attribute 'probes'"):
        _ = goniometer.probes


def test_the_face_holds_functions_in_any_order_of_imports() -> None:
    ways = [
        "import goniometer.probing.result as result; import goniometer",
        "import goniometer; goniometer.probe; import goniometer.probing.result",
        "from goniometer import probe; import goniometer; from goniometer.probing import result",
        "import goniometer.symmetrization.average; import goniometer.planning.planner; import goniometer",
    ]
    check = (
        "import inspect; "
        "assert all(inspect.isfunction(getattr(goniometer, name)) for name in ('plan', 'probe', 'rule', 'symmetrize'))"
    )
    for way in ways:
        done = run([sys.executable, "-c", f"{way}\n{check}"])
        assert done.returncode == 0, f"{way}: {done.stderr}"


def test_no_module_has_the_name_of_a_public_function() -> None:
    """Importing a submodule binds its name in the parent, where it would replace the function."""
    for folder in [PACKAGE, *(each.parent for each in PACKAGE.glob("*/__init__.py"))]:
        parent = importlib.import_module(".".join(folder.relative_to(PACKAGE.parent).parts))
        modules = {each.stem for each in folder.glob("*.py")} | {
            each.parent.name for each in folder.glob("*/__init__.py")
        }
        same = modules & set(getattr(parent, "__all__", ()))
        assert not same, f"{parent.__name__}: {', '.join(sorted(same))}"


# Layers and dependencies


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    linter = Path(sys.executable).with_name("lint-imports")
    if not linter.exists():
        pytest.skip("import-linter is not installed")
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    return run([str(linter), "--config", "pyproject.toml", "--no-cache"], cwd=root, env=environment)


def test_layers_import_one_way() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


def test_an_import_against_the_layers_is_caught(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "src" / "goniometer", ignore=shutil.ignore_patterns("__pycache__", "*.pt"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    wrong = tmp_path / "src" / "goniometer" / "errors.py"
    wrong.write_text(wrong.read_text(encoding="utf-8") + "\nimport goniometer.probing\n", encoding="utf-8")
    done = lint_imports(tmp_path)
    assert done.returncode != 0
    assert "goniometer.errors -> goniometer.probing" in done.stdout


def test_every_dependency_is_pinned_within_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *extras["test"], *extras["docs"]]:
        wanted = Requirement(text)
        if wanted.name == project["name"]:  # an extra that holds another one
            assert wanted.extras <= set(extras)
            continue
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), text
    assert {canonicalize_name(Requirement(text).name) for text in extras["lint"]} <= set(pins)


# Packaged files


def test_every_pattern_of_package_data_finds_files() -> None:
    for pattern in PYPROJECT["tool"]["setuptools"]["package-data"]["goniometer"]:
        assert any(path.is_file() for path in PACKAGE.glob(pattern)), pattern


def test_packaged_models_hold_no_source_paths() -> None:
    models = list((PACKAGE / "data" / "models").glob("*.pt"))
    assert models
    for model in models:
        members = zipfile.ZipFile(model).namelist()
        assert not [member for member in members if member.endswith(".debug_pkl")], model.name


@pytest.mark.parametrize(("name", "molecules"), [("molecule", 1), ("box", 64), ("ice", 64)])
def test_packaged_structures_are_whole_molecules(name: str, molecules: int) -> None:
    atoms = ase.io.read(PACKAGE / "data" / "structures_files" / f"{name}.xyz")
    assert atoms.get_chemical_symbols() == ["O", "H", "H"] * molecules
    distances = atoms.get_all_distances(mic=True)[::3]
    own = np.repeat(np.eye(molecules, dtype=bool), 3, axis=1)
    np.testing.assert_array_equal(distances < 1.25, own)
    assert atoms.pbc.all() == (name != "molecule")
    assert "make_structures.py" in atoms.info["origin"]
    if name == "molecule":
        assert not atoms.pbc.any()
        # No bond in a plane of the axes, and no mirror that exchanges the hydrogens: nothing vanishes by symmetry.
        assert np.abs(atoms.positions[1:] - atoms.positions[0]).min() > 0.05
        assert abs(distances[0, 1] - distances[0, 2]) > 0.005
        return
    density = atoms.get_masses().sum() * units._amu * 1e3 / (atoms.get_volume() * 1e-24)
    assert density == pytest.approx({"box": 1.0, "ice": 0.92}[name], abs=0.01)
    assert atoms.cell.orthorhombic
    between = distances[:, ::3][np.triu_indices(molecules, 1)]
    assert 2.4 < between.min() < 2.8
    # Neighbors of an oxygen within the first shell: four in ice, somewhat more in the liquid.
    shell = 2.0 * np.count_nonzero(between < 3.3) / molecules
    assert {"box": 3.5, "ice": 3.99}[name] < shell < {"box": 5.5, "ice": 4.01}[name]


# Documents


def tracked_files() -> list[Path]:
    listed = run(["git", "ls-files", "-z"], cwd=ROOT)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_mentions_a_place_outside_the_project() -> None:
    places = re.compile(r"(?<![\w.}])/(?:wo" r"rk|tm" r"p|ro" r"ot|ho" r"me)\b")
    beside = re.compile(r"\.\./sha" r"red")
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found = places.search(text) or (None if path.is_relative_to(ROOT / "tests") else beside.search(text))
        assert not found, f"{path.relative_to(ROOT)} mentions {found and found.group()}"


def test_the_version_is_the_same_everywhere() -> None:
    assert goniometer.__version__ == PYPROJECT["project"]["version"]
    assert f"version: {goniometer.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_vision_is_three_lines() -> None:
    assert len((ROOT / "VISION.md").read_text(encoding="utf-8").splitlines()) == 3


def test_links_and_pictures_of_the_documents_exist() -> None:
    for document in ROOT.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert "://" in target or (ROOT / target).exists(), f"{document.name}: {target}"


def blocks(language: str) -> list[str]:
    """The fenced blocks of the README in this language."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def commands(program: str) -> list[list[str]]:
    """The arguments of every line of the README's shell blocks that starts with this program."""
    lines = [shlex.split(line, comments=True) for block in blocks("bash") for line in block.splitlines()]
    return [line[1:] for line in lines if line and line[0] == program]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the README's examples speak of."""
    shutil.copy(PACKAGE / "data" / "models" / "pet-water.pt", tmp_path / "model.pt")
    shutil.copy(PACKAGE / "data" / "structures_files" / "molecule.xyz", tmp_path / "water.xyz")
    (tmp_path / "calculator.py").write_text(
        "from ase.calculators.lj import LennardJones\n\n\ndef lennard_jones(epsilon=0.02):\n"
        "    return LennardJones(sigma=1.0, epsilon=float(epsilon), rc=5.0)\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readme_holds_nothing_that_is_not_tested() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("```") == 2 * (len(blocks("bash")) + len(blocks("python")))
    programs = {shlex.split(line)[0] for block in blocks("bash") for line in block.splitlines() if line.strip()}
    assert programs == {"make", "pip", "goniometer"}


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target, *_ in commands("make"):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_pip_lines_of_the_readme_install_this_project() -> None:
    for arguments in commands("pip"):
        assert arguments[0] == "install"
        assert arguments[-1] in (".", ".[all]")


def test_commands_of_the_readme_run(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from goniometer.cli import main

    for arguments in commands("goniometer"):
        monkeypatch.setattr(sys, "argv", ["goniometer", *arguments])
        try:
            code = main()
        except SystemExit as exit_:
            code = exit_.code
        assert not code, f"goniometer {shlex.join(arguments)} ended with {code}"
        for option in ("--report", "--json"):
            if option in arguments:
                assert (workplace / arguments[arguments.index(option) + 1]).stat().st_size > 0


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("block", blocks("python"))
def test_python_of_the_readme_runs(block: str) -> None:
    exec(compile(block, "README.md", "exec"), {})


def test_the_script_of_the_ci_is_sound() -> None:
    done = run(["bash", "-n", str(ROOT / ".ci" / "run")])
    assert done.returncode == 0, done.stderr
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("make check ") for line in lines)
    assert "make test" in lines
    assert lines[-1] == "[ $tested = 0 ] && [ $checked = 0 ]"
    assert "run: bash .ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
