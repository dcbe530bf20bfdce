"""Exported averages: against our own over the same rule, where metatomic models run, in constant memory."""

# TorchScript, and metatomic's check of a module's signature, want the types of `typing`.
# ruff: noqa: UP006, UP035, UP045

import gc
import json
import os
import re
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Dict, List, Optional

import ase.io
import numpy as np
import pytest
import torch
import vesin
from ase import Atoms, units
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import (
    AtomisticModel,
    ModelCapabilities,
    ModelEvaluationOptions,
    ModelMetadata,
    ModelOutput,
    NeighborListOptions,
    System,
    load_atomistic_model,
    register_autograd_neighbors,
)

import goniometer
from goniometer.cli import main
from goniometer.errors import InputError
from goniometer.files.packaged import packaged_files
from goniometer.potentials.warnings import hushed
from goniometer.rotations import Rule, in_words, random_rotations, rule
from goniometer.structures import read_structures
from goniometer.symmetrization import response
from goniometer.symmetrization.export import Exported, _ship, export

ROOT = Path(__file__).resolve().parent.parent
#: Of the packaged models the one that prefers directions the most: there is something to see.
NAME = "pet-water-unaugmented"
PET_WATER = packaged_files("models", ".pt")[NAME]
EPS = {name: float(np.finfo(name).eps) for name in ("float32", "float64")}


def molecule() -> Atoms:
    return read_structures("molecule")[0].atoms


def crystal() -> Atoms:
    """Four water molecules, each turned at random, in a triclinic cell."""
    rng = np.random.default_rng(4)
    cell = np.array([[6.2, 0.0, 0.0], [0.5, 6.3, 0.0], [-0.4, 0.3, 3.4]])
    sites = np.array([[i, j, 0] for i in (0, 1) for j in (0, 1)]) / 2.0 @ cell
    water = molecule()
    centred = water.positions - water.positions.mean(axis=0)
    turns = random_rotations(len(sites), rng)
    positions = np.concatenate([site + centred @ turn.T for site, turn in zip(sites, turns, strict=True)])
    return Atoms("OH2" * len(sites), positions, cell=cell, pbc=True)


STRUCTURES = {"molecule": molecule, "crystal": crystal}


@pytest.fixture(autouse=True)
def _quiet_and_unspecialised() -> Iterator[None]:
    """No seconds spent on compiling for each new shape, no warnings of deprecated TorchScript."""
    with warnings.catch_warnings(), torch.jit.optimized_execution(False):
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="module")
def exported(folder: Path) -> Callable[..., Path]:
    """pet-water averaged over a rule, each written once."""

    @cache
    def write(name: str, inversion: bool = False, dtype: str | None = None, batch: int | None = None) -> Path:
        path = folder / f"{name}-{inversion}-{dtype}-{batch}.pt"
        assert export(NAME, name, path, inversion=inversion, dtype=dtype, batch=batch).path == path
        return path

    return write


def calculated(path: Path | AtomisticModel, structure: Atoms, **options: Any) -> Atoms:
    """The structure with metatomic's own calculator, which also checks what the model gives."""
    calculators = pytest.importorskip("metatomic_ase")
    atoms = structure.copy()
    model = path if isinstance(path, AtomisticModel) else str(path)
    atoms.calc = calculators.MetatomicCalculator(model, device="cpu", check_consistency=True, **options)
    return atoms


def average(structure: Atoms, which: Rule, dtype: str) -> tuple[float, np.ndarray, np.ndarray]:
    """Our own: energy, forces and symmetric virial."""
    found = response(goniometer.load(NAME, dtype=dtype, batch=4), structure, which.matrices)
    virial = np.einsum("k,kij->ij", which.weights, found.virials)
    return (
        which.weights @ found.energies,
        np.einsum("k,kni->ni", which.weights, found.forces),
        (virial + virial.T) / 2.0,
    )


# ---- pet-water, where metatomic models run --------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_average_is_our_own(name: str, dtype: str, exported: Callable[..., Path]) -> None:
    structure, which = STRUCTURES[name](), rule("tetrahedral", True)
    energy, forces, virial = average(structure, which, dtype)
    atoms = calculated(exported("tetrahedral", True, dtype), structure)
    # Some hundred operations an atom on numbers of a few eV and eV/Å, which add up at random; in float64, gradients of
    # a pair or two amplify roundings, as tests of the potential found. The total holds the baseline, and one rounding.
    noise = 100.0 * EPS[dtype] * np.sqrt(len(structure)) if dtype == "float32" else 1e-10 * np.abs(forces).max()
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=noise, rel=4.0 * EPS[dtype])
    np.testing.assert_allclose(atoms.get_forces(), forces, atol=noise, rtol=0.0)
    if structure.pbc.all():
        stress = atoms.get_stress(voigt=False) * structure.get_volume()
        np.testing.assert_allclose(stress, virial, atol=30.0 * noise, rtol=0.0)
    # Control: one orientation is another matter.
    _, raw, _ = average(structure, rule("identity"), dtype)
    assert np.abs(raw - forces).max() > 100.0 * noise
    plain = calculated(exported("identity", False, dtype), structure).get_forces()
    np.testing.assert_allclose(plain, raw, atol=noise, rtol=0.0)


