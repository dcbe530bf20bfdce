"""Time dynamics of an isolated molecule: replicas that share a batch beside i-PI, one molecule at a time.

    python benchmarks/dynamics.py [--replicas N] [--steps N] [--json FILE]

Every contender runs in a process of its own, one after another; nothing else should run on the machine. NVE at 0.5 fs,
one water molecule in vacuum, the packaged model in float32. The averages are those of the study's grid 2i, 36 copies.

    residual     rms over 16 thermal geometries and force components, from the average over 240 rotations with inversion
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import goniometer
from goniometer.dynamics.description import Run
from goniometer.dynamics.run import run
from goniometer.structures import read_structures

warnings.filterwarnings("ignore")
MODEL = Path(goniometer.__file__).parent / "data" / "models" / "pet-water.pt"


def replicas(strategy: dict[str, Any], count: int, steps: int) -> tuple[float, int]:
    """Seconds a step, of so many molecules, by the library: its folder, trajectory and checks included."""
    settings = {"strategy": strategy, "replicas": count, "orientations": "random", "frames_every": 10.0, "seed": 1}
    length = 0.01 * (1 + (steps + 20) // 20)  # a multiple of the time between frames
    description = Run.model_validate({**settings, "length": length, "checks": {"energy": None}})
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        run(description, folder, progress=lambda *_: times.append(time.perf_counter()))
    return (times[-1] - times[19]) / (len(times) - 20), count


def ipi(order: int | None, batch: int, steps: int) -> tuple[float, int]:
    """Seconds a step, of one molecule, by i-PI with its metatomic driver in process."""
    from peers.ipi_dynamics import seconds_per_step

    return seconds_per_step(read_structures("molecule")[0].atoms, MODEL, steps, order, batch), 1


AVERAGE = {"kind": "average", "rule": "legendre:2", "inversion": True}
CONTENDERS: dict[str, Callable[[int, int], tuple[float, int]]] = {
    "i-PI": lambda _, steps: ipi(None, 1, steps),
    "one molecule": lambda _, steps: replicas({"kind": "raw"}, 1, steps),
    "replicas": lambda count, steps: replicas({"kind": "raw"}, count, max(20, steps // 10)),
    "replicas, tumbling": lambda count, steps: replicas({"kind": "tumble"}, count, max(20, steps // 10)),
    "i-PI ffrotations": lambda _, steps: ipi(2, 36, max(20, steps // 10)),
    "one molecule, averaged": lambda _, steps: replicas(AVERAGE, 1, steps),
    "replicas, averaged": lambda count, steps: replicas(AVERAGE, max(1, count // 4), 20),
}
#: What the ratios are taken to.
REFERENCES = {"i-PI ffrotations": "i-PI ffrotations", "one molecule, averaged": "i-PI ffrotations"}
REFERENCES["replicas, averaged"] = "i-PI ffrotations"


def residual(rule: str) -> float:
    """Of the average over a rule with inversion, in eV/Å."""
    rng = np.random.default_rng(0)
    water = read_structures("molecule")[0].atoms
    model = goniometer.load("pet-water", dtype="float64")
    coarse = goniometer.symmetrize(model, rule)
    fine = goniometer.symmetrize(model, goniometer.rule("gauss:8", inversion=True).turned_at_random(1))
    off = []
    for _ in range(16):
        atoms = water.copy()
        atoms.positions += rng.normal(scale=0.03, size=(3, 3))
        off.append(coarse.predict(atoms).forces[0] - fine.predict(atoms).forces[0])
    return float(np.sqrt(np.mean(np.square(off))))


def main() -> None:
    """Measure in processes of their own, print the table, write JSON."""
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=480)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/dynamics.json"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(CONTENDERS[given.worker](given.replicas, given.steps)))
        return
    rates: dict[str, float] = {}
    table = Table(
        "", "molecules", "step, ms", "molecule-steps / s", "times i-PI", title="One molecule of water in vacuum"
    )
    for name in CONTENDERS:
        command = [sys.executable, "-W", "ignore", __file__, "--worker", name]
        command += ["--replicas", str(given.replicas), "--steps", str(given.steps)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{name}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}", file=sys.stderr)
            continue
        seconds, count = json.loads(done.stdout.strip().splitlines()[-1])
        rates[name] = count / seconds
        ratio = rates[name] / rates.get(REFERENCES.get(name, "i-PI"), float("nan"))
        table.add_row(name, str(count), f"{1e3 * seconds:.2f}", f"{rates[name]:.0f}", f"{ratio:.1f}")
    Console(width=110).print(table)
    left = residual("legendre:2")
    print(f"residual of both averages: {1e3 * left:.3g} meV/Å")
    given.json.write_text(json.dumps({"molecule_steps_per_second": rates, "residual": left}, indent=1))


if __name__ == "__main__":
    main()
