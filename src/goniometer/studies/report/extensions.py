"""The report of a study beyond what arXiv 2406.17747 could show: spectra, rules, convergence, costs; and its runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from goniometer.reporting.panel import panel
from goniometer.reporting.tables import NONE, Table, rule_tables
from goniometer.reporting.wording import sentences
from goniometer.studies.report.sections import Findings, Section, drawings_of, pair
from goniometer.units import number

_SPECTRUM = "Bars: √P at each angular momentum ℓ, P its share of the variance. Hatched: the floor of the probe."


def spectra(found: Findings) -> Iterator[Section]:
    from goniometer.plotting.probe import residual_figure, spectrum_figure

    drawings, tables, verdicts = [], [], []
    for place, (model, result) in enumerate(found.probes.items()):
        if result.pooled is None or not result.structures:
            continue
        first, *_ = sentences(result)
        verdicts.append((model, first))
        title, drawn = f"{model}: spectrum of the forces", spectrum_figure(result, "forces")
        drawings.append(panel(f"probe-{place}-spectrum", title, drawn, _SPECTRUM))
        if result.pooled.forces.directional and any(each.forces is not None for each in result.pooled.rules):
            caption = "What each rule leaves of the force error against its number of rotations. Crosses are measured."
            drawn = residual_figure(result, "forces")
            drawings.append(panel(f"probe-{place}-residual", f"{model}: rules", drawn, caption))
        note = "n: evaluations. ≤: with the most that the unresolved variance could add. All rules are in probe.html."
        tables += [replace(each, title=f"{model}: {each.title}", note=note) for each in rule_tables(result)[:1]]
    if drawings:
        title = "Beyond the paper: spectra, and the cost of a cure"
        lead = "Which angular momenta carry the error, and from that what every rule of rotations would leave of it."
        yield Section("spectra", "Spectra", title, lead, verdicts, tables, drawings)


def changes(found: Findings) -> Iterator[Section]:
    rows, count = [], []
    for model, each in found.liquid.items():
        for last in list(each.values.get("reweighting", {}).values())[-1:]:
            count.append(f"{model}: {last['frames']} frames count for {last['effective_share'] * last['frames']:.3g}")
        for kind, by_grid in each.values.get("changes", {}).items():
            for grid, said in by_grid.items():
                cells = [NONE if said[key] is None else number(said[key], 2) for key in ("change", "error", "t")]
                rows.append([f"{model}, {kind}, {grid}", *cells, said.get("unit") or NONE])
    if rows:
        columns = [(each, "") for each in ("observable, grid", "largest change", "largest error", "t up to", "unit")]
        lead = (
            "Averaging changes the energy by a few meV, so that nearly every raw frame is one of the average as well: "
            "what each grid changes in static observables, from the raw runs alone."
        )
        yield Section(
            "changes",
            "Convergence",
            "Beyond the paper: convergence with the grid",
            lead,
            [],
            [Table("By reweighting", columns, rows, "; ".join(count))],
            drawings_of(found.liquid, "liquid-convergence"),
            wide=True,
        )


def costs(found: Findings) -> Iterator[Section]:
    tables = []
    for model, each in found.liquid.items():
        strategies, short = each.values["costs"]["strategies"], each.values["costs"].get("too_short", {})
        rows = [
            [
                run,
                number(said["evaluations_a_step"]),
                pair(said["time_against_raw"]),
                pair(said["heat_meV_per_ps"]),
                pair(said["temperature_bias_K"]),
            ]
            for run, said in strategies.items()
        ]
        columns = [("strategy", ""), ("evaluations", "a step"), ("time", "of raw"), ("heat", "meV/ps, box")]
        tables.append(Table(f"{model}: what strategies cost", [*columns, ("temperature bias", "K")], rows))
        tables += list(_bounds(model, strategies, short))
    if tables:
        drawings = drawings_of(found.liquid, "liquid-cost")
        lead = "Evaluations, time, heat, and what the bias of each strategy is below with 95 % confidence, one-sided."
        yield Section("cost", "Cost", "Beyond the paper: cost", lead, [], tables, drawings, wide=True)


def _bounds(model: str, strategies: Mapping[str, Any], short: Mapping[str, str]) -> Iterator[Table]:
    found = {run: said["bias"] for run, said in strategies.items()}
    yield from _bounds_of(f"{model}: what the bias is below", found, short)
    alone = {run: said.get("bias_of_potential") for run, said in strategies.items()}
    alone = {run: said for run, said in alone.items() if said}
    title = f"{model}: what the bias of the potential alone is below"
    yield from _bounds_of(title, alone, {run: said for run, said in short.items() if run == "raw"})


def _bounds_of(title: str, by_run: Mapping[str, Any], short: Mapping[str, str]) -> Iterator[Table]:
    kinds = {kind: bound["unit"] for each in by_run.values() for kind, bound in each.items()}
    if kinds:
        rows = [
            [
                f"{kind}, {unit}" if unit else kind,
                *(pair([each[kind]["below"]]) if kind in each else NONE for each in by_run.values()),
            ]
            for kind, unit in kinds.items()
        ]
        ways = dict.fromkeys(bound["known"] for each in by_run.values() for bound in each.values())
        note = f"How it is known: {'; '.join(ways)}. A dash: nothing can be said."
        note += "".join(f" Runs of {run} are {why}." for run, why in short.items())
        columns = [("observable", ""), *((run, "") for run in by_run)]
        yield Table(title, columns, rows, note)


def provenance(found: Findings) -> Iterator[Section]:
    rows, versions = [], set()
    for chapter in found.chapters:
        for name, run in chapter.runs.items():
            for each in run["versions"] if name != "analysis" else [run["versions"]]:
                versions.add(", ".join(f"{package} {known}" for package, known in each.items()))
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