def test_batches_change_nothing_but_roundings(exported: Callable[..., Path]) -> None:
    forces = [
        calculated(exported("tetrahedral", True, "float64", batch), crystal()).get_forces() for batch in (None, 1, 5)
    ]
    for other in forces[1:]:
        np.testing.assert_allclose(other, forces[0], atol=1e-10, rtol=0.0)
    again = calculated(exported("tetrahedral", True, "float64", 5), crystal()).get_forces()
    np.testing.assert_array_equal(again, forces[2])


def test_pairs_beyond_the_cutoff_change_nothing(exported: Callable[..., Path]) -> None:
    path = exported("tetrahedral", True, "float64")
    far, near = (calculated(path, crystal(), neighbor_skin=skin).get_forces() for skin in (2.0, 0.0))
    np.testing.assert_allclose(far, near, atol=1e-10, rtol=0.0)


def test_energies_of_atoms_sum_to_the_total(exported: Callable[..., Path]) -> None:
    atoms = calculated(exported("tetrahedral", True), read_structures("box")[0].atoms)
    atoms.calc.calculate(atoms, ["energies", "forces"], ["positions"])
    which = rule("tetrahedral", True)
    energy, forces, _ = average(atoms, which, "float32")
    np.testing.assert_allclose(atoms.calc.results["forces"], forces, atol=2e-4, rtol=0.0)
    # Each atom's is rounded once, at some hundred eV; a total in float32 steps by 2 meV at −30 000 eV.
    steps = EPS["float32"] * np.abs(atoms.calc.results["energies"])
    assert abs(atoms.calc.results["energies"].sum() - energy) < 4.0 * np.sqrt((steps**2).sum())
    assert atoms.get_potential_energy() == pytest.approx(energy, rel=EPS["float32"])


def test_i_pi_drives_it(exported: Callable[..., Path], tmp_path: Path) -> None:
    from ipi.pes.metatomic import MetatomicDriver

    path, structure = exported("tetrahedral", True), crystal()
    ase.io.write(tmp_path / "template.xyz", structure)
    driver = MetatomicDriver(template=str(tmp_path / "template.xyz"), model=str(path))
    energy, forces, virial, _ = driver(structure.cell.array.T / units.Bohr, structure.positions / units.Bohr)
    ours = average(structure, rule("tetrahedral", True), "float32")
    noise = 100.0 * EPS["float32"] * np.sqrt(len(structure))
    hartree = units.Hartree  # the tables of both packages agree to 1e-8
    assert energy * hartree == pytest.approx(ours[0], abs=noise, rel=4.0 * EPS["float32"])
    np.testing.assert_allclose(forces * hartree / units.Bohr, ours[1], atol=noise, rtol=0.0)
    np.testing.assert_allclose(virial * hartree, -ours[2], atol=30.0 * noise, rtol=1e-6)
    # Control: there is something to average.
    assert np.abs(average(structure, rule("identity"), "float32")[1] - ours[1]).max() > 100.0 * noise


def test_it_runs_without_us_and_can_be_averaged_again(exported: Callable[..., Path]) -> None:
    path = exported("klein")
    code = (
        "import sys; sys.modules['goniometer'] = None; from metatomic_ase import MetatomicCalculator; import ase.io;"
        f"atoms = ase.io.read({str(packaged_files('structures_files', '.xyz')['molecule'])!r});"
        f"atoms.calc = MetatomicCalculator({str(path)!r}, device='cpu'); print(atoms.get_potential_energy())"
    )
    pytest.importorskip("metatomic_ase")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    ours = average(molecule(), rule("klein"), "float32")
    assert float(done.stdout) == pytest.approx(ours[0], rel=4.0 * EPS["float32"])
    # The group averaged over itself is itself, and the file is a model as any other.
    twice = goniometer.load(str(path), batch=2)
    found = response(twice, molecule(), rule("klein").matrices)
    assert np.ptp(found.energies) < 16.0 * EPS["float32"] * abs(ours[0])
    np.testing.assert_allclose(found.forces.mean(axis=0), ours[1], atol=100.0 * EPS["float32"] * 2.0)


# ---- memory ---------------------------------------------------------------------------------------------------------


