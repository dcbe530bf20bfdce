"""Sentences on what else than rotation changes a prediction, and on orientations that deviate as no other does."""

from __future__ import annotations

from collections.abc import Iterator

from goniometer.probing.result import Figure, ProbeResult, StructureResult
from goniometer.units import ENERGY, FORCE, STRESS, listing

# A permutation that changes the energy by this, eV per atom, breaks bonds.
_BONDS = 1.0
_UNTOLD = "No dependence on direction can be told from that."


def obstacles(result: ProbeResult) -> list[str]:
    """What changes the prediction from one orientation to the next without being a preference for directions."""
    found = [sentence for make in (_non_deterministic, _discontinuous, _displaced) for sentence in make(result)]
    untold = found and not any(_directional(each) for each in result.structures)
    return [*found, *([_UNTOLD] if untold else []), *_singular(result)]


def broken(result: ProbeResult) -> list[str]:
    """Symmetries other than rotation that are broken, structures that hide errors, and what was left out."""
    return [*_permuted(result), *_other_cell(result), *_symmetric(result), *_left_out(result)]


def along_axes_only(result: ProbeResult) -> bool:
    """Whether structures were evaluated only in orientations that exchange the axes."""
    return any(each.operation == "rotation" for structure in result.structures for each in structure.left_out)


def _directional(structure: StructureResult) -> bool:
    return structure.energy.directional or structure.forces.directional


def _figures(structure: StructureResult) -> tuple[Figure, Figure]:
    return structure.energy, structure.forces


def _non_deterministic(result: ProbeResult) -> Iterator[str]:
    repeated = [(each, each.repeats) for each in result.structures if each.repeats is not None]
    differing = [(each, repeats) for each, repeats in repeated if repeats.kind is not None]
    if not differing:
        return
    count, different = (sum(getattr(repeats, name) for _, repeats in repeated) for name in ("count", "differing"))
    forces, energy = (max(getattr(repeats, name) for _, repeats in repeated) for name in ("forces", "energy"))
    stress = max((repeats.stress or 0.0 for _, repeats in repeated), default=0.0)
    size = f"by up to {FORCE(forces)} in a force and {ENERGY(energy)} in the energy"
    if stress > 0.0:
        size = f"by up to {FORCE(forces)} in a force, {ENERGY(energy)} in the energy and {STRESS(stress)} in the stress"
    kinds = {repeats.kind for _, repeats in differing}
    why = "as noise does"
    if kinds == {"history"}:
        why = "since an evaluation depends on the one before it: state is carried from one call to the next"
    elif kinds == {"outliers"}:
        why = "as rare outliers"
    yield (
        f"{result.model.name} is not deterministic: {different} of {count} evaluations that were repeated in another "
        f"order gave another answer, {size}, {why}."
    )


def _discontinuous(result: ProbeResult) -> Iterator[str]:
    found = [each for each in result.structures if any(figure.cause == "discontinuity" for figure in _figures(each))]
    if not found:
        return
    worst = max(found, key=lambda each: each.forces.floors.rounding or 0.0)
    floors = worst.forces.floors
    yield (
        f"{result.model.name} is discontinuous at {_names(found)}: positions that differ by rounding alone change "
        f"forces by {FORCE(floors.rounding or 0.0)} rms, but by {FORCE.noise(floors.rattled or 0.0)} where atoms are "
        f"displaced, as where a neighbor list is cut off between equal distances; rotation changes them by "
        f"{FORCE(worst.forces.rms)} rms."
    )


def _displaced(result: ProbeResult) -> Iterator[str]:
    found = [each for each in result.structures if _breaks(each, "translation")]
    if not found:
        return
    worst = max(found, key=lambda each: each.forces.floors.translation or 0.0)
    change = FORCE(worst.forces.floors.translation or 0.0)
    sentence = (
        f"{result.model.name} breaks the symmetry of translation on {_names(found)}: a shift of the whole structure "
        f"changes forces by {change} rms, as a grid in space does (an egg box)"
    )
    if worst.forces.cause == "translation" and not worst.forces.directional:
        sentence += f"; rotation about the origin changes them by {FORCE(worst.forces.rms)} rms, which this explains"
    yield f"{sentence}."


