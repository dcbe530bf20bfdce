"""Time symmetrized potentials beside their peers: the same model, structure, degree and inversion, with forces.

    python benchmarks/symmetrized.py [--structures …] [--degrees …] [--repeat N] [--json FILE]

Every contender runs in a process of its own, one after another; nothing else should run on the machine. Each first
times plain evaluations of the model; the shortest of all of them is the unit.

    single       the model through metatomic-ase's MetatomicCalculator, neighbor list included: what a user has now
    limit        the model's own forward and backward pass on turned copies that were prepared before, per rotation, at
                 the best of several batch sizes (for the molecule: all copies packed into one system)
    memory       the growth of the peak of resident memory since the model was loaded, plain evaluations included
    residual     rms difference of the force components from the average over an independently turned rule of degree + 3
                 with inversion
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
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms

import goniometer
from goniometer.potentials.batching import peak_memory_bytes
from goniometer.structures import read_structures

warnings.filterwarnings("ignore")
MODEL = Path(goniometer.__file__).parent / "data" / "models" / "pet-water.pt"
#: Structure, and its repetition: 1, 64 and 512 molecules of water, and an ice cell of 1152 atoms.
STRUCTURES = {
    "molecule": ("molecule", (1, 1, 1)),
    "box": ("box", (1, 1, 1)),
    "box-512": ("box", (2, 2, 2)),
    "ice": ("ice", (2, 2, 1)),
}
#: Our rules by degree: not always the smallest of that degree, but none that leaves more than those of the peers.
RULES = {3: "octahedral", 5: "icosahedral", 9: "gauss:9"}
DEGREES = {"molecule": (3, 5, 9), "box": (3, 5, 9), "box-512": (3,), "ice": (3,)}
BATCHES = (1, 2, 4, 8)
#: Of the peers that take a batch size, each is tried in a process of its own, and the quickest is shown.
PEER_BATCHES = (4, 32)
_ENOUGH_SECONDS = 30.0

Evaluation = Callable[[], tuple[float, np.ndarray]]


class Contender(NamedTuple):
    """How to evaluate a structure, how many rotations that takes, a word on how, and the time if it is known."""

    evaluate: Evaluation
    rotations: int
    how: str = ""
    seconds: float | None = None


def structure_of(name: str) -> Atoms:
    source, repeat = STRUCTURES[name]
    return read_structures(source)[0].atoms * repeat


def goniometer_here(atoms: Atoms, degree: int, repeat: int, batch: int) -> Contender:
    """The averaged potential on its defaults."""
    potential = goniometer.symmetrize(str(MODEL), RULES[degree])
    return Contender(_predict(potential, atoms), len(potential.rule), potential.rule.name)


def goniometer_general(atoms: Atoms, degree: int, repeat: int, batch: int) -> Contender:
    """The same without the code that is made for PET, as any other metatomic model is evaluated."""
    from goniometer.potentials.metatomic import MetatomicPotential

    inner = MetatomicPotential.from_file(MODEL, specialised=False)
    potential = goniometer.symmetrize(inner, RULES[degree])
    return Contender(_predict(potential, atoms), len(potential.rule), potential.rule.name)


def exported(atoms: Atoms, degree: int, repeat: int, batch: int) -> Contender:
    """The exported model through metatomic-ase."""
    from metatomic_ase import MetatomicCalculator

    from goniometer.symmetrization.export import export

    over = goniometer.rule(RULES[degree], inversion=True)
    path = Path(tempfile.mkdtemp()) / "averaged.pt"
    export(str(MODEL), over, path)
    return Contender(_calculate(MetatomicCalculator(str(path), device="cpu"), atoms), len(over), over.name)


def symmetrized_calculator(atoms: Atoms, degree: int, repeat: int, batch: int) -> Contender:
    """metatomic-ase's SymmetrizedCalculator."""
    from peers.symmetrized import symmetrized_calculator as make

    return Contender(*make(atoms, MODEL, degree, True, batch), f"batch {batch}")


def symmetrized_model(atoms: Atoms, degree: int, repeat: int, batch: int) -> Contender:
    """metatomic's SymmetrizedModel, energy and its gradient."""
    from peers.symmetrized import symmetrized_model as make

    return Contender(*make(atoms, MODEL, degree, True, batch), f"batch {batch}")


