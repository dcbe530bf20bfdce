"""Descriptions of studies: which models, which phases, how many runs of each, as plain YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from goniometer.errors import InputError, did_you_mean
from goniometer.files.packaged import packaged_files
from goniometer.files.settings import Settings, read_yaml, validated
from goniometer.potentials.loading import is_factory, model_file
from goniometer.rotations import check_grids
from goniometer.structures import read_structures
from goniometer.studies.experiments import check_options
from goniometer.studies.experiments.ice import check_settings

# Names that the folder of a study has for something else.
_RESERVED = ("starts", "task", "done", "log", "report", "engine", "lock")


class _Lists(Settings):
    """What both parts have in common: one word is a list of one, and grids are known ones."""

    @field_validator("models", "only", "probe", "evaluate", "grids", mode="before", check_fields=False)
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("grids", check_fields=False)
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_grids(value)
        return value


class Equilibration(Settings):
    """Where the independent runs of a liquid start: configurations from long runs, see ``goniometer equilibrate``.

    Attributes
    ----------
    model
        Of the long runs, a cheap one for instance; by default that of the experiment.
    starts
        How many configurations; by default one for each independent run.
    runs, length
        How many long runs they are taken from, and the length of each in ps.
    allow_short
        Whether the study continues if these are too short: its runs are then marked as not independent.
    """

    model: str | None = None
    starts: PositiveInt | None = None
    runs: PositiveInt = 1
    length: float = Field(gt=0.0)
    allow_short: bool = False


class Experiment(_Lists):
    """One experiment, of every model or of some.

    Attributes
    ----------
    experiment
        ``gas``, ``liquid`` or ``ice``; see ``goniometer experiment``.
    models
        Some of those of the study; by default all.
    size
        By default that of the study.
    only, walkers, frames, grids
        Of ``liquid``: strategies besides raw, independent runs of each (or by name, ``{raw: 8, others: 4}``), frames
        that are evaluated over grids, and which; see :func:`goniometer.studies.experiments.liquid.liquid`.
    equilibrate
        Of ``liquid``: a task before all runs that makes their starting configurations; by default all start in one box.
    set
        Changes of the runs' descriptions, ``{length: 5}`` or ``{runs.2i.length: 5}``; of ice ``molecules``, those of
        each cell, and ``steps``, of which 0 leaves the relaxations out.
    """

    experiment: Literal["gas", "liquid", "ice"]
    models: tuple[str, ...] | None = None
    size: str | None = None
    only: tuple[str, ...] = ()
    walkers: dict[str, PositiveInt] | PositiveInt | None = None
    frames: int | None = Field(default=None, ge=0)
    grids: tuple[str, ...] = ()
    equilibrate: Equilibration | None = None
    set: dict[str, Any] = Field(default={})

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Experiment:
        try:
            check_options(self.experiment, self.model_fields_set)
            if self.equilibrate is not None and self.experiment != "liquid":
                raise ValueError(f"equilibrate goes with the experiment liquid, not with {self.experiment}")
            if self.experiment == "ice":
                check_settings(self.set)
        except InputError as error:
            raise ValueError(str(error)) from None
        for name in ("potential.model", "potential.dtype", "seed"):
            if name in self.set:
                raise ValueError(f"{name} is not set here: a study has models, dtype and seed")
        return self


class Study(_Lists):
    """Everything that is worked out for one report.

    Attributes
    ----------
    models
        Packaged ones, files, or functions that return an ASE calculator.
    experiments
        What is run with them.
    size
        Of experiments that have none of their own: ``smoke``, ``laptop`` or ``paper``.
    dtype
        Of all runs; by default the models' own.
    seed
        Of the first of several independent runs; the others have those after it.
    probe
        Structures whose symmetry errors, spectra and plan are worked out for every model; none leave it out.
    evaluate
        Files of labelled structures that models are measured on; none leave it out.
    grids
        For ``evaluate``; by default all.
    """

    models: tuple[str, ...] = Field(min_length=1)
    experiments: tuple[Experiment, ...] = ()
    size: str = "smoke"
    dtype: Literal["float32", "float64"] | None = None
    seed: int = Field(default=0, ge=0, lt=2**31)
    probe: tuple[str, ...] = ()
    evaluate: tuple[str, ...] = ()
    grids: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _goes_together(self) -> Study:
        labels = [label(each) for each in self.models]
        for name in labels:
            if name in _RESERVED:
                raise ValueError(f"a model cannot be called {name} here: give the file another name")
            if labels.count(name) > 1:
                raise ValueError(f"two models are called {name}: give one of the files another name")
        taken = set()
        for each in self.experiments:
            for model in each.models or self.models:
                if model not in self.models:
                    raise ValueError(f"'{model}' is none of the models of the study{did_you_mean(model, self.models)}")
                if (each.experiment, model) in taken:
                    raise ValueError(f"there are two experiments {each.experiment} of {model}: put them into one")
                taken.add((each.experiment, model))
        if not (self.experiments or self.probe or self.evaluate):
            raise ValueError("there is nothing to do: give experiments, structures to probe, or data to evaluate")
        return self


def label(model: str) -> str:
    """What a model is called in a study: the name of its file without the ending, or its own."""
    name = Path(model).stem if model.endswith((".pt", ".py")) else model.replace(".py:", "-")
    return "".join(each if each.isalnum() or each in "-_." else "-" for each in Path(name).name)


def packaged_studies() -> list[str]:
    """Names of the studies that come with the package."""
    return list(packaged_files("studies", ".yaml"))


def read_study(source: str | Path) -> Study:
    """A packaged study, or one from a file.

    Models, structures and data that are files are looked for from the folder of the study's own file on.

    Raises :class:`goniometer.errors.InputError` for a file that is none, and for what cannot be right in it.
    """
    packaged = packaged_files("studies", ".yaml")
    path = packaged.get(str(source), Path(source))
    if not path.is_file():
        raise InputError(f"there is no study '{source}'; the packaged ones are {', '.join(packaged)}")
    settings = read_yaml(path, "description of a study")
    study = validated(Study, settings, f"the study '{source}'")
    if str(source) not in packaged:
        study = _placed(study, path.resolve().parent)
    for model in study.models:
        if not is_factory(model):
            model_file(model)
    for structures in study.probe:
        read_structures(structures)
    for data in study.evaluate:
        if not Path(data).is_file():
            raise InputError(f"there is no file '{data}' to evaluate models on")
    return study


def _placed(study: Study, folder: Path) -> Study:
    """The study with files of that folder by their whole paths."""

    def whole(name: str) -> str:
        stem, colon, function = name.rpartition(":") if ".py:" in name else (name, "", "")
        bare, at, frames = stem.partition("@")
        return f"{folder / bare}{at}{frames}{colon}{function}" if (folder / bare).is_file() else name

    def placed(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(whole, names))

    experiments = []
    for each in study.experiments:
        changes: dict[str, Any] = {} if each.models is None else {"models": placed(each.models)}
        if "structure" in each.set:
            changes["set"] = {**each.set, "structure": whole(str(each.set["structure"]))}
        if each.equilibrate is not None and each.equilibrate.model is not None:
            model = whole(each.equilibrate.model)
            changes["equilibrate"] = each.equilibrate.model_copy(update={"model": model})
        experiments.append(each.model_copy(update=changes))
    sources = {name: placed(getattr(study, name)) for name in ("models", "probe", "evaluate")}
    sources = {name: each for name, each in sources.items() if name in study.model_fields_set}
    return study.model_copy(update={**sources, "experiments": tuple(experiments)})
