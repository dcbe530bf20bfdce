"""Orientations of a molecule: the free energy of its direction, by dynamics or without it, and a test of uniformity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from jaxtyping import Float64
from scipy.special import sph_harm_y
from scipy.stats import chi2
from scipy.stats import f as fisher

from goniometer.errors import InputError
from goniometer.observables.result import Axis, Observable
from goniometer.potentials.base import Potential
from goniometer.rotations.quadrature import Rule
from goniometer.trajectories.h5md import DISCARD, Trajectory

#: The grid of arXiv 2406.17747 in cos θ and φ, and the width of its Gaussian kernel in both.
GRID, KERNEL = (101, 201), 0.1
# Resampled sets of replicas that errors are taken from.
_BOOTSTRAP = 200
# Degree up to which uniformity is tested by default: 24 moments.
_DEGREE = 4
# Å by which atoms may be nearer to the centre of a molecule than the farthest and be as far.
_SAME_DISTANCE = 1e-3


def directions(
    trajectory: Trajectory, weights: Sequence[float] | None = None, *, frame: str = "laboratory"
) -> Float64[np.ndarray, "T R 3"]:
    """Unit vectors along u = Σ_a w_a x_a of every replica.

    Parameters
    ----------
    trajectory
        Of isolated molecules.
    weights : (N,)
        Of the atoms; they sum to zero. By default those of :func:`default_direction`.
    frame
        ``laboratory``, or ``model``: as the model saw them, for runs with random turns or tumbling frames.

    Raises :class:`InputError` for weights that do not fit, and for a frame that the run did not record.
    """
    if frame not in ("laboratory", "model"):
        raise InputError(f"the frame is 'laboratory' or 'model', not {frame!r}")
    chosen = _weights(trajectory, weights)
    found = []
    for frames in trajectory.chunks():
        vectors = np.einsum("a,traj->trj", chosen, frames.positions)
        if frame == "model":
            if "frame" not in frames.observables:
                raise InputError(f"'{trajectory.name}' records no frame of the model: it is that of the laboratory")
            vectors = np.einsum("trij,trj->tri", frames.observables["frame"], vectors)
        found.append(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
    return np.concatenate(found)


def _weights(trajectory: Trajectory, weights: Sequence[float] | None) -> np.ndarray:
    chosen = default_direction(trajectory.replica)[0] if weights is None else np.asarray(weights, dtype=float)
    if chosen.shape != (len(trajectory.replica),) or abs(chosen.sum()) > 1e-9 * np.abs(chosen).sum():
        raise InputError(f"the direction takes {len(trajectory.replica)} weights, one an atom, that sum to zero")
    return chosen


def default_direction(molecule: Atoms) -> tuple[Float64[np.ndarray, " N"], str]:
    """Weights of a direction u = Σ_a w_a x_a that rotates with a molecule, and what it is in words.

    Of water it is that of the dipole, from the oxygen to the middle of the hydrogens. Of any other molecule it points
    from the centre, the mean of all positions, to the atom that is farthest from it (of several the heaviest, and of
    these the first): a direction that the molecule has whatever its symmetry, and which is uniformly distributed if no
    orientation is preferred.

    Raises :class:`InputError` for a single atom.
    """
    numbers, positions = molecule.numbers, molecule.positions
    if len(numbers) < 2:
        raise InputError(f"a single atom ({molecule.symbols}) has no orientation")
    if sorted(numbers) == [1, 1, 8]:
        return np.where(numbers == 8, -1.0, 0.5), "the dipole of water"
    distances = np.linalg.norm(positions - positions.mean(axis=0), axis=1)
    farthest = np.flatnonzero(distances > distances.max() - _SAME_DISTANCE)
    chosen = int(farthest[np.argmax(numbers[farthest])])
    weights = np.full(len(numbers), -1.0 / len(numbers))
    weights[chosen] += 1.0
    return weights, f"from the centre to atom {chosen} ({molecule.symbols[chosen]}, counted from 0)"


def free_energy(
    vectors: Float64[np.ndarray, "T R 3"],
    *,
    kernel: float = KERNEL,
    grid: tuple[int, int] = GRID,
    discard: float = DISCARD,
    seed: int = 0,
) -> Observable:
    """The orientational free energy −ln (4π P(cos θ, φ)) in kT, zero where all directions are alike.

    P is a sum of Gaussians in cos θ and φ, mirrored at cos θ = ±1 and periodic in φ: the estimator of arXiv 2406.17747.
    The error is the standard deviation over replicas drawn anew with replacement; NaN for fewer than eight. It is that
    of each point alone: for a verdict over all of them see :func:`uniformity`.

    Parameters
    ----------
    vectors : (T, R, 3)
        See :func:`directions`.
    kernel, grid
        Width, and points in cos θ and φ.
    discard
        The part of the times at the start that is left out.
    seed
        Of the resampling.
    """
    kept = vectors[int(discard * len(vectors)) :]
    density = _density(kept, np.ones(kept.shape[:2]), kernel, grid) / len(kept)
    return _result(density, np.ones_like(density), seed, {"frames": len(kept), "kernel": kernel})


def reweighted_free_energy(
    vectors: Float64[np.ndarray, "G K 3"],
    corrections: Float64[np.ndarray, "G K"],
    weights: Float64[np.ndarray, " K"],
    *,
    kernel: float = KERNEL,
    grid: tuple[int, int] = GRID,
    seed: int = 0,
) -> Observable:
    """:func:`free_energy` without dynamics of the raw model: from its response on geometries of the averaged one.

        P(u) ∝ ⟨ Σ_k w_k exp(−(V(R_k x) − V_avg(x)) / kT) δ(u − u(R_k x)) ⟩

    where x are geometries from the canonical distribution of V_avg, which prefers no direction. Divided by the same
    without the exponential, whose exact value is that of uniform directions: what the finite number of geometries and
    rotations does to both cancels. ``docs/observables.md`` derives it.

    Parameters
    ----------
    vectors : (G, K, 3)
        Directions of the turned geometries.
    corrections : (G, K)
        (V(R_k x_g) − V_avg(x_g)) / kT.
    weights : (K,)
        Of the rule.
    kernel, grid, seed
        As for :func:`free_energy`; the error is that of geometries drawn anew.
    """
    factors = weights * np.exp(-(corrections - corrections.mean()))
    turned, reference = (
        _density(vectors.swapaxes(0, 1), np.broadcast_to(each, corrections.shape).T, kernel, grid)
        for each in (factors, weights)
    )
    total = factors.sum(axis=1)
    effective = float(total.sum() ** 2 / (len(total) * (total**2).sum()))
    about = {"geometries": len(vectors), "rotations": vectors.shape[1], "kernel": kernel, "effective_share": effective}
    return _result(turned, reference, seed, about, total, np.full(len(total), weights.sum()))


@dataclass(frozen=True)
class DirectionalResponse:
    """Geometries turned by a rule, in the three arrays that :func:`reweighted_free_energy` takes."""

    vectors: Float64[np.ndarray, "G K 3"]
    corrections: Float64[np.ndarray, "G K"]
    weights: Float64[np.ndarray, " K"]

    def free_energy(self) -> Observable:
        """See :func:`reweighted_free_energy`."""
        return reweighted_free_energy(self.vectors, self.corrections, self.weights)

    @property
    def evaluations(self) -> int:
        """How many evaluations of the potential it took."""
        return self.corrections.size


def response(
    trajectory: Trajectory,
    potential: Potential,
    over: Rule,
    temperature: float,
    *,
    geometries: int = 100,
    weights: Sequence[float] | None = None,
    discard: float = DISCARD,
) -> DirectionalResponse:
    """Evaluate a potential over a rule on geometries of a run of its average, evenly spaced in time and replica.

    Parameters
    ----------
    trajectory
        Of isolated molecules with the averaged potential, at constant temperature.
    potential
        The raw one.
    over
        Proper rotations: an inversion would set directions against themselves.
    temperature
        In K.
    geometries
        How many at most.
    weights
        See :func:`directions`.
    discard
        The part of the times at the start that is left out.

    Raises :class:`InputError` for a rule with inversions.
    """
    if (np.linalg.det(over.matrices) < 0.0).any():
        raise InputError(f"the rule {over.name} holds inversions; a direction takes proper rotations")
    first = int(discard * len(trajectory))
    count = (len(trajectory) - first) * trajectory.replicas
    chosen = np.unique(np.linspace(0, count - 1, min(geometries, count)).astype(int))
    pairs = {(first + each // trajectory.replicas, each % trajectory.replicas): None for each in chosen.tolist()}
    positions, number = [], 0
    for chunk in trajectory.chunks():
        positions += [
            chunk.positions[time - number, replica] for time, replica in pairs if 0 <= time - number < len(chunk)
        ]
        number += len(chunk)
    sampled = np.stack(positions)
    axis = np.einsum("a,gaj->gj", _weights(trajectory, weights), sampled)
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    copies, size = np.repeat(sampled, len(over), axis=0), len(over)
    predictions = potential.turned_each(trajectory.replica, copies, np.tile(over.matrices, (len(sampled), 1, 1)))
    energies = np.concatenate([each.energies for each in predictions]).reshape(-1, size)
    corrections = (energies - (energies @ over.weights)[:, None]) / (units.kB * temperature)
    return DirectionalResponse(np.einsum("kij,gj->gki", over.matrices, axis), corrections, over.weights)


def agreement(vectors: Float64[np.ndarray, "T R 3"], found: DirectionalResponse, degree: int = _DEGREE) -> float:
    """The probability of :func:`moments` as different as these, if the directions follow the response: a p-value.

    The moments of the response, m_r = Σ_g Σ_k w_k exp(−ΔV) Y / Σ_g Σ_k w_k exp(−ΔV), have the covariance of a ratio of
    means over G geometries, those of the run m the covariance over R replicas. Of (m − m_r)ᵀ (S/R + S_r/G)⁻¹ (m − m_r)
    Fisher's distribution is used (Hotelling's T²), which is exact where the response has no error and the moments of a
    replica are normal, that is, where each replica holds many correlation times. The p-value is too large by little
    where the response has an error, and too small for replicas of a few correlation times.

    Raises :class:`InputError` for fewer than M + 2 replicas.
    """
    run = moments(vectors, degree)
    count, number = run.shape
    _enough(count, degree, number)
    factors = found.weights * np.exp(-(found.corrections - found.corrections.mean()))
    shape = found.vectors.shape
    each = _harmonics(found.vectors.reshape(-1, 3), degree).reshape(*shape[:2], number)
    sums, totals = np.einsum("gk,gkm->gm", factors, each), factors.sum(axis=1)
    expected = sums.sum(axis=0) / totals.sum()
    scatter = np.cov((sums - totals[:, None] * expected) / totals.mean(), rowvar=False) / len(totals)
    difference = run.mean(axis=0) - expected
    square = difference @ np.linalg.solve(np.cov(run, rowvar=False) / count + scatter, difference)
    return float(fisher.sf((count - number) * square / (number * (count - 1)), number, count - number))


def _density(
    vectors: Float64[np.ndarray, "T R 3"], factors: np.ndarray, kernel: float, grid: tuple[int, int]
) -> Float64[np.ndarray, "R C P"]:
    """4π times the density of the directions of each replica, in the sum over times."""
    cosines, angles = _axes(grid)
    found = np.empty((vectors.shape[1], *grid))
    for replica in range(vectors.shape[1]):
        z = np.clip(vectors[:, replica, 2], -1.0, 1.0)
        phi = np.arctan2(vectors[:, replica, 1], vectors[:, replica, 0])
        mirrored = images(cosines, [z, 2.0 - z, -2.0 - z], kernel)
        around = images(angles, [phi, phi + 2.0 * np.pi, phi - 2.0 * np.pi], kernel)
        found[replica] = 4.0 * np.pi * (mirrored * factors[:, replica]) @ around.T
    return found


def images(points: np.ndarray, images: Sequence[np.ndarray], width: float) -> np.ndarray:
    """Gaussians about values (T,) and their images, at points (P,): (P, T)."""
    offsets = points[:, None, None] - np.stack(images)
    return np.exp(-0.5 * (offsets / width) ** 2).sum(axis=1) / (np.sqrt(2.0 * np.pi) * width)


def _axes(grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return np.linspace(-1.0, 1.0, grid[0]), np.linspace(-np.pi, np.pi, grid[1])


def _result(
    densities: np.ndarray,
    references: np.ndarray,
    seed: int,
    about: dict[str, object],
    totals: np.ndarray | None = None,
    reference_totals: np.ndarray | None = None,
) -> Observable:
    """−ln of the ratio of the means over replicas, each over its own total, and its scatter under resampling."""
    count, grid = len(densities), densities.shape[1:]
    totals = np.ones(count) if totals is None else totals
    reference_totals = np.ones(count) if reference_totals is None else reference_totals

    def of(chosen: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            ratio = np.tensordot(chosen, densities, 1) / (chosen @ totals)
            return -np.log(ratio / (np.tensordot(chosen, references, 1) / (chosen @ reference_totals)))

    values, errors = of(np.ones(count)), np.full(grid, np.nan)
    if count >= 8:
        rng = np.random.default_rng(seed)
        draws = rng.multinomial(count, np.full(count, 1.0 / count), size=_BOOTSTRAP)
        errors = np.std([of(each.astype(float)) for each in draws], axis=0, ddof=1)
    cosines, angles = _axes(grid)
    axes = {"cos_theta": Axis(cosines), "phi": Axis(angles, "rad")}
    about = {**about, "replicas": count, "range": float(values.max() - values.min())}
    return Observable("orientational_free_energy", "kT", values, errors, axes, about)


def moments(vectors: Float64[np.ndarray, "T R 3"], degree: int = _DEGREE) -> Float64[np.ndarray, "R M"]:
    """Time averages of the real spherical harmonics 1 ≤ ℓ ≤ degree of each replica, √(4π) times the normalized ones.

    Of uniform directions their mean is 0 and the variance of a single direction 1.
    """
    return _harmonics(vectors, degree).mean(axis=0)


def _harmonics(vectors: np.ndarray, degree: int) -> np.ndarray:
    """√(4π) times the real spherical harmonics 1 ≤ ℓ ≤ degree of directions (..., 3), (..., M)."""
    theta = np.arccos(np.clip(vectors[..., 2], -1.0, 1.0))
    phi = np.arctan2(vectors[..., 1], vectors[..., 0])
    found = []
    for ell in range(1, degree + 1):
        for m in range(-ell, ell + 1):
            harmonic = sph_harm_y(ell, abs(m), theta, phi)
            found.append(harmonic.real if m == 0 else np.sqrt(2.0) * (harmonic.real if m > 0 else harmonic.imag))
    return np.sqrt(4.0 * np.pi) * np.stack(found, axis=-1)


def uniformity(vectors: Float64[np.ndarray, "T R 3"], degree: int = _DEGREE) -> float:
    """The p-value of the hypothesis that no direction is preferred.

    The time averages m_r of the :func:`moments` of R independent replicas have, if the process is the same in all
    orientations, uncorrelated components of one variance for each ℓ (Schur's lemma), whatever the correlation in time
    and however short the replicas are. Then

        Q = Σ_ℓ (2ℓ + 1) |Σ_r m_r,ℓ|² / Σ_r |m_r,ℓ|²

    has the distribution of χ² with M = degree (degree + 2) degrees of freedom up to terms of order 1/R. Frames that are
    correlated with the start are to be discarded before.

    Parameters
    ----------
    vectors : (T, R, 3)
        Directions of R replicas at T times.
    degree
        The largest ℓ.

    Raises
    ------
    InputError
        For fewer than M + 2 replicas.
    """
    found = moments(vectors, degree)
    count, number = found.shape
    _enough(count, degree, number)
    total, start = 0.0, 0
    for ell in range(1, degree + 1):
        part = found[:, start : start + 2 * ell + 1]
        start += 2 * ell + 1
        total += (2 * ell + 1) * float(np.sum(part.sum(axis=0) ** 2) / np.sum(part**2))
    return float(chi2.sf(total, number))


def _enough(count: int, degree: int, number: int) -> None:
    if count < number + 2:
        raise InputError(f"a test up to ℓ = {degree} takes {number + 2} replicas or more, not {count}")