def _permuted(result: ProbeResult) -> Iterator[str]:
    found = [each for each in result.structures if _breaks(each, "permutation")]
    if not found:
        return
    worst = max(found, key=lambda each: each.forces.floors.permutation or 0.0)
    energy = (worst.energy.floors.permutation or 0.0) / worst.n_atoms
    why = (
        "as where bonds are listed by the numbers of atoms, by design"
        if energy > _BONDS
        else "by design where bonds are listed by the numbers of atoms, and a fault of the model otherwise"
    )
    yield (
        f"The energy depends on the order of the atoms: a permutation changes forces by "
        f"{FORCE(worst.forces.floors.permutation or 0.0)} rms, {why}; all other figures keep the order of the file."
    )


def _other_cell(result: ProbeResult) -> Iterator[str]:
    found = [each for each in result.structures if _breaks(each, "cell")]
    if found:
        change = max(each.forces.floors.cell or 0.0 for each in found)
        yield (
            f"The prediction depends on the choice of the cell on {_names(found)}: other vectors of the same lattice, "
            f"or other periodic images of the atoms, change forces by {FORCE(change)} rms."
        )


def _breaks(structure: StructureResult, operation: str) -> bool:
    return any(figure.floors.breaks(operation) for figure in _figures(structure))


def _singular(result: ProbeResult) -> Iterator[str]:
    found = [each for each in result.structures if any(figure.singular for figure in _figures(each))]
    if not found:
        return
    parts = []
    for noun, scale, figure_of in (("forces", FORCE, _forces), ("energy", ENERGY, _energy)):
        worst = max(found, key=lambda each, figure_of=figure_of: figure_of(each).special or 0.0)  # type: ignore[misc]
        figure = figure_of(worst)
        if figure.singular:
            most = max(figure.random or 0.0, figure.floor)
            parts.append(f"{noun} by {scale(figure.special or 0.0)} (in random orientations by {scale.noise(most)})")
    yield (
        f"{result.model.name} deviates in axis-aligned orientations as in no random one: in the input orientation of "
        f"{_names(found)}, or in a copy whose axes are exchanged, {listing(parts)} at most."
    )


def _forces(structure: StructureResult) -> Figure:
    return structure.forces


def _energy(structure: StructureResult) -> Figure:
    return structure.energy


def _symmetric(result: ProbeResult) -> Iterator[str]:
    found = [each for each in result.structures if each.symmetric]
    if found and len(found) == len(result.structures):
        yield (
            f"By symmetry no atom of {_names(found)} can have a force in any model, so that forces show little of a "
            "symmetry error here: probe a copy with displaced atoms as well (in ASE, atoms.rattle(0.05))."
        )


_OPERATIONS = {
    "inversion": ("inverted copies", "--no-inversion"),
    "rotation": ("rotated copies, whose cell is tilted,", "--without rotation"),
    "permutation": ("copies with permuted atoms", "--without permutation"),
    "translation": ("shifted copies", "--without translation"),
    "cell": ("copies in another cell of the same lattice", "--without cell"),
    "rounding": ("copies with rounded positions", "--without rounding"),
}


def _left_out(result: ProbeResult) -> Iterator[str]:
    for operation, (copies, option) in _OPERATIONS.items():
        found = [(s, each) for s in result.structures for each in s.left_out if each.operation == operation]
        if not found:
            continue
        rest = "all else was measured"
        if operation == "rotation":
            rest = "only orientations that exchange the axes were measured, and nothing is known of others"
        yield (
            f"The potential failed on {copies} of {_names([s for s, _ in found])} ({found[0][1].reason}); {rest}. "
            f"{option} leaves them out."
            if found[0][1].reason != "as asked"
            else f"Without {copies} as asked: {rest}."
        )


def _names(structures: list[StructureResult]) -> str:
    names = [each.name for each in structures[:3]]
    return listing(names) + (f" and {len(structures) - 3} others" if len(structures) > 3 else "")
