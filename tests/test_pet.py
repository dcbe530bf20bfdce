"""PET by code made for many copies: the model's own answers, whatever the architecture, and never a wrong one."""

from functools import cache

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from goniometer.potentials.metatomic import MetatomicPotential
from goniometer.potentials.pet import Pet
from goniometer.rotations import random_rotations
from goniometer.structures import read_structures

pytest.importorskip("metatrain")

ARCHITECTURES = {
    "as it comes": {},
    "PostLN": {"transformer_type": "PostLN"},
    "LayerNorm": {"normalization": "LayerNorm"},
    "SiLU": {"activation": "SiLU"},
    "residual": {"featurizer_type": "residual"},
    "of the study": {
        "transformer_type": "PostLN",
        "normalization": "LayerNorm",
        "activation": "SiLU",
        "featurizer_type": "residual",
        "cutoff_function": "Cosine",
        "cutoff_width": 0.2,
        "d_node": 8,
    },
    "cosine": {"cutoff_function": "Cosine", "cutoff_width": 0.3},
    "nodes like edges": {"d_node": 8},
    "temperature": {"attention_temperature": 2.0},
    "one layer": {"num_gnn_layers": 1, "num_attention_layers": 1},
}
ADAPTIVE = {"num_neighbors_adaptive": 8}


def pet(**hypers):
    """A tiny PET for H and O with random weights, exported but not written."""
    from metatrain.pet import PET
    from metatrain.utils.architectures import get_default_hypers
    from metatrain.utils.data import DatasetInfo
    from metatrain.utils.data.target_info import get_energy_target_info

    small = {"cutoff": 4.0, "d_pet": 8, "d_node": 12, "d_head": 8, "d_feedforward": 8, "num_heads": 2}
    target = get_energy_target_info("energy", {"unit": "eV"}, add_position_gradients=True)
    info = DatasetInfo(length_unit="angstrom", atomic_types=[1, 8], targets={"energy": target})
    torch.manual_seed(0)
    hypers = {**get_default_hypers("pet")["model"], **small, "num_attention_layers": 2, **hypers}
    return PET(hypers, info).eval().export()


def potentials(dtype: str = "float64", **hypers) -> tuple[MetatomicPotential, MetatomicPotential]:
    """The code made for PET, and the model's own."""
    model = pet(**hypers)
    return (
        MetatomicPotential(model, dtype=dtype, batch=3),
        MetatomicPotential(model, dtype=dtype, batch=3, specialised=False),
    )


@cache
def structures() -> dict[str, Atoms]:
    skewed = bulk("O", "bcc", 3.1) * (2, 2, 1)
    skewed.set_cell(skewed.cell.array + 0.4 * np.random.default_rng(0).standard_normal((3, 3)), scale_atoms=True)
    slab = skewed.copy()
    slab.pbc = (True, True, False)
    slab.cell[2] = (0.0, 0.0, 20.0)
    return {
        "molecule": molecule("H2O"),
        "box": read_structures("box")[0].atoms,
        "crystal": skewed,  # every atom sees images of itself
        "slab": slab,
        "lone atom": Atoms("O"),
        "far apart": Atoms("H2", [[0, 0, 0], [0, 0, 30]]),
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", ["molecule", "crystal"])
def test_every_architecture_gives_what_its_model_gives(architecture: str, name: str) -> None:
    made, own = potentials(**ARCHITECTURES[architecture])
    structure, turns = structures()[name], random_rotations(4, np.random.default_rng(1))
    one, other = (np.concatenate, list(made.turned(structure, turns))), list(own.turned(structure, turns))
    join, parts = one
    assert made._pet is not None
    assert all(made._agreeing.values())
    for field in ("energies", "atomic", "forces", "virials"):
        found, known = (join([getattr(part, field) for part in each]) for each in (parts, other))
        # Sums of some hundred terms in another order.
        np.testing.assert_allclose(found, known, rtol=0.0, atol=1e-12 * max(1.0, np.abs(known).max()))


@pytest.mark.parametrize("name", ["molecule", "box", "crystal", "slab", "lone atom", "far apart"])
def test_every_kind_of_structure_gives_what_the_model_gives(name: str) -> None:
    made, own = potentials("float32")
    found, known = (each.predict(structures()[name]) for each in (made, own))
    assert made._pet is not None
    assert all(made._agreeing.values())
    # Some hundred roundings of sums that nearly cancel.
    tolerance = 512 * np.finfo(np.float32).eps
    np.testing.assert_allclose(found.atomic, known.atomic, rtol=0.0, atol=tolerance)
    np.testing.assert_allclose(
        found.forces, known.forces, rtol=0.0, atol=tolerance * max(1.0, np.abs(known.forces).max())
    )


def test_an_answer_that_is_not_the_models_is_never_given() -> None:
    made, own = potentials()
    assert made._pet is not None
    made._pet._scale *= 1.01  # a control: attention a hundredth too sharp
    found, known = (each.predict(structures()["molecule"]) for each in (made, own))
    assert made._agreeing[b"pet"] is False
    np.testing.assert_allclose(found.forces, known.forces, rtol=0.0, atol=1e-13)


def test_a_structure_without_pairs_does_not_vouch_for_others() -> None:
    made, own = potentials()
    made._pet._scale *= 1.01
    made.predict(Atoms("OH2", np.diag([0.0, 30.0, 60.0])))
    found, known = (each.predict(structures()["molecule"]) for each in (made, own))
    np.testing.assert_allclose(found.forces, known.forces, rtol=0.0, atol=1e-13)


def test_a_network_whose_weights_have_other_names_is_left_to_its_model() -> None:
    """As those of layers that were fine-tuned with low rank."""
    made, own = potentials()
    name = "gnn_layers.0.trans.layers.0.attention.input_linear.weight"
    made._pet._weights["renamed"] = made._pet._weights.pop(name)
    found, known = (each.predict(structures()["molecule"]) for each in (made, own))
    np.testing.assert_array_equal(found.forces, known.forces)


def test_an_architecture_that_is_not_known_is_left_to_its_model() -> None:
    made, own = potentials(**ADAPTIVE)
    assert made._pet is None
    np.testing.assert_array_equal(*(each.predict(structures()["crystal"]).forces for each in (made, own)))


def test_atoms_are_grouped_by_their_number_of_neighbors() -> None:
    made, _ = potentials()
    box = structures()["box"]
    pairs = made._pairs(box, made._neighbor_lists[0])
    assert isinstance(made._pet, Pet)
    layout = made._pet.layout(box.numbers, pairs.samples.numpy())
    assert len(layout.groups) > 1
    assert sum(group.atoms for group in layout.groups) == len(box)
    # Fewer tokens than one size for all would have, and room for every edge.
    widest = max(group.slots for group in layout.groups)
    assert len(pairs.vectors) + len(box) <= layout.tokens < 0.9 * widest * len(box)
    back = layout.reverse.numpy()
    np.testing.assert_array_equal(back[back], np.arange(layout.tokens))