def ffrotations(atoms: Atoms, degree: int, repeat: int, batch: int) -> Contender:
    """i-PI's ffrotations over batched ffdirect, with the smallest of its grids that reaches the degree."""
    from peers.ffrotations import ffrotations as time_of

    # An order L of its Lebedev grids is exact to degree L − 1; L is odd.
    peer = time_of(atoms, MODEL, degree + 1 + degree % 2, True, repeat)
    return Contender(lambda: (float("nan"), peer.forces), peer.copies, "Lebedev", peer.seconds)


CONTENDERS: dict[str, Callable[[Atoms, int, int, int], Contender]] = {
    "goniometer": goniometer_here,
    "goniometer, any model": goniometer_general,
    "goniometer, exported": exported,
    "SymmetrizedModel": symmetrized_model,
    "SymmetrizedCalculator": symmetrized_calculator,
    "i-PI ffrotations": ffrotations,
}


def _predict(potential: Any, atoms: Atoms) -> Evaluation:
    def evaluate() -> tuple[float, np.ndarray]:
        prediction = potential.predict(atoms)
        return float(prediction.energies[0]), prediction.forces[0]

    return evaluate


def _calculate(calculator: Any, atoms: Atoms) -> Evaluation:
    def evaluate() -> tuple[float, np.ndarray]:
        calculator.calculate(atoms, ["energy", "forces"], ["positions"])
        return float(calculator.results["energy"]), np.array(calculator.results["forces"])

    return evaluate


def seconds(run: Callable[[], Any], repeat: int, warm: int = 3) -> float:
    """The shortest of several times, since noise only adds; TorchScript spends its first calls on compiling.

    What takes long is run less often: no call begins after half a minute.
    """
    times: list[float] = []
    while len(times) < warm + repeat and sum(times) < _ENOUGH_SECONDS:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times[warm:] or times)


def limit_per_rotation(atoms: Atoms, degree: int, repeat: int) -> float:
    """The model's forward and backward pass alone, per rotation, at its best batch size."""
    import torch
    from metatomic.torch import ModelEvaluationOptions, ModelOutput

    from goniometer.potentials.metatomic import MetatomicPotential

    potential = MetatomicPotential.from_file(MODEL, specialised=False)
    rule = goniometer.rule(RULES[degree], inversion=True)
    pairs = [potential._pairs(atoms, each) for each in potential._neighbor_lists]
    packed = not atoms.pbc.any()
    options = ModelEvaluationOptions("angstrom", {"energy": ModelOutput(unit="eV", sample_kind="atom")})
    found = []
    for batch in (len(rule),) if packed else BATCHES:
        matrices = rule.matrices[:batch]
        positions = potential._tensor(atoms.positions @ matrices.transpose(0, 2, 1)).requires_grad_(True)
        cells = potential._tensor(atoms.cell.array * atoms.pbc[:, None] @ matrices.transpose(0, 2, 1))
        build = potential._packed_system if packed else potential._systems
        systems = build(atoms, positions, cells.requires_grad_(True), matrices, pairs)

        def run(systems: list[Any] = systems) -> None:
            with torch.jit.optimized_execution(False):
                energies = potential._model(systems, options, check_consistency=False)["energy"].block().values
                energies.sum().backward()

        found.append(seconds(run, repeat) / len(matrices))
    return min(found)


def batches(contender: str, atoms: Atoms) -> tuple[int, ...]:
    """The batch sizes to try; (0,) for those that choose their own."""
    if contender not in ("SymmetrizedModel", "SymmetrizedCalculator"):
        return (0,)
    return PEER_BATCHES if len(atoms) < 500 else (1, 4)


def worker(name: str, contender: str, degree: int, batch: int, repeat: int, forces: Path) -> dict[str, Any]:
    """One process: plain evaluations, then the symmetrized one."""
    from metatomic_ase import MetatomicCalculator

    atoms = structure_of(name)
    warm = 3 if len(atoms) < 500 else 1
    calculator = MetatomicCalculator(str(MODEL), device="cpu")
    before = peak_memory_bytes()
    single = seconds(_calculate(calculator, atoms), max(5, repeat), warm=5)
    if contender == "limit":
        memory = (peak_memory_bytes() - before) / 2**20
        per_rotation = limit_per_rotation(atoms, degree, repeat)
        return {"single": single, "memory_mib": memory, "per_rotation": per_rotation}
    made = CONTENDERS[contender](atoms, degree, repeat, batch)
    whole = seconds(made.evaluate, repeat, warm) if made.seconds is None else made.seconds
    energy, found = made.evaluate()
    np.save(forces, found)
    return {
        "contender": contender,
        "how": made.how,
        "rotations": made.rotations,
        "single": single,
        "seconds": whole,
        "energy": energy,
        "memory_mib": (peak_memory_bytes() - before) / 2**20,
    }


