"""The loop: steps, validation, checkpoints; killed at any time, it goes on as if it had not been."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from goniometer.errors import InputError
from goniometer.files.records import locked, make_folder, remove_partial, replace_text, versions
from goniometer.interruption import deferred
from goniometer.structures.labelled import Labelled, composition_baseline
from goniometer.structures.plausibility import look_for_trouble
from goniometer.training.card import write_card
from goniometer.training.checkpoint import NAME, Checkpoint, Identity, Row, TrainingState, check_same, read_checkpoint
from goniometer.training.network import Network, build
from goniometer.training.optimize import Descent, rate_factor
from goniometer.training.recipe import Recipe
from goniometer.training.step import Prepared, loss_of_step, prepare
from goniometer.training.validate import errors, symmetry_errors
from goniometer.training.validity import span

PACKAGES = ("goniometer", "torch", "metatrain", "metatomic-torch", "metatensor-torch", "ase", "numpy")


def train(
    recipe: Recipe,
    training: Sequence[Labelled],
    validation: Sequence[Labelled],
    folder: str | Path,
    *,
    seed: int = 0,
    threads: int | None = None,
    start: str | Path | None = None,
    name: str = "model",
    sources: Sequence[str] = (),
    progress: Callable[[int, int, str], None] | None = None,
) -> Path:
    """Train a model, or go on with the training in this folder, and export it; returns the path of the model.

    The same recipe, data, seed and number of threads give the same weights on the same machine, however often the run
    was killed: turns and order are drawn from the key (seed, step), and a checkpoint holds all else. The folder gets
    ``checkpoint.pt``, ``curve.csv``, ``run.json``, and at the end the model and its card. A file ``STOP`` in it starts
    the decay of the schedule ``linear``; with other schedules it ends the run. ``sources`` (licence and citations of
    the data) are for the card, which also says what the training data span.

    Ctrl-C, SIGTERM or SIGHUP ends it after the step, with a checkpoint and a :class:`KeyboardInterrupt`.

    Raises :class:`InputError` for data that cannot be right, a folder of another run or one that another process works
    in, a file that cannot be written, and a recipe that wants a checkpoint to start from and has none.
    """
    folder = Path(folder)
    _check_data(training, validation)
    if not 0 <= seed < 2**32:
        raise InputError(f"the seed is {seed}; it must lie between 0 and {2**32 - 1}")
    make_folder(folder)
    with locked(folder, f"the training in '{folder}'"):
        remove_partial(folder)
        torch.set_num_threads(threads or torch.get_num_threads())
        digest = None if start is None else _digest(Path(start))
        identity = Identity(recipe.model_dump(), seed, _hashes(training), _hashes(validation), digest)
        run = _Run.continued(folder, identity) or _Run.fresh(folder, identity, recipe, training, start)
        with _record(run.state):
            run.go(training, validation, progress)
        run.save()
        if run.state.step < run.state.steps:
            raise KeyboardInterrupt
        path = folder / f"{name}.pt"
        with run.descent.mean_in():
            run.network.export(path, f"{name}, trained by goniometer with the architecture {recipe.architecture}")
        write_card(path, run.checkpoint(), [*span(training), *sources])
        return path


class _Run:
    """A run in its folder."""

    def __init__(
        self, folder: Path, identity: Identity, recipe: Recipe, network: Network, state: TrainingState
    ) -> None:
        self.folder, self.identity, self.recipe, self.network, self.state = folder, identity, recipe, network, state
        self.descent = Descent(network.weights, recipe.optimizer)

    @classmethod
    def fresh(
        cls, folder: Path, identity: Identity, recipe: Recipe, training: Sequence[Labelled], start: str | Path | None
    ) -> _Run:
        if (start is None) != (recipe.start == "scratch"):
            raise InputError(
                "the recipe goes on from a trained model: give its checkpoint with --start"
                if start is None
                else "the recipe starts from scratch: it takes no --start"
            )
        state = TrainingState(steps=recipe.steps, decay_from=max(0, recipe.steps - recipe.schedule.decay_steps))
        if start is None:
            baseline = composition_baseline(training)
            network = build(recipe, list(baseline), baseline, identity.seed)
            return cls(folder, identity, recipe, network, state)
        earlier = read_checkpoint(Path(start))
        unknown = _elements(training) - set(earlier.baseline)
        if unknown:
            raise InputError(f"'{start}' does not know the elements with the numbers {sorted(unknown)}")
        whole = recipe.model_copy(update=_network_of(earlier.recipe))
        network = build(whole, list(earlier.baseline), earlier.baseline, identity.seed)
        _copy(earlier.optimizer["mean"] if earlier.optimizer else earlier.weights, network.weights)
        return cls(folder, identity, whole, network, state)

    @classmethod
    def continued(cls, folder: Path, identity: Identity) -> _Run | None:
        path = folder / NAME
        if not path.exists():
            return None
        found = read_checkpoint(path)
        check_same(path, found.identity, identity)
        if found.optimizer is None:
            raise InputError(f"'{path}' holds no optimizer state and cannot be continued; start from it with --start")
        recipe = found.recipe
        network = build(recipe, list(found.baseline), found.baseline, identity.seed)
        _copy(found.weights, network.weights)
        run = cls(folder, identity, recipe, network, found.progress)
        run.descent.load(found.optimizer)
        return run

    def go(
        self,
        training: Sequence[Labelled],
        validation: Sequence[Labelled],
        progress: Callable[[int, int, str], None] | None,
    ) -> None:
        dtype = getattr(torch, self.recipe.dtype)
        samples, held = prepare(self.network, training, dtype), prepare(self.network, validation, dtype)
        with deferred() as interrupted:
            while self.state.step < self.state.steps and not interrupted():
                self._advance(samples, held, progress)
            if interrupted():
                self.save()

    def _advance(
        self,
        samples: Sequence[Prepared],
        held: Sequence[Prepared],
        progress: Callable[[int, int, str], None] | None,
    ) -> None:
        self._heed_stop()
        if self.state.step >= self.state.steps:
            return
        began = time.perf_counter()
        self._step(samples)
        self.state.seconds += time.perf_counter() - began
        if self.state.step % self.recipe.validate_every == 0 or self.state.step == self.state.steps:
            self._validate(held)
            self.save()
        if progress is not None:
            progress(self.state.step, self.state.steps, self._label())

    def _step(self, samples: Sequence[Prepared]) -> None:
        state, recipe = self.state, self.recipe
        factor = rate_factor(recipe.schedule, state.step, state.steps, state.decay_from)
        decaying = recipe.schedule.kind == "linear" and state.step >= state.decay_from
        late = recipe.loss.energy_in_decay
        weight = late if decaying and late is not None else recipe.loss.energy
        loss, error = loss_of_step(self.network, samples, recipe, self.identity.seed, state.step, weight)
        for each in self.network.weights.values():
            each.grad = None
        loss.backward()
        self.descent.step(factor, state.step)
        state.step += 1
        state.errors += error
        state.count += 1

    def _heed_stop(self) -> None:
        """Let a file STOP bring the end forward, once."""
        state, schedule = self.state, self.recipe.schedule
        if not (self.folder / "STOP").exists():
            return
        if schedule.kind != "linear":
            state.steps = state.step
        elif state.step < state.decay_from:
            state.decay_from, state.steps = state.step, state.step + schedule.decay_steps

    def _validate(self, held: Sequence[Prepared]) -> None:
        state = self.state
        row: Row = {"step": state.step, "seconds": round(state.seconds, 1)}
        row["training_force_mae"] = round(1e3 * state.errors / max(state.count, 1), 2)
        if held:
            with self.descent.mean_in():
                row.update(errors(self.network, held))
                row.update(symmetry_errors(self.network, held, self.identity.seed, state.step))
        state.curve.append(row)
        state.errors, state.count = 0.0, 0

    def _label(self) -> str:
        row = self.state.curve[-1] if self.state.curve else {}
        error = row.get("force_mae")
        return f"training, force MAE {error:.1f} meV/Å" if error is not None else "training"

    def checkpoint(self) -> Checkpoint:
        network, optimizer = self.network, self.descent.state()
        return Checkpoint(
            self.identity, _network_of(self.recipe), self.state, network.baseline, network.weights, optimizer
        )

    def save(self) -> None:
        self.checkpoint().write(self.folder / NAME)
        replace_text(self.folder / "curve.csv", _table(self.state.curve))
        record = {"identity": asdict(self.identity), "progress": asdict(self.state)}
        replace_text(self.folder / "run.json", json.dumps(record, indent=1))


def _check_data(training: Sequence[Labelled], validation: Sequence[Labelled]) -> None:
    if not training:
        raise InputError("there is nothing to train on")
    troubles = look_for_trouble(training).units
    if troubles:
        raise InputError(f"the training data: {troubles[0]}")
    known = {sample.hash: sample.name for sample in training}
    for sample in validation:
        if sample.hash in known:
            raise InputError(f"{sample.name} of the validation data is {known[sample.hash]} of the training data")
    strange = _elements(validation) - _elements(training)
    if strange:
        raise InputError(f"the validation data holds elements (numbers {sorted(strange)}) that the training data lacks")


def _hashes(samples: Sequence[Labelled]) -> list[str]:
    return [sample.hash for sample in samples]


def _elements(samples: Sequence[Labelled]) -> set[int]:
    return {int(number) for sample in samples for number in sample.atoms.numbers}


@contextmanager
def _record(state: TrainingState) -> Any:
    """Note the session: when, with which versions and threads."""
    session: dict[str, Any] = {"began": datetime.now(UTC).isoformat(timespec="seconds"), "from_step": state.step}
    session.update(threads=torch.get_num_threads(), versions=versions(PACKAGES))
    state.sessions.append(session)
    try:
        yield
    finally:
        session.update(ended=datetime.now(UTC).isoformat(timespec="seconds"), to_step=state.step)


def _network_of(recipe: Recipe) -> dict[str, Any]:
    """What a later stage takes over from the one before."""
    return {"architecture": recipe.architecture, "model": recipe.model, "scale": recipe.scale, "dtype": recipe.dtype}


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}") from error


def _copy(source: dict[str, torch.Tensor], target: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, weight in target.items():
            weight.copy_(source[name])


def _table(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    # A run that an older version began has rows of fewer columns.
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["step"]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
