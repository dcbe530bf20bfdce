"""Starting ensembles: independent configurations in one file, with a record of how they were made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from goniometer.dynamics.description import Run
from goniometer.errors import InputError
from goniometer.structures import check_structure, read_structures

SCHEMA = "goniometer/starts/1"


@dataclass(frozen=True)
class StartingEnsemble:
    """What ``goniometer equilibrate`` wrote: an extended XYZ file and a JSON document of the same name beside it.

    Attributes
    ----------
    path
        Of the configurations.
    record
        The document: ``key``, ``sha256`` of the file, ``independent``, ``correlation_time_ps``, ``observable``,
        ``description`` of the runs they were taken from, ``model_sha256``, and ``configurations`` with the seed and the
        time in ps of each.
    """

    path: Path
    record: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.record["configurations"])

    def structure(self, number: int) -> Atoms:
        """A configuration by its number. Raises :class:`InputError` for more runs than there are configurations."""
        check_count(self, number + 1)
        found = read_structures(f"{self.path}@{number}")
        name, atoms = found[0]
        check_structure(atoms, name)
        bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        bare.set_masses(atoms.get_masses())
        bare.info = {"name": name}
        return bare


def read_starts(path: str | Path, key: str | None = None) -> StartingEnsemble:
    """Read a starting ensemble. Raises :class:`InputError` if it is none, has been changed, or has another key."""
    path = Path(path)
    document = path.with_suffix(".json")
    if not path.is_file() or not document.is_file():
        raise InputError(
            f"there is no starting ensemble '{path}' (with '{document.name}' beside it): goniometer equilibrate makes "
            "one"
        )
    try:
        record = json.loads(document.read_text(encoding="utf-8"))
        known = record["schema"] == SCHEMA and isinstance(record["configurations"], list)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"'{document}' is not the record of a starting ensemble: {error}") from error
    if not known:
        raise InputError(f"'{document}' is not the record of a starting ensemble: its schema is not {SCHEMA}")
    if sha256(path.read_bytes()).hexdigest() != record.get("sha256"):
        raise InputError(f"'{path}' is not the file that '{document.name}' describes: its hash is another")
    if key is not None and record.get("key") != key:
        raise InputError(f"'{path}' is another starting ensemble than the one described: its key is not {key}")
    return StartingEnsemble(path, record)


def check_count(ensemble: StartingEnsemble, runs: int) -> None:
    """Raise :class:`InputError` if there are more independent runs than configurations."""
    if runs > len(ensemble):
        raise InputError(
            f"there are {runs} independent runs and {len(ensemble)} starting configurations in '{ensemble.path}': make "
            "fewer runs, or equilibrate more configurations (--starts)"
        )


def start_structure(description: Run) -> Atoms:
    """The configuration that a run starts from. Raises :class:`InputError` if there is none, or of other atoms."""
    assert description.starts is not None
    assert description.configuration is not None
    ensemble = read_starts(description.starts.file, description.starts.key)
    found = ensemble.structure(description.configuration)
    if "structure" in description.model_fields_set and description.structure != "molecule":
        wanted = read_structures(description.structure)[0].atoms.repeat(description.repeat)
        if not np.array_equal(wanted.numbers, found.numbers) or not np.allclose(wanted.cell, found.cell, atol=1e-6):
            raise InputError(
                f"the configurations of '{ensemble.path}' have other atoms or another cell than "
                f"'{description.structure}'"
            )
    return found


def start_key(description: Run) -> bytes:
    """What the hash of a run knows of its starting ensemble, which need not exist yet if its key is given."""
    assert description.starts is not None
    if description.starts.key is not None:
        return description.starts.key.encode()
    return str(read_starts(description.starts.file).record["key"]).encode()


def start_record(description: Run, model: str) -> dict[str, Any]:
    """What a trajectory records about its start.

    ``same_ensemble`` says that the configurations are of the ensemble that the run samples: the same model by the hash
    of its contents, the same kind of forces, strategy and temperature.

    Parameters
    ----------
    description
        Of the run.
    model
        The hash of the contents of its model.
    """
    if description.starts is None:
        return {"structure": description.structure, "independent": False}
    record = read_starts(description.starts.file, description.starts.key).record
    made = Run.model_validate(record["description"])
    same = (
        record["model_sha256"] == model
        and made.strategy == description.strategy
        and made.potential.options == description.potential.options
        and made.potential.forces == description.potential.forces
        and made.temperature == description.temperature
        and made.ensemble == description.ensemble == "nvt"
        and description.strategy.samples
    )
    kept = {name: record[name] for name in ("key", "sha256", "independent", "observable", "correlation_time_ps")}
    return {
        **kept,
        "ensemble": description.starts.file,
        "configuration": description.configuration,
        "configurations": len(record["configurations"]),
        "model": made.potential.model,
        "model_sha256": record["model_sha256"],
        "same_ensemble": bool(same),
    }
