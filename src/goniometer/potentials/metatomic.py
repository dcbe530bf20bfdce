"""Metatomic models, evaluated natively: one neighbor list a structure, its pairs reused for every turned copy."""

from __future__ import annotations

import copy
import importlib
import itertools
import json
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
import vesin
from ase import Atoms
from ase.data import chemical_symbols
from jaxtyping import Float64
from metatensor.torch import Labels, TensorBlock
from metatomic.torch import (
    AtomisticModel,
    ModelEvaluationOptions,
    ModelOutput,
    System,
    load_atomistic_model,
    pick_device,
    pick_output,
    register_autograd_neighbors,
    unit_conversion_factor,
)

from goniometer.errors import InputError, PotentialError
from goniometer.potentials.base import Potential, Prediction, checked, placed
from goniometer.potentials.batching import CPU_UNITS, MEMORY_LIMIT_BYTES, BatchSizes, peak_memory_bytes
from goniometer.potentials.pet import Layout, NotAPetError, Pet
from goniometer.potentials.warnings import hushed
from goniometer.rotations import random_rotations
from goniometer.structures import handedness, right_handed

Forces = Literal["conservative", "non-conservative"]

# Classes of TorchScript are no types at run time; these names only say what is meant.
_System: TypeAlias = Any
_Block: TypeAlias = Any
_Labels: TypeAlias = Any
_PairOptions: TypeAlias = Any
_Output: TypeAlias = Any
#: Positions (N, 3) or (B, N, 3), pairs and matrices (B, 3, 3) to predictions.
_Evaluate: TypeAlias = Callable[[np.ndarray, list[Any], np.ndarray], Prediction]

_DTYPES = {"float32": torch.float32, "float64": torch.float64}
# Two ways of evaluation agree if they differ by fewer roundings: sums of some hundred terms that nearly cancel.
_ROUNDINGS = 512
# Atoms of a molecule up to which who sees whom is found from all distances.
_SEARCHED_DENSELY = 64
_SAMPLE_NAMES = ["first_atom", "second_atom", "cell_shift_a", "cell_shift_b", "cell_shift_c"]


@dataclass(frozen=True)
class _Pairs:
    """One neighbor list of a structure as it stands: who sees whom, and the vectors between them in float64.

    Structures that differ, but not in who sees whom, have one list with vectors for each.
    """

    options: _PairOptions
    samples: torch.Tensor  # (P, 5) int32
    vectors: np.ndarray  # (P, 3) or (B, P, 3)

    @classmethod
    def among(cls, options: _PairOptions, seen: np.ndarray, vectors: np.ndarray) -> _Pairs:
        """The list of isolated molecules, from who sees whom (N, N) and all vectors (B, N, N, 3)."""
        first, second = np.nonzero(seen)
        columns = np.zeros((len(first), 5), dtype=np.int32)
        columns[:, 0], columns[:, 1] = first, second
        return cls(options, torch.from_numpy(columns), vectors[:, first, second])


def read_model(path: str | Path) -> AtomisticModel:
    """Load an exported model (``.pt``), and the installed packages whose TorchScript extensions it needs.

    Raises :class:`InputError` if the file is none, or such a package is missing.
    """
    _import_extensions(path)
    try:
        with hushed():
            return load_atomistic_model(str(path))
    except Exception as error:
        raise InputError(
            f"{path} is not an exported metatomic model ({_first_line(error)}); "
            "a checkpoint must be exported first, with `mtt export`"
        ) from error


