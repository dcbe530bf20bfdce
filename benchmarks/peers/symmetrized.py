"""What metatomic and metatomic-ase offer for the same average, ready to be timed beside ours.

Each function returns ``(evaluate, rotations)``: a function without arguments that gives energy (eV) and forces
(N, 3) (eV/Å) anew each time, and the number of copies that one call evaluates, inverted ones counted.

========================  ==========================================================  ==============================
peer                      its rule                                                    copies for degree 1, 3, 5, 9
========================  ==========================================================  ==============================
SymmetrizedModel          Lebedev of odd degree ≥ max(3, D) times D + 1 angles,       24, 48, 168, 760
                          inversion always included
SymmetrizedCalculator     Lebedev of odd degree ≥ max(3, D) times 2D + 1 angles,      18, 42, 154, 722; with
                          inversion if asked for                                      inversion twice as many
========================  ==========================================================  ==============================

Pair lists hold no skin: each pair would be turned once a copy, which costs the peers more than the list that is saved.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from ase import Atoms

Evaluate: TypeAlias = Callable[[], tuple[float, np.ndarray]]


def symmetrized_model(
    structure: Atoms, model_path: str | Path, degree: int, inversion: bool = True, batch: int = 4
) -> tuple[Evaluate, int]:
    """metatomic's ``SymmetrizedModel``: energy, and forces as its gradient, through metatomic-ase's calculator.

    Raises ValueError without inversion, which it has no way to leave out.
    """
    from metatomic.torch import load_atomistic_model
    from metatomic.torch.o3 import SymmetrizedModel
    from metatomic_ase import MetatomicCalculator

    if not inversion:
        raise ValueError("SymmetrizedModel always includes inversion")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SymmetrizedModel.wrap(
            load_atomistic_model(str(model_path)), max_angular_momentum_grid=degree, batch_size=batch
        )
        calculator = MetatomicCalculator(model, device="cpu", neighbor_skin=0.0)
    return _evaluation(calculator, structure), 2 * len(model.module._rotation_weights)


def symmetrized_calculator(
    structure: Atoms, model_path: str | Path, degree: int, inversion: bool = True, batch: int = 4
) -> tuple[Evaluate, int]:
    """metatomic-ase's ``SymmetrizedCalculator``. It evaluates the structure as it stands besides, once a call."""
    from metatomic_ase import MetatomicCalculator, SymmetrizedCalculator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = MetatomicCalculator(str(model_path), device="cpu", neighbor_skin=0.0)
        calculator = SymmetrizedCalculator(base, l_max=degree, batch_size=batch, include_inversion=inversion)
    return _evaluation(calculator, structure), len(calculator.quadrature_rotations)


def _evaluation(calculator: Any, structure: Atoms) -> Evaluate:
    """Energy and forces by a calculator whose cache is passed by."""
    atoms = structure.copy()

    def evaluate() -> tuple[float, np.ndarray]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of float32, at every call
            calculator.calculate(atoms, ["energy", "forces"], ["positions"])
        return float(calculator.results["energy"]), np.asarray(calculator.results["forces"])

    return evaluate
