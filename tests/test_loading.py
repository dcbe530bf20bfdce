"""From what a user writes to a potential, and what is said if that does not work."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from goniometer import symmetrize
from goniometer.errors import InputError
from goniometer.files.packaged import packaged_files
from goniometer.potentials import AsePotential, load, packaged_models, parse_options
from goniometer.potentials.warnings import hushed

MODEL = packaged_files("models", ".pt")["pet-water"]
FACTORY = """
from __future__ import annotations
from dataclasses import dataclass

from ase.calculators.lj import LennardJones as Law
from beside import SIGMA

@dataclass
class Settings:
    sigma: float = SIGMA

value = 3

def make(sigma=None, smooth=False):
    return Law(sigma=sigma or Settings().sigma, epsilon=0.1, smooth=smooth)

def number():
    return 3

def kind():
    return Law

def broken():
    raise ValueError("no weights\\n at hand")

def leaves():
    raise SystemExit(1)

def potential():
    from goniometer.potentials import AsePotential
    return AsePotential(Law(), name="made here")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "factory.py").write_text(FACTORY)
    (tmp_path / "beside.py").write_text("SIGMA = 2.0\n")
    (tmp_path / "syntax.py").write_text("def make(:\n")
    (tmp_path / "importer.py").write_text("import no_such_package\n")
    (tmp_path / "exits.py").write_text("raise SystemExit(2)\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("factory", "beside", "syntax", "importer", "exits"):
        sys.modules.pop(name, None)


# What works


def test_the_packaged_model_by_name_and_by_path(tmp_path):
    assert "pet-water" in packaged_models()
    by_name = load("pet-water")
    assert (by_name.name, by_name.dtype, by_name.virial) == ("pet-water", "float32", "full")
    path = tmp_path / "mine.pt"
    shutil.copy(MODEL, path)
    by_path = load(path, dtype="float64", device="cpu", batch=2)
    assert (by_path.name, by_path.dtype) == ("mine.pt", "float64")
    water = molecule("H2O")
    # float32 energies of some eV.
    assert by_name.predict(water).energies[0] == pytest.approx(by_path.predict(water).energies[0], rel=1e-5)


@pytest.mark.parametrize("name", sorted(packaged_files("models", ".pt")))
def test_packaged_models_tell_nothing_of_where_they_were_made(name):
    with zipfile.ZipFile(packaged_files("models", ".pt")[name]) as archive:
        assert not [member for member in archive.namelist() if member.endswith("debug_pkl")]


@pytest.mark.parametrize("name", ["pet-water-fine-tuned", "pet-water-unaugmented", "soap-bpnn-water"])
def test_packaged_models_have_cards_of_what_was_measured_of_them(name):
    path = packaged_files("models", ".pt")[name]
    card = path.with_suffix(".md").read_text("utf-8")
    assert card.startswith(f"# {name}\n")
    assert hashlib.sha256(path.read_bytes()).hexdigest() in card
    assert all(said in card for said in ("please cite", "licence", "text evaluated structures", "√P_ℓ"))


def test_the_models_of_the_study_differ_in_their_symmetry_as_they_should():
    """Never shown a turned structure, shown them, and symmetric by construction: rms over the octahedral group."""
    water, errors = molecule("H2O"), {}
    for name in ("pet-water-unaugmented", "pet-water-fine-tuned", "soap-bpnn-water"):
        forces = symmetrize(load(name, dtype="float64"), "octahedral").predict(water).spread.forces
        errors[name] = float(np.sqrt(np.mean(forces**2)))
    assert errors["pet-water-unaugmented"] > 3.0 * errors["pet-water-fine-tuned"] > 1e-4
    assert errors["soap-bpnn-water"] < 1e-9


def test_a_model_that_needs_an_extension_which_is_not_installed_says_what_to_install(tmp_path):
    source, target = packaged_files("models", ".pt")["soap-bpnn-water"], tmp_path / "model.pt"
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as changed:
        for member in archive.namelist():
            content = archive.read(member)
            if member.endswith("/extra/extensions"):
                content = json.dumps([{"name": "no_such", "path": "no_such/torch/torch-2.13/lib/x.so"}]).encode()
            changed.writestr(member, content)
    with pytest.raises(
        InputError, match=r"extension 'no_such' of the Python package no_such.torch, .*pip install no-such$"
    ):
        load(target)


def test_calculators_potentials_and_functions_themselves():
    calculator = EMT()
    potential = load(calculator, dtype="float32", forces="non-conservative")
    assert (potential.name, potential.dtype, potential.conservative) == ("EMT", "float32", False)
    assert load(potential) is potential
    assert load(LennardJones, options={"sigma": 2.0}, epsilon=0.5).name == "LennardJones"


@pytest.mark.parametrize("spec", ["factory.py:make", "factory:make", "./factory.py:make"])
def test_factories_from_files_and_modules(folder, spec):
    structure = bulk("Cu", cubic=True)
    potential = load(spec)
    assert potential.name == spec
    expected = AsePotential(LennardJones(sigma=2.0, epsilon=0.1)).predict(structure)
    assert potential.predict(structure).energies == expected.energies
    smooth = AsePotential(LennardJones(sigma=2.2, epsilon=0.1, smooth=True)).predict(structure)
    found = load(spec, options=parse_options(["sigma=2.2", "smooth=true"])).predict(structure)
    assert found.energies == smooth.energies
    assert found.energies != expected.energies


def test_a_factory_may_return_a_potential(folder):
    assert load("factory.py:potential").name == "made here"


def test_an_installed_module():
    assert load("ase.calculators.emt:EMT").virial == "symmetric"


def test_a_folder_where_the_user_is_does_not_hide_what_is_installed(folder):
    (folder / "ase.py").write_text("raise RuntimeError\n")
    code = "import goniometer.potentials as p; print(p.load('ase.calculators.emt:EMT').name)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=folder)
    assert done.stdout == "ase.calculators.emt:EMT\n", done.stderr


def test_importing_does_not_import_torch():
    code = "import sys, goniometer.potentials, goniometer.structures; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# What does not


def _save(name: str, content: object):
    def make(folder: Path) -> str:
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        elif isinstance(content, torch.jit.ScriptModule):
            content.save(str(folder / name))
        else:
            torch.save(content, folder / name)
        return str(folder / name)

    return make


def _archive(folder: Path) -> str:
    with zipfile.ZipFile(folder / "x.pt", "w") as archive:
        archive.writestr("notes.txt", "nothing")
    return str(folder / "x.pt")


def _truncated(folder: Path) -> str:
    (folder / "x.pt").write_bytes(MODEL.read_bytes()[:100_000])
    return str(folder / "x.pt")


BAD_MODELS = {
    "unknown name": (
        lambda _: "pet-ice",
        r"there is no model 'pet-ice'; write a packaged name .*factory; did you mean 'pet-water'\?$",
    ),
    "far from any name": (
        lambda _: "zzz",
        r"there is no model 'zzz'; write a packaged name \(pet-water.*package.module:factory$",
    ),
    "no such file": (
        lambda folder: str(folder / "absent.pt"),
        "there is no model file '.*absent.pt'; the packaged models",
    ),
    "packaged name with a suffix": (
        lambda _: "pet-watr.pt",
        r"no model file 'pet-watr.pt'.*did you mean 'pet-water'\?$",
    ),
    "no such relative file": (lambda _: "models/x", "there is no model file 'models/x'"),
    "address": (lambda _: "https://example.org/model.pt", "there is no model file"),
    "folder": (lambda folder: str(folder), "is a folder; a model file"),
    "python without a function": (_save("x.py", b"pass"), "is a Python file: name the function in it .*x.py:FUNCTION"),
    "empty": (_save("x.pt", b""), "x.pt' is not a metatomic model"),
    "random bytes": (_save("x.pt", bytes(range(256)) * 40), "x.pt' is not a metatomic model"),
    "text": (_save("x.pt", b"hello\n"), "x.pt' is not a metatomic model"),
    "truncated": (_truncated, "x.pt' is not a metatomic model"),
    "other archive": (_archive, "x.pt' is an archive, but not of a metatomic model"),
    "weights": (_save("x.pt", {"weight": torch.zeros(3)}), "x.pt' holds PyTorch weights but no model"),
    "checkpoint": (
        _save("x.ckpt", {"architecture_name": "pet", "weight": torch.zeros(3)}),
        "x.ckpt' is a metatrain checkpoint: export it with `mtt export x.ckpt`",
    ),
    "script": (
        _save("x.pt", torch.jit.script(torch.nn.Linear(1, 1))),
        "x.pt' is a TorchScript module but not a metatomic",
    ),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_what_is_not_a_model_is_said_in_one_sentence(case, tmp_path):
    make, message = BAD_MODELS[case]
    with pytest.raises(InputError, match=message) as caught:
        load(make(tmp_path))
    assert "\n" not in str(caught.value)


BAD_FACTORIES = {
    "no_such_module:make": r"cannot import the module no_such_module: No module named 'no_such_module' \(Module",
    "importer:make": "cannot import the module importer: No module named 'no_such_package'",
    "importer.py:make": "cannot import the file 'importer.py': No module named 'no_such_package'",
    "syntax.py:make": r"cannot import the file 'syntax.py': .*syntax.py, line 1.*\(SyntaxError\)",
    "exits.py:make": r"cannot import the file 'exits.py': 2 \(SystemExit\)",
    "absent.py:make": "there is no file 'absent.py'",
    "not-a-module:make": "'not-a-module' is neither a module .* nor a Python file",
    ":make": "'' is neither a module",
    "factory.py:mak": r"'factory.py' has no 'mak'; did you mean 'make'\?",
    "factory.py:": "'factory.py' has no ''",
    "factory:zzzzz": "'factory' has no 'zzzzz'$",
    "factory.py:value": "'value' in 'factory.py' is int, not a function that returns a calculator",
    "factory.py:number": "the factory factory.py:number returned int; it must return an ASE calculator or a Potential",
    "factory.py:kind": "the factory factory.py:kind returned the class LennardJones; it must",
    "factory.py:broken": r"the factory factory.py:broken failed: no weights at hand \(ValueError\)",
    "factory.py:leaves": r"the factory factory.py:leaves failed: 1 \(SystemExit\)",
}


@pytest.mark.parametrize("spec", BAD_FACTORIES)
def test_bad_factories_are_said_in_one_sentence(folder, spec):
    with pytest.raises(InputError, match=BAD_FACTORIES[spec]) as caught:
        load(spec)
    assert "\n" not in str(caught.value)


BAD_SETTINGS = [
    ("pet-water", {"options": {"sigma": 1.0}}, r"the model 'pet-water' takes no options \(sigma\)"),
    ("pet-water", {"devise": "cpu"}, r"the model 'pet-water' takes no options \(devise\)"),
    ("pet-water", {"forces": "direct"}, "forces is 'conservative' or 'non-conservative', not 'direct'"),
    ("pet-water", {"dtype": "float16"}, "dtype is 'float32' or 'float64', not 'float16'"),
    (EMT(), {"options": {"sigma": 1.0}}, "the object EMT takes no options"),
    (EMT(), {"device": "cuda"}, "the ASE calculator EMT takes no device"),
    (EMT(), {"batch": 4}, "the ASE calculator EMT takes no batch"),
    (AsePotential(EMT()), {"dtype": "float64"}, "the potential EMT takes no dtype"),
    (AsePotential(EMT()), {"forces": "non-conservative"}, "the potential EMT takes no forces"),
    (3, {}, "a model is a name, a path, .* not int"),
    (np.zeros(3), {}, "not ndarray"),
]


@pytest.mark.parametrize(("spec", "settings", "message"), BAD_SETTINGS)
def test_settings_that_do_not_apply_are_refused(spec, settings, message):
    with pytest.raises(InputError, match=message):
        load(spec, **settings)


def test_an_unknown_option_names_the_factory(folder):
    with pytest.raises(InputError, match=r"factory.py:make failed: .*unexpected keyword argument 'cutof'"):
        load("factory.py:make", options={"cutof": 3})


# Options


def test_options_are_numbers_booleans_nothing_or_text():
    pairs = [
        "n=3",
        "cutoff=-5.5e-1",
        "on=true",
        "off=False",
        "head=None",
        "name=pbe",
        "tag='1'",
        "eq=a=b",
        "empty=",
        "x=inf",
    ]
    assert parse_options(pairs) == {
        "n": 3,
        "cutoff": -0.55,
        "on": True,
        "off": False,
        "head": None,
        "name": "pbe",
        "tag": "1",
        "eq": "a=b",
        "empty": "",
        "x": "inf",
    }
    assert isinstance(parse_options(["n=3"])["n"], int)
    assert parse_options([]) == {}


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["cutoff"], "the option 'cutoff' is not of the form key=value"),
        (["=3"], "the option '=3' is not of the form key=value"),
        (["cut-off=3"], "the option 'cut-off=3' is not of the form"),
        (["a=1", "a=2"], "the option 'a' is given twice"),
    ],
)
def test_malformed_options_are_refused(pairs, message):
    with pytest.raises(InputError, match=message):
        parse_options(pairs)


def test_what_metatomic_says_of_extensions_that_are_there_is_not_passed_on(capfd):
    dependency = (
        "[W1125 22:14:02.1 model.cpp:1039] Warning: failed to load extension dependency gomp. We tried the following:\n"
        " - loading gomp directly by name\n (function load_library)\n"
    )
    other = "[W1125 22:14:02.1 model.cpp:1039] Warning: something else\n of two lines (function load_library)\n"
    with hushed():
        os.write(2, (dependency + other + dependency).encode())
    assert capfd.readouterr().err == other
