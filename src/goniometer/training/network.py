"""A network of metatrain: built from a recipe, evaluated for training, exported as a metatomic model."""

from __future__ import annotations

import importlib
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import metatensor.torch as mts
import numpy as np
import torch
from ase import Atoms
from metatomic.torch import ModelMetadata, System, systems_to_torch
from metatrain.utils.architectures import get_default_hypers
from metatrain.utils.data import DatasetInfo
from metatrain.utils.data.target_info import get_energy_target_info
from metatrain.utils.evaluate_model import evaluate_model
from metatrain.utils.neighbor_lists import get_requested_neighbor_lists, get_system_with_neighbor_lists

from goniometer.errors import InputError
from goniometer.files.records import replacing
from goniometer.training.recipe import Recipe

# A TorchScript class, which run-time checkers of types do not know.
_System: TypeAlias = Any


class Network:
    """A network under training, which predicts what the composition leaves of the energy, in units of a scale.

    Attributes
    ----------
    module
        The model of metatrain.
    scale
        eV. The network's output times this is the energy.
    baseline
        Energy of each element, eV: what the composition predicts.
    """

    def __init__(self, module: Any, scale: float, baseline: dict[int, float]) -> None:
        self.module, self.scale, self.baseline = module, scale, baseline
        self.targets = module.dataset_info.targets
        self.neighbor_lists = get_requested_neighbor_lists(module)
        # Only what is learned: metatrain also registers the baseline and the scale as buffers.
        self.weights: dict[str, torch.Tensor] = {
            name: weight for name, weight in module.named_parameters() if weight.requires_grad
        }

    def prepare(self, atoms: Atoms, dtype: torch.dtype) -> _System:
        """The structure with its neighbors, which are found once: a turn does not change who they are."""
        system = systems_to_torch(atoms, dtype=torch.float64)
        return get_system_with_neighbor_lists(system, self.neighbor_lists).to(dtype=dtype)

    def predict(self, systems: Sequence[_System], training: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Energies (B,) less the baseline, eV, and forces (N, 3) of each, eV/Å; differentiable where it is training."""
        # The mode decides whether metatrain adds baseline and scale: here both are ours.
        self.module.train()
        block = evaluate_model(self.module, list(systems), self.targets, is_training=training)["energy"].block()
        gradients = block.gradient("positions").values[..., 0].split([len(system) for system in systems])
        return block.values[:, 0] * self.scale, [-gradient * self.scale for gradient in gradients]

    def export(self, path: Path, description: str) -> None:
        """Write a metatomic model in one step; it holds no path of this machine.

        TorchScript keeps the file and line of every instruction in members ``*.debug_pkl``, which nothing needs.
        """
        _set_constants(self.module, self.baseline, self.scale)
        metadata = ModelMetadata(name=path.stem, description=description)
        model = self.module.export(metadata)
        with replacing(path) as partial, tempfile.TemporaryDirectory(dir=path.parent, prefix="part-") as folder:
            whole = Path(folder) / "model.pt"
            model.save(str(whole))
            with zipfile.ZipFile(whole) as source, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as target:
                for member in source.infolist():
                    if not member.filename.endswith(".debug_pkl"):
                        target.writestr(member, source.read(member))


def build(recipe: Recipe, elements: Sequence[int], baseline: dict[int, float], seed: int) -> Network:
    """A fresh network for these elements. Raises :class:`InputError` for settings that the architecture has not."""
    torch.manual_seed(seed)
    settings = _settings(recipe)
    try:
        architecture = importlib.import_module(f"metatrain.{recipe.architecture}")
    except ImportError as error:
        extra = recipe.architecture.replace("_", "-")
        raise InputError(
            f"the architecture {recipe.architecture} needs more packages ({error}): pip install 'metatrain[{extra}]'"
        ) from error
    energy = get_energy_target_info("energy", {"quantity": "energy", "unit": "eV"}, add_position_gradients=True)
    info = DatasetInfo(length_unit="angstrom", atomic_types=sorted(elements), targets={"energy": energy})
    module = architecture.__model__(settings, info).to(getattr(torch, recipe.dtype))
    return Network(module, recipe.scale, baseline)


def turned(system: _System, matrix: np.ndarray) -> _System:
    """The system with positions, cell and edges rotated together, the cell right-handed as models expect it.

    Where the vectors of the cell are reversed, the cell shifts of the edges change their sign.
    """
    turn = torch.as_tensor(matrix, dtype=system.positions.dtype).T
    cell = system.cell @ turn
    left = bool(torch.linalg.det(cell.double()) < 0.0)
    new = System(system.types, system.positions @ turn, -cell if left else cell, system.pbc)
    signs = torch.tensor([1, 1, -1, -1, -1], dtype=torch.int32)
    for options in system.known_neighbor_lists():
        pairs = system.get_neighbor_list(options)
        edges = (pairs.values[..., 0] @ turn)[..., None]
        samples = pairs.samples
        if left:
            samples = mts.Labels(samples.names, samples.values * signs, assume_unique=True)
        new.add_neighbor_list(options, mts.TensorBlock(edges, samples, pairs.components, pairs.properties))
    return new


def _settings(recipe: Recipe) -> dict[str, Any]:
    defaults = get_default_hypers(recipe.architecture)["model"]
    return _merged(defaults, recipe.model, "model")


def _merged(defaults: dict[str, Any], given: dict[str, Any], where: str) -> dict[str, Any]:
    merged = dict(defaults)
    for key, value in given.items():
        if key not in defaults:
            raise InputError(f"the recipe has no key '{where}.{key}'; there are {', '.join(sorted(defaults))}")
        nested = isinstance(defaults[key], dict) and isinstance(value, dict)
        merged[key] = _merged(defaults[key], value, f"{where}.{key}") if nested else value
    return merged


def _set_constants(module: Any, baseline: dict[int, float], scale: float) -> None:
    """Give metatrain's own baseline and scale our values: it adds and applies them in an exported model.

    They live twice, as tensor maps and as buffers that a checkpoint keeps.
    """
    composition, scaler = module.additive_models[0], module.scaler
    composition.to(torch.float64)
    weights = composition.model.weights["energy"].to("cpu", torch.float64)
    weights.block().values[:, 0] = torch.tensor([baseline[z] for z in composition.atomic_types], dtype=torch.float64)
    composition.energy_composition_buffer = mts.save_buffer(mts.make_contiguous(weights))
    composition.sync_tensor_maps()
    for kind, scales in (("scaler", scaler.model.scales), ("per_target_scaler", scaler.model.per_target_scales)):
        values = scales["energy"].to("cpu", torch.float64)
        values.block().values[:] = scale
        setattr(scaler, f"energy_{kind}_buffer", mts.save_buffer(mts.make_contiguous(values)))
    scaler.sync_tensor_maps()
