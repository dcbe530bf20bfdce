"""Descriptions of runs: everything that decides a trajectory, as plain YAML."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from goniometer.errors import InputError
from goniometer.files.packaged import packaged_files
from goniometer.files.settings import Settings, read_yaml, validated
from goniometer.symmetrization.tumbling import MEMORY, PERIOD

#: Steps of a run, and atoms of all its replicas: what no machine finishes or holds is a mistake.
MOST_STEPS, MOST_ATOMS = 10**10, 10**7

#: A time that is no multiple of another one by more than this share of it is refused.
_EXACT = 1e-6
# Keys of a run that its hash holds only where they are not the defaults.
_LATER = ("format", "read", "vectors", "velocities")


class Model(Settings):
    """What :func:`goniometer.load` takes.

    ``batch`` is the number of copies evaluated at once; by default as many as have ``ATOMS_AT_ONCE`` atoms, and never
    chosen by a clock.
    """

    model: str = "pet-water"
    dtype: Literal["float32", "float64"] | None = None
    device: str | None = None
    forces: Literal["conservative", "non-conservative"] = "conservative"
    options: dict[str, str | int | float] = Field(default={})
    batch: int | None = Field(default=None, ge=1)


class Strategy(Settings):
    """How the forces of a step are made from the model.

    ===========  =================================================================================================
    ``raw``      the model as it is
    ``average``  its average over the rule
    ``random``   its average over the rule turned at random at every evaluation, from a hash of the positions
    ``tumble``   its average over the rule in a frame that turns smoothly (``period`` and ``memory`` in fs)
    ``mts``      raw inside, and every ``ratio`` steps averaged − raw; ``outer: random`` turns the rule at random there
    ===========  =================================================================================================

    ``rule`` and ``inversion`` are those of :func:`goniometer.symmetrize`: ``octahedral`` with inversion by default for
    ``average`` and ``mts``, and the identity for ``random`` and ``tumble``. ``proper`` leaves inversion out of random
    turns.
    """

    kind: Literal["raw", "average", "random", "tumble", "mts"] = "raw"
    rule: str | None = None
    inversion: bool | None = None
    proper: bool = False
    period: float = Field(default=PERIOD, gt=0.0)
    memory: float = Field(default=MEMORY, gt=0.0)
    ratio: int = Field(default=10, ge=1)
    outer: Literal["average", "random"] = "average"

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Strategy:
        belongs = {
            "rule": self.kind != "raw",
            "inversion": self.kind != "raw",
            "proper": self.kind in ("random", "tumble") or self.outer == "random",
            "period": self.kind == "tumble",
            "memory": self.kind == "tumble",
            "ratio": self.kind == "mts",
            "outer": self.kind == "mts",
        }
        for name, fits in belongs.items():
            if not fits and _chosen(self, name):
                raise ValueError(f"{name} does not go with the strategy {self.kind}")
        return self

    @property
    def samples(self) -> bool:
        """Whether it samples a potential of its own, the model's or an average: what is turned at random does not."""
        return self.kind in ("raw", "average", "mts") and self.outer == "average"


class Thermostat(Settings):
    """What keeps the temperature.

    ============  ==================================================================================================
    ``langevin``  white noise, of friction 1/``time`` (fs)
    ``svr``       stochastic velocity rescaling with the time constant ``time``: G. Bussi, D. Donadio, M. Parrinello,
                  J. Chem. Phys. 126, 014101 (2007). It keeps the direction of an angular momentum: not for molecules
    ``gle``       :mod:`goniometer.dynamics.langevin`, for motions between two ``wavenumbers`` (cm⁻¹)
    ============  ==================================================================================================
    """

    kind: Literal["langevin", "svr", "gle"] = "langevin"
    time: float = Field(default=100.0, gt=0.0)
    wavenumbers: tuple[float, float] = (0.4, 4000.0)

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Thermostat:
        for name, fits in {"time": self.kind != "gle", "wavenumbers": self.kind == "gle"}.items():
            if not fits and _chosen(self, name):
                raise ValueError(f"{name} does not go with the thermostat {self.kind}")
        if not 0.0 < self.wavenumbers[0] < self.wavenumbers[1]:
            raise ValueError("wavenumbers are two numbers of cm⁻¹, the smaller one first")
        return self


def _chosen(part: Settings, name: str) -> bool:
    """Whether a key was given, and is not the default that the description in a run's folder spells out."""
    return name in part.model_fields_set and getattr(part, name) != type(part).model_fields[name].default


