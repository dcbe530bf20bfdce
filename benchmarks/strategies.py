"""Time the strategies for a liquid against raw dynamics, as `goniometer experiment liquid` runs them: 64 H2O at 300 K.

    python benchmarks/strategies.py [--rounds N] [--steps N] [--only NAME ...] [--json FILE]

Every round runs each of them for a while, one after another in one process and each round in another order, so that
what the machine does meanwhile meets all alike; nothing else should run. The first outer step of a run is not counted.
Ratios are of rounds, with the error of their mean.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from goniometer.dynamics.description import Run, read_runs
from goniometer.dynamics.forces import evaluations
from goniometer.dynamics.run import run

warnings.filterwarnings("ignore")
#: Strategies of the packaged run, and settings besides its own.
CONTENDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "raw": ("raw", {}),
    "tumble": ("tumble", {}),
    "random": ("random", {}),
    "i": ("i", {}),
    "i, ratio 20": ("i", {"strategy.ratio": 20}),
    "i, ratio 40": ("i", {"strategy.ratio": 40}),
    "turned": ("turned", {}),
    "2i": ("2i", {}),
}


def description(name: str, steps: int) -> Run:
    """Of so many time steps of 0.5 fs, in float32."""
    strategy, more = CONTENDERS[name]
    changes = {"length": 0.5e-3 * steps, "frames_every": 0.5 * steps, "potential.dtype": "float32", **more}
    (found,) = read_runs("liquid-nvt", size="laptop", only=(strategy,), changes=changes).values()
    return found


def seconds(of: Run) -> float:
    """For a ps."""
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        run(of, folder, progress=lambda *_: times.append(time.perf_counter()))
    return (times[-1] - times[0]) / (len(times) - 1) / (1e-3 * of.step)


def main() -> None:
    """Measure, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS), metavar="NAME")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/strategies.json"))
    given = parser.parse_args()
    if given.rounds < 2 or given.steps < 80 or given.steps % 40:
        parser.error("give two rounds or more, and steps by the forty, 80 or more: there is a ratio of 40")
    torch.set_num_threads(1)
    runs = {name: description(name, given.steps) for name in dict.fromkeys(("raw", *given.only))}
    took, rng = np.empty((given.rounds, len(runs))), np.random.default_rng(0)
    for row in took:
        for place in rng.permutation(len(runs)):
            row[place] = seconds(list(runs.values())[place])
    ratios = took / took[:, :1]
    table = Table("", "evaluations a step", "time of raw", title=f"64 H2O; raw takes {took[:, 0].mean():.0f} s a ps")
    found = {}
    for (name, each), column in zip(runs.items(), ratios.T, strict=True):
        error = float(column.std(ddof=1) / np.sqrt(len(column)))
        found[name] = {"evaluations": evaluations(each.strategy), "time": [float(column.mean()), error]}
        table.add_row(name, f"{evaluations(each.strategy):g}", f"{column.mean():.3f} ± {error:.3f}")
    Console(width=100).print(table)
    given.json.write_text(json.dumps({"seconds_a_ps": took.tolist(), "strategies": found}, indent=1))


if __name__ == "__main__":
    main()
