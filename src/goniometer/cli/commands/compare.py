"""``goniometer compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from goniometer.cli.app import ANALYSE, Format, Read, app


@app.command(rich_help_panel=ANALYSE)
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of runs, or files of frames. Runs that differ in their seed alone are one side of it.",
            show_default=False,
        ),
    ],
    against: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN",
            help="The other side of it, where descriptions do not tell, as of files of frames; repeatable. All others "
            "are one side then.",
        ),
    ] = None,
    observable: Annotated[
        list[str] | None,
        typer.Option(help="Of a trajectory, as in `goniometer observe`; repeatable. By default those of a liquid."),
    ] = None,
    within: Annotated[
        list[str] | None,
        typer.Option(metavar="OBSERVABLE=δ", help="A difference that would not matter, in its unit; repeatable."),
    ] = None,
    level: Annotated[float, typer.Option(min=1e-6, max=0.5, help="Of a wrong answer among all.")] = 0.05,
    look: Annotated[str, typer.Option(metavar="K/N", help="This is the k-th of n looks at runs that grow.")] = "1/1",
    spacing: Annotated[
        float | None, typer.Option(metavar="FS", help="Between two frames of files, in place of what they say.")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="OBSERVABLE.OPTION=VALUE",
            help="An option of an observable, for instance pair-distribution.pair=O-H; repeatable.",
        ),
    ] = None,
    discard: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=0.9,
            help="The share of the shortest run that is left out at the start; by default several measured correlation "
            "times of the slowest observable.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE", help="Draw it, as .png or .html.")] = None,
    format: Format = None,
    read: Read = None,
) -> None:
    """Say whether two ensembles differ, are equivalent within δ, or how much longer they must run."""
    from goniometer.observables import check_name

    for name in observable or ():
        check_name(name)
    from goniometer.cli.commands.run import changes_of
    from goniometer.errors import InputError
    from goniometer.reporting.figures import check_figure_path, write_figure
    from goniometer.structures.formats import reader_options
    from goniometer.trajectories.h5md import Trajectory, is_foreign, read_trajectory

    if out is not None:
        check_figure_path(out)
    if spacing is not None and not any(is_foreign(each) for each in (*runs, *(against or ()))):
        raise InputError("runs have times of their own: --spacing is of files of frames")

    def opened(paths: list[Path]) -> list[Trajectory]:
        given = reader_options(read or [])
        return [
            read_trajectory(each, spacing, format=format, options=given) if is_foreign(each) else read_trajectory(each)
            for each in paths
        ]

    one, other = opened(runs), opened(against or [])

    from goniometer.comparison.runs import LIQUID, compare_runs, ensembles
    from goniometer.plotting.comparison import compare_figure, in_words

    sides = {one[0].name: one, other[0].name: other} if other else ensembles(one)
    if len(sides) != 2:
        raise InputError(
            f"a comparison is of two ensembles, and these runs are of {len(sides)}: {', '.join(sides)}; "
            "--against names the runs of the other side"
        )
    sizes = {}
    for name, value in changes_of(within or []).items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise InputError(f"'{name}={value}' is no size: write OBSERVABLE=NUMBER")
        sizes[name] = float(value)
    options: dict[str, dict[str, Any]] = {}
    for key, value in changes_of(change or []).items():
        name, dot, option = key.partition(".")
        if not dot:
            raise InputError(f"'{key}={value}' is no option of an observable: write OBSERVABLE.OPTION=VALUE")
        options.setdefault(name, {})[option] = value
    (first, one), (second, other) = sides.items()
    report = compare_runs(
        one,
        other,
        observable or LIQUID,
        sizes,
        options=options,
        names=(first, second),
        level=level,
        look=_looks(look),
        discard=discard,
    )
    for each in report.verdicts:
        said = "undecided" if report.too_short else in_words(each, report)
        typer.echo(f"{each.name}: {said}; {report.compared[each.name].first.units}")
    if report.too_short:
        typer.echo(f"nothing is decided and there is no bound, {report.too_short}")
    if report.frozen:
        typer.echo(report.frozen)
    for name, why in report.skipped.items():
        typer.echo(f"{name}: not compared, {why}")
    if out is not None:
        caption = " ".join(f"{each.name}: {in_words(each, report)}." for each in report.verdicts)
        if report.too_short:
            caption = f"Nothing is decided and there is no bound, {report.too_short}."
        caption += "".join(f" {name}: not compared, {why}." for name, why in report.skipped.items())
        caption += f" {report.frozen}." if report.frozen else ""
        if not report.too_short:
            caption += " Bands of curves: standard errors; of differences: 95 % for all points of the curve at once."
        write_figure(compare_figure(report), out, f"{first} and {second}", caption)


def _looks(text: str) -> tuple[int, int]:
    from goniometer.errors import InputError

    number, slash, looks = text.partition("/")
    if not slash or not number.isdigit() or not looks.isdigit():
        raise InputError(f"'{text}' is no look: write 2/4 for the second of four")
    return int(number), int(looks)