class Starts(Settings):
    """The ensemble of starting configurations that ``goniometer equilibrate`` has written.

    The run with seed s starts from configuration s − ``first`` of ``file``, counted from 0. ``key`` is that of the
    ensemble, if the run is to be refused with any other; with it a run can be described before the file is written.
    """

    file: str
    first: int = Field(default=0, ge=0)
    key: str | None = None


class Checks(Settings):
    """What stops a run. None turns a check off.

    ``temperature``: how many times that of the run it may be, besides what so many atoms fluctuate. ``energy``:
    how far the conserved quantity may come from where it began, in meV per atom. ``molecules``: no bond of the first
    structure may be longer than so many sums of covalent radii.
    """

    temperature: float | None = Field(default=3.0, gt=0.0)
    energy: float | None = Field(default=100.0, gt=0.0)
    molecules: float | None = Field(default=1.6, gt=1.0)


class Run(Settings):
    """A trajectory, or as many as there are replicas.

    Attributes
    ----------
    potential, strategy, thermostat, checks
        See there.
    structure
        The start: a file with one structure (``file.xyz@0`` chooses one of several), or a packaged one.
    format, read, vectors
        How the file of the structure is read: its format as ASE calls it, arguments of ASE's reader, and what entries
        of its arrays and info are, as for :func:`goniometer.read_structures`.
    starts
        Independent configurations to start from, in place of ``structure`` and ``repeat``: velocities are drawn anew,
        and a periodic configuration is not rotated. More runs than configurations are refused.
    repeat
        How often a periodic structure is repeated along each of its cell vectors.
    replicas
        Of an isolated structure: as many trajectories, each with velocities of its own, whose forces come from one
        batch.
    orientations
        ``random`` turns each replica at random at the start. A periodic structure is turned by one of the rotations
        that map its lattice onto itself, that of number seed modulo their number; number 0 is none. ``same`` leaves
        them as the structure is.
    ensemble
        ``nve`` or ``nvt``.
    temperature
        In K; that of the velocities at the start as well.
    velocities
        ``drawn`` from the Maxwell-Boltzmann distribution at the temperature, or those of the ``structure``, less the
        motion of its centre of mass; for one replica.
    timestep
        In fs; with the strategy ``mts`` the inner one.
    length
        In ps; asked for a longer one, a run goes on.
    frames_every
        In fs: positions, velocities and energies.
    seed
        Of all that is random.
    verify
        Test before the first step that an average is a potential; see :mod:`goniometer.symmetrization.verification`.
    """

    potential: Model = Model()
    strategy: Strategy = Strategy()
    structure: str = "molecule"
    format: str | None = None
    read: dict[str, Any] = Field(default={})
    vectors: dict[str, Literal["rotate", "axial", "leave"]] = Field(default={})
    starts: Starts | None = None
    repeat: tuple[PositiveInt, PositiveInt, PositiveInt] = (1, 1, 1)
    replicas: int = Field(default=1, ge=1)
    orientations: Literal["same", "random"] = "same"
    ensemble: Literal["nve", "nvt"] = "nve"
    temperature: float = Field(default=300.0, gt=0.0)
    velocities: Literal["drawn", "structure"] = "drawn"
    thermostat: Thermostat | None = None
    timestep: float = Field(default=0.5, gt=0.0)
    length: float = Field(gt=0.0)
    frames_every: float = Field(default=10.0, gt=0.0)
    seed: int = Field(default=0, ge=0, lt=2**31)
    checks: Checks = Checks()
    verify: bool = True

    @model_validator(mode="after")
    def _goes_together(self) -> Run:
        if (self.ensemble == "nve") != (self.thermostat is None):
            raise ValueError("ensemble nvt needs a thermostat, and nve has none")
        if self.velocities == "structure" and self.replicas > 1:
            raise ValueError("velocities of the structure are those of one replica: leave out replicas")
        inner = "the time step" if self.strategy.kind != "mts" else "the ratio times the time step"
        if self.starts is not None and self.seed < self.starts.first:
            raise ValueError(
                f"the run of seed {self.seed} has no start: the first configuration is that of seed {self.starts.first}"
            )
        _multiple("frames_every", self.frames_every, self.step, inner)
        _multiple("length", 1e3 * self.length, self.frames_every, "frames_every")
        if self.steps > MOST_STEPS:
            raise ValueError(
                f"length is {self.length:g} ps, which takes {self.steps:.0e} steps; at most {MOST_STEPS:.0e}"
            )
        return self

    @property
    def step(self) -> float:
        """Of the integrator, in fs: with multiple time steps the outer one."""
        return self.timestep * (self.strategy.ratio if self.strategy.kind == "mts" else 1)

    @property
    def steps(self) -> int:
        """Their number."""
        return round(1e3 * self.length / self.step)

    @property
    def stride(self) -> int:
        """Steps between frames."""
        return round(self.frames_every / self.step)

    @property
    def configuration(self) -> int | None:
        """The number of the configuration in the starting ensemble, counted from 0; None if there is no ensemble."""
        return None if self.starts is None else self.seed - self.starts.first

    def digest(self, *more: bytes) -> str:
        """A hash of the description and of what it names: the contents of files.

        The length and ``verify`` have no part in it: a longer run resumes a shorter one and contains its frames. The
        path of the file of a starting ensemble has no part in it either.
        """
        # Keys that came later have no part in it where they have their defaults: older runs keep their folders.
        later = {name for name in _LATER if getattr(self, name) == type(self).model_fields[name].default}
        settings = self.model_dump(exclude={"length", "starts", "verify", *later})
        if self.starts is not None:
            settings |= {"configuration": self.configuration}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for each in more:
            digest.update(hashlib.sha256(each).digest())
        return digest.hexdigest()[:12]


