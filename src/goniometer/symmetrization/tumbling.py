"""Tumbling potentials: the frame of the model turns smoothly with the time of a simulation."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Float64
from scipy.spatial.transform import Rotation

from goniometer.errors import InputError
from goniometer.potentials.base import Potential, Prediction, inherit, placed
from goniometer.rotations import Rule
from goniometer.symmetrization.average import averages, averages_each, described
from goniometer.symmetrization.random import fingerprint, generator, random_turn
from goniometer.symmetrization.verification import Verification, Verified, some_elements

#: Defaults in fs: the time of one turn at the rms angular velocity, and the time in which the velocity is forgotten.
PERIOD, MEMORY = 1000.0, 1000.0


@dataclass(frozen=True)
class Frame:
    """All that a tumbling potential has to remember.

    Attributes
    ----------
    seed
        Of the process that turns the frame.
    step
        Time steps since the beginning.
    improper
        Whether R(t) is the negative of a rotation.
    quaternion
        Of the rotation, scalar last, unit length.
    velocity
        Angular velocity ω in rad/fs.
    work
        What the turning frame has done on the atoms so far, in eV; None where the potential does not tell its torque.
    torque
        dE/dθ at the last evaluation, in eV, the frame being turned to exp([θ]×) R; None before the first.
    evaluated
        The quaternion at the last evaluation.
    seen
        The fingerprint of the structure that was evaluated last.
    formula
        Of the structures that are followed.
    """

    seed: int
    step: int
    improper: bool
    quaternion: tuple[float, ...]
    velocity: tuple[float, ...]
    work: float | None = 0.0
    torque: tuple[float, ...] | None = None
    evaluated: tuple[float, ...] | None = None
    seen: tuple[int, ...] | None = None
    formula: str | None = None

    def __post_init__(self) -> None:
        if self.seed < 0 or self.step < 0:
            raise ValueError(f"seed {self.seed} and step {self.step} must be 0 or more")
        lengths = {"quaternion": 4, "velocity": 3, "torque": 3, "evaluated": 4}
        for name, length in lengths.items():
            values = getattr(self, name)
            if values is None and name in ("torque", "evaluated"):
                continue
            if np.shape(values) != (length,) or not np.isfinite(values).all():
                raise ValueError(f"{name} must be {length} finite numbers, not {values}")
        if abs(np.linalg.norm(self.quaternion) - 1.0) > 1e-9:
            raise ValueError(f"the quaternion must have unit length, not {np.linalg.norm(self.quaternion):.6g}")


class Tumbling(Verified):
    """A potential seen from a frame that turns at random, smoothly and for ever, averaged over a rule in that frame.

        E(x, t) = Σ_k w_k E(g_k R(t)·x)        dR/dt = [ω]× R        dω = −ω dt/τ + σ √(2/τ) dB

    The initial frame is uniform and ω, an Ornstein-Uhlenbeck process, does not look at it: R(t) is uniform at every
    time. Since ω changes its axis, the frame comes everywhere: a time average over a run of many τ sees every
    orientation, at the cost of one evaluation a step, and without the white noise of turns that are drawn anew. Every
    step of ω is drawn from (seed, step), so that a run goes on from a stored :class:`Frame` to the last bit.

    The frame is driven from outside and does work on the atoms, dW = Σ_c dE/dθ_c ω_c dt; what a simulation conserves
    is its energy less ``work``. The torque dE/dθ comes from the antisymmetric part of the virial, or from Σ r × F of
    an isolated molecule; a periodic structure under a symmetric virial has no such account, nor have forces that are no
    gradient, and their work is None.

    Choose a period that none of the motions has that matter, in multiples up to the ℓ of the error: with the defaults,
    ω/2π is 33 cm⁻¹ in the rms per component, far below librations (400 cm⁻¹ and more in water) and stretches.

    One step is one call of :meth:`advance`. Calculators and drivers evaluate by :meth:`follow`, which makes it itself
    for each new structure, so that each step of an integrator that asks once for the forces is one step of the frame.

    Parameters
    ----------
    potential
        What is averaged.
    over
        The rule within the frame: the identity, or inversion, or more.
    timestep
        Of the simulation, in fs.
    period
        2π/σ in fs, with σ the rms of a component of ω.
    memory
        The correlation time τ of ω in fs.
    proper
        Whether the initial frame is a proper rotation. A frame that turns stays proper, or improper, for ever: include
        inversion in the rule to average over both.
    seed
        Of the initial frame and of the process.
    verify
        See :class:`goniometer.symmetrization.verification.Verified`.

    Raises :class:`InputError` if a time is not positive, or the frame would turn by more than a tenth of a turn a step.
    """

    def __init__(
        self,
        potential: Potential,
        over: Rule,
        *,
        timestep: float,
        period: float = PERIOD,
        memory: float = MEMORY,
        proper: bool = False,
        seed: int = 0,
        verify: bool = True,
    ) -> None:
        for what, time in {"time step": timestep, "period": period, "memory": memory}.items():
            if not (np.isfinite(time) and time > 0.0):
                raise InputError(f"the {what} of a tumbling potential is {time} fs; it must be a positive number")
        if timestep > 0.1 * period:
            raise InputError(f"the frame would turn once in {period:g} fs, too fast for a time step of {timestep:g} fs")
        self.potential, self.rule = potential, over
        self.timestep, self.period, self.memory = timestep, period, memory
        self.name = f"{potential.name} averaged over {described(over)}, tumbling"
        inherit(self, potential)
        self.verification = Verification(potential, some_elements(proper and not over.inversion), verify)
        left, right = random_turn(proper, seed)
        matrix = left @ right
        improper = bool(np.linalg.det(matrix) < 0.0)
        quaternion = Rotation.from_matrix(-matrix if improper else matrix).as_quat()
        velocity = 2.0 * np.pi / period * _noise(seed, 0)
        self.frame = Frame(seed, 0, improper, _plain(quaternion), _plain(velocity))

    @property
    def moment(self) -> Hashable:
        """The step, and the frame itself, which may have been restored."""
        return self.frame.step, self.frame.improper, self.frame.quaternion

    @property
    def matrix(self) -> Float64[np.ndarray, "3 3"]:
        """R(t), an element of O(3)."""
        rotation = np.asarray(Rotation.from_quat(self.frame.quaternion).as_matrix())
        return -rotation if self.frame.improper else rotation

    @property
    def work(self) -> float | None:
        """W(t) in eV: subtract it from the energy of a simulation to see what is conserved."""
        return self.frame.work

    @property
    def state(self) -> dict[str, Any]:
        """The frame and its times as plain values; give it to :meth:`restore`."""
        return asdict(self.frame) | self._times

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a stored state, as if nothing had happened.

        Raises :class:`InputError` if it is none, or that of a frame with another time step, period or memory.
        """
        # JSON has lists for tuples.
        plain: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in state.items()}
        try:
            times = {name: plain.pop(name) for name in self._times}
            frame = Frame(**plain)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"this is not the state of a tumbling potential: {error}") from error
        for name, own in self._times.items():
            if times[name] != own:
                raise InputError(
                    f"the state is that of a frame with a {name} of {times[name]} fs, and this one has {own} fs: make "
                    "the potential as it was made then"
                )
        self.frame = frame

    @property
    def _times(self) -> dict[str, float]:
        return {"timestep": self.timestep, "period": self.period, "memory": self.memory}

    def advance(self, steps: int = 1) -> None:
        """Turn the frame by so many time steps: by ω in each, which its own process then carries on exactly."""
        decay = np.exp(-self.timestep / self.memory)
        kick = 2.0 * np.pi / self.period * np.sqrt(1.0 - decay**2)
        for _ in range(steps):
            frame = self.frame
            velocity = np.array(frame.velocity)
            # From the stored digits each time: many steps at once are the same steps, to the last bit.
            rotation = Rotation.from_rotvec(self.timestep * velocity) * Rotation.from_quat(frame.quaternion)
            velocity = decay * velocity + kick * _noise(frame.seed, frame.step + 1)
            quaternion = _plain(rotation.as_quat())
            self.frame = replace(frame, step=frame.step + 1, quaternion=quaternion, velocity=_plain(velocity))

    def turned(self, structure: Atoms, matrices: Float64[np.ndarray, "K 3 3"]) -> Iterator[Prediction]:
        """See :meth:`Potential.turned`: all copies in the frame of this moment, which does not advance."""
        self.verify(structure)
        elements = self.rule.matrices @ self.matrix
        repeated = np.broadcast_to(elements, (len(matrices), *elements.shape))
        return averages(self.potential, structure, matrices, repeated, self.rule)

    def turned_each(
        self, structure: Atoms, positions: Float64[np.ndarray, "K N 3"], matrices: Float64[np.ndarray, "K 3 3"]
    ) -> Iterator[Prediction]:
        """See :meth:`Potential.turned_each`: all copies in the frame of this moment."""
        self.verify(placed(structure, positions[0]) if len(positions) else structure)
        elements = self.rule.matrices @ self.matrix
        repeated = np.broadcast_to(elements, (len(matrices), *elements.shape))
        yield averages_each(self.potential, structure, positions, matrices, repeated, self.rule)

    def follow(self, structure: Atoms) -> Prediction:
        """Evaluate the next structure of a trajectory, and account for the work that the frame has done since the last.

        A structure that is not the last one again is a step further in time, and so is the frame then, unless it was
        advanced by hand since. W grows by ½ (dE/dθ + dE/dθ')·θ, θ the rotation vector between the frames of the two
        evaluations: the trapezoidal rule along one axis, as exact as the velocity Verlet algorithm.

        Raises :class:`InputError` for a structure of other atoms than those that were followed before.
        """
        self._move(structure)
        prediction = self.predict(structure)
        self._account(structure, prediction)
        return prediction

    def _move(self, structure: Atoms) -> None:
        """Come to the time of the next structure of the trajectory."""
        seen, formula = fingerprint(structure), structure.get_chemical_formula()
        if self.frame.formula not in (None, formula):
            raise InputError(
                f"this tumbling frame follows {self.frame.formula} and is given {formula}: a frame belongs to one "
                "trajectory, make a potential for each"
            )
        if self.frame.seen not in (None, seen) and self.frame.quaternion == self.frame.evaluated:
            self.advance()

    def _account(self, structure: Atoms, prediction: Prediction) -> None:
        """Add the work since the last structure, and remember this one."""
        torque, frame = self._torque(structure, prediction), self.frame
        work = frame.work if torque is not None else None
        if torque is not None and work is not None and frame.torque is not None:
            turned = Rotation.from_quat(frame.quaternion) * Rotation.from_quat(frame.evaluated).inv()
            work += 0.5 * float((torque + np.array(frame.torque)) @ turned.as_rotvec())
        self.frame = replace(
            frame,
            work=work,
            torque=None if torque is None else _plain(torque),
            evaluated=frame.quaternion,
            seen=fingerprint(structure),
            formula=structure.get_chemical_formula(),
        )

    def _torque(self, structure: Atoms, prediction: Prediction) -> np.ndarray | None:
        """dE/dθ of the frame, in its own axes; a pseudovector, so that the sign of the frame does not enter."""
        if not self.conservative:
            return None
        if self.virial == "full" and prediction.virials is not None:
            skew = prediction.virials[0]
            about = np.array([skew[1, 2] - skew[2, 1], skew[2, 0] - skew[0, 2], skew[0, 1] - skew[1, 0]])
        elif not structure.pbc.any():
            centred = structure.positions - structure.positions.mean(axis=0)
            about = -np.cross(centred, prediction.forces[0]).sum(axis=0)
        else:
            return None
        return Rotation.from_quat(self.frame.quaternion).as_matrix() @ about


def follow_each(frames: Sequence[Tumbling], structure: Atoms, positions: Float64[np.ndarray, "K N 3"]) -> Prediction:
    """:meth:`Tumbling.follow` of K trajectories of the same atoms, each in a frame of its own, evaluated together.

    The frames share one potential and one rule.
    """
    placements = [placed(structure, each) for each in positions]
    frames[0].verify(placements[0])
    for frame, atoms in zip(frames, placements, strict=True):
        frame._move(atoms)
    elements = np.stack([frame.rule.matrices @ frame.matrix for frame in frames])
    unturned = np.broadcast_to(np.eye(3), (len(frames), 3, 3))
    together = averages_each(frames[0].potential, structure, positions, unturned, elements, frames[0].rule)
    for index, (frame, atoms) in enumerate(zip(frames, placements, strict=True)):
        frame._account(atoms, together.part(slice(index, index + 1)))
    return together


def _noise(seed: int, step: int) -> np.ndarray:
    # The word in between keeps these apart from random turns at a step.
    return generator(seed, 1, step).standard_normal(3)


def _plain(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