class Saved:
    """A tensor that a graph keeps, counted while it lives."""

    alive = 0
    most = 0

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor, self.size = tensor, tensor.numel() * tensor.element_size()
        Saved.alive += self.size
        Saved.most = max(Saved.most, Saved.alive)

    def __del__(self) -> None:
        Saved.alive -= self.size


def most_saved(work: Callable[[], Any]) -> int:
    """The most bytes that graphs keep for their derivatives at any moment of some work."""
    gc.collect()
    Saved.alive = Saved.most = 0
    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        kept = work()
    del kept
    return Saved.most


def naive(model: AtomisticModel, structure: Atoms, matrices: np.ndarray) -> torch.Tensor:
    """The average as one graph."""
    positions, cell, strain = inputs(structure, torch.float32)
    energies = []
    for matrix in matrices:
        turn = torch.tensor(matrix.T, dtype=torch.float32)
        turned = system_of(structure, positions @ strain @ turn, cell @ strain @ turn, model)
        energies.append(model([turned], asked(), False)["energy"].block().values)
    return torch.cat(energies).mean()


def test_memory_does_not_grow_with_the_rule(exported: Callable[..., Path]) -> None:
    pytest.importorskip("metatomic_ase")
    names = ("tetrahedral", "icosahedral")
    calculations = [calculated(exported(name, batch=2), crystal(), neighbor_skin=0.0) for name in names]
    few, many = (most_saved(lambda atoms=atoms: atoms.get_forces()) for atoms in calculations)
    assert few > 1e5  # there are graphs at all
    assert many < 1.01 * few
    # Control: the sum of all as one graph.
    model = load_atomistic_model(str(PET_WATER))
    few, many = (most_saved(lambda name=name: naive(model, crystal(), rule(name).matrices)) for name in names)
    assert many > 4.0 * few