def _multiple(name: str, time: float, of: float, what: str) -> None:
    count = time / of
    if count < 0.5 or abs(count - round(count)) > _EXACT * count:
        raise ValueError(f"{name} is {time:g} fs, which is no multiple of {what}, {of:g} fs")


def packaged_runs() -> list[str]:
    """Names of the descriptions that come with the package."""
    return list(packaged_files("runs", ".yaml"))


def read_runs(
    source: str | Path,
    *,
    size: str | None = None,
    only: Sequence[str] = (),
    changes: dict[str, Any] | None = None,
) -> dict[str, Run]:
    """The runs that a description holds, by name.

    Besides the keys of a :class:`Run` a description may hold ``runs``, names with keys that differ from one to the
    next, and ``sizes``, names with keys that differ from a quick trial to the whole: without a ``size`` it is the first
    one. Keys within keys are put together; ``changes`` are made last.

    Parameters
    ----------
    source
        The name of a packaged description, or a file.
    size, only
        One of the sizes, and some of the runs.
    changes
        Keys and values, where a dot leads into a part: ``{"potential.model": "model.pt"}``. Those below ``runs`` and
        a name are of that run alone: ``{"runs.2i.length": 5}``.

    Raises :class:`goniometer.errors.InputError` for a file that is none, for names that it does not hold, and for what
    cannot be right in it.
    """
    packaged = packaged_files("runs", ".yaml")
    path = packaged.get(str(source), Path(source))
    if not path.is_file():
        raise InputError(f"there is no description '{source}'; the packaged ones are {', '.join(packaged)}")
    settings = read_yaml(path, "description of a run")
    sizes, runs = _named(settings, "sizes", source), _named(settings, "runs", source)
    if size is not None and size not in sizes:
        raise InputError(f"'{source}' has no size '{size}'; its sizes are {', '.join(sizes) or 'not given'}")
    chosen = sizes.get(size or next(iter(sizes), ""), {})
    changed: dict[str, Any] = {}
    for key, value in (changes or {}).items():
        *parents, last = key.split(".")
        change: Any = {last: value}
        for parent in reversed(parents):
            change = {parent: change}
        changed = _together(changed, change)
    changed_alone = _named(changed, "runs", source)
    for name in (*only, *changed_alone):
        if name not in runs:
            raise InputError(f"'{source}' holds no run '{name}'; its runs are {', '.join(runs) or 'not named'}")
    label = "-".join(each for each in (path.stem, size or next(iter(sizes), None)) if each)
    found = {}
    for name, own in (runs or {"": {}}).items():
        if only and name not in only:
            continue
        whole = settings
        for more in (chosen, own, changed, changed_alone.get(name, {})):
            whole = _together(whole, more)
        called = "-".join(each for each in (label, name) if each)
        found[called] = validated(Run, whole, f"the run '{called}'")
    return found


def _named(settings: dict[str, Any], key: str, source: str | Path) -> dict[str, dict[str, Any]]:
    """Take a key out whose values are settings."""
    named = settings.pop(key, {})
    if not isinstance(named, dict) or not all(isinstance(each, dict) for each in named.values()):
        raise InputError(f"'{source}': '{key}' holds names, each with keys and values")
    return {str(name): each for name, each in named.items()}


def _together(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The settings of both; where both have one, that of the other, or, if these are settings again, both together."""
    both = dict(one)
    for key, value in other.items():
        deeper = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = _together(both[key], value) if deeper else value
    return both
