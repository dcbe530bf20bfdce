"""An average over a rule as a metatomic model file, which needs no goniometer where it runs."""

from __future__ import annotations

import tempfile
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from goniometer.errors import GoniometerError, InputError, PotentialError
from goniometer.files.records import replacing
from goniometer.potentials.ase import sentence
from goniometer.potentials.loading import DTYPES, model_file
from goniometer.potentials.warnings import hushed
from goniometer.rotations import Rule, in_words
from goniometer.rotations import rule as named_rule
from goniometer.symmetrization.average import element
from goniometer.symmetrization.verification import fault

if TYPE_CHECKING:
    from metatomic.torch import AtomisticModel

_FORCES = ("non_conservative_force", "non_conservative_forces")
_STRESS = "non_conservative_stress"
# What the file says of the libraries that the model needs is the model's own: where it was averaged has no part in it.
_CARRIED = ("extra/extensions", "extra/extensions-deps")
_NOTE = (
    "Averaged over {count} elements of O(3): {rule}. Energies and their first derivatives (forces, virials) are those "
    "of the average; second derivatives are lost, and so are derivatives of single atoms' energies and of "
    "non-conservative forces and stresses. The authors and references are those of the model that is averaged."
)


@dataclass(frozen=True)
class Exported:
    """What was written: the file, its rule, and which of the model's outputs it has and has not."""

    path: Path
    rule: Rule
    kept: tuple[str, ...]
    dropped: tuple[str, ...]


def export(
    model: Any,
    rule: str | Rule,
    path: str | Path,
    *,
    inversion: bool = True,
    dtype: str | None = None,
    batch: int | None = None,
    verify: bool = True,
) -> Exported:
    """Write a metatomic model whose energy is the average of another's over a rule.

        E(x) = Σ_k w_k E₀(g_k·x)        F(x) = −∂E/∂x = Σ_k w_k F₀(g_k·x) R_k

    It runs wherever metatomic models run. Positions, cell and pair vectors of every structure are turned together, a
    few copies at a time are evaluated and differentiated, and only sums are kept, in float64: memory does not grow with
    the rule. Energies (variants included, atom by atom if the model has them so) and non-conservative forces and
    stresses are averaged; other outputs are dropped. See
    :class:`~goniometer.symmetrization.exported_module.AveragedModule` for what derivatives are kept.
    Units, species, range, devices, pair lists, authors and references carry over.

    Parameters
    ----------
    model
        A packaged model by name, or the path of an exported metatomic model.
    rule
        A name that :func:`goniometer.rule` knows, made with ``inversion`` or without; or a rule, taken as it is.
    path
        The file to write.
    dtype
        ``"float32"`` or ``"float64"``: converts the model; by default it stays what it is.
    batch
        Copies that are evaluated at a time; by default as many as hold 768 atoms together, at least one.
    verify
        Test on eight atoms of species that the model knows, on a distorted lattice, that the average is a potential:
        that in some of its copies forces and virials are derivatives of the energy. It takes 30 evaluations. See
        :mod:`goniometer.symmetrization.verification`.

    Raises :class:`InputError` if the model is no metatomic file, has no energy or needs inputs beyond positions, if
    there is no such rule, or if the file cannot be written, and :class:`PotentialError` if the average is no potential.
    """
    source, target = model_file(model), Path(path)
    chosen = rule if isinstance(rule, Rule) else named_rule(rule, inversion)
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype is {' or '.join(map(repr, DTYPES))}, not {dtype!r}")
    if batch is not None and batch < 1:
        raise InputError(f"a batch holds at least one copy, not {batch}")
    if target.exists() and target.samefile(source):
        raise InputError(f"{target} is the model itself, which would be overwritten: give the average another name")
    if target.is_dir():
        raise InputError(f"{target} cannot be written: it is a folder")
    if verify:
        _verify(source, chosen, dtype)
    with replacing(target) as partial:
        partial.touch()  # before the work
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / "model.pt"
            written = _save(source, chosen, whole, dtype, batch or 0)
            _ship(whole, source, partial)
            _check_loads(partial, target)
    return Exported(target, chosen, *written)


def _verify(source: Path, rule: Rule, dtype: str | None) -> None:
    """Refuse an average that is no potential, on a small crystal of species that the model knows."""
    from goniometer.potentials.metatomic import MetatomicPotential

    try:
        potential = MetatomicPotential.from_file(source, device="cpu", dtype=dtype, batch=1)
        found = fault(potential, potential.small_crystal(), rule.matrices)
    except GoniometerError:
        return  # what cannot be loaded or evaluated here is refused, or not, where it is written
    if found is not None:
        raise PotentialError(f"{found}; nothing was written (verify=False, --no-verify, writes it nevertheless)")


