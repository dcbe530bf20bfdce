"""Model cards: what a model was trained on, with the hashes of its structures, and what was measured of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from goniometer.errors import InputError
from goniometer.files.records import replace_text
from goniometer.training.checkpoint import Checkpoint, Row

_FENCE = "```text {}\n"
_HASHES = re.compile(r"^```text (training|validation) structures\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_MEASURED, _MARK = "## Measured", "Written by `goniometer evaluate --card`."
_SECTION = re.compile(rf"^{_MEASURED}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)


def card_path(model: str | Path) -> Path:
    """Where the card of a model lies: beside it, with the ending ``.md``."""
    return Path(model).with_suffix(".md")


def known_hashes(card: str | Path) -> dict[str, str]:
    """Hash to ``training`` or ``validation``, from a card; empty where there is no card.

    Raises :class:`InputError` if the card cannot be read.
    """
    path = Path(card)
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the model card {path} cannot be read: {error}") from error
    return {each: split for split, hashes in _HASHES.findall(text) for each in hashes.split()}


def write_card(model: Path, checkpoint: Checkpoint, data: Sequence[str] = (), notes: str = "") -> Path:
    """Write the card of a model: recipe, time and versions from its checkpoint; ``data`` are items on its data."""
    path = card_path(model)
    replace_text(path, _text(model.stem, checkpoint, data, notes))
    return path


def record_measured(card: Path, lines: Sequence[str]) -> None:
    """Write the section "Measured" of a card, or replace the one that was written so before.

    Raises :class:`InputError` if that section was not written so.
    """
    text = card.read_text(encoding="utf-8")
    section = "\n".join([_MEASURED, "", _MARK, "", *lines, "", ""])
    found = _SECTION.search(text)
    if found is None:
        place = text.find("\n## Structures\n") + 1 or len(text)
        replace_text(card, text[:place] + section + text[place:])
    elif found.group().startswith(f"{_MEASURED}\n\n{_MARK}\n"):
        replace_text(card, text[: found.start()] + section + text[found.end() :])
    else:
        raise InputError(f"the section 'Measured' of {card} was written by hand: give it another heading")


def _text(name: str, checkpoint: Checkpoint, data: Sequence[str], notes: str) -> str:
    identity, progress, recipe = checkpoint.identity, checkpoint.progress, checkpoint.recipe
    weights = sum(weight.numel() for weight in checkpoint.weights.values())
    versions: dict[str, Any] = progress.sessions[-1]["versions"] if progress.sessions else {}
    threads = sorted({session["threads"] for session in progress.sessions})
    lines = [
        f"# {name}",
        "",
        f"A metatomic model of the architecture {recipe.architecture} with {weights} weights, in {recipe.dtype}.",
        *([notes] if notes else []),
        "",
        "## Training",
        "",
        f"- {len(identity.training)} structures, validated on {len(identity.validation)} others",
        f"- {progress.step} steps of {recipe.batch} structures in {progress.seconds / 60:.0f} minutes of steps",
        f"- seed {identity.seed}, {' and '.join(map(str, threads)) or 'unrecorded'} threads",
        f"- turns: {recipe.augmentation.group}, {recipe.augmentation.copies} copies a step, consistency "
        f"{recipe.augmentation.consistency:g}",
        f"- settings: `{recipe.model}`",
        f"- versions: {', '.join(f'{package} {number}' for package, number in versions.items()) or 'unrecorded'}",
        *_last_row(progress.curve),
        "",
        *(["## Training data", "", *(f"- {each}" for each in data), ""] if data else []),
        "## Structures",
        "",
        "`goniometer evaluate` leaves these out.",
        "",
        *_listed("training structures", identity.training),
        *_listed("validation structures", identity.validation),
    ]
    return "\n".join(lines)


def _last_row(curve: Sequence[Row]) -> list[str]:
    if not curve or "force_mae" not in curve[-1]:
        return []
    row = curve[-1]
    return [
        f"- validation at the end: forces MAE {row['force_mae']:.1f} and RMSE {row['force_rmse']:.1f} meV/Å, energy "
        f"MAE {row['energy_mae']:.2f} meV/atom after removing the mean error of {row['energy_bias']:.2f} meV/atom"
    ]


def _listed(title: str, hashes: Sequence[str]) -> list[str]:
    rows = [" ".join(hashes[first : first + 6]) for first in range(0, len(hashes), 6)]
    return [_FENCE.format(title).rstrip("\n"), *rows, "```", ""] if hashes else []
