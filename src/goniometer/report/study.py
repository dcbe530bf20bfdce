"""The report of a study: what was found in the order of arXiv 2406.17747, beside its numbers, and then beyond it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from goniometer.probe.result import ProbeResult
from goniometer.report import paper
from goniometer.report.chapter import Chapter, Drawing
from goniometer.report.tables import NONE, Table
from goniometer.report.wording import listing, number, plural, with_error

# A strategy conserves the angular momentum if it changes by less than this part of what raw does.
_CONSERVED = 0.05
_SPECTRUM = "Bars: √P at each angular momentum ℓ, P its share of the variance. Hatched: the floor of the probe."
# A torque of raw that is less than this many times that of the finest averages is rounding, as they are.
_ROUNDING = 30.0
# p-values below say that directions are not uniform, or not those of the response.
_LEVEL = 0.05


@dataclass(frozen=True)
class Findings:
    """All that is known of a study.

    Attributes
    ----------
    probes, evaluations
        By model: results of probes, and documents ``goniometer/evaluation/1``.
    gas, liquid, ice
        Chapters by model.
    """

    probes: Mapping[str, ProbeResult] = field(default_factory=dict)
    evaluations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    gas: Mapping[str, Chapter] = field(default_factory=dict)
    liquid: Mapping[str, Chapter] = field(default_factory=dict)
    ice: Mapping[str, Chapter] = field(default_factory=dict)

    @property
    def chapters(self) -> list[Chapter]:
        """All of them."""
        return [chapter for each in (self.gas, self.liquid, self.ice) for chapter in each.values()]


@dataclass(frozen=True)
class Section:
    """A part of the report: a heading, what was seen in words, tables, figures.

    ``verdicts`` are sentences with the model that they are of; ``short`` is what the navigation calls it, and ``wide``
    figures have a row of their own.
    """

    id: str
    short: str
    title: str
    lead: str
    verdicts: list[tuple[str, str]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    drawings: list[Drawing] = field(default_factory=list)
    wide: bool = False


def sections(found: Findings) -> list[Section]:
    """The report from its beginning to its end; what the study does not have is left out."""
    made = (_errors, _by_grid, _molecule, _liquid, _drift, _ice, _spectra, _changes, _costs, _provenance)
    return [each for make in made for each in make(found)]


def _said(text: str) -> str:
    return text[0].upper() + text[1:]


# --- in the order of the paper --------------------------------------------------------------------------------------


def _errors(found: Findings) -> Iterator[Section]:
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


def _by_grid(found: Findings) -> Iterator[Section]:
    tables = []
    for where, title in (
        ("test", "Held-back structures"),
        ("liquid", "Frames of the liquid"),
        ("gas", "Frames of the molecule"),
    ):
        by_model: dict[str, dict[str, dict[str, Any]]] = {}
        if where == "test":
            for model, each in found.evaluations.items():
                by_model[model] = {
                    grid: {"energy_meV": [energy, None], "forces_meV_per_A": [force, None]}
                    for grid, (energy, force) in _evaluated(each).items()
                }
        else:
            chapters: Mapping[str, Chapter] = getattr(found, where)
            by_model = {model: each.values["grids"] for model, each in chapters.items() if "grids" in each.values}
        if any(by_model.values()):
            for key, quantity, unit, given in (
                ("energy_meV", "energy", "meV a structure", paper.ENERGY_BY_GRID[where]),
                ("forces_meV_per_A", "forces", "meV/Å a component", paper.FORCES_BY_GRID[where]),
            ):
                tables.append(_grid_table(f"{title}: {quantity}", unit, by_model, key, given))
    if tables:
        lead = (
            "Supplementary figure 1 and its table: mean absolute deviation of the average over each grid from that "
            "over the reference, which has none. Grids are the paper's: none, inversion (i), 18 rotations (2), 75 (3), "
            "with inversion (2i, 3i); and the rotation groups of tetrahedron, octahedron and icosahedron (T, O, I). "
            "The paper's liquid has 512 molecules; energies grow with the root of their number, forces not at all."
        )
        yield Section("grids", "Grids", "Symmetry error by grid", lead, _grid_verdicts(found), tables)


def _grid_table(
    title: str, unit: str, by_model: Mapping[str, Mapping[str, Any]], key: str, given: Mapping[str, float]
) -> Table:
    grids = list(dict.fromkeys(grid for each in by_model.values() for grid in each))
    rows = [
        [
            f"{grid}",
            *(_pair(each.get(grid, {}).get(key)) for each in by_model.values()),
            number(given[grid]) if grid in given else NONE,
        ]
        for grid in grids
    ]
    return Table(title, [("grid", ""), *((model, unit) for model in by_model), ("the paper", unit)], rows)


def _grid_verdicts(found: Findings) -> list[tuple[str, str]]:
    verdicts = []
    for model, each in _meant(found.gas):
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


def _meant(chapters: Mapping[str, Chapter]) -> list[tuple[str, Chapter]]:
    """Those that are long enough to say something."""
    return [(model, each) for model, each in chapters.items() if each.size != "smoke"]


def _molecule(found: Findings) -> Iterator[Section]:
    if not found.gas:
        return
    lead = (
        "Angular momentum at constant energy, torque by grid, power spectra of the energy and of what averaging adds "
        "to it, and the orientations that the model prefers at 300 K."
    )
    torque = _grid_table(
        "rms torque of the molecule",
        "meV",
        {model: each.values["grids"] for model, each in found.gas.items()},
        "torque_meV",
        paper.TORQUE_BY_GRID,
    )
    verdicts = [(model, _said(said)) for model, each in _meant(found.gas) for said in _molecule_verdicts(each.values)]
    yield Section(
        "molecule",
        "Molecule",
        "One molecule in vacuum: figure 1",
        lead,
        verdicts,
        [replace(torque, note="The paper's values are read off its figure."), _orientations(found)],
        [_of(model, each) for model, chapter in found.gas.items() for each in chapter.drawings],
        wide=True,
    )


def _molecule_verdicts(values: Mapping[str, Any]) -> Iterator[str]:
    if _symmetric(values):
        yield "what averaging changes is at the rounding of its arithmetic: the model is symmetric."
        return
    raw, mean = (values["momentum_change_eV_fs"][each] for each in ("raw", "2i"))
    kept = f"the angular momentum changes by {number(raw)} eV fs raw and by {number(mean, 2)} averaged over 2i: "
    if mean < _CONSERVED * raw:
        yield kept + "as in the paper, averaging restores what the model breaks."
    else:
        yield kept + "averaging over 2i is not enough for this model."
    response = values["orientation_kT"].get("by the response")
    if response is not None:
        given = f"the paper: some {2 * paper.ORIENTATION:g}"
        said = f"it prefers directions by {number(response['range'], 2)} kT between extremes ({given})"
        if "agrees_with_dynamics_p_value" in response:
            p = response["agrees_with_dynamics_p_value"]
            said += f"; dynamics {'agree' if p >= _LEVEL else 'do not agree'} with that, p = {number(p, 2)}"
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


def _liquid(found: Findings) -> Iterator[Section]:
    if not found.liquid:
        return
    lead = (
        "Orientations, pair distribution, dipole correlations, diffusion and reorientation, for raw dynamics and for "
        "each strategy; supplementary figures 3 and 4 are the run with random turns. Each strategy against raw, whole "
        "curves, all observables together at 5 %."
    )
    tables = [_verdict_table(model, each) for model, each in found.liquid.items() if each.values["verdicts"]]
    verdicts = [(model, _said(_liquid_verdict(each.values))) for model, each in _meant(found.liquid)]
    drawings = [
        _of(model, each) for model, c in found.liquid.items() for each in c.drawings if each.title == "water in bulk"
    ]
    yield Section("liquid", "Liquid", "Water in bulk: figures 2 and 3", lead, verdicts, tables, drawings, wide=True)


def _liquid_verdict(values: Mapping[str, Any]) -> str:
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
    return f"{lengths}: {said}. The paper saw no difference."


def _verdict_table(model: str, chapter: Chapter) -> Table:
    reports = {name: each for name, each in chapter.values["verdicts"].items() if isinstance(each, Mapping)}
    names = list(dict.fromkeys(observable for each in reports.values() for observable in each))
    rows = [[name, *(_answer(each.get(name)) for each in reports.values())] for name in names]
    columns = [("observable", ""), *((name, "") for name in reports)]
    refused = [f"{name}: {each}" for name, each in chapter.values["verdicts"].items() if isinstance(each, str)]
    note = "p: of no difference at all, adjusted for all observables. ×: the length that would decide."
    return Table(f"{model}: each strategy against raw", columns, rows, ". ".join([note, *refused]))


def _answer(said: Mapping[str, Any] | None) -> str:
    if said is None:
        return NONE
    longer = "" if said["longer"] is None or said["answer"] != "undecided" else f", ×{number(said['longer'], 2)}"
    return f"{said['answer']}, p = {number(said['p_differ'], 2)}{longer}"


def _drift(found: Findings) -> Iterator[Section]:
    tables = []
    for chapters, title, per in (
        (found.gas, "One molecule, constant energy", 1.0),
        (found.liquid, "Liquid, 300 K", None),
    ):
        if not chapters:
            continue
        runs = list(dict.fromkeys(run for each in chapters.values() for run in each.values["drift_meV_per_ps"]))
        rows = []
        for run in runs:
            cells = []
            for each in chapters.values():
                molecules = per or each.values.get("molecules", 1)
                pair = each.values["drift_meV_per_ps"].get(run)
                cells.append(_pair(None if pair is None else [None if p is None else p / molecules for p in pair]))
            rows.append([run, *cells, number(paper.DRIFT[run]) if per is None and run in paper.DRIFT else NONE])
        columns = [
            ("run", ""),
            *((model, "meV/ps for each H2O") for model in chapters),
            ("the paper", "meV/ps for each H2O"),
        ]
        tables.append(Table(title, columns, rows))
    if tables:
        lead = (
            "Supplementary figure 2: the slope of the conserved quantity. Heat that a strategy brings shows here first."
        )
        yield Section("drift", "Heat", "Heat", lead, tables=tables)


def _ice(found: Findings) -> Iterator[Section]:
    if not found.ice:
        return
    quantities = list(next(iter(found.ice.values())).values["table"])
    rows = []
    for quantity in quantities:
        pairs = [each.values["table"][quantity] for each in found.ice.values()]
        label = f"{quantity}, {pairs[0]['unit']}"
        rows.append([label, *(_pair(each["value"]) for each in pairs), paper.ICE.get(quantity, NONE)])
    columns = [("rms over cells", ""), *((model, "") for model in found.ice), ("the paper", "")]
    verdicts = []
    for model, each in _meant(found.ice):
        table = each.values["table"]
        difference, spread = (table[key]["value"][0] for key in ("relative energy", "spread of relative energies"))
        said = (
            f"{plural(each.values['cells'], 'cell')}: which protons are preferred changes by {number(difference, 2)} "
        )
        said += f"of a spread of {number(spread, 2)} meV for each H2O"
        verdicts.append((model, f"{said}{'' if each.values['converged'] else '; not all have converged'}."))
    lead = "Cells of ice Ih with other protons, relaxed by the model and by its average over 2i."
    by_grid = [
        _grid_table(f"Starting structures: {what}", unit, {m: c.values["grids"] for m, c in found.ice.items()}, key, {})
        for key, what, unit in (
            ("energy_meV_per_atom", "energy, rms", "meV/atom"),
            ("forces_meV_per_A", "forces, rms", "meV/Å"),
        )
    ]
    yield Section("ice", "Ice", "Ice", lead, verdicts, [Table("Raw against averaged", columns, rows), *by_grid])


# --- beyond it ------------------------------------------------------------------------------------------------------


def _spectra(found: Findings) -> Iterator[Section]:
    from goniometer.report.chapter import drawing
    from goniometer.report.figures import residual_figure, spectrum_figure
    from goniometer.report.tables import rule_tables
    from goniometer.report.wording import sentences

    drawings, tables, verdicts = [], [], []
    for number_, (model, result) in enumerate(found.probes.items()):
        if result.pooled is None or not result.structures:
            continue
        first, *_ = sentences(result)
        verdicts.append((model, first))
        name = f"probe-{number_}"
        drawings.append(
            drawing(
                spectrum_figure(result, "forces"),
                f"{name}-spectrum",
                f"{model}: spectrum of the forces",
                "√P at each ℓ.",
            )
        )
        if not result.pooled.forces.at_floor and any(each.forces is not None for each in result.pooled.rules):
            caption = "What each rule leaves of the force error against its number of rotations. Crosses are measured."
            drawings.append(drawing(residual_figure(result, "forces"), f"{name}-residual", f"{model}: rules", caption))
        note = "n: evaluations. ≤: with the most that the unresolved variance could add. All rules are in probe.html."
        titled = [replace(each, title=f"{model}: {each.title}", note=note) for each in rule_tables(result)[:1]]
        tables += titled
    if drawings:
        lead = "Which angular momenta carry the error, and from that what every rule of rotations would leave of it."
        yield Section(
            "spectra", "Spectra", "Beyond the paper: spectra, and the cost of a cure", lead, verdicts, tables, drawings
        )


def _changes(found: Findings) -> Iterator[Section]:
    rows = []
    for model, each in found.liquid.items():
        for kind, by_grid in each.values.get("changes", {}).items():
            for grid, said in by_grid.items():
                cells = [NONE if said[key] is None else number(said[key], 2) for key in ("change", "error", "t")]
                rows.append([f"{model}, {kind}, {grid}", *cells, said.get("unit") or NONE])
    if rows:
        columns = [(each, "") for each in ("observable, grid", "largest change", "largest error", "t up to", "unit")]
        lead = (
            "Averaging changes the energy by a few meV, so that nearly every raw frame is one of the average as well: "
            "what each grid changes in static observables, from the raw run alone."
        )
        drawings = [
            _of(model, each)
            for model, c in found.liquid.items()
            for each in c.drawings
            if each.title == "what is left by grid"
        ]
        yield Section(
            "changes",
            "Convergence",
            "Beyond the paper: convergence with the grid",
            lead,
            [],
            [Table("By reweighting", columns, rows)],
            drawings,
            wide=True,
        )


def _costs(found: Findings) -> Iterator[Section]:
    tables = []
    for model, each in found.liquid.items():
        values = each.values
        raw = values["seconds_a_ps"].get("raw")
        rows = [
            [
                run,
                number(values["evaluations_a_step"][run]),
                number(seconds / raw) if raw and seconds else NONE,
                _pair(values["drift_meV_per_ps"].get(run)),
                _pair(values["temperature_K"].get(run)),
            ]
            for run, seconds in values["seconds_a_ps"].items()
        ]
        columns = [("strategy", ""), ("evaluations", "a step"), ("time", "of raw"), ("heat", "meV/ps, box")]
        tables.append(Table(f"{model}: what strategies cost", [*columns, ("temperature", "K")], rows))
        tables += list(_bounds(model, values))
    if tables:
        shown = [(model, one) for model, each in found.liquid.items() for one in each.drawings]
        drawings = [_of(model, one) for model, one in shown if one.id.startswith("liquid-cost")]
        lead = "Evaluations, time, heat, and what the bias of each strategy is below with 95 % confidence, one-sided."
        yield Section("cost", "Cost", "Beyond the paper: cost", lead, [], tables, drawings, wide=True)


def _bounds(model: str, values: Mapping[str, Any]) -> Iterator[Table]:
    by_run = values["bias_is_below"]
    kinds = {kind: bound["unit"] for each in by_run.values() for kind, bound in each.items()}
    if kinds:
        rows = [
            [
                f"{kind}, {unit}" if unit else kind,
                *(_pair([each[kind]["value"]]) if kind in each else NONE for each in by_run.values()),
            ]
            for kind, unit in kinds.items()
        ]
        ways = dict.fromkeys(bound["way"] for each in by_run.values() for bound in each.values())
        note = f"How it is known: {'; '.join(ways)}. A dash: nothing can be said."
        columns = [("observable", ""), *((run, "") for run in by_run)]
        yield Table(f"{model}: what the bias is below", columns, rows, note)


def _provenance(found: Findings) -> Iterator[Section]:
    rows, versions = [], set()
    for chapter in found.chapters:
        for name, run in chapter.runs.items():
            for each in run["versions"] if name != "analysis" else [run["versions"]]:
                versions.add(", ".join(f"{package} {number_}" for package, number_ in each.items()))
            if name == "analysis":
                continue
            many = f"{run['runs']} × {run['replicas']}" if run["replicas"] > 1 else str(run["runs"])
            hours = number(run["seconds"] / 3600.0, 2)
            when = " to ".join(dict.fromkeys((min(run["days"]), max(run["days"])))) if run["days"] else "not recorded"
            label = f"{chapter.model}, {name}"
            rows.append(
                [label, chapter.size, many, number(run["ps"] / run["runs"]), hours, when, "; ".join(run["hardware"])]
            )
    columns = [("run", ""), ("size", ""), ("runs", ""), ("length", "ps"), ("took", "h"), ("when", ""), ("where", "")]
    table = Table("What was run", columns, rows, ". ".join(sorted(versions)))
    if rows:
        yield Section(
            "runs",
            "Runs",
            "Runs",
            "Lengths, dates, versions and hardware of all trajectories; relaxations and probes have no length.",
            tables=[table],
        )


# --- words ----------------------------------------------------------------------------------------------------------


def _of(model: str, each: Drawing) -> Drawing:
    return replace(each, title=f"{model}: {each.title}")


def _pair(pair: Sequence[float | None] | None) -> str:
    if pair is None or pair[0] is None:
        return NONE
    value, error = pair[0], pair[1] if len(pair) > 1 else None
    return number(value) if error is None or not error > 0.0 else with_error(value, error)


def summary(found: Findings) -> list[tuple[str, str]]:
    """For each model, in a sentence or two, what the report says."""
    of: dict[str, list[str]] = {}
    makers: tuple[tuple[Mapping[str, Chapter], Callable[[Mapping[str, Any]], str]], ...] = (
        (found.gas, lambda values: next(_molecule_verdicts(values))),
        (found.liquid, _liquid_verdict),
    )
    for chapters, say in makers:
        for model, each in _meant(chapters):
            said = say(each.values)
            of.setdefault(model, []).append(_said(said))
    return [(model, " ".join(said)) for model, said in of.items()]


def render_study(found: Findings, title: str, lead: str, missing: Sequence[str] = ()) -> str:
    """The report as one self-contained page; ``missing`` names what it was to hold and does not."""
    from goniometer.report.page import rendered

    return rendered(
        "study.html.j2", title=title, lead=lead, summary=summary(found), sections=sections(found), missing=list(missing)
    )
