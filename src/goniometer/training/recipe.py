"""Recipes: everything that decides what a training makes of the same data, as plain YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from goniometer.errors import InputError
from goniometer.files.packaged import packaged_files
from goniometer.files.settings import Settings, read_yaml, validated


class Augmentation(Settings):
    """How the structures of a step are turned.

    ``group`` is ``off`` (as they are), ``SO3`` (proper rotations) or ``O3``; of each structure ``copies`` turned copies
    are evaluated, and ``consistency`` weighs the variance of their back-rotated forces and energies in the loss.
    """

    group: Literal["off", "SO3", "O3"] = "O3"
    copies: int = Field(default=1, ge=1)
    consistency: float = Field(default=0.0, ge=0.0)

    @model_validator(mode="after")
    def _has_something_to_compare(self) -> Augmentation:
        if self.consistency > 0.0 and (self.copies < 2 or self.group == "off"):
            raise ValueError("consistency compares turned copies: it needs copies of at least 2 and a group")
        return self


class Loss(Settings):
    """√(|ΔF|² + w²) − w averaged over atoms, plus ``energy`` times the same of the energy per atom.

    The widths, eV/Å and eV, are where the square goes over into the absolute value. Up to step ``squares_until`` it is
    the plain mean square of the components of ΔF plus 0.1 times that of the energy per atom, which leaves the plateau
    of zero forces sooner. ``energy_in_decay`` takes over from ``energy`` when the learning rate decays.
    """

    energy: float = Field(default=2.0, ge=0.0)
    energy_in_decay: float | None = Field(default=None, ge=0.0)
    force_width: float = Field(default=0.05, gt=0.0)
    energy_width: float = Field(default=0.003, gt=0.0)
    squares_until: int = Field(default=0, ge=0)


class Schedule(Settings):
    """The learning rate over the steps, after a linear warm-up, as a factor on the optimizer's rate.

    ``constant``; ``cosine`` to zero at the last step; ``linear``: constant, then linearly to zero within the last
    ``decay_steps``; ``steps``: multiplied by ``factor`` every ``every`` steps. A file ``STOP`` in the run's folder
    starts the decay of ``linear`` at once.
    """

    kind: Literal["constant", "cosine", "linear", "steps"] = "linear"
    warmup: int = Field(default=100, ge=0)
    decay_steps: int = Field(default=1, ge=1)
    every: int = Field(default=1, ge=1)
    factor: float = Field(default=1.0, gt=0.0, le=1.0)


class Optimizer(Settings):
    """``adam`` for all weights, or ``muon`` for the matrices inside and Adam at ``adam_rate`` for the rest.

    ``ema`` is the memory of the running mean of the weights, which is what is validated and exported; 0 turns it off.
    ``clip`` bounds the norm of the gradient. ``weight_decay`` λ shrinks the matrices inside by the factor 1 − rate·λ a
    step, apart from the gradient (I. Loshchilov and F. Hutter, arXiv 1711.05101).
    """

    kind: Literal["muon", "adam"] = "muon"
    rate: float = Field(default=5e-3, gt=0.0)
    adam_rate: float = Field(default=2e-3, gt=0.0)
    ema: float = Field(default=0.998, ge=0.0, lt=1.0)
    clip: float | None = Field(default=None, gt=0.0)
    weight_decay: float = Field(default=0.0, ge=0.0)


class Recipe(Settings):
    """A training: the architecture of metatrain with its settings, and how it is trained."""

    architecture: Literal["pet", "soap_bpnn"]
    model: dict[str, Any] = Field(default={})
    steps: int = Field(ge=1)
    batch: int = Field(default=1, ge=1)
    scale: float = Field(default=1.0, gt=0.0)
    dtype: Literal["float32", "float64"] = "float32"
    start: Literal["scratch", "checkpoint"] = "scratch"
    augmentation: Augmentation = Augmentation()
    loss: Loss = Loss()
    schedule: Schedule = Schedule()
    optimizer: Optimizer = Optimizer()
    validate_every: int = Field(default=250, ge=1)


def packaged_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return list(packaged_files("recipes", ".yaml"))


def read_recipe(source: str | Path, **changes: Any) -> Recipe:
    """The recipe of that packaged name, or of a YAML file; ``changes`` replace top-level entries.

    Raises :class:`InputError` if there is no such recipe, or with the name of the first key that is unknown or whose
    value does not fit.
    """
    packaged = packaged_files("recipes", ".yaml")
    path = packaged.get(str(source), Path(source))
    if not path.is_file():
        raise InputError(f"there is no recipe '{source}'; the packaged ones are {', '.join(packaged)}")
    settings = {**read_yaml(path, "recipe"), **{key: value for key, value in changes.items() if value is not None}}
    return validated(Recipe, settings, f"the recipe '{source}'")