@pytest.mark.nightly
def test_peak_memory_of_the_process_does_not_grow_with_the_rule(exported: Callable[..., Path]) -> None:
    pytest.importorskip("metatomic_ase")
    if not Path("/proc/self/status").exists():  # what getrusage says begins with the peak of the process that forked
        pytest.skip("the peak of a process by itself is read from /proc")
    code = (
        "import sys, test_export as t; from goniometer.rotations import rule; name, path = sys.argv[1:];"
        "box = t.read_structures('box')[0].atoms;"
        "model = t.load_atomistic_model(path or str(t.PET_WATER));"
        "t.calculated(model, box).get_forces() if path else t.naive(model, box, rule(name).matrices).backward();"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )

    def peak(name: str, path: str) -> int:
        command = [sys.executable, "-W", "ignore", "-c", code, name, path]
        search = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "src")])
        environment = {**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1"}
        return int(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)

    few, many = (peak(name, str(exported(name, batch=2))) for name in ("tetrahedral", "icosahedral"))
    assert many < 1.2 * few
    assert peak("octahedral", "") > 1.5 * peak("tetrahedral", "")


# ---- a model of our own, differentiated whole -----------------------------------------------------------------------

CUTOFF = 3.0


class Springs(torch.nn.Module):
    """Pair energies that like the z axis and the cell's height, of two kinds; forces, stress and features besides."""

    def __init__(self, by_system: bool = False, needs: str = "", without: str = "", ceiling: float = 1e9) -> None:
        super().__init__()
        self.by_system, self.needs, self.without, self.ceiling = by_system, needs, without, ceiling
        self.options = NeighborListOptions(cutoff=CUTOFF, full_list=True, strict=True)

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:
        return [self.options]

    def requested_inputs(self) -> Dict[str, ModelOutput]:
        return {self.needs: ModelOutput(sample_kind="atom")} if self.needs else {}

    def forward(
        self, systems: List[System], outputs: Dict[str, ModelOutput], selected_atoms: Optional[Labels]
    ) -> Dict[str, TensorMap]:
        rows: List[torch.Tensor] = []
        energies: List[torch.Tensor] = []
        forces: List[torch.Tensor] = []
        stresses: List[torch.Tensor] = []
        for index, system in enumerate(systems):
            pairs = system.get_neighbor_list(self.options)
            d = pairs.values[:, :, 0]
            first = pairs.samples.column("first_atom").to(torch.long)
            envelope = (1.0 - (d**2).sum(dim=1) / 9.0) ** 3
            term = envelope * (1.0 + 0.3 * d[:, 2] + 0.1 * d[:, 0] ** 3)
            zeros = torch.zeros(len(system), dtype=d.dtype)
            # From pair vectors, from positions, and from the cell: each has its own derivative.
            local = (
                zeros.index_add(0, first, term) + 0.01 * system.positions[:, 0] ** 3 + 0.02 * system.cell[:, 2].sum()
            )
            local = torch.where(system.positions[:, 2] < self.ceiling, local, torch.full_like(local, float("nan")))
            push = torch.zeros_like(system.positions).index_add(0, first, envelope[:, None] * (d + d[:, 2:] ** 2))
            atoms = torch.arange(len(system), dtype=torch.int32)
            if selected_atoms is not None:
                chosen = selected_atoms.values
                atoms = chosen[chosen[:, 0] == index, 1]
            picked = atoms.flip(0).to(torch.long)  # in an order of its own
            rows.append(torch.stack([torch.full_like(picked, index), picked], dim=1).to(torch.int32))
            energies.append(local[picked])
            forces.append(push[picked])
            stresses.append((push.T @ push + system.cell)[None])
        zero = torch.zeros((1, 1), dtype=torch.int32)
        axis = torch.arange(3, dtype=torch.int32).reshape(-1, 1)
        by_atom = Labels(["system", "atom"], torch.cat(rows))
        by_system = Labels(["system"], torch.arange(len(systems), dtype=torch.int32).reshape(-1, 1))
        none = torch.jit.annotate(List[Labels], [])
        blocks: Dict[str, TensorBlock] = {}
        for name, output in outputs.items():
            if name.startswith("energy"):
                power = 2.0 if name == "energy/square" else 1.0
                values, kept = torch.cat(energies) ** power, by_atom
                if output.sample_kind != "atom":
                    values, kept = torch.stack([(each**power).sum() for each in energies]), by_system
                blocks[name] = TensorBlock(values.reshape(-1, 1), kept, none, Labels(["energy"], zero))
            if name == "non_conservative_force":
                blocks[name] = TensorBlock(
                    torch.cat(forces)[:, :, None], by_atom, [Labels(["xyz"], axis)], Labels([name], zero)
                )
            if name == "non_conservative_stress":
                axes = [Labels(["xyz_1"], axis), Labels(["xyz_2"], axis)]
                blocks[name] = TensorBlock(torch.cat(stresses)[..., None], by_system, axes, Labels([name], zero))
        found: Dict[str, TensorMap] = {}
        for name, block in blocks.items():
            found[name] = TensorMap(Labels(["_"], zero), [block])
        return found


METADATA = ModelMetadata(
    name="springs",
    description="Springs that like an axis.",
    authors=["Nobody in particular"],
    references={"model": ["a reference"]},
    extra={"colour": "green"},
)


def springs(path: Path, **habits: Any) -> Path:
    kind = "system" if habits.get("by_system") else "atom"
    outputs = {
        "energy": ModelOutput(unit="eV", sample_kind=kind, description="of springs"),
        "energy/square": ModelOutput(unit="eV", sample_kind=kind),
        "non_conservative_force": ModelOutput(unit="eV/A", sample_kind="atom"),
        "non_conservative_stress": ModelOutput(unit="eV/A^3", sample_kind="system"),
        "springs::tension": ModelOutput(sample_kind="atom"),
    }
    capabilities = ModelCapabilities(
        outputs={name: each for name, each in outputs.items() if not name.startswith(habits.get("without") or "-")},
        atomic_types=[1, 8],
        interaction_range=CUTOFF,
        length_unit="angstrom",
        dtype="float64",
        supported_devices=["cpu"],
    )
    AtomisticModel(Springs(**habits).eval(), METADATA, capabilities).save(str(path))
    return path


def inputs(structure: Atoms, dtype: torch.dtype) -> list[torch.Tensor]:
    """Positions, cell and strain, all to be differentiated by."""
    arrays = (structure.positions, structure.cell.array * structure.pbc[:, None], np.eye(3))
    return [torch.tensor(array, dtype=dtype).requires_grad_(True) for array in arrays]


def system_of(structure: Atoms, positions: torch.Tensor, cell: torch.Tensor, model: AtomisticModel) -> System:
    """A system with its pairs, which are functions of positions and cell."""
    system = System(torch.tensor(structure.numbers, dtype=torch.int32), positions, cell, torch.tensor(structure.pbc))
    for options in model.requested_neighbor_lists():
        search = vesin.NeighborList(cutoff=options.cutoff, full_list=options.full_list, sorted=True)
        points, box = positions.detach().double().numpy(), cell.detach().double().numpy()
        first, second, shifts, vectors = search.compute(points, box, structure.pbc, "ijSD")
        samples = Labels(
            ["first_atom", "second_atom", "cell_shift_a", "cell_shift_b", "cell_shift_c"],
            torch.tensor(np.column_stack([first, second, shifts]).astype(np.int32)),
        )
        values = torch.tensor(vectors, dtype=positions.dtype).reshape(-1, 3, 1)
        pairs = TensorBlock(values, samples, [Labels.range("xyz", 3)], Labels.range("distance", 1))
        register_autograd_neighbors(system, pairs)
        system.add_neighbor_list(options, pairs)
    return system


def asked(names: tuple[str, ...] = ("energy",), kind: str = "system", chosen: Any = None) -> ModelEvaluationOptions:
    kinds = {name: "system" if name.endswith("stress") else "atom" for name in names}
    outputs = {name: ModelOutput(sample_kind=kind if name.startswith("energy") else kinds[name]) for name in names}
    return ModelEvaluationOptions(length_unit="angstrom", outputs=outputs, selected_atoms=chosen)


CASES = {"all atoms": None, "some atoms": [[0, 2], [0, 0], [1, 5], [1, 1], [1, 7]], "of one alone": [[1, 3], [1, 4]]}


@pytest.fixture(scope="module")
def pair(folder: Path) -> tuple[AtomisticModel, AtomisticModel, Rule]:
    """A model, its average over a rule that leaves much, and the rule: turned, so that no matrix is simple."""
    which = rule("klein", True).turned_at_random(3)
    source = springs(folder / "springs.pt")
    # Its energy depends on absolute positions, so that it is no potential of a crystal.
    done = export(source, which, folder / "averaged.pt", batch=3, verify=False)
    assert done.dropped == ("springs::tension",)
    return load_atomistic_model(str(source)), load_atomistic_model(str(done.path)), which


def turned_energies(model: AtomisticModel, which: Rule, variables: list, options: ModelEvaluationOptions) -> Any:
    """Means of energies, row by row, as one graph: of two structures, each with its own variables."""
    total: Any = 0.0
    structures = (molecule(), crystal())
    for matrix, weight in zip(which.matrices, which.weights, strict=True):
        turn = torch.tensor(matrix.T.copy())
        systems = [
            system_of(structure, positions @ strain @ turn, right_handed(cell @ strain @ turn), model)
            for structure, (positions, cell, strain) in zip(structures, variables, strict=True)
        ]
        blocks = {name: found.block() for name, found in model(systems, options, True).items()}
        total = total + weight * torch.cat([in_order(block) for block in blocks.values()])
    return total


def right_handed(cell: torch.Tensor) -> torch.Tensor:
    """The vectors of a left-handed cell reversed: the same lattice."""
    return -cell if float(torch.linalg.det(cell.detach())) < 0.0 else cell


def in_order(block: TensorBlock) -> torch.Tensor:
    """Values by system and atom."""
    values = block.samples.values.numpy()
    return block.values[np.lexsort(values.T[::-1])].reshape(len(values), -1)


@pytest.mark.parametrize("kind", ["system", "atom"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["energy", "energy/square"])
def test_values_and_gradients_are_those_of_the_whole_graph(name: str, case: str, kind: str, pair: tuple) -> None:
    model, averaged, which = pair
    rows = CASES[case]
    chosen = None if rows is None else Labels(["system", "atom"], torch.tensor(rows, dtype=torch.int32))
    options = asked((name,), kind, chosen)
    ours, theirs = ([inputs(each, torch.float64) for each in (molecule(), crystal())] for _ in range(2))
    expected = turned_energies(model, which, theirs, options)
    identity = Rule("identity", np.eye(3)[None], np.ones(1), 0)
    found = turned_energies(averaged, identity, ours, options)
    if kind == "system" and case == "of one alone":
        assert not expected[0].any()  # Springs' row for a structure of which nothing is wanted; we give none
        expected = expected[1:]
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.detach(), expected.detach(), rtol=1e-11, atol=1e-11)
    raw = turned_energies(model, identity, theirs, options)[-len(found) :]
    assert (raw - expected).abs().max() > 1e-3  # control
    one = torch.autograd.grad(
        found.sum(), [x for each in ours for x in each], materialize_grads=True, allow_unused=True
    )
    two = torch.autograd.grad(
        expected.sum(), [x for each in theirs for x in each], materialize_grads=True, allow_unused=True
    )
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
    assert max(float(each.abs().max()) for each in two) > 0.1


@pytest.mark.parametrize("kind", ["system", "atom"])
def test_structures_of_one_call_do_not_mix(kind: str, pair: tuple) -> None:
    _, averaged, _ = pair
    variables = [inputs(each, torch.float64) for each in (molecule(), crystal())]
    found = turned_energies(averaged, rule("identity"), variables, asked(("energy",), kind))
    first = found[:1] if kind == "system" else found[: len(molecule())]
    own, other = torch.autograd.grad(first.sum(), [variables[0][0], variables[1][0]], allow_unused=True)
    assert own.abs().max() > 0.1
    assert other is None or not other.any()
    alone = [inputs(each, torch.float64) for each in (molecule(), molecule())]
    system = system_of(molecule(), alone[0][0], alone[0][1], averaged)
    (by_itself,) = torch.autograd.grad(
        averaged([system], asked(("energy",), kind), True)["energy"].block().values.sum(), [alone[0][0]]
    )
    np.testing.assert_allclose(own, by_itself, rtol=1e-10, atol=1e-12)


def test_two_energies_in_one_call_have_their_own_gradients(pair: tuple) -> None:
    model, averaged, which = pair
    names = ("energy", "energy/square")
    together, apart = ([inputs(each, torch.float64) for each in (molecule(), crystal())] for _ in range(2))
    both = turned_energies(averaged, rule("identity"), together, asked(names))
    for index, name in enumerate(names):
        one = turned_energies(model, which, apart, asked((name,), "atom")).sum()
        (mine,) = torch.autograd.grad(both[2 * index : 2 * index + 2].sum(), [together[1][0]], retain_graph=True)
        (other,) = torch.autograd.grad(one, [apart[1][0]])
        np.testing.assert_allclose(mine, other, rtol=1e-10, atol=1e-10)


def test_non_conservative_forces_and_stresses_are_turned_back(pair: tuple) -> None:
    model, averaged, which = pair
    names = ("non_conservative_force", "non_conservative_stress")
    structure = crystal()
    cell = structure.cell.array

    def answer(model: AtomisticModel, matrix: np.ndarray) -> list[np.ndarray]:
        system = system_of(structure, *(torch.tensor(x @ matrix.T) for x in (structure.positions, cell)), model)
        found = model([system], asked(names), True)
        return [in_order(found[name].block()).numpy().reshape(-1, 3) for name in names]

    turned = [answer(model, matrix) for matrix in which.matrices]
    forces = sum(w * f @ R for (f, _), R, w in zip(turned, which.matrices, which.weights, strict=True))
    stress = sum(w * R.T @ s @ R for (_, s), R, w in zip(turned, which.matrices, which.weights, strict=True))
    found = answer(averaged, np.eye(3))
    np.testing.assert_allclose(found[0], forces, rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(found[1], stress, rtol=0.0, atol=1e-11)
    raw = answer(model, np.eye(3))
    assert np.abs(raw[0] - forces).max() > 1e-2
    assert np.abs(raw[1] - stress).max() > 1e-2


def test_nothing_is_differentiated_unless_asked(pair: tuple) -> None:
    _, averaged, _ = pair
    positions, cell, _ = inputs(molecule(), torch.float64)
    with_graph = averaged([system_of(molecule(), positions, cell, averaged)], asked(), True)["energy"].block().values
    assert with_graph.requires_grad
    plain = system_of(molecule(), positions.detach(), cell.detach(), averaged)
    alone = averaged([plain], asked(), True)["energy"].block().values
    assert not alone.requires_grad
    assert alone == with_graph
    assert most_saved(lambda: averaged([plain], asked(), False)) == 0


def test_second_derivatives_are_refused_by_torch_and_not_zero(pair: tuple) -> None:
    _, averaged, _ = pair
    positions, cell, _ = inputs(molecule(), torch.float64)
    energy = averaged([system_of(molecule(), positions, cell.detach(), averaged)], asked(), True)["energy"]
    (gradient,) = torch.autograd.grad(energy.block().values.sum(), [positions], create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.autograd.grad(gradient.sum(), [positions])


def test_a_model_that_knows_totals_alone_is_averaged(tmp_path: Path) -> None:
    source = springs(tmp_path / "total.pt", by_system=True)
    done = export(source, "tetrahedral", tmp_path / "out.pt", verify=False)
    model, averaged = (load_atomistic_model(str(path)) for path in (tmp_path / "total.pt", done.path))
    ours, theirs = ([inputs(each, torch.float64) for each in (molecule(), crystal())] for _ in range(2))
    found = turned_energies(averaged, rule("identity"), ours, asked())
    expected = turned_energies(model, rule("tetrahedral"), theirs, asked())
    np.testing.assert_allclose(found.detach(), expected.detach(), rtol=1e-11)
    for a, b in zip(
        torch.autograd.grad(found.sum(), ours[1]), torch.autograd.grad(expected.sum(), theirs[1]), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


# ---- what is in the file --------------------------------------------------------------------------------------------


def test_capabilities_and_metadata_carry_over(pair: tuple) -> None:
    model, averaged, which = pair
    own, new = model.capabilities(), averaged.capabilities()
    for key in ("atomic_types", "interaction_range", "length_unit", "supported_devices", "dtype"):
        assert getattr(new, key) == getattr(own, key), key
    for name in ("energy", "energy/square", "non_conservative_force", "non_conservative_stress"):
        assert new.outputs[name].unit == own.outputs[name].unit
        assert new.outputs[name].sample_kind == own.outputs[name].sample_kind
    assert new.outputs["energy"].description == "of springs"
    assert "springs::tension" not in new.outputs
    (one,), (other,) = model.requested_neighbor_lists(), averaged.requested_neighbor_lists()
    assert one == other
    told = averaged.metadata()
    assert told.authors == METADATA.authors
    assert told.references == METADATA.references
    assert told.extra["colour"] == "green"
    assert "klein, with inversion" in told.name
    assert "Springs that like an axis." in told.description
    assert "second derivatives are lost" in told.description
    said = {key: told.extra[f"goniometer::{key}"] for key in ("rule", "degree", "inversion", "elements", "seed")}
    assert said == {"rule": "klein", "degree": "1", "inversion": "true", "elements": "8", "seed": str(which.seed)}


def places() -> list[bytes]:
    """What would betray a machine."""
    return [str(place).encode() for place in (ROOT, Path(sys.prefix), Path.home(), Path(torch.__file__).parent)]


def betrayed(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return [name for name in archive.namelist() if any(place in archive.read(name) for place in places())]


def test_the_file_holds_no_place_of_this_machine(exported: Callable[..., Path], tmp_path: Path) -> None:
    path = exported("klein")
    assert not betrayed(path)
    assert str(path.parent).encode() not in path.read_bytes()
    assert not [name for name in zipfile.ZipFile(path).namelist() if name.endswith(".debug_pkl")]
    # Control: a file as metatomic writes it.
    assert betrayed(springs(tmp_path / "springs.pt"))


def test_extensions_are_those_of_the_model(tmp_path: Path) -> None:
    for name, extensions in (("source", "theirs"), ("written", "ours")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(f"{name}/extra/extensions", json.dumps([extensions]))
            archive.writestr(f"{name}/data.pkl", name)
            archive.writestr(f"{name}/code/x.py.debug_pkl", "a place")
    _ship(tmp_path / "written", tmp_path / "source", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "out") as archive:
        assert {name: archive.read(name).decode() for name in archive.namelist()} == {
            "written/extra/extensions": '["theirs"]',
            "written/data.pkl": "written",
        }


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_what_cannot_be_exported_is_said_in_one_sentence(tmp_path: Path) -> None:
    text = tmp_path / "model.pt"
    text.write_text("not a model", encoding="utf-8")
    blocked = tmp_path / "file"
    blocked.touch()
    out = tmp_path / "out.pt"
    own = tmp_path / "own.pt"
    own.write_bytes(PET_WATER.read_bytes())
    cases = [
        (lambda: export(text, "klein", out), "not a metatomic model"),
        (lambda: export("nothing.pt", "klein", out), "there is no model file"),
        (lambda: export("package.module:factory", "klein", out), "is a function"),
        (lambda: export(goniometer.load(NAME), "klein", out), "MetatomicPotential"),
        (lambda: export(NAME, "kline", out), "unknown rule"),
        (lambda: export(NAME, "klein", tmp_path / "no" / "out.pt"), "cannot be written"),
        (lambda: export(NAME, "klein", blocked / "out.pt"), "cannot be written"),
        (lambda: export(NAME, "klein", tmp_path), "it is a folder"),
        (lambda: export(own, "klein", own), "overwritten"),
        (lambda: export(NAME, "klein", out, dtype="float16"), "float16"),
        (lambda: export(NAME, "klein", out, batch=0), "at least one"),
        (lambda: export(springs(tmp_path / "n.pt", without="energy"), "klein", out), "no energy"),
        (lambda: export(springs(tmp_path / "q.pt", needs="charge"), "klein", out), r"inputs beyond positions \(charge"),
    ]
    for wrong, said in cases:
        with pytest.raises(InputError, match=said) as caught:
            wrong()
        assert "\n" not in str(caught.value)
    assert not out.exists()
    assert not list(tmp_path.glob("part-*"))


def test_data_that_would_have_to_be_turned_is_refused_where_it_runs(pair: tuple) -> None:
    _, averaged, _ = pair
    system = system_of(molecule(), torch.tensor(molecule().positions), torch.zeros((3, 3)).double(), averaged)
    block = TensorBlock(torch.zeros((1, 1)).double(), Labels.range("system", 1), [], Labels.range("custom", 1))
    system.add_data("springs::field", TensorMap(Labels.range("_", 1), [block]))
    with pytest.raises(torch.jit.Error, match="further data"):
        averaged([system], asked(), False)


def test_an_answer_that_is_not_finite_names_the_rotation(tmp_path: Path) -> None:
    """Of a model that knows no atoms above a ceiling, which one element alone lifts one of them through."""
    which, structure = rule("octahedral", True).turned_at_random(3), molecule()
    structure.positions -= structure.positions[0]
    heights = (structure.positions @ which.matrices.transpose(0, 2, 1))[..., 2].max(axis=1)
    order = np.argsort(heights)
    culprit, ceiling = int(order[-1]), float(heights[order[-2:]].mean())
    assert np.ptp(heights[order[-2:]]) > 1e-3

    def energy(ceiling: float) -> float:
        source = springs(tmp_path / "ceiling.pt", ceiling=ceiling)
        done = export(source, which, tmp_path / "out.pt", batch=5)
        model = load_atomistic_model(str(done.path))
        system = system_of(structure, torch.tensor(structure.positions), torch.zeros((3, 3)).double(), model)
        return float(model([system], asked(), False)["energy"].block().values)

    assert np.isfinite(energy(float(heights.max()) + 1e-3))
    said = f"gave energy that is not finite, on a system of 3 atoms, at element {culprit} (counted from 0) of "
    said += f"octahedral with inversion (48), turned by seed 3, {in_words(which.matrices[culprit])}"
    with pytest.raises(torch.jit.Error, match=re.escape(said)):
        energy(ceiling)


def test_the_command_writes_what_the_function_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["goniometer", "export", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    out = tmp_path / "out.pt"
    assert run(NAME, "--rule", "klein", "--inversion", "-o", str(out)) == 0
    said = capsys.readouterr()
    assert "averaged over klein (8 elements, inversion included)" in said.out
    assert "features" not in said.out
    assert "feature" in said.err
    atoms = calculated(out, molecule())
    assert atoms.get_potential_energy() == pytest.approx(average(molecule(), rule("klein", True), "float32")[0])
    assert run(NAME, "--rule", "kline", "-o", str(out)) == 2
    assert "unknown rule" in capsys.readouterr().err
    assert run("calculator.py:factory", "--rule", "klein", "-o", str(out)) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_planned_rule_is_found_on_the_structures_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["goniometer", "export", NAME, "-o", str(tmp_path / "o.pt"), *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    wanted = ("--rule", "plan", "--force-tolerance", "5meV/Å")
    code, out, _ = run(*wanted, "--structure", "molecule")
    plan = goniometer.plan(NAME, "molecule", force="5meV/Å")
    assert code == 0
    assert plan.certified
    assert f"averaged over {plan.rule} ({plan.n} elements" in out
    over = rule(plan.rule, plan.inversion)
    assert 1 < len(over) < len(rule("icosahedral", True)), "this would hold for any tolerance"
    atoms = calculated(tmp_path / "o.pt", molecule())
    assert atoms.get_potential_energy() == pytest.approx(average(molecule(), over, "float32")[0])
    (tmp_path / "o.pt").unlink()
    cases = [
        (wanted, "a planned rule needs structures to plan on: --structure FILE"),
        ((*wanted[:2], "--structure", "molecule"), "a planned rule needs a tolerance"),
        ((*wanted, "--structure", "molecule", "--inversion"), "inversion does not go with .* rule 'plan'"),
        (("--rule", "klein", *wanted[2:]), "a tolerance goes with rule='plan', not with 'klein'"),
        (("--rule", "klein", "--structure", "molecule"), "structures does not go with .* rule 'klein'"),
    ]
    for arguments, said in cases:
        code, _, err = run(*arguments)
        assert code == 2
        assert re.search(said, err)
        assert len(err.splitlines()) == 1
    assert not (tmp_path / "o.pt").exists()


def test_what_metatomic_says_of_a_file_is_held_back_and_nothing_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = springs(tmp_path / "springs.pt")  # a variant of the energy is not described
    capfd.readouterr()
    load_atomistic_model(str(source))
    assert "has an empty description" in capfd.readouterr().err  # the control
    goniometer.load(source).predict(molecule())
    export(source, "klein", tmp_path / "averaged.pt", verify=False)
    assert capfd.readouterr().err == ""
    other = "[W1125 06:42:00.1 model.cpp:1] Warning: something else\n"

    def speaks() -> None:
        with hushed():
            os.write(2, f"{other}a sentence\n".encode())
            os.write(2, b"[W1125 06:42:00.1 model.cpp:2] Warning: `per_atom` is deprecated, please\n")
            warnings.warn("mine", UserWarning, stacklevel=1)
            raise InputError("an error")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(InputError):
            speaks()
    assert capfd.readouterr().err == f"{other}a sentence\n"
    assert [str(each.message) for each in caught] == ["mine"]


def test_what_is_returned_says_what_was_done(tmp_path: Path) -> None:
    done = export(NAME, rule("klein"), str(tmp_path / "out.pt"))
    assert isinstance(done, Exported)
    assert (done.path, done.rule.name, done.kept) == (tmp_path / "out.pt", "klein", ("energy",))
    assert "feature" in done.dropped
