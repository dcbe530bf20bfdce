"""From what a user writes to a potential: a packaged model, a metatomic file, a factory of calculators, an object."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import zipfile
from collections.abc import Callable
from hashlib import sha256
from math import isfinite
from pathlib import Path
from types import ModuleType
from typing import Any

from goniometer.errors import InputError, did_you_mean
from goniometer.files.packaged import packaged_files
from goniometer.potentials.ase import AsePotential, is_calculator, made_by, sentence
from goniometer.potentials.base import Potential

FORCES = ("conservative", "non-conservative")
DTYPES = ("float32", "float64")
#: Precedes the folder of a neural network potential of RuNNer or n2p2.
NNP = "nnp:"


def packaged_models() -> list[str]:
    """Names of the models that come with the package."""
    return list(packaged_files("models", ".pt"))


def load(
    spec: Any,
    *,
    device: str | None = None,
    dtype: str | None = None,
    forces: str = "conservative",
    options: dict[str, Any] | None = None,
    batch: int | None = None,
    **more: Any,
) -> Potential:
    """Make a potential.

    Parameters
    ----------
    spec
        The name of a packaged model (:func:`packaged_models`; it goes before a file of that name); the path of an
        exported metatomic model, ``model.pt``; ``nnp:FOLDER``, a neural network potential in the files of RuNNer and
        n2p2; ``package.module:factory`` or ``file.py:factory``, a function that returns an ASE calculator or a
        :class:`Potential`; such a function; an ASE calculator; a potential, which is returned as it is.
    device
        ``"cpu"`` or ``"cuda"``, of a metatomic model.
    dtype
        ``"float32"`` or ``"float64"``. A metatomic model is converted to it; for a calculator it states what it uses.
    forces
        ``"conservative"`` or ``"non-conservative"``: which output of a metatomic model is taken as the forces; for a
        calculator it states what they are.
    options, **more
        Keyword arguments of the factory.
    batch
        How many copies a metatomic model evaluates at a time; chosen by measurement if None.

    Raises :class:`InputError` if there is no such thing, or if it is not a model.
    """
    options = {**(options or {}), **more}
    _check_choice("forces", forces, FORCES)
    if dtype is not None:
        _check_choice("dtype", dtype, DTYPES)
    if isinstance(spec, str | Path) and not is_factory(spec):
        _refuse({"options": options}, f"the model '{spec}'")
        path = model_file(spec)
        from goniometer.potentials.metatomic import MetatomicPotential

        name = str(spec) if str(spec) in packaged_models() else path.name
        return MetatomicPotential.from_file(path, device=device, dtype=dtype, forces=forces, batch=batch, name=name)
    made, factory = spec, None
    if isinstance(spec, str | Path):
        made, factory = _from_factory_spec(str(spec), options), str(spec)
    elif not isinstance(spec, Potential) and not is_calculator(spec) and callable(spec):
        factory = getattr(spec, "__name__", type(spec).__name__)
        made = made_by(spec, factory, options)
    else:
        _refuse({"options": options}, f"the object {type(spec).__name__}")
    return _as_potential(made, factory, device=device, dtype=dtype, forces=forces, batch=batch)


def parse_options(pairs: list[str]) -> dict[str, Any]:
    """``["cutoff=5", "long_range=true", "head=pbe"]`` as keyword arguments.

    A value is an integer, a number, a boolean, none, or else text; quotes keep it text, as in ``tag="1"``. Raises
    :class:`InputError` if an option is not of the form key=value, or comes twice.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise InputError(f"the option '{pair}' is not of the form key=value, with a Python name for the key")
        if key in options:
            raise InputError(f"the option '{key}' is given twice")
        options[key] = _value(value)
    return options


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return number if isfinite(number) else text
    return text


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{what} is {' or '.join(repr(choice) for choice in choices)}, not {value!r}")


def _refuse(given: dict[str, Any], who: str) -> None:
    """Say that these settings do not apply, if any of them was given."""
    for setting, value in given.items():
        if value:
            detail = f" ({', '.join(value)})" if isinstance(value, dict) else ""
            raise InputError(f"{who} takes no {setting}{detail}")


def _as_potential(made: Any, factory: str | None, *, device: Any, dtype: Any, forces: str, batch: Any) -> Potential:
    if isinstance(made, Potential):
        other_forces = forces if forces != "conservative" else None
        _refuse(
            {"device": device, "dtype": dtype, "forces": other_forces, "batch": batch}, f"the potential {made.name}"
        )
        return made
    if is_calculator(made):
        who = factory or type(made).__name__
        _refuse({"device": device, "batch": batch}, f"the ASE calculator {who}")
        return AsePotential(made, name=factory, dtype=dtype or "float64", conservative=forces == "conservative")
    if factory is not None:
        raise InputError(
            f"the factory {factory} returned {_described(made)}; it must return an ASE calculator or a Potential"
        )
    raise InputError(
        f"a model is a name, a path, package.module:factory, an ASE calculator or a Potential, not {_described(made)}"
    )


def _described(made: object) -> str:
    return f"the class {made.__name__}" if isinstance(made, type) else type(made).__name__


# Model files