def reference(name: str, degree: int) -> np.ndarray:
    """Forces of the average over a finer rule, independently turned."""
    finer = goniometer.rule(f"degree:{degree + 3}", inversion=True).turned_at_random(1)
    return goniometer.symmetrize(str(MODEL), finer).predict(structure_of(name)).forces[0]


def table(rows: list[dict[str, Any]], limit: dict[str, Any], title: str) -> None:
    """Print what was found, in single evaluations and beside the best peer."""
    from rich.console import Console
    from rich.table import Table

    peers = [row for row in rows if not row["contender"].startswith("goniometer")]
    best = min((row["seconds"] for row in peers), default=float("nan"))
    single = min(row["single"] for row in [*rows, limit])
    printed = Table(
        "", "rotations", "time, s", "single\nevaluations", "per rotation", "best peer\n/ this", "memory, MiB",
        "residual\nmeV/Å", "how", title=title,
    )  # fmt: skip
    for row in rows:
        printed.add_row(
            row["contender"],
            str(row["rotations"]),
            f"{row['seconds']:.3g}",
            f"{row['seconds'] / single:.2f}",
            f"{row['seconds'] / single / row['rotations']:.3f}",
            f"{best / row['seconds']:.2f}",
            f"{row['memory_mib']:.0f}",
            f"{1e3 * row['residual']:.3g}",
            row["how"],
        )
    console = Console(width=130)
    console.print(printed)
    own = next((row for row in rows if row["contender"] == "goniometer"), None)
    said = f"single evaluation {1e3 * single:.1f} ms and {limit['memory_mib']:.0f} MiB; "
    said += f"limit {limit['per_rotation'] / single:.3f} single evaluations a rotation"
    if own is not None:
        said += f"; goniometer takes {own['seconds'] / own['rotations'] / limit['per_rotation']:.2f} of the limit"
    console.print(said)


def main() -> None:
    """Measure in processes of their own, print the tables, write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", nargs="+", default=list(STRUCTURES), choices=list(STRUCTURES))
    parser.add_argument("--degrees", nargs="+", type=int, choices=list(RULES))
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/symmetrized.json"))
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        name, contender, degree, batch, forces = given.worker
        print(json.dumps(worker(name, contender, int(degree), int(batch), given.repeat, Path(forces))))
        return
    found = []
    for name in given.structures:
        for degree in given.degrees or DEGREES[name]:
            repeat = given.repeat if name in ("molecule", "box") else 1
            rows, known = [], None
            limit = in_a_process(name, "limit", degree, 0, repeat)[0]
            for contender in given.contenders:
                tried = [
                    in_a_process(name, contender, degree, batch, repeat)
                    for batch in batches(contender, structure_of(name))
                ]
                row, forces = min(tried, key=lambda each: each[0].get("seconds", np.inf))
                if "error" in row:
                    print(f"{contender} on {name}, degree {degree}: {row['error']}", file=sys.stderr)
                    continue
                known = reference(name, degree) if known is None else known
                rows.append({**row, "residual": float(np.sqrt(np.mean((forces - known) ** 2)))})
            table(rows, limit, f"{name}: {len(structure_of(name))} atoms, degree {degree} with inversion")
            found.append({"structure": name, "degree": degree, "limit": limit, "rows": rows})
            given.json.write_text(json.dumps(found, indent=1))


def in_a_process(
    name: str, contender: str, degree: int, batch: int, repeat: int
) -> tuple[dict[str, Any], np.ndarray | None]:
    with tempfile.TemporaryDirectory() as folder:
        forces = Path(folder) / "forces.npy"
        command = [sys.executable, "-W", "ignore", __file__, "--repeat", str(repeat)]
        command += ["--worker", name, contender, str(degree), str(batch), str(forces)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return {"error": (done.stderr.strip().splitlines() or ["failed"])[-1]}, None
        return json.loads(done.stdout.strip().splitlines()[-1]), np.load(forces) if forces.exists() else None


if __name__ == "__main__":
    main()