def _import_extensions(path: str | Path) -> None:
    """Import what registers the operators of a model; metatomic by itself looks into one folder of libraries only.

    Of an extension a model tells the path below site-packages: ``sphericart/torch/torch-2.13/lib/…so`` is of the module
    ``sphericart.torch``.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith("/extra/extensions"))
            extensions = json.loads(archive.read(member))
    except (OSError, ValueError, zipfile.BadZipFile):
        return  # no exported model, or none that metatomic would find extensions of either
    for extension in extensions:
        module = ".".join(itertools.takewhile(str.isidentifier, Path(extension["path"]).parts))
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise InputError(
                f"{path} needs the TorchScript extension '{extension['name']}' of the Python package {module}, which "
                f"cannot be imported ({_first_line(error)}): pip install {extension['name'].replace('_', '-')}"
            ) from error


class MetatomicPotential(Potential):
    """A metatomic model.

    Copies are made by rotating positions, cell and pair vectors together; the pairs themselves do not change. A cell
    that would be left-handed has its vectors reversed, and the cell shifts of its pairs change their sign. Copies are
    evaluated in batches, several systems at a time, whose size is found by measurement unless ``batch`` fixes it.
    Copies of a structure without periodic directions are packed as disjoint parts of one system, the neighbor list
    saying who sees whom, if the model was seen to give the same answer that way. Each batch takes one backward pass.

    Energies are asked for atom by atom and summed in float64. The per-species baseline of models made by metatrain
    (some 100 eV an atom, which would cost float32 its last meaningful digits) is taken out of the model and added in
    float64.

    Parameters
    ----------
    model
        The loaded model; a copy of it is taken.
    name
        What reports call it.
    device
        ``"cpu"``, ``"cuda"``, …; by default the first that the model supports and the machine has.
    dtype
        ``"float32"`` or ``"float64"``; by default the model's own.
    forces
        ``"conservative"``, the gradient of the energy, or ``"non-conservative"``, the model's own output of that name.
    batch
        A fixed number of copies per batch.
    memory_limit
        Bytes that one batch may take.
    specialised
        Evaluate a PET by code made for many copies of one structure, :mod:`goniometer.potentials.pet`, where that was
        seen to give what the model gives.
    """

    def __init__(
        self,
        model: AtomisticModel,
        *,
        name: str = "metatomic model",
        device: str | None = None,
        dtype: str | None = None,
        forces: Forces = "conservative",
        batch: int | None = None,
        memory_limit: int = MEMORY_LIMIT_BYTES,
        specialised: bool = True,
    ) -> None:
        capabilities = model.capabilities()
        self.name = name
        if model.requested_inputs(use_new_names=True):
            needed = ", ".join(model.requested_inputs(use_new_names=True))
            raise InputError(
                f"{name} needs inputs beyond positions ({needed}), which are not handled natively: "
                "give it as an ASE calculator, 'file.py:factory' returning a metatomic_ase.MetatomicCalculator"
            )
        self.dtype = self._chosen_dtype(dtype, capabilities.dtype)
        self.device = self._chosen_device(device, capabilities.supported_devices)
        self.conservative = forces == "conservative"
        self._outputs = self._chosen_outputs(capabilities.outputs, forces)
        self.virial = "full" if self.conservative or "stress" in self._outputs else "none"
        self._species = set(capabilities.atomic_types)
        self._per_atom = self.atomic = capabilities.outputs[self._outputs["energy"]].sample_kind == "atom"
        with hushed():
            model = copy.deepcopy(model)  # its dtype changes, and the baseline is taken out
            self._baseline = _take_baseline(model, self._outputs["energy"])
            self._model = model.to(device=self.device, dtype=_DTYPES[self.dtype])
        self._neighbor_lists = model.requested_neighbor_lists()
        self._pet = self._as_pet() if specialised else None
        self._agreeing: dict[bytes, bool] = {}
        on_cuda = self.device.type == "cuda"
        memory = partial(torch.cuda.max_memory_allocated, self.device) if on_cuda else peak_memory_bytes
        enough = CPU_UNITS if self.device.type == "cpu" else None
        self._sizes = BatchSizes(fixed=batch, memory_limit=memory_limit, memory=memory, enough=enough)

    @classmethod
    def from_file(cls, path: str | Path, **options: Any) -> MetatomicPotential:
        """Load an exported model (``.pt``). Raises :class:`InputError` if the file is not one."""
        options.setdefault("name", Path(path).stem)
        return cls(read_model(path), **options)

    # ---- choices made once -----------------------------------------------------------------------------------------

    def _chosen_dtype(self, wanted: str | None, own: str) -> Literal["float32", "float64"]:
        dtype = wanted or own
        if dtype == "float32":
            return "float32"
        if dtype == "float64":
            return "float64"
        raise InputError(f"dtype '{dtype}' is not known for {self.name}: it must be float32 or float64")

    def _chosen_device(self, wanted: str | None, supported: list[str]) -> torch.device:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return torch.device(pick_device(supported, wanted))
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"device '{wanted}' cannot be used for {self.name} ({_first_line(error)}); "
                f"it supports {', '.join(supported)}"
            ) from error

    def _chosen_outputs(self, outputs: dict[str, _Output], forces: Forces) -> dict[str, str]:
        """The model's own names of the outputs that are asked for."""
        if not any(name == "energy" or name.startswith("energy/") for name in outputs):
            raise InputError(f"{self.name} has no energy output; it offers {', '.join(outputs)}")
        variants = [name for name in outputs if name.startswith("energy/")]
        if "energy" not in outputs and len(variants) != 1:
            raise InputError(f"{self.name} has no output 'energy' but several variants of it: {', '.join(variants)}")
        chosen = {"energy": pick_output("energy", outputs) if "energy" in outputs else variants[0]}
        if forces == "conservative":
            return chosen
        if forces != "non-conservative":
            raise InputError(f"forces must be 'conservative' or 'non-conservative', not '{forces}'")
        for part, output in (("forces", "non_conservative_force"), ("stress", "non_conservative_stress")):
            if any(name == output or name.startswith(f"{output}/") for name in outputs):
                chosen[part] = pick_output(output, outputs)
        if "forces" not in chosen:
            raise InputError(f"{self.name} has no non-conservative forces; it offers {', '.join(outputs)}")
        return chosen

    def _as_pet(self) -> Pet | None:
        lists = self._neighbor_lists
        if not (self.conservative and self._per_atom and len(lists) == 1 and lists[0].full_list):
            return None
        try:
            return Pet(self._model.module, self._outputs["energy"])
        except NotAPetError:
            return None

    # ---- evaluation ------------------------------------------------------------------------------------------------

    def turned(self, structure: Atoms, matrices: Float64[np.ndarray, "K 3 3"]) -> Iterator[Prediction]:
        """See :meth:`Potential.turned`."""
        self._check_species(structure)
        pairs = [self._pairs(structure, options) for options in self._neighbor_lists]
        way, evaluate = self._way(structure, pairs)
        units = len(structure) + sum(len(each.vectors) for each in pairs)
        # Structures of a trajectory differ by some pairs, and need not be measured anew.
        key = (way, len(structure), round(4.0 * np.log2(units)))
        done = 0
        while done < len(matrices):
            part = matrices[done : done + self._sizes.next(key, len(matrices) - done, units)]
            start = time.perf_counter()
            prediction = evaluate(structure.positions, pairs, part)
            self._sizes.record(key, len(part), time.perf_counter() - start, units)
            yield checked(prediction, structure, self.name)
            done += len(part)

    def turned_each(
        self, structure: Atoms, positions: Float64[np.ndarray, "K N 3"], matrices: Float64[np.ndarray, "K 3 3"]
    ) -> Iterator[Prediction]:
        """See :meth:`Potential.turned_each`: copies of molecules in one batch, where the same atoms see each other."""
        if structure.pbc.any() or len(structure) > _SEARCHED_DENSELY:
            yield from super().turned_each(structure, positions, matrices)
            return
        self._check_species(structure)
        units, done = len(structure) ** 2, 0
        key = ("each", len(structure))
        while done < len(matrices):
            part = slice(done, done + self._sizes.next(key, len(matrices) - done, units))
            start = time.perf_counter()
            prediction = self._alike(structure, positions[part], matrices[part])
            self._sizes.record(key, len(prediction), time.perf_counter() - start, units)
            yield checked(prediction, structure, self.name)
            done += len(prediction)

    def _alike(self, structure: Atoms, positions: np.ndarray, matrices: np.ndarray) -> Prediction:
        """A batch of copies with positions of their own: those in which the same atoms see each other together."""
        vectors = positions[:, None] - positions[:, :, None]
        distances = np.linalg.norm(vectors, axis=-1)
        others = [np.triu(np.ones(distances.shape[1:], bool), 1) for _ in self._neighbor_lists]
        others = [
            one | one.T if each.full_list else one for one, each in zip(others, self._neighbor_lists, strict=True)
        ]
        seen = np.stack(
            [
                other & (distances < options.engine_cutoff("angstrom"))
                for other, options in zip(others, self._neighbor_lists, strict=True)
            ],
            axis=1,
        )
        _, kinds = np.unique(seen.reshape(len(seen), -1), axis=0, return_inverse=True)
        groups = [np.flatnonzero(kinds == kind) for kind in range(kinds.max() + 1)]
        parts = []
        for group in groups:
            pairs = [
                _Pairs.among(options, mask, vectors[group])
                for options, mask in zip(self._neighbor_lists, seen[group[0]], strict=True)
            ]
            one = placed(structure, positions[group[0]])
            _, evaluate = self._way(one, [replace(each, vectors=each.vectors[0]) for each in pairs])
            parts.append(evaluate(positions[group], pairs, matrices[group]))
        return Prediction.joined(parts, np.argsort(np.concatenate(groups)))

    def _way(self, structure: Atoms, pairs: list[_Pairs]) -> tuple[str, _Evaluate]:
        """How copies of this structure are evaluated, and the function that evaluates a batch of them."""
        if self._pet is not None and self._pet_agrees(structure, pairs[0]):
            layout = self._pet.layout(structure.numbers, pairs[0].samples.numpy())
            return "pet", partial(self._pet_batch, self._pet, structure, layout)
        packed = not structure.pbc.any() and self._can_pack(structure, pairs)
        return "packed" if packed else "systems", partial(self._turned_batch, structure, packed)

    def _turned_batch(
        self, structure: Atoms, packed: bool, positions: np.ndarray, pairs: list[_Pairs], matrices: np.ndarray
    ) -> Prediction:
        return self._batch(structure, positions @ matrices.transpose(0, 2, 1), matrices, pairs, packed)

    def _pet_batch(
        self,
        pet: Pet,
        structure: Atoms,
        layout: Layout,
        positions: np.ndarray,
        pairs: list[_Pairs],
        matrices: np.ndarray,
    ) -> Prediction:
        """Forces and virials of copies from derivatives by the edge vectors d: F = C G, W = Σ dᵀ G."""
        vectors = pairs[0].vectors @ matrices.transpose(0, 2, 1)
        try:
            energies, slopes = (_array(each, each) for each in pet(layout, self._tensor(vectors)))
        except Exception as error:
            raise PotentialError(f"{self.name} failed: {_first_line(error)}") from error
        forces = layout.ends @ slopes.transpose(1, 0, 2).reshape(slopes.shape[1], 3 * len(matrices))
        return Prediction(
            energies.sum(axis=1) + self._baseline_of(structure).sum(),
            np.ascontiguousarray(forces.reshape(len(structure), len(matrices), 3).transpose(1, 0, 2)),
            vectors.transpose(0, 2, 1) @ slopes,
            energies + self._baseline_of(structure),
        )

    def _pet_agrees(self, structure: Atoms, pairs: _Pairs) -> bool:
        """Whether the evaluation made for PET gives what the model gives.

        On a dense crystal first, where every atom has neighbors of every kind, then on one turned copy for every
        composition; a structure without pairs tells nothing.
        """
        if b"pet" not in self._agreeing:
            crystal = self.small_crystal()
            self._agreeing[b"pet"] = self._pet_tried(crystal, self._pairs(crystal, self._neighbor_lists[0]))
        if not self._agreeing[b"pet"] or len(pairs.vectors) == 0:
            return self._agreeing[b"pet"]
        kind = b"pet" + structure.pbc.tobytes() + structure.numbers.tobytes()
        if kind not in self._agreeing:
            self._agreeing[kind] = self._pet_tried(structure, pairs)
        return self._agreeing[kind]

    def _pet_tried(self, structure: Atoms, pairs: _Pairs) -> bool:
        assert self._pet is not None  # the caller has seen to it
        turn = random_rotations(1, np.random.default_rng(0))
        own = self._turned_batch(structure, False, structure.positions, [pairs], turn)
        try:
            layout = self._pet.layout(structure.numbers, pairs.samples.numpy())
            made = self._pet_batch(self._pet, structure, layout, structure.positions, [pairs], turn)
            return self._agree(made, own, structure)
        except (PotentialError, ValueError):
            return False  # a network that only looks like one that is known

    def small_crystal(self) -> Atoms:
        """Eight atoms of up to four species that the model knows, on a distorted cubic lattice of 2 Å."""
        known = sorted(self._species)[:4]
        grid = np.stack(np.meshgrid(*[np.arange(2)] * 3), axis=-1).reshape(-1, 3)
        positions = 2.0 * grid + np.random.default_rng(0).uniform(-0.3, 0.3, grid.shape)
        return Atoms(np.resize(known, len(grid)), positions, cell=4.0 * np.eye(3), pbc=True)

    def _agree(self, one: Prediction, other: Prediction, structure: Atoms) -> bool:
        """Whether two ways of evaluation differ by rounding only, atom by atom."""
        assert one.atomic is not None  # neither way is taken for models without
        assert other.atomic is not None
        rounding = _ROUNDINGS * float(torch.finfo(_DTYPES[self.dtype]).eps)
        energies = np.abs(other.atomic - self._baseline_of(structure)).max(initial=1.0)
        forces = np.abs(other.forces).max(initial=1.0)
        if one.virials is not None and other.virials is not None:
            # Sums over the atoms, each with its distances to others of some Å.
            allowed = 10.0 * len(structure) * rounding * forces
            if not np.abs(one.virials - other.virials).max() < allowed:
                return False
        return bool(
            np.abs(one.atomic - other.atomic).max(initial=0.0) < rounding * energies
            and np.abs(one.forces - other.forces).max(initial=0.0) < rounding * forces
        )

    def _check_species(self, structure: Atoms) -> None:
        unknown = sorted(set(structure.numbers.tolist()) - self._species)
        if unknown:
            known = ", ".join(chemical_symbols[number] for number in sorted(self._species))
            raise InputError(f"{self.name} does not know {chemical_symbols[unknown[0]]}: it was trained on {known}")

    def _pairs(self, structure: Atoms, options: _PairOptions) -> _Pairs:
        search = vesin.NeighborList(cutoff=options.engine_cutoff("angstrom"), full_list=options.full_list, sorted=True)
        first, second, shifts, vectors = search.compute(
            points=structure.positions,
            box=structure.cell.array * structure.pbc[:, None],
            periodic=structure.pbc,
            quantities="ijSD",
            copy=True,
        )
        columns = np.column_stack([first, second, shifts]).astype(np.int32).reshape(-1, 5)
        return _Pairs(options, torch.from_numpy(columns), np.asarray(vectors).reshape(-1, 3))

    def _can_pack(self, structure: Atoms, pairs: list[_Pairs]) -> bool:
        """Whether copies packed into one system are seen not to feel each other.

        Tested on strained copies, once for every composition: a single atom may not tell what a molecule would.
        """
        if not self._per_atom:
            return False
        kind = b"packed" + structure.numbers.tobytes()
        if kind not in self._agreeing:
            strains = np.eye(3) + np.random.default_rng(0).normal(0.0, 0.02, (3, 3, 3))
            strained = structure.positions[None] @ strains.transpose(0, 2, 1)
            each = zip(strained, strains, strict=True)
            alone = [self._batch(structure, x[None], strain[None], pairs, packed=False) for x, strain in each]
            together = self._batch(structure, strained, strains, pairs, packed=True)
            self._agreeing[kind] = self._agree(together, Prediction.joined(alone), structure)
        return self._agreeing[kind]

    def _baseline_of(self, structure: Atoms) -> Float64[np.ndarray, " N"]:
        return np.array([self._baseline.get(int(number), 0.0) for number in structure.numbers])

    def _batch(
        self, structure: Atoms, turned: np.ndarray, matrices: np.ndarray, pairs: list[_Pairs], packed: bool
    ) -> Prediction:
        """Evaluate copies with positions ``turned`` (B, N, 3), cells and pairs turned by ``matrices`` (B, 3, 3)."""
        copies = len(turned)
        cell = structure.cell.array * structure.pbc[:, None]
        turned_cells = right_handed(cell @ matrices.transpose(0, 2, 1))
        positions = self._tensor(turned).requires_grad_(self.conservative)
        cells = self._tensor(turned_cells).requires_grad_(self.conservative)
        build = self._packed_system if packed else self._systems
        systems = build(structure, positions, cells, matrices, pairs)
        kinds = {"energy": "atom" if self._per_atom else "system", "forces": "atom", "stress": "system"}
        units = {"energy": "eV", "forces": "eV/A", "stress": "eV/A^3"}
        options = ModelEvaluationOptions(
            length_unit="angstrom",
            outputs={
                name: ModelOutput(unit=units[part], sample_kind=kinds[part]) for part, name in self._outputs.items()
            },
        )
        try:
            # Specialised code costs seconds for each new shape, is no faster here, and would change the last bits of a
            # result between its first evaluations.
            with torch.jit.optimized_execution(False):
                outputs = self._model(systems, options, check_consistency=False)
                values = self._in_order(outputs[self._outputs["energy"]].block(), systems, self._per_atom)
                if self.conservative:
                    values.sum().backward()
        except Exception as error:
            raise PotentialError(f"{self.name} failed: {_first_line(error)}") from error
        parts = values.detach().double().cpu().numpy().reshape(copies, -1)
        energies = parts.sum(axis=1) + self._baseline_of(structure).sum()
        atomic = parts + self._baseline_of(structure) if self._per_atom else None
        if self.conservative:
            gradient = _array(positions.grad, positions)
            centred = turned - turned.mean(axis=1, keepdims=True)
            virials = centred.transpose(0, 2, 1) @ gradient
            virials += turned_cells.transpose(0, 2, 1) @ _array(cells.grad, cells)
            return Prediction(energies, -gradient, virials, atomic)
        forces = self._in_order(outputs[self._outputs["forces"]].block(), systems, True)
        stress = None
        if "stress" in self._outputs and structure.pbc.all():
            ordered = self._in_order(outputs[self._outputs["stress"]].block(), systems, False)
            stress = _array(ordered, cells) * structure.get_volume()
        return Prediction(energies, _array(forces, positions), stress, atomic)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.tensor(array, dtype=_DTYPES[self.dtype], device=self.device)

    def _in_order(self, block: _Block, systems: list[_System], per_atom: bool) -> torch.Tensor:
        """The values of a block in the order of systems and atoms, whatever the order of its samples."""
        if not per_atom:
            return block.values[torch.argsort(block.samples.column("system"))]
        per_system = len(systems[0])
        index = block.samples.column("system").long() * per_system + block.samples.column("atom").long()
        return torch.zeros_like(block.values).index_add(0, index, block.values)

    def _systems(
        self, structure: Atoms, positions: torch.Tensor, cells: torch.Tensor, matrices: np.ndarray, pairs: list[_Pairs]
    ) -> list[_System]:
        """One system a copy; copies with the same or with reversed cell vectors share the samples of neighbor lists."""
        types = torch.tensor(structure.numbers, dtype=torch.int32, device=self.device)
        pbc = torch.tensor(structure.pbc, device=self.device)
        systems = [System(types, positions[k], cells[k], pbc) for k in range(len(matrices))]
        cell = structure.cell.array * structure.pbc[:, None]
        reversed_ = handedness(cell @ matrices.transpose(0, 2, 1)).ravel() < 0.0
        signs = torch.tensor([1, 1, -1, -1, -1], dtype=torch.int32)
        for each in pairs:
            kept, mirrored = (
                Labels(_SAMPLE_NAMES, columns.to(self.device), assume_unique=True)
                for columns in (each.samples, each.samples * signs)
            )
            vectors = self._tensor(each.vectors @ matrices.transpose(0, 2, 1))
            for system, turned, other in zip(systems, vectors, reversed_, strict=True):
                self._add_pairs(system, each.options, mirrored if other else kept, turned)
        return systems

    def _packed_system(
        self, structure: Atoms, positions: torch.Tensor, cells: torch.Tensor, matrices: np.ndarray, pairs: list[_Pairs]
    ) -> list[_System]:
        """All copies as disjoint parts of one system without a cell."""
        copies, atoms = positions.shape[:2]
        types = torch.tensor(np.tile(structure.numbers, copies), dtype=torch.int32, device=self.device)
        pbc = torch.zeros(3, dtype=torch.bool, device=self.device)
        system = System(types, positions.reshape(-1, 3), cells[0], pbc)
        offsets = torch.zeros((copies, 1, 5), dtype=torch.int32)
        offsets[:, 0, :2] = atoms * torch.arange(copies, dtype=torch.int32)[:, None]
        for each in pairs:
            columns = (each.samples[None] + offsets).reshape(-1, 5)
            samples = Labels(_SAMPLE_NAMES, columns.to(self.device), assume_unique=True)
            vectors = (each.vectors @ matrices.transpose(0, 2, 1)).reshape(-1, 3)
            self._add_pairs(system, each.options, samples, self._tensor(vectors))
        return [system]

    def _add_pairs(self, system: _System, options: _PairOptions, samples: _Labels, vectors: torch.Tensor) -> None:
        components = [Labels.range("xyz", 3).to(self.device)]
        properties = Labels.range("distance", 1).to(self.device)
        block = TensorBlock(vectors.reshape(-1, 3, 1), samples, components, properties)
        if self.conservative:
            register_autograd_neighbors(system, block, check_consistency=False)
        system.add_neighbor_list(options, block)


