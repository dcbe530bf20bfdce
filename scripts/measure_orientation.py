"""Measure how strongly models prefer directions of one water molecule.

    python scripts/measure_orientation.py MODEL... -o FILE

The figure is the difference between the largest and the smallest value of the orientational free energy −ln(4π P(u)) of
the dipole direction u at 300 K. P is expanded in spherical harmonics up to ℓ = 4, with moments from the response
(docs/observables.md, "Orientations without dynamics"): geometries are drawn independently from the canonical
distribution of the averaged potential, by rejection from a normal distribution of bond lengths and angle, and each is
evaluated over 168 rotations, which integrate products of ℓ up to 7 exactly. Unlike a histogram or a kernel this adds no
scatter between directions, which would exaggerate the extremes. The error is the jackknife over ten groups.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ase import units
from scipy.optimize import minimize

import goniometer
from goniometer.observables.orientation import DirectionalResponse, _harmonics
from goniometer.potentials import Potential
from goniometer.rotations import Rule

SCHEMA = "goniometer/orientation/1"
RULE = "gauss:7"
DEGREE = 4
TEMPERATURE = 300.0  # K
PROPOSALS = 400
GROUPS = 10
# The normal distribution that geometries are proposed from is wider than the harmonic one by this factor.
WIDER = 1.3


def positions(internal: np.ndarray) -> np.ndarray:
    """O, H, H in Å, (G, 3, 3), from two bond lengths in Å and the angle between them in radians, (G, 3)."""
    first, second, angle = internal.T
    zero = np.zeros_like(first)
    arms = [[zero, zero, zero], [first, zero, zero], [second * np.cos(angle), second * np.sin(angle), zero]]
    return np.moveaxis(np.array(arms), -1, 0)


def energies(potential: Potential, internal: np.ndarray, over: Rule) -> np.ndarray:
    """Of every rotated geometry, (G, K) in eV."""
    (molecule,) = goniometer.read_structures("molecule")
    copies = np.repeat(positions(internal), len(over), axis=0)
    answers = potential.turned_each(molecule.atoms, copies, np.tile(over.matrices, (len(internal), 1, 1)))
    return np.concatenate([each.energies for each in answers]).reshape(len(internal), -1)


def harmonic(potential: Potential, over: Rule) -> tuple[np.ndarray, np.ndarray]:
    """Minimum of the averaged potential in internal coordinates, and the covariance kT H⁻¹ there."""

    def averaged(internal: np.ndarray) -> float:
        return float((energies(potential, internal[None], over) @ over.weights)[0])

    least = minimize(averaged, np.array([0.97, 0.97, 1.83]), method="Nelder-Mead", options={"fatol": 1e-6}).x
    step = np.diag([0.02, 0.02, 0.06])
    shifts = np.array([[a + b, a - b, -a + b, -a - b] for a in step for b in step]).reshape(-1, 3)
    seen = (energies(potential, least + shifts, over) @ over.weights).reshape(3, 3, 4)
    scale = 4.0 * np.outer(np.diag(step), np.diag(step))
    hessian = (seen[..., 0] - seen[..., 1] - seen[..., 2] + seen[..., 3]) / scale
    return least, units.kB * TEMPERATURE * np.linalg.inv(hessian)


def sampled(potential: Potential, over: Rule, seed: int) -> tuple[DirectionalResponse, float]:
    """The response on geometries of the canonical distribution of the average, and the share of accepted proposals."""
    rng = np.random.default_rng(seed)
    center, covariance = harmonic(potential, over)
    factor = np.linalg.cholesky(WIDER**2 * covariance)
    normal = rng.normal(size=(PROPOSALS, 3))
    internal = center + normal @ factor.T
    seen = energies(potential, internal, over) / (units.kB * TEMPERATURE)
    log = 0.5 * (normal**2).sum(axis=1) - seen @ over.weights
    log += np.log(internal[:, 0] ** 2 * internal[:, 1] ** 2 * np.sin(internal[:, 2]))  # the volume element
    kept = rng.uniform(size=PROPOSALS) < np.exp(log - log.max())
    axis = positions(internal)[kept][:, 1:].mean(axis=1)
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    corrections = seen[kept] - (seen[kept] @ over.weights)[:, None]
    vectors = np.einsum("kij,gj->gki", over.matrices, axis)
    return DirectionalResponse(vectors, corrections, over.weights), float(kept.mean())


def extent(found: DirectionalResponse, chosen: np.ndarray) -> float:
    """The difference between the extremes of −ln(4π P(u)), in kT, from the chosen geometries."""
    factors = found.weights * np.exp(-found.corrections[chosen])
    vectors = found.vectors[chosen]
    each = _harmonics(vectors.reshape(-1, 3), DEGREE).reshape(*vectors.shape[:2], -1)
    moments = np.einsum("gk,gkm->m", factors, each) / factors.sum()
    cosines, angles = np.meshgrid(np.linspace(-1.0, 1.0, 101), np.linspace(-np.pi, np.pi, 201), indexing="ij")
    sines = np.sqrt(1.0 - cosines**2)
    sphere = np.stack([sines * np.cos(angles), sines * np.sin(angles), cosines], axis=-1).reshape(-1, 3)
    values = -np.log(1.0 + _harmonics(sphere, DEGREE) @ moments)
    return float(values.max() - values.min())


def main() -> None:
    """Measure each model in float64 and write the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    over, models = goniometer.rule(RULE), {}
    for name in given.models:
        found, share = sampled(goniometer.load(name, dtype="float64"), over, seed=0)
        count = len(found.vectors)
        group = np.arange(count) % GROUPS
        without = [extent(found, np.flatnonzero(group != each)) for each in range(GROUPS)]
        value, error = extent(found, np.arange(count)), float(np.std(without) * np.sqrt(GROUPS - 1))
        models[name] = {"range_kT": [value, error], "geometries": count, "accepted": share}
        print(f"{name}: {value:.4f} ± {error:.4f} kT from {count} geometries")
    versions = {name: version(name) for name in ("goniometer", "torch", "metatomic-torch", "ase")}
    document = {
        "schema": SCHEMA,
        "rule": RULE,
        "degree": DEGREE,
        "temperature_K": TEMPERATURE,
        "versions": versions,
        "models": models,
    }
    given.out.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
