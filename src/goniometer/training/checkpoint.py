"""Checkpoints: everything that the next step depends on, in one file that is whole at any moment."""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import torch

from goniometer.errors import InputError
from goniometer.files.records import replace_bytes
from goniometer.training.recipe import Recipe

SCHEMA = "goniometer/training/1"
NAME = "checkpoint.pt"

# What stands between a checkpoint and its checksum.
_SIGN, _DIGEST = b"goniometer sha256 ", 32
_BEHIND = len(_SIGN) + _DIGEST

#: A row of the learning curve, by column.
Row: TypeAlias = dict[str, int | float]


@dataclass
class Identity:
    """What a run must have in common with the one it continues: recipe, seed, hashes of the data and of its start."""

    recipe: dict[str, Any]
    seed: int
    training: list[str]
    validation: list[str]
    start: str | None = None


@dataclass
class TrainingState:
    """How far a run is.

    ``decay_from`` is the step from which ``linear`` decays; ``errors`` and ``count`` sum what the training errors since
    the last row of ``curve`` are the mean of; ``seconds`` is the time spent in steps, over all sessions.
    """

    step: int = 0
    decay_from: int = 0
    steps: int = 0
    seconds: float = 0.0
    errors: float = 0.0
    count: int = 0
    curve: list[Row] = field(default_factory=list)
    sessions: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Checkpoint:
    """The state of a run: who it is, how far it is, and its numbers.

    ``network`` is what builds the network anew: a later stage takes it over from the one before.
    """

    identity: Identity
    network: dict[str, Any]
    progress: TrainingState
    baseline: dict[int, float]
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any] | None

    @property
    def recipe(self) -> Recipe:
        """The recipe it was made with, and the network that it trained."""
        return Recipe.model_validate({**self.identity.recipe, **self.network})

    def write(self, path: Path) -> None:
        """Replace the file in one step."""
        texts = {"identity": asdict(self.identity), "network": self.network, "progress": asdict(self.progress)}
        document = {
            "schema": SCHEMA,
            **{key: json.dumps(value) for key, value in texts.items()},
            "baseline": self.baseline,
            "weights": {name: weight.detach() for name, weight in self.weights.items()},
            "optimizer": self.optimizer,
        }
        content = io.BytesIO()
        torch.save(document, content)
        whole = content.getvalue()
        # Behind the archive, where PyTorch does not look.
        replace_bytes(path, whole + _SIGN + sha256(whole).digest())


def read_checkpoint(path: Path) -> Checkpoint:
    """Read what :meth:`Checkpoint.write` wrote. Raises :class:`InputError` if the file is none."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"'{path}' cannot be read as a checkpoint: {error.strerror or error}") from error
    whole, sign, found = content[:-_BEHIND], content[-_BEHIND:-_DIGEST], content[-_DIGEST:]
    if sign != _SIGN:  # an older one, or one that has lost its end
        whole = content
    elif sha256(whole).digest() != found:
        raise InputError(f"'{path}' has been damaged since it was written: its checksum is another one")
    try:
        document = torch.load(io.BytesIO(whole), weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"'{path}' cannot be read as a checkpoint: {_first_line(error)}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise InputError(f"'{path}' is not a checkpoint that `goniometer train` wrote ({SCHEMA})")
    try:
        return Checkpoint(
            Identity(**json.loads(document["identity"])),
            json.loads(document["network"]),
            TrainingState(**json.loads(document["progress"])),
            document["baseline"],
            document["weights"],
            document["optimizer"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"'{path}' cannot be read as a checkpoint: {error!r}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "it is empty or was cut off")


def check_same(path: Path, found: Identity, wanted: Identity) -> None:
    """Raise :class:`InputError` if the checkpoint in a folder belongs to another run."""
    words = {"training": "data", "validation": "validation data", "start": "model to start from"}
    for what in ("recipe", "seed", "training", "validation", "start"):
        if getattr(found, what) != getattr(wanted, what):
            word = words.get(what, what)
            raise InputError(f"'{path}' belongs to a run with another {word}: give the same, or another folder with -o")