def _array(values: torch.Tensor | None, like: torch.Tensor) -> np.ndarray:
    """Float64 on the host, of the given shape; a gradient that never arose is zero."""
    if values is None:
        return np.zeros(tuple(like.shape))
    return values.detach().double().cpu().numpy().reshape(tuple(like.shape))


def _take_baseline(model: AtomisticModel, energy: str) -> dict[int, float]:
    """Take the per-species energies, in eV, out of a model made by metatrain; empty if it holds none in the known form.

    metatrain adds them in the model's dtype. Here they are set to zero before the first evaluation, and added in
    float64 instead.
    """
    baseline: dict[int, float] = {}
    unit = model.capabilities().outputs[energy].unit
    to_ev = unit_conversion_factor(unit, "eV") if unit else 1.0
    for module in model.module.modules():
        if getattr(module, "original_name", type(module).__name__) != "BaseCompositionModel":
            continue
        try:
            blocks = module.weights[energy].blocks()
            species = blocks[0].samples.column("center_type").tolist() if len(blocks) == 1 else []
        except (AttributeError, KeyError, RuntimeError, ValueError):
            continue
        if not species or blocks[0].values.shape != (len(species), 1):
            continue
        for number, value in zip(species, blocks[0].values[:, 0].tolist(), strict=True):
            baseline[number] = baseline.get(number, 0.0) + to_ev * value
        blocks[0].values[:] = 0.0
    return baseline


def _first_line(error: BaseException) -> str:
    """The line of an error that says something: TorchScript puts a traceback before its message."""
    # What C++ adds below its message are frames of its stack.
    message = str(error).partition("Exception raised from")[0].partition("frame #")[0]
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    telling = [line for line in lines if "Error" in line or "error" in line]
    return (telling or lines or [type(error).__name__])[-1][:300]