def model_file(spec: Any) -> Path:
    """The file of a metatomic model, given by its path or as a packaged one by name.

    Raises :class:`InputError` if there is none, or if it is not one.
    """
    if not isinstance(spec, str | Path) or is_factory(spec):
        what = f"'{spec}' is a function" if isinstance(spec, str | Path) else _described(spec)
        raise InputError(f"a metatomic model is needed, a packaged name or the path of a .pt file, and {what}")
    path = _model_path(spec)
    _check_metatomic(path)
    return path


def _model_path(spec: str | Path) -> Path:
    packaged = packaged_files("models", ".pt")
    if isinstance(spec, str) and spec in packaged:
        return packaged[spec]
    path = Path(spec)
    if path.is_dir():
        raise InputError(f"'{path}' is a folder; a model file (.pt) is needed")
    if path.exists() and not path.is_file():
        raise InputError(f"'{path}' is a device or a pipe; a model file (.pt) is needed")
    if path.exists() and path.suffix != ".py":
        return path
    if path.exists():
        raise InputError(
            f"'{path}' is a Python file: name the function in it that makes the calculator, {path}:FUNCTION"
        )
    hint = did_you_mean(path.stem, packaged)
    if path.suffix or len(path.parts) > 1:
        raise InputError(f"there is no model file '{path}'; the packaged models are {', '.join(packaged)}{hint}")
    raise InputError(
        f"there is no model '{spec}'; write a packaged name ({', '.join(packaged)}), the path of a .pt file, or "
        f"package.module:factory{hint}"
    )


def _check_metatomic(path: Path) -> None:
    """Look into the archive before torch does, whose own errors say little."""
    if not zipfile.is_zipfile(path):
        raise InputError(f"'{path}' is not a metatomic model: it is not an archive as torch.jit.save writes it")
    with zipfile.ZipFile(path) as archive:
        members = archive.namelist()
        if any(member.endswith("extra/metatomic-version") for member in members):
            return
        pickles = [member for member in members if member.endswith("data.pkl")]
        script = any("/code/" in member for member in members)
        checkpoint = any(b"architecture_name" in archive.read(member) for member in pickles)
    if checkpoint:
        raise InputError(f"'{path}' is a metatrain checkpoint: export it with `mtt export {path.name}` and use the .pt")
    if script:
        raise InputError(f"'{path}' is a TorchScript module but not a metatomic model; export it with metatomic")
    if pickles:
        raise InputError(f"'{path}' holds PyTorch weights but no model; export the model with metatomic")
    raise InputError(f"'{path}' is an archive, but not of a metatomic model")


# Factories


def is_factory(spec: str | Path) -> bool:
    """Whether it reads ``something:name``, and is not simply a file with a colon in its name."""
    if str(spec).startswith(NNP):
        return True
    _, colon, attribute = str(spec).rpartition(":")
    return bool(colon) and "/" not in attribute and not Path(spec).exists()


def _from_factory_spec(spec: str, options: dict[str, Any]) -> Any:
    if spec.startswith(NNP):
        from goniometer.potentials.nnp import NeuralNetworkPotential

        _refuse({"options": options}, f"the model '{spec}'")
        return NeuralNetworkPotential(spec.removeprefix(NNP))
    source, _, attribute = spec.rpartition(":")
    is_file = source.endswith(".py")
    # Modules beside the file, or where the user is, are found after all that is installed.
    folder = str(Path(source).resolve().parent if is_file else Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    module = _module_of_file(Path(source)) if is_file else _module(source)
    return made_by(_factory(module, source, attribute), spec, options)


def _module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise InputError(f"'{name}' is neither a module (package.module) nor a Python file (file.py)")
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise InputError(f"cannot import the module {name}: {sentence(error)}") from error


def _module_of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"there is no file '{path}'")
    name = f"goniometer_factory_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise InputError(f"'{path}' is not a Python file")
    module = importlib.util.module_from_spec(specification)
    # Data classes and pickles look their module up here.
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise InputError(f"cannot import the file '{path}': {sentence(error)}") from error
    return module


def _factory(module: ModuleType, source: str, attribute: str) -> Callable[..., Any]:
    factory = getattr(module, attribute, None)
    if factory is None:
        public = [name for name in vars(module) if callable(getattr(module, name)) and not name.startswith("_")]
        raise InputError(f"'{source}' has no '{attribute}'{did_you_mean(attribute, public)}")
    if not callable(factory):
        raise InputError(
            f"'{attribute}' in '{source}' is {_described(factory)}, not a function that returns a calculator"
        )
    return factory


def identity(model: str) -> str:
    """What tells a model from another of its name: a hash of its :func:`content`."""
    return sha256(content(model)).hexdigest()


def content(model: str) -> bytes:
    """Of the file of a model, or of that of a factory with its name; the name alone of what has no file."""
    if model.startswith(NNP):
        from goniometer.potentials.nnp import content as content_of_folder

        return content_of_folder(Path(model.removeprefix(NNP)))
    if not is_factory(model):
        return model_file(model).read_bytes()
    source = Path(model.rpartition(":")[0])
    return model.encode() + (source.read_bytes() if source.is_file() else b"")
