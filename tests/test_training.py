"""Training: every recipe runs, a run that was killed is as one that was not, and what cannot be trained is refused."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from goniometer.errors import InputError
from goniometer.potentials import load
from goniometer.structures.labelled import Labelled, labelled
from goniometer.training.augment import chosen, turns
from goniometer.training.recipe import Optimizer, Recipe, Schedule, packaged_recipes, read_recipe
from labels import relabelled, toy_water

torch = pytest.importorskip("torch")

SMALL = {
    "cutoff": 3.0,
    "d_pet": 8,
    "d_head": 8,
    "d_node": 8,
    "d_feedforward": 8,
    "num_heads": 2,
    "num_attention_layers": 1,
    "num_gnn_layers": 1,
}
BOXES = [labelled(f"box#{number}", box) for number, box in enumerate(toy_water(8, molecules=2))]
TRAINING, VALIDATION = BOXES[:6], BOXES[6:]


def small(**changes: Any) -> Recipe:
    return read_recipe("pet-water", **{"model": SMALL, "steps": 6, "validate_every": 3, **changes})


def train(recipe: Recipe, folder: Path, training: list[Labelled] = TRAINING, **options: Any) -> Path:
    pytest.importorskip("metatrain")
    from goniometer.training.train import train as run

    return run(recipe, training, VALIDATION, folder, threads=1, **options)


def need_soap() -> None:
    pytest.importorskip("spex")
    pytest.importorskip("sphericart.torch")


def weights(folder: Path) -> dict[str, Any]:
    from goniometer.training.checkpoint import read_checkpoint

    return read_checkpoint(folder / "checkpoint.pt").weights


def assert_same(first: Path, second: Path) -> None:
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    for name, weight in one.items():
        assert torch.equal(weight, other[name]), name


# Recipes


@pytest.mark.parametrize("name", packaged_recipes())
def test_every_recipe_runs(name: str, tmp_path: Path) -> None:
    pytest.importorskip("metatrain")
    recipe = read_recipe(name, steps=2, validate_every=2, batch=1)
    if recipe.architecture == "soap_bpnn":
        need_soap()
    start = None
    if recipe.start == "checkpoint":
        train(small(steps=1), tmp_path / "before")
        start = tmp_path / "before" / "checkpoint.pt"
    model = train(recipe, tmp_path / "run", start=start, name=name)
    rows = list(csv.DictReader((tmp_path / "run" / "curve.csv").open(encoding="utf-8")))
    assert [int(row["step"]) for row in rows] == [2]
    assert np.isfinite(float(rows[0]["force_mae"]))
    assert np.isfinite(load(model).predict(BOXES[0].atoms).forces).all()


def test_an_invariant_network_stays_invariant(tmp_path: Path) -> None:
    need_soap()
    model = load(train(read_recipe("soap-bpnn-water", steps=2), tmp_path))
    matrices = turns("O3", 6, 0, 0)
    energies = np.concatenate([part.energies for part in model.turned(BOXES[0].atoms, matrices)])
    # float32: the energy per atom is known to some 1e-7 of its size, of order 1 eV.
    assert np.ptp(energies) < 1e-4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("architecture: pet\nsteps: 1\nstep: 2\n", "there is no key 'step'; there are architecture, model, steps"),
        ("architecture: pet\nsteps: 1\nloss: {force: 2}\n", r"there is no key 'loss.force'; there are energy, "),
        ("architecture: pet\n", "'steps': Field required"),
        ("architecture: mlp\nsteps: 1\n", "'architecture': Input should be 'pet' or 'soap_bpnn'"),
        ("architecture: pet\nsteps: 1\naugmentation: {consistency: 1}\n", "it needs copies of at least 2"),
        ("- pet\n", "is no recipe"),
        ("architecture: [\n", "cannot be read as YAML"),
    ],
)
def test_a_recipe_that_cannot_be_right_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_recipe(tmp_path / "mine.yaml")


def test_an_unknown_recipe_or_setting_of_the_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no recipe 'pet-watr'; the packaged ones are fine-tune-energy, "):
        read_recipe("pet-watr")
    with pytest.raises(InputError, match=r"the recipe has no key 'model.d_pett'; there are activation, "):
        train(small(model={"d_pett": 8}), tmp_path)


# Turns, order, rates


def test_turns_come_from_the_key_of_seed_and_step() -> None:
    np.testing.assert_array_equal(turns("O3", 4, 7, 100), turns("O3", 4, 7, 100))
    assert not np.allclose(turns("O3", 4, 7, 100), turns("O3", 4, 7, 101))
    assert not np.allclose(turns("O3", 4, 7, 100), turns("O3", 4, 8, 100))
    np.testing.assert_array_equal(turns("off", 2, 0, 0), [np.eye(3)] * 2)


def test_turns_keep_to_their_group() -> None:
    for group, share in (("SO3", 1.0), ("O3", 0.5)):
        matrices = np.concatenate([turns(group, 8, 0, step) for step in range(100)])
        np.testing.assert_allclose(matrices @ matrices.transpose(0, 2, 1), [np.eye(3)] * 800, atol=1e-12)
        # 800 draws: a standard deviation of 0.018.
        assert np.mean(np.linalg.det(matrices) > 0) == pytest.approx(share, abs=0.08 * (share < 1) + 1e-12)
        # Uniform: no direction is preferred. The components of the mean have a deviation of 1/√(3·800).
        assert np.abs(matrices.mean(axis=0)).max() < 5 / np.sqrt(3 * 800)


def test_every_pass_goes_through_all_samples_once() -> None:
    seen = [index for step in range(10) for index in chosen(5, 2, 0, step)]
    passes = [seen[first : first + 5] for first in range(0, 20, 5)]
    assert all(sorted(each) == list(range(5)) for each in passes)
    assert len({tuple(each) for each in passes}) > 1


def test_rates_follow_their_schedules() -> None:
    from goniometer.training.optimize import rate_factor

    def rates(**settings: Any) -> list[float]:
        return [rate_factor(Schedule(**settings), step, 10, 6) for step in range(11)]

    assert rates(kind="constant", warmup=4)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates(kind="linear", warmup=0, decay_steps=4) == [1.0] * 7 + [0.75, 0.5, 0.25, 0.0]
    assert rates(kind="steps", warmup=0, every=4, factor=0.5) == [1.0] * 4 + [0.5] * 4 + [0.25] * 3
    assert rates(kind="cosine", warmup=0)[::5] == pytest.approx([1.0, 0.5, 0.0])


def test_muon_moves_along_an_orthogonal_matrix() -> None:
    from goniometer.training.optimize import Descent

    generator = torch.Generator().manual_seed(0)
    matrix = torch.nn.Parameter(torch.zeros(6, 4))
    descent = Descent({"mlp.weight": matrix, "bias": torch.nn.Parameter(torch.zeros(4))}, Optimizer(rate=1.0, ema=0.0))
    matrix.grad = torch.randn(6, 4, generator=generator)
    descent.weights["bias"].grad = torch.ones(4)
    descent.step(1.0, 0)
    values = torch.linalg.svdvals(matrix.detach()) / (0.2 * 6**0.5)
    # The iteration stops with singular values between 0.7 and 1.2, whatever they were.
    assert values.min() > 0.6
    assert values.max() < 1.3
    # The control: the gradient itself is far from orthogonal.
    assert torch.linalg.svdvals(matrix.grad).max() / torch.linalg.svdvals(matrix.grad).min() > 2.0


# The loop


def test_training_learns_and_the_model_is_what_was_validated(tmp_path: Path) -> None:
    model = train(small(steps=200, validate_every=100, augmentation={"group": "off"}), tmp_path)
    rows = list(csv.DictReader((tmp_path / "curve.csv").open(encoding="utf-8")))
    assert float(rows[-1]["training_force_mae"]) < 0.85 * float(rows[0]["training_force_mae"])
    potential = load(model)
    off = [potential.predict(sample.atoms).forces[0] - sample.forces for sample in VALIDATION]
    assert 1e3 * np.mean([np.abs(each).mean() for each in off]) == pytest.approx(float(rows[-1]["force_mae"]), rel=1e-4)
    shifts = [(float(potential.predict(s.atoms).energies[0]) - s.energy) / len(s.atoms) for s in VALIDATION]
    assert 1e3 * np.mean(shifts) == pytest.approx(float(rows[-1]["energy_bias"]), abs=0.05)


def test_two_runs_agree_and_another_seed_does_not(tmp_path: Path) -> None:
    for folder, seed in (("one", 0), ("two", 0), ("three", 1)):
        train(small(), tmp_path / folder, seed=seed)
    assert_same(tmp_path / "one", tmp_path / "two")
    with pytest.raises(AssertionError):
        assert_same(tmp_path / "one", tmp_path / "three")


def test_copies_and_consistency_count(tmp_path: Path) -> None:
    from goniometer.training.network import build
    from goniometer.training.step import loss_of_step, prepare

    pytest.importorskip("metatrain")

    def loss(**augmentation: Any) -> float:
        recipe = small(augmentation=augmentation)
        network = build(recipe, [1, 8], {1: -100.0, 8: -270.0}, 0)
        samples = prepare(network, TRAINING, torch.float32)
        return loss_of_step(network, samples, recipe, 0, 0, 1.0)[0].item()

    plain, penalised = loss(group="O3", copies=4), loss(group="O3", copies=4, consistency=10.0)
    assert penalised > plain * (1 + 1e-4)
    assert loss(group="O3", copies=2) != pytest.approx(plain, rel=1e-6)
    assert loss(group="off", copies=4) == pytest.approx(loss(group="off"), rel=1e-5)


def test_a_killed_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    pytest.importorskip("metatrain")
    recipe = small(steps=60, validate_every=5, schedule={"kind": "linear", "warmup": 10, "decay_steps": 30})
    process = multiprocessing.get_context("fork").Process(target=train, args=(recipe, tmp_path / "killed"))
    process.start()
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "curve.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    rows = (tmp_path / "killed" / "curve.csv").read_text(encoding="utf-8").splitlines()
    assert 1 < len(rows) < 13, "it was killed too early or too late to prove anything"
    for folder in ("killed", "whole"):
        train(recipe, tmp_path / folder)
    assert_same(tmp_path / "killed", tmp_path / "whole")
    record = json.loads((tmp_path / "killed" / "run.json").read_text(encoding="utf-8"))
    assert len(record["progress"]["sessions"]) == 2
    assert table(tmp_path / "killed") == table(tmp_path / "whole")


def table(folder: Path) -> list[tuple[str, ...]]:
    """The curve without its times."""
    columns = ("step", "training_force_mae", "force_mae", "energy_mae", "symmetry_force", "symmetry_energy")
    return [
        tuple(row[name] for name in columns) for row in csv.DictReader((folder / "curve.csv").open(encoding="utf-8"))
    ]


def test_a_file_stop_starts_the_decay_and_then_ends(tmp_path: Path) -> None:
    (tmp_path / "STOP").touch()
    train(small(steps=1000, schedule={"kind": "linear", "decay_steps": 4}), tmp_path)
    record = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert record["progress"]["step"] == 4


def test_a_model_file_names_no_path_and_its_card_knows_the_data(tmp_path: Path) -> None:
    from goniometer.training.card import card_path, known_hashes

    model = train(small(steps=1), tmp_path, name="tiny", sources=["licence: CC0-1.0", "please cite nobody"])
    with zipfile.ZipFile(model) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".debug_pkl")]
        content = b"".join(archive.read(name) for name in archive.namelist())
    for folder in (str(tmp_path), str(Path(torch.__file__).parent), str(Path(__file__).parent)):
        assert folder.encode() not in content
    known = known_hashes(card_path(model))
    assert [known[sample.hash] for sample in BOXES] == ["training"] * 6 + ["validation"] * 2
    text = card_path(model).read_text(encoding="utf-8")
    assert "6 structures, validated on 2 others" in text
    assert "- H–O " in text
    assert "- licence: CC0-1.0\n- please cite nobody\n" in text


def test_the_command_trains_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ase.io import write

    from goniometer.cli import main

    pytest.importorskip("metatrain")
    monkeypatch.chdir(tmp_path)
    write("water.xyz", toy_water(12, molecules=2))
    settings = "\n".join(f"  {key}: {value}" for key, value in SMALL.items())
    Path("tiny.yaml").write_text(f"architecture: pet\nsteps: 4\nvalidate_every: 2\nmodel:\n{settings}\n", "utf-8")
    for _ in range(2):
        arguments = ["train", "tiny.yaml", "--data", "water.xyz", "-o", "run", "--threads", "1", "--licence", "CC0-1.0"]
        monkeypatch.setattr("sys.argv", ["goniometer", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code, capsys.readouterr().err
        assert "the model is run/tiny.pt" in capsys.readouterr().err
    assert "- licence: CC0-1.0\n" in Path("run/tiny.md").read_text("utf-8")
    record = json.loads(Path("run/run.json").read_text("utf-8"))
    assert [session["from_step"] for session in record["progress"]["sessions"]] == [0, 4]
    # A tenth of twelve is held back.
    assert [len(record["identity"][split]) for split in ("training", "validation")] == [11, 1]


# Refusals


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    hartree = [labelled(s.name, relabelled(s.atoms, energy=1 / 27.2114)) for s in TRAINING]
    with pytest.raises(InputError, match=r"the training data: the energies vary .* are the energies in hartree"):
        train(small(), tmp_path / "a", training=hartree)
    with pytest.raises(InputError, match="box#6 of the validation data is box#6 of the training data"):
        train(small(), tmp_path / "b", training=BOXES)
    with pytest.raises(InputError, match="there is nothing to train on"):
        train(small(), tmp_path / "c", training=[])
    with pytest.raises(InputError, match="give its checkpoint with --start"):
        train(read_recipe("polish", steps=1), tmp_path / "d")
    (tmp_path / "some.pt").touch()
    with pytest.raises(InputError, match="it takes no --start"):
        train(small(), tmp_path / "e", start=tmp_path / "some.pt")


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    train(small(steps=1), tmp_path)
    with pytest.raises(InputError, match="belongs to a run with another recipe"):
        train(small(steps=2), tmp_path)
    with pytest.raises(InputError, match="belongs to a run with another seed"):
        train(small(steps=1), tmp_path, seed=1)
    with pytest.raises(InputError, match="belongs to a run with another data"):
        train(small(steps=1), tmp_path, training=TRAINING[:5])
    (tmp_path / "checkpoint.pt").write_bytes(b"no archive")
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        train(small(steps=1), tmp_path)


def test_weight_decay_shrinks_the_matrices_inside_and_nothing_else():
    from goniometer.training.optimize import Descent

    weights = {"inner.weight": torch.ones(3, 4), "inner.bias": torch.ones(4), "embedding.weight": torch.ones(3, 4)}
    for weight in weights.values():
        weight.grad = torch.zeros_like(weight)
    for kind in ("muon", "adam"):
        descent = Descent(weights, Optimizer(kind=kind, rate=0.1, weight_decay=0.5))
        before = {name: weight.clone() for name, weight in weights.items()}
        descent.step(factor=0.5, step=0)
        torch.testing.assert_close(weights["inner.weight"], before["inner.weight"] * (1.0 - 0.5 * 0.1 * 0.5))
        assert torch.equal(weights["inner.bias"], before["inner.bias"])
        assert torch.equal(weights["embedding.weight"], before["embedding.weight"])


# The symmetry error of the curve


def watched(field: float, boxes: int = 6, steps: int = 400) -> dict[str, float]:
    """The mean over many steps, each with turns of its own, for a force on each atom that does not turn with it."""
    pytest.importorskip("metatrain")
    from metatomic.torch import System

    from goniometer.training.network import Network
    from goniometer.training.step import Prepared
    from goniometer.training.validate import symmetry_errors

    class Tilted(Network):
        def __init__(self) -> None:
            pass

        def predict(self, systems: Any, training: bool) -> tuple[Any, list[Any]]:
            assert not training
            heights = [system.positions[:, 2] for system in systems]
            pulls = [torch.tensor([0.0, 0.0, field]).repeat(len(height), 1) for height in heights]
            return torch.stack([-field * height.sum() for height in heights]), pulls

    held = []
    for atoms in toy_water(boxes, molecules=2):
        positions = torch.tensor(atoms.positions - atoms.positions.mean(axis=0) + [0.0, 0.0, 1.0], dtype=torch.float32)
        cell = torch.tensor(atoms.cell.array, dtype=torch.float32)
        system = System(torch.tensor(atoms.numbers), positions, cell, torch.tensor([True] * 3))
        held.append(Prepared(system, 0.0, torch.zeros(len(atoms), 3)))
    rows = [symmetry_errors(Tilted(), held, 0, step) for step in range(steps)]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def test_the_symmetry_error_of_the_curve_is_the_one_that_was_put_in() -> None:
    found = watched(0.2)
    # A component of a vector of length 0.2 that turns uniformly is uniform within ±0.2: mean absolute value 0.1. So is
    # the height of the centre, 1 Å from the origin, times 0.2 eV/Å, per atom. The factor is exact for normal deviations
    # and for uniform ones some 2 % off with 6 turns. 400 rows of 6 turns: 1 to 2 % more.
    assert found["symmetry_force"] == pytest.approx(100.0, rel=0.05)
    assert found["symmetry_energy"] == pytest.approx(100.0, rel=0.05)
    # The controls: a network without the field, and a few structures instead of many.
    assert set(watched(0.0, steps=2).values()) == {0.0}
    assert watched(0.2, boxes=1)["symmetry_force"] == pytest.approx(100.0, rel=0.06)


def test_the_curve_has_the_symmetry_error_of_the_model(tmp_path: Path) -> None:
    from goniometer.training.validate import TURNS_OF_EACH

    model = load(train(small(steps=3), tmp_path))
    (row,) = csv.DictReader((tmp_path / "curve.csv").open(encoding="utf-8"))
    forces, energies = [], []
    for sample in VALIDATION:
        matrices = turns("O3", TURNS_OF_EACH, 0, 3, stream=4)
        parts = list(model.turned(sample.atoms, matrices))
        back = np.concatenate([part.forces for part in parts]) @ matrices
        said = np.concatenate([part.energies for part in parts])
        forces.append(np.abs(back - back.mean(axis=0)).mean())
        energies.append(np.abs(said - said.mean()).mean() / len(sample.atoms))
    scale = 1e3 * np.sqrt(TURNS_OF_EACH / (TURNS_OF_EACH - 1))
    # float32, and three decimals in the table.
    assert scale * np.mean(forces) == pytest.approx(float(row["symmetry_force"]), rel=1e-3, abs=2e-3)
    assert scale * np.mean(energies) == pytest.approx(float(row["symmetry_energy"]), rel=1e-2, abs=2e-2)


def test_a_curve_that_an_older_version_began_goes_on() -> None:
    pytest.importorskip("metatrain")
    from goniometer.training.train import _table

    older, newer = {"step": 250, "force_mae": 90.0}, {"step": 500, "force_mae": 80.0, "symmetry_force": 8.0}
    first, second = csv.DictReader(_table([older, newer]).splitlines())
    assert (first["step"], first["force_mae"], first["symmetry_force"]) == ("250", "90.0", "")
    assert (second["step"], second["force_mae"], second["symmetry_force"]) == ("500", "80.0", "8.0")
