"""Draw how model error and symmetry error fell in several trainings: python scripts/learning_study.py RUN... -o FILE

RUN is the folder of a training, or its curve.csv, or NAME=either; FILE ends in .png, or in .html for light and dark.
Trainings that began before the curve held the symmetry error are drawn without it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from goniometer.errors import InputError
from goniometer.plotting.learning import learning_figure, read_curve
from goniometer.reporting.figures import check_figure_path, write_figure

CAPTION = (
    "Solid: mean absolute error on the structures held back; of energies per atom, less the mean error. Dashed: mean "
    "absolute deviation over random turns of O(3), of four of these structures. No uncertainties: one training each."
)


def main(arguments: list[str] | None = None) -> None:
    """Read the curves and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--against", choices=("step", "seconds", "structures"), default="step")
    given = parser.parse_args(arguments)
    try:
        check_figure_path(given.out)
        curves = {}
        for run in given.runs:
            name, _, source = run.rpartition("=")
            curves[name or Path(source).name] = read_curve(Path(source))
        write_figure(learning_figure(curves, given.against), given.out, "Learning to be symmetric", CAPTION)
    except InputError as error:
        sys.exit(f"learning_study: {error}")


if __name__ == "__main__":
    main()