def _save(
    source: Path, rule: Rule, path: Path, dtype: str | None, batch: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Wrap the model and save it as metatomic does; the outputs that it keeps and drops."""
    import torch
    from metatomic.torch import AtomisticModel, NeighborListOptions

    from goniometer.symmetrization.exported_module import AveragedModule

    model = _loaded(source)
    if dtype is not None:
        model = model.to(dtype=getattr(torch, dtype))
    declared = {name: model.capabilities().outputs[name] for name in model._model_capabilities_outputs_names}
    energies = {name: output for name, output in declared.items() if name.split("/")[0] == "energy"}
    forces = [name for name in declared if name.split("/")[0] in _FORCES]
    stresses = [name for name in declared if name.split("/")[0] == _STRESS]
    if not energies:
        raise InputError(f"{source.name} has no energy to average; it offers {', '.join(declared)}")
    kept = (*energies, *forces, *stresses)
    averaged = AveragedModule(
        model.module,
        torch.from_numpy(rule.matrices.copy()),
        torch.from_numpy(rule.weights.copy()),
        [f"{element(rule, k)}, {in_words(each)}" for k, each in enumerate(rule.matrices)],
        # Copies: they are told who asks for them.
        [NeighborListOptions(each.cutoff, each.full_list, each.strict) for each in model.requested_neighbor_lists()],
        {name: output.sample_kind == "atom" for name, output in energies.items()},
        forces,
        stresses,
        batch,
    )
    with hushed():
        capabilities = _capabilities(model, {name: declared[name] for name in kept}, dtype)
        AtomisticModel(averaged.eval(), _metadata(model, source.stem, rule), capabilities).save(str(path))
    return kept, tuple(name for name in declared if name not in kept)


def _loaded(source: Path) -> AtomisticModel:
    from goniometer.potentials.metatomic import read_model

    model = read_model(source)
    needed = ", ".join(model.requested_inputs(use_new_names=True))
    if needed:
        raise InputError(f"{source.name} needs inputs beyond positions ({needed}), which cannot be turned here")
    return model


def _capabilities(model: AtomisticModel, outputs: dict[str, Any], dtype: str | None) -> Any:
    from metatomic.torch import ModelCapabilities, ModelOutput

    own = model.capabilities()
    return ModelCapabilities(
        outputs={
            name: ModelOutput(unit=each.unit, sample_kind=each.sample_kind, description=each.description)
            for name, each in outputs.items()
        },
        atomic_types=own.atomic_types,
        interaction_range=own.interaction_range,
        length_unit=own.length_unit,
        supported_devices=own.supported_devices,
        dtype=dtype or own.dtype,
    )


def _metadata(model: AtomisticModel, stem: str, rule: Rule) -> Any:
    """Whose model it is, and what was done to it."""
    from metatomic.torch import ModelMetadata

    own = model.metadata()
    called = f"{rule.name}{', with inversion' if rule.inversion else ''}"
    note = _NOTE.format(count=len(rule), rule=called)
    done = {
        "rule": rule.name,
        "inversion": str(rule.inversion).lower(),
        "degree": str(rule.degree),
        "elements": str(len(rule)),
        "seed": "" if rule.seed is None else str(rule.seed),
        "turn": rule.turn,
        "version": version("goniometer"),
    }
    return ModelMetadata(
        name=f"{own.name or stem}, averaged over {called}",
        description="\n\n".join(part for part in (own.description, note) if part),
        authors=own.authors,
        references=own.references,
        extra={**own.extra, **{f"goniometer::{key}": value for key, value in done.items() if value}},
    )


def _ship(written: Path, source: Path, target: Path) -> None:
    """Copy the archive without the members that hold paths of this machine, and with the model's own extensions."""
    with zipfile.ZipFile(source) as own:
        carried = {_within(name): own.read(name) for name in own.namelist() if _within(name) in _CARRIED}
    with zipfile.ZipFile(written) as archive, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as shipped:
        for name in archive.namelist():
            if not name.endswith(".debug_pkl"):
                shipped.writestr(name, carried.get(_within(name), archive.read(name)))


def _within(name: str) -> str:
    """The name of a member without the folder that holds them all."""
    return name.partition("/")[2]


def _check_loads(path: Path, target: Path) -> None:
    """A file that does not load is not written: it would be found out elsewhere, and later."""
    from metatomic.torch import load_atomistic_model

    try:
        with hushed():
            load_atomistic_model(str(path))
    except Exception as error:
        raise InputError(f"{target} was not written: the averaged model does not load ({sentence(error)})") from error
