"""Replicas of a molecule: evaluated together, each as if it were alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from scipy.spatial.transform import Rotation

from goniometer import load, symmetrize
from goniometer.errors import InputError, PotentialError
from goniometer.potentials import Potential, Prediction
from goniometer.potentials.base import placed
from goniometer.potentials.metatomic import MetatomicPotential
from goniometer.rotations import rule
from goniometer.structures import read_structures
from goniometer.symmetrization import Replicas, Tumbling
from goniometer.symmetrization.tumbling import follow_each
from goniometer.testing import MolecularToy
from structures import crystal

COUNT = 7


def water() -> Atoms:
    return read_structures("molecule")[0].atoms


def conformations(count: int = COUNT, seed: int = 0) -> np.ndarray:
    """Shaken and turned; every third has an atom beyond the cutoff of the packaged model."""
    rng = np.random.default_rng(seed)
    positions = water().positions + rng.normal(scale=0.05, size=(count, 3, 3))
    positions[::3, 1] += [5.0, 0.0, 0.0]
    return positions @ Rotation.random(count, rng=rng).as_matrix()


def pet(**options) -> Potential:
    return load("pet-water", dtype="float64", batch=4, **options)


POTENTIALS: dict[str, Callable[[], Potential]] = {
    "PET by its own code": pet,
    "PET by the model": lambda: MetatomicPotential.from_file(_packaged(), dtype="float64", batch=4, specialised=False),
    "PET, batches by measurement": lambda: load("pet-water", dtype="float64"),
    "a toy": lambda: MolecularToy(2, 1, 0.1),
    "averaged": lambda: symmetrize(pet(), "tetrahedral"),
    "turned at random": lambda: symmetrize(pet(), "identity", strategy="random"),
    "tumbling": lambda: symmetrize(pet(), "identity", strategy="tumble", timestep=0.5),
}


def _packaged() -> str:
    from goniometer.files.packaged import packaged_files

    return str(packaged_files("models", ".pt")["pet-water"])


@pytest.mark.parametrize("kind", POTENTIALS)
def test_copies_with_positions_of_their_own_are_as_if_alone(kind: str) -> None:
    potential = POTENTIALS[kind]()
    positions, matrices = conformations(), Rotation.random(COUNT, rng=np.random.default_rng(1)).as_matrix()
    together = Prediction.joined(potential.turned_each(water(), positions, matrices))
    pairs = zip(positions, matrices, strict=True)
    alone = Prediction.joined(p for x, turn in pairs for p in potential.turned(placed(water(), x), turn[None]))
    np.testing.assert_allclose(together.energies, alone.energies, rtol=0, atol=1e-11)
    np.testing.assert_allclose(together.forces, alone.forces, rtol=0, atol=1e-11)
    np.testing.assert_allclose(together.virials, alone.virials, rtol=0, atol=1e-11)
    assert np.ptp(together.energies) > 0.1  # they do differ


def test_the_spread_of_an_average_is_that_of_each() -> None:
    potential, positions = symmetrize(pet(), "tetrahedral"), conformations()
    (together,) = potential.turned_each(water(), positions, np.tile(np.eye(3), (COUNT, 1, 1)))
    for index, each in enumerate(positions):
        spread = potential.predict(placed(water(), each)).spread
        np.testing.assert_allclose(together.spread.energies[index], spread.energies[0], rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(together.spread.forces[index], spread.forces[0], rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(together.spread.virials[index], spread.virials[0], rtol=1e-6, atol=1e-12)


def side_by_side(positions: np.ndarray) -> Atoms:
    return Atoms(np.tile(water().numbers, len(positions)), positions.reshape(-1, 3))


def test_replicas_are_a_potential_of_all_atoms() -> None:
    potential, positions = pet(), conformations()
    replicas = Replicas(potential, water(), COUNT)
    whole = replicas.predict(side_by_side(positions))
    alone = [potential.predict(placed(water(), each)) for each in positions]
    assert whole.energies[0] == pytest.approx(sum(each.energies[0] for each in alone), abs=1e-11)
    np.testing.assert_allclose(whole.forces[0], np.concatenate([each.forces[0] for each in alone]), atol=1e-11)
    np.testing.assert_allclose(replicas.last.energies, [each.energies[0] for each in alone], atol=1e-11)


def frames(count: int) -> list[Tumbling]:
    potential = pet()
    return [Tumbling(potential, rule("identity", inversion=False), timestep=0.5, seed=seed) for seed in range(count)]


def test_tumbling_replicas_follow_as_each_does_alone() -> None:
    together, alone = frames(3), frames(3)
    replicas = Replicas(together, water(), 3)
    for seed in range(4):
        positions = conformations(3, seed)
        whole = replicas.follow(side_by_side(positions))
        each = [frame.follow(placed(water(), x)) for frame, x in zip(alone, positions, strict=True)]
        np.testing.assert_allclose(whole.forces[0], np.concatenate([one.forces[0] for one in each]), atol=1e-11)
    for one, other in zip(together, alone, strict=True):
        assert one.work == pytest.approx(other.work, abs=1e-12)
        assert one.work != 0.0
        assert one.frame.quaternion == other.frame.quaternion
        assert one.frame.step == other.frame.step == 3
    assert len({frame.frame.quaternion for frame in together}) == 3


def test_following_the_same_positions_again_does_not_advance() -> None:
    made, positions = frames(2), conformations(2)
    for _ in range(2):
        follow_each(made, water(), positions)
    assert [frame.frame.step for frame in made] == [0, 0]


def test_what_replicas_cannot_be() -> None:
    with pytest.raises(InputError, match="isolated molecule"):
        Replicas(pet(), crystal(), 2)
    with pytest.raises(InputError, match="3 replicas need as many tumbling frames, not 2"):
        Replicas(frames(2), water(), 3)
    with pytest.raises(InputError, match="not that of 2 replicas"):
        Replicas(pet(), water(), 2).predict(water())


class Failing(MolecularToy):
    """Fails for one of the conformations."""

    def turned(self, structure, matrices):
        if structure.positions[0, 0] > 100.0:
            raise PotentialError("this one cannot be done")
        return super().turned(structure, matrices)


def test_an_error_names_the_copy_at_fault() -> None:
    positions = conformations()
    positions[4] += 1000.0
    potential = symmetrize(Failing(2, 1, 0.1), "tetrahedral", inversion=False)
    with pytest.raises(PotentialError, match=r"number 4 \(counted from 0\) of 7 copies .* element 0"):
        list(potential.turned_each(water(), positions, np.tile(np.eye(3), (COUNT, 1, 1))))
