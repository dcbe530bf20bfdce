"""The report of a study in the order of arXiv 2406.17747, beside its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from goniometer.observables.gas import REFERENCE
from goniometer.reporting.panel import panel
from goniometer.reporting.tables import NONE, Table
from goniometer.studies.experiments.results import GridComparison
from goniometer.studies.plots.grids import grid_figure
from goniometer.studies.report import paper
from goniometer.studies.report.chapter import Chapter
from goniometer.studies.report.sections import Findings, Section, drawings_of, grid_table, meant, pair, sentence
from goniometer.units import listing, number, plural, typeset

if TYPE_CHECKING:
    import matplotlib.figure

# A strategy conserves the angular momentum if it changes by less than this part of what raw does.
_CONSERVED = 0.05
# A torque of raw that is less than this many times that of the finest averages is rounding, as they are.
_ROUNDING = 30.0
# p-values below say that directions are not uniform, or not those of the response.
_LEVEL = 0.05


def errors(found: Findings) -> Iterator[Section]:
    if not found.evaluations:
        return
    rows = []
    for model, each in found.evaluations.items():
        none = _evaluated(each).get("none")
        force, energy = 1e3 * each["force"]["mae"], 1e3 * each["energy_shifted"]["mae"]
        share = NONE if none is None or force == 0.0 else number(100.0 * none[1] / force, 2)
        count = str(len(each["structures"]))
        rows.append([model, count, number(force), number(1e3 * each["force"]["rmse"]), number(energy), share])
    given = paper.TEST_ERRORS["forces_meV_per_A"]
    share = number(100.0 * paper.FORCES_BY_GRID["test"]["none"] / given, 2)
    per_atom = number(paper.TEST_ERRORS["energy_meV"] / 192)
    rows.append(["the paper", "190", number(given), "59.6", per_atom, share])
    columns = [("model", ""), ("structures", ""), ("forces, MAE", "meV/Å"), ("forces, RMSE", "meV/Å")]
    columns += [("energy, MAE", "meV/atom"), ("symmetry error of forces", "% of MAE")]
    note = "Energies less their mean error. Structures that a model's card lists as known to it are left out."
    lead = (
        "Errors against labelled structures that the models have not seen, and the part that broken symmetry has in it."
    )
    yield Section(
        "models", "Models", "The models", lead, tables=[Table("Errors on held-back structures", columns, rows, note)]
    )


def _evaluated(each: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    return {grid["grid"]: (1e3 * grid["symmetry_energy"], 1e3 * grid["symmetry_force"]) for grid in each["grids"]}


#: By grid a value and its error, of quantities by name.
ByGrid = Mapping[str, Mapping[str, Any]]
_PLACES = {"test": "Held-back structures", "liquid": "Frames of the liquid", "gas": "Frames of the molecule"}


def _measured(found: Findings) -> Iterator[tuple[str, dict[str, ByGrid]]]:
    """What each grid leaves: where, by model."""
    for where in _PLACES:
        if where == "test":
            yield (
                where,
                {
                    model: {
                        grid: {"energy_meV": [energy, None], "forces_meV_per_A": [force, None]}
                        for grid, (energy, force) in _evaluated(each).items()
                    }
                    for model, each in found.evaluations.items()
                },
            )
        else:
            chapters: Mapping[str, Chapter] = getattr(found, where)
            yield where, {model: each.values["grids"] for model, each in chapters.items() if "grids" in each.values}


def grid_figures(found: Findings) -> dict[str, matplotlib.figure.Figure]:
    """Supplementary figure 1 of each model."""
    curves: dict[str, list[GridComparison]] = {}
    for where, by_model in _measured(found):
        for model, grids in by_model.items():
            if grids:
                energies, forces = (
                    {grid: each[key] for grid, each in grids.items()} for key in ("energy_meV", "forces_meV_per_A")
                )
                theirs = paper.ENERGY_BY_GRID[where], paper.FORCES_BY_GRID[where]
                curves.setdefault(model, []).append(
                    GridComparison(where, _PLACES[where].lower(), energies, forces, *theirs)
                )
    return {model: grid_figure(each) for model, each in curves.items()}


def by_grid(found: Findings) -> Iterator[Section]:
    tables = []
    for where, by_model in _measured(found):
        if any(by_model.values()):
            for key, quantity, unit, given in (
                ("energy_meV", "energy", "meV a structure", paper.ENERGY_BY_GRID[where]),
                ("forces_meV_per_A", "forces", "meV/Å a component", paper.FORCES_BY_GRID[where]),
            ):
                tables.append(grid_table(f"{_PLACES[where]}: {quantity}", unit, by_model, key, given))
    against = {model: each.values.get("measured_against", REFERENCE) for model, each in found.liquid.items()}
    others = [f"{_PLACES['liquid']} of {model} against {grid}" for model, grid in against.items() if grid != REFERENCE]
    if tables:
        others = [f"Not against 3i: {'; '.join(others)}."] if others else []
        lead = (
            "Supplementary figure 1 and its table: mean absolute deviation of the average over each grid from that "
            "over the reference, which has none. Grids are the paper's: none, inversion (i), 18 rotations (2), 75 (3), "
            "with inversion (2i, 3i); and the rotation groups of tetrahedron, octahedron and icosahedron (T, O, I). "
            "The paper's liquid has 512 molecules, whose energy errs by more than that of fewer. In single precision "
            "what is below some 0.001 meV or meV/Å is rounding."
        )
        lead = " ".join([lead, *others])
        caption = (
            "Filled: this study, with standard errors where they are known; what is not on the axis is less. Open, "
            "dashed: the paper, whose liquid has 512 molecules. Groups of rotations are in the tables."
        )
        caption = " ".join([caption, *others])
        drawings = [
            panel(f"grids-{place}", f"{model}: symmetry error by grid", figure, caption)
            for place, (model, figure) in enumerate(grid_figures(found).items())
        ]
        title = "Symmetry error by grid"
        yield Section("grids", "Grids", title, lead, _grid_verdicts(found), tables, drawings, wide=True)


def _grid_verdicts(found: Findings) -> list[tuple[str, str]]:
    verdicts = []
    for model, each in meant(found.gas):
        grids = each.values["grids"]
        if _symmetric(each.values):
            verdicts.append((model, "Forces of the lone molecule err by no more than rounding."))
            continue
        none, best = grids["none"]["forces_meV_per_A"][0], grids.get("2i", {}).get("forces_meV_per_A", [None])[0]
        given = paper.FORCES_BY_GRID["gas"]["none"]
        said = f"Forces of the lone molecule err by {number(none)} meV/Å, {number(none / given, 2)} times the paper's"
        if best is not None and none > 0.0:
            said += f"; averaging over 2i leaves {number(100.0 * best / none, 2)} % of it"
        verdicts.append((model, f"{said}."))
    return verdicts


def molecule(found: Findings) -> Iterator[Section]:
    if not found.gas:
        return
    lead = (
        "Angular momentum at constant energy, torque by grid, power spectra of the energy and of what averaging adds "
        "to it, and the orientations that the model prefers at 300 K."
    )
    torque = grid_table(
        "rms torque of the molecule",
        "meV",
        {model: each.values["grids"] for model, each in found.gas.items()},
        "torque_meV",
        paper.TORQUE_BY_GRID,
    )
    verdicts = [(model, sentence(said)) for model, each in meant(found.gas) for said in molecule_verdicts(each.values)]
    yield Section(
        "molecule",
        "Molecule",
        "One molecule in vacuum: figure 1",
        lead,
        verdicts,
        [replace(torque, note="The paper's values are read off its figure."), _orientations(found)],
        drawings_of(found.gas, "gas"),
        wide=True,
    )


def molecule_verdicts(values: Mapping[str, Any]) -> Iterator[str]:
    if _symmetric(values):
        yield "what averaging changes is at the rounding of its arithmetic: the model is symmetric."
        return
    raw, mean = (values["momentum_change_eV_fs"][each] for each in ("raw", "2i"))
    kept = f"the angular momentum changes by up to {number(raw)} eV fs raw and by {number(mean, 2)} averaged over 2i: "
    if mean < _CONSERVED * raw:
        yield kept + "as in the paper, averaging restores what the model breaks."
    else:
        yield kept + "averaging over 2i is not enough for this model."
    response = values["orientation_kT"].get("by the response")
    if response is not None:
        given = f"the paper: some {2 * paper.ORIENTATION:g}"
        said = f"by its response it prefers directions by {number(response['range'], 2)} kT between extremes ({given})"
        if "agrees_with_dynamics_p_value" in response:
            p = response["agrees_with_dynamics_p_value"]
            said += f"; dynamics {'do not contradict' if p >= _LEVEL else 'contradict'} that, p = {number(p, 2)}"
        raw = values["orientation_kT"].get("raw", {}).get("uniform_p_value")
        if raw is not None:
            said += f", and alone they {'show' if raw < _LEVEL else 'do not show'} a preference, p = {number(raw, 2)}"
        yield f"{said}."


def _symmetric(values: Mapping[str, Any]) -> bool:
    """Whether the rms torque of the raw model is no more than a finer average leaves, which is rounding."""
    grids = values["grids"]
    torques = [each["torque_meV"][0] for name, each in grids.items() if name in ("3", "3i", "I")]
    return bool(torques) and grids["none"]["torque_meV"][0] < _ROUNDING * max(torques)


def _orientations(found: Findings) -> Table:
    rows = []
    for model, each in found.gas.items():
        for name, said in each.values["orientation_kT"].items():
            known = [said.get(key) for key in ("uniform_p_value", "agrees_with_dynamics_p_value")]
            rows.append(
                [f"{model}, {name}", number(said["range"]), *(NONE if p is None else number(p, 2) for p in known)]
            )
    rows.append(["the paper, raw", f"some {2 * paper.ORIENTATION:g}", NONE, NONE])
    columns = [("run", ""), ("between extremes", "kT"), ("uniform", "p"), ("as raw dynamics", "p")]
    note = "Extremes of a short run are those of its noise: what counts are the p-values, of the whole sphere at once."
    return Table("Orientational free energy", columns, rows, note)


def liquid(found: Findings) -> Iterator[Section]:
    if not found.liquid:
        return
    lead = (
        "Orientations, pair distribution, dipole correlations, diffusion and reorientation, for raw dynamics and for "
        "each strategy; supplementary figures 3 and 4 are the run called random, if it is there. Each against raw, "
        "whole curves, all observables together at 5 %."
    )
    tables = [_verdict_table(model, each) for model, each in found.liquid.items() if each.values["verdicts"]]
    verdicts = [
        (model, sentence(said))
        for model, each in meant(found.liquid)
        for said in (*liquid_errors(each.values), liquid_verdict(each.values))
    ]
    drawings = drawings_of(found.liquid, "liquid")
    yield Section("liquid", "Liquid", "Water in bulk: figures 2 and 3", lead, verdicts, tables, drawings, wide=True)


def liquid_errors(values: Mapping[str, Any]) -> Iterator[str]:
    """How large the symmetry error of frames is, and whether it is more than rounding."""
    grids, reference = values.get("grids", {}), values.get("measured_against")
    averaged = [each["forces_meV_per_A"][0] for name, each in grids.items() if name not in ("none", reference)]
    if not averaged:
        return
    energy, forces = grids["none"]["energy_meV"], grids["none"]["forces_meV_per_A"]
    said = f"the symmetry error of its frames is {pair(energy)} meV a box and {pair(forces)} meV/Å"
    if forces[0] < _ROUNDING * min(averaged):
        yield f"{said}, the rounding of its arithmetic: the model is symmetric."
    else:
        yield f"{said}; the least that an average leaves of the latter is {number(min(averaged), 2)}."


def liquid_verdict(values: Mapping[str, Any]) -> str:
    counts = {"differ": 0, "equivalent": 0, "undecided": 0}
    for report in values["verdicts"].values():
        for each in report.values() if isinstance(report, Mapping) else ():
            counts[each["answer"]] += 1
    whole = sum(counts.values())
    lengths = listing([f"{name} {length:g} ps" for name, length in values["lengths_ps"].items()])
    if not values["verdicts"]:
        return f"{lengths}: there is no other strategy to compare raw with."
    if not whole:
        return f"{lengths}: nothing could be compared, {next(iter(values['verdicts'].values()))}."
    if counts["differ"]:
        said = f"{plural(counts['differ'], 'comparison')} of {whole} differ from raw"
    else:
        said = f"nothing of {plural(whole, 'comparison')} differs from raw"
    said += f", {counts['equivalent']} are equivalent, {counts['undecided']} undecided"
    left = sum(map(len, values.get("not_compared", {}).values()))
    said += f"; {plural(left, 'observable')} could not be compared" if left else ""
    short = "".join(f" Runs of {run} are {why}." for run, why in values.get("too_short", {}).items())
    return f"{lengths}: {said}. The paper saw no difference, of 2i and of random.{short}"


def _verdict_table(model: str, chapter: Chapter) -> Table:
    reports = {name: each for name, each in chapter.values["verdicts"].items() if isinstance(each, Mapping)}
    skipped = chapter.values.get("not_compared", {})
    names = dict.fromkeys(name for of in (reports, skipped) for each in of.values() for name in each)
    rows = [
        [name, *(_answer(each.get(name), name in skipped.get(run, {})) for run, each in reports.items())]
        for name in names
    ]
    columns = [("observable", ""), *((name, "") for name in reports)]
    refused = [f"{name}: {each}" for name, each in chapter.values["verdicts"].items() if isinstance(each, str)]
    note = "p: of no difference at all, adjusted for all observables. ×: the length that would decide."
    reasons = [reason for each in skipped.values() for reason in each.values()]
    refused += [f"Not compared, for instance: {reason}" for reason in reasons[:1]]
    return Table(f"{model}: each strategy against raw", columns, rows, ". ".join([note.rstrip("."), *refused]) + ".")


def _answer(said: Mapping[str, Any] | None, skipped: bool) -> str:
    if said is None:
        return "not compared" if skipped else NONE
    if said["p_differ"] is None:
        return f"{said['answer']}, too short"
    longer = "" if said["longer"] is None or said["answer"] != "undecided" else f", ×{number(said['longer'], 2)}"
    return f"{said['answer']}, p = {number(said['p_differ'], 2)}{longer}"


def drift(found: Findings) -> Iterator[Section]:
    tables = []
    for chapters, title, per in (
        (found.gas, "One molecule, constant energy", 1.0),
        (found.liquid, "Liquid, 300 K", None),
    ):
        if not chapters:
            continue
        runs = list(dict.fromkeys(run for each in chapters.values() for run in each.values["drift_meV_per_ps"]))
        beside = per is None
        runs += [run for run in paper.DRIFT if beside and run not in runs]
        rows = []
        for run in runs:
            cells = []
            for each in chapters.values():
                molecules = per or each.values["molecules"]
                slope = each.values["drift_meV_per_ps"].get(run)
                cells.append(pair(None if slope is None else [None if p is None else p / molecules for p in slope]))
            rows.append([run, *cells, *([f"{paper.DRIFT[run]:g}" if run in paper.DRIFT else NONE] if beside else [])])
        columns = [
            ("run", ""),
            *((model, "meV/ps for each H2O") for model in chapters),
            *([("the paper", "meV/ps for each H2O")] if beside else []),
        ]
        tables.append(Table(title, columns, rows))
    if tables:
        lead = (
            "Supplementary figure 2: the slope of the conserved quantity. Heat that a strategy brings shows here "
            "first; of a tumbling frame the work is taken off."
        )
        drawings = drawings_of(found.liquid, "liquid-drift")
        yield Section("drift", "Heat", "Heat", lead, tables=tables, drawings=drawings)


def ice(found: Findings) -> Iterator[Section]:
    if not found.ice:
        return
    quantities = dict.fromkeys(quantity for each in found.ice.values() for quantity in each.values["table"])
    rows = []
    for quantity in quantities:
        pairs = [each.values["table"].get(quantity) for each in found.ice.values()]
        label = f"{quantity}, {typeset(next(each['unit'] for each in pairs if each))}"
        cells = (pair(each and each["value"]) for each in pairs)
        rows.append([label, *cells, paper.ICE.get(quantity, NONE)])
    columns = [("rms over cells", ""), *((model, "") for model in found.ice), ("the paper", "range over cells")]
    verdicts = []
    for model, each in meant(found.ice):
        table = each.values["table"]
        relative = [table.get(key) for key in ("relative energy", "spread of relative energies")]
        difference, spread = (None if each is None else each["value"][0] for each in relative)
        if difference is None or spread is None:
            continue
        said = (
            f"{plural(each.values['cells'], 'cell')}: relative energies of proton orders change by "
            f"{number(difference, 2)} meV for each H2O, beside a spread of {number(spread, 2)} meV"
        )
        verdicts.append((model, f"{said}{'' if each.values['converged'] else '; not all have converged'}."))
    lead = "Cells of ice Ih with other protons: starting structures, and these relaxed by the model and by its average "
    lead += "over 2i, where that was asked for. Here all is measured against 2i."
    tables = [
        grid_table(f"Starting structures: {what}", unit, {m: c.values["grids"] for m, c in found.ice.items()}, key, {})
        for key, what, unit in (
            ("energy_meV_per_atom", "energy, rms", "meV/atom"),
            ("forces_meV_per_A", "forces, rms", "meV/Å"),
        )
    ]
    tables = [Table("Raw against averaged", columns, rows), *tables]
    yield Section("ice", "Ice", "Ice", lead, verdicts, tables, drawings_of(found.ice, "ice"), wide=True)
