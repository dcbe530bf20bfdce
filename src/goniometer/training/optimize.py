"""Muon for the matrices inside the network, Adam for the rest; the running mean of the weights; the rate over time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from goniometer.training.recipe import Optimizer, Schedule

MOMENTUM = 0.95
BETAS = (0.9, 0.99)
#: Weights that enter as tables or leave as energies are no maps between features of equal standing.
OUTSIDE = ("embed", "last_layer")


class Descent:
    """Moves the weights against a gradient.

    Muon replaces the momentum of a matrix by the nearest orthogonal matrix, times 0.2 √(larger side): elements then
    move as far as with Adam. K. Jordan et al., *Muon* (2024), and J. Liu et al., arXiv 2502.16982, for the factor.
    """

    def __init__(self, weights: dict[str, torch.Tensor], settings: Optimizer) -> None:
        self.weights, self.settings = weights, settings
        self.matrices = [name for name, weight in weights.items() if _is_inner(name, weight)]
        self.inner = self.matrices if settings.kind == "muon" else []
        outer = [weight for name, weight in weights.items() if name not in self.inner]
        self.momenta = {name: torch.zeros_like(weights[name]) for name in self.inner}
        self.adam = torch.optim.Adam(outer, betas=BETAS, eps=1e-10, foreach=True)
        self.mean = {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def step(self, factor: float, step: int) -> None:
        """One step of the gradients that the weights carry, at ``factor`` times the rates; ``step`` counts from 0."""
        if self.settings.clip is not None:
            torch.nn.utils.clip_grad_norm_(list(self.weights.values()), self.settings.clip)
        shrink = 1.0 - factor * self.settings.rate * self.settings.weight_decay
        for name in self.matrices:
            self.weights[name].mul_(shrink)
        self.adam.param_groups[0]["lr"] = factor * (
            self.settings.adam_rate if self.settings.kind == "muon" else self.settings.rate
        )
        self.adam.step()
        for name in self.inner:
            weight, momentum = self.weights[name], self.momenta[name]
            if weight.grad is None:
                continue
            momentum.lerp_(weight.grad, 1.0 - MOMENTUM)
            direction = _orthogonal(weight.grad.lerp(momentum, MOMENTUM))
            weight.sub_(direction, alpha=factor * self.settings.rate * 0.2 * math.sqrt(max(weight.shape)))
        memory = min(self.settings.ema, (1 + step) / (10 + step)) if self.settings.ema else 0.0
        for name, mean in self.mean.items():
            mean.lerp_(self.weights[name], 1.0 - memory)

    @contextmanager
    def mean_in(self) -> Iterator[None]:
        """The running mean in the place of the weights, for as long as this lasts."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, mean in self.mean.items():
            kept = mean.clone()
            mean.copy_(self.weights[name])
            self.weights[name].copy_(kept)

    def state(self) -> dict[str, Any]:
        """All that the next step depends on besides the weights."""
        return {"momenta": self.momenta, "adam": self.adam.state_dict(), "mean": self.mean}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.adam.load_state_dict(state["adam"])
        with torch.no_grad():
            for mine, theirs in ((self.momenta, state["momenta"]), (self.mean, state["mean"])):
                for name, value in mine.items():
                    value.copy_(theirs[name])


def _is_inner(name: str, weight: torch.Tensor) -> bool:
    return weight.ndim == 2 and min(weight.shape) > 1 and not any(word in name for word in OUTSIDE)


def _orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Singular values to about 1 by five steps of the Newton-Schulz iteration with Muon's quintic."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


def rate_factor(schedule: Schedule, step: int, steps: int, decay_from: int) -> float:
    """The factor on the rate at a step, counted from 0; ``linear`` decays from ``decay_from``."""
    warm = min(1.0, (step + 1) / schedule.warmup) if schedule.warmup else 1.0
    match schedule.kind:
        case "cosine":
            return warm * 0.5 * (1.0 + math.cos(math.pi * step / steps))
        case "steps":
            return warm * schedule.factor ** (step // schedule.every)
        case "linear":
            return warm * min(1.0, max(0.0, (steps - step) / (steps - decay_from)))
    return warm
