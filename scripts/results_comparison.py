"""Rows of the table "paper / here / why different" of docs/results.md, in the order of arXiv 2406.17747."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Data = dict[str, dict[str, Any]]
Pair = Callable[[Any], str]
MODEL = "pet-water"
NOT = "not measured"
# Commands, named in the column of the numbers.
SYMMETRY, ORIENTATION, GAS, LIQUID, ICE = "A", "B", "C", "D", "E"


def rows(data: Data, pair: Pair, plain: Pair) -> list[tuple[str, str, str, str, str]]:
    """Item, paper, here, command, why different."""
    return [*model_rows(data, pair, plain), *grid_rows(data, pair), *gas_rows(data, pair), *bulk_rows(data, plain)]


def model_rows(data: Data, pair: Pair, plain: Pair) -> list[tuple[str, str, str, str, str]]:
    """Model, data, test errors."""
    sets = data[MODEL]["sets"]
    errors, symmetry = sets["test set"]["test_errors"], sets["test set"]
    shares = [
        100.0 * symmetry["energy_meV"]["none"][0] / errors["energy_MAE_meV"][0],
        100.0 * symmetry["forces_meV_per_A"]["none"][0] / errors["force_MAE_meV_per_A"][0],
    ]
    energy = f"MAE {pair(errors['energy_MAE_meV'])}, RMSE {pair(errors['energy_RMSE_meV'])}"
    force = f"MAE {pair(errors['force_MAE_meV_per_A'])}, RMSE {pair(errors['force_RMSE_meV_per_A'])}"
    return [
        (
            "network",
            "PET, 4 message-passing layers of 2 transformer layers, width 128, 4 heads, feed-forward 512",
            "PET, 2 layers of 1, width 48, 2 heads, feed-forward 96; 234914 weights",
            "card",
            "to be trained in hours of one core",
        ),
        ("cutoff and taper, Å", "4.0 and 0.2", "3.8 and 0.5", "card", "cheaper; not varied"),
        ("precision", "float32", "float32", "card", ""),
        ("augmentation", "rotations and inversion", "the same", "card", ""),
        (
            "training",
            "a long run, then 350 epochs of polish (5·10⁻⁵, factor 0.7 every 35 epochs, batch 4, energy weight 0.01)",
            "three parts, [described](../models/README.md); the polish is the recipe `polish`, not used here",
            "card",
            "time",
        ),
        (
            "fine-tune with energy weight 100",
            "learning rate 1e-5; lowers the symmetry error of energies",
            fine_tune(data, pair),
            SYMMETRY,
            "one training; 3000 steps",
        ),
        (
            "data",
            "1593 boxes of 64 H₂O, 1303/100/190",
            "160 boxes of its test split: 149 for training, 2 for validation, 9 for tests; 4 ice cells",
            "card",
            "the others were not at hand",
        ),
        (
            "test errors of the energy, meV a box",
            "MAE 74.0, RMSE 167.1",
            energy,
            SYMMETRY,
            "smaller network, a ninth of the data; less its mean",
        ),
        ("test errors of forces, meV/Å", "MAE 16.6, RMSE 59.6", force, SYMMETRY, "the same"),
        (
            "symmetry error as a share of the test error",
            "7 % (energy), 12 % (forces)",
            f"{plain(shares[0], 2)} %, {plain(shares[1], 2)} %; errors from the rows above",
            SYMMETRY,
            "the test error is larger",
        ),
    ]


def fine_tune(data: Data, pair: Pair) -> str:
    """The paired difference over the test boxes."""
    if "test set" not in data.get("pet-water-fine-tuned", {}).get("sets", {}):
        return NOT
    found = paired(data, "pet-water-fine-tuned")
    return (
        f"test boxes, fine-tuned less `pet-water`, paired: energy {pair(found['energy'])} meV, "
        f"forces {pair(found['forces'])} meV/Å"
    )


def paired(data: Data, other: str) -> dict[str, list[float]]:
    """Mean and standard error over test boxes of the difference of symmetry errors, other less :data:`MODEL`."""
    ours, theirs = ({r["name"]: r for r in data[name]["sets"]["test set"]["rows"]} for name in (MODEL, other))
    found = {}
    for key, of in (("energy", lambda r: abs(r["dE"]["none"])), ("forces", lambda r: r["dF"]["none"])):
        differences = [of(theirs[name]) - of(ours[name]) for name in ours]
        mean = sum(differences) / len(differences)
        variance = sum((each - mean) ** 2 for each in differences) / (len(differences) - 1)
        found[key] = [mean, (variance / len(differences)) ** 0.5]
    return found


def grid_rows(data: Data, pair: Pair) -> list[tuple[str, str, str, str, str]]:
    """What the supplement has by grid; the whole table stands below."""
    sets = data[MODEL]["sets"]
    all_boxes = sets["dipole"]["mean_abs_error_meV"]

    def both(name: str) -> tuple[str, str]:
        energy, forces = sets[name]["energy_meV"]["none"], sets[name]["forces_meV_per_A"]["none"]
        return pair(energy), pair(forces)

    test, liquid, molecule = both("test set"), both("liquid"), both("molecule")
    none = " (one frame: no error bar, no average)"
    return [
        ("grids none, i, 2, 2i, 3, 3i", "1, 2, 18, 36, 75, 150 rotations; reference 3i", "the same", SYMMETRY, ""),
        (
            "energy error, test set, meV",
            "5.085",
            f"{test[0]} (9 boxes); {pair(all_boxes)} against i, 160 boxes, training boxes among them",
            SYMMETRY,
            "another network; linear in the dipole ([below](#the-energy-error-is-linear-in-the-dipole))",
        ),
        (
            "energy error, liquid, 512 H₂O, meV",
            "7.938, mean over frames",
            liquid[0] + none,
            SYMMETRY,
            "its start frame, with \\|Σu\\|²/N = 3.7; the sign and size of the dipole fluctuate",
        ),
        ("energy error, molecule, meV", "2.822", molecule[0] + ", its frames", SYMMETRY, "another network"),
        ("force error, test set, meV/Å", "2.04", test[1], SYMMETRY, "another network"),
        ("force error, liquid, meV/Å", "1.21", liquid[1] + none, SYMMETRY, ""),
        ("force error, molecule, meV/Å", "11.77", molecule[1], SYMMETRY, "another network; its frames"),
        (
            "decay with the grid",
            "19- to 188-fold from none to 3 (energy)",
            "a hundredfold by inversion, then rounding ([below](#symmetry-errors-by-grid))",
            SYMMETRY,
            "the error is nearly all at ℓ = 1, odd; the study's has even parts and higher ℓ",
        ),
    ]


def gas_rows(data: Data, pair: Pair) -> list[tuple[str, str, str, str, str]]:
    """Figure 1."""
    torque = data[MODEL]["sets"]["molecule"].get("rms_torque_meV", {})
    torques = "; ".join(f"{grid} {pair(torque[grid])}" for grid in ("none", "2", "3i") if grid in torque)
    depths = data.get("orientation", {"models": {}})["models"]
    depth = "; ".join(f"`{name}` {pair(each['range_kT'])}" for name, each in depths.items())
    return [
        (
            "angular momentum, NVE from 300 K, 0.5 fs",
            "25 ps; unsymmetrized it wanders by several eV fs, with 2i it is flat",
            "1.5 ps; largest change of 8 replicas: 0.19 eV fs, with 2i 5·10⁻⁷ (a maximum, no error bar)",
            GAS,
            "shorter; smaller torque",
        ),
        (
            "torque, meV",
            "mean, as rms: none 5; 2 0.3; 3i 0.02",
            torques or NOT,
            SYMMETRY,
            "on frames of its runs; another network; 2 and 3i are rounding",
        ),
        (
            "spectra of V and of ΔV = V_2i − V",
            "ΔV at low frequency, elsewhere orders below V",
            "seen in [the figure](observables.md#the-lone-molecule-figure-1-of-the-study); no number",
            GAS,
            "",
        ),
        (
            "orientational free energy, 300 K, kT",
            "±0.4 (10 ns, from dynamics); flat with 2i",
            f"between extremes, from the response: {depth or NOT}. Dynamics of 0.7 ns do not resolve it",
            f"{ORIENTATION}; {GAS}",
            "smaller error of the molecule; geometries of each model's own average",
        ),
        ("dynamics of it", "MTS 0.5/5 fs, generalised Langevin", "the same", GAS, ""),
    ]


def bulk_rows(data: Data, plain: Pair) -> list[tuple[str, str, str, str, str]]:
    """Figures 2 and 3, the other supplementary figures, ice, strategies."""
    start = "[one start for all runs](observables.md#what-these-runs-cannot-show)"
    ice = data[MODEL]["sets"].get("ice")
    span = NOT
    if ice:
        per = ice["energy_meV_per_atom"]
        span = f"{plain(per['least'], 2)} to {plain(per['largest'], 2)} (rms {plain(per['rms'], 2)})"
        span += f", {ice['structures']} of its cells; a range, no error bar"
    return [
        (
            "liquid runs",
            "512 H₂O, 5.05 ns each, unsymmetrized and 2i; 300 K, velocity rescaling, τ = 10 fs",
            "64 H₂O; 7 × 20 ps unsymmetrized, 4 × 10 ps of `i`; the same thermostat",
            LIQUID,
            "cost",
        ),
        (
            "orientations, g_OO(r), c_uu(r), MSD(t), c_uu(t): unsymmetrized and 2i",
            "no visible difference",
            f"drawn; no difference or bound is stated: {start}",
            LIQUID,
            "no independent starts",
        ),
        (
            "drift over 500 ps, eV per H₂O",
            "unsymmetrized 0.001, MTS 0.006, random rotations 0.010",
            f"{NOT}: runs of 20 ps, and errors of single slopes are not valid",
            LIQUID,
            "length",
        ),
        (
            "figures 2 and 3 with random rotations",
            "no visible difference",
            "one run of 20 ps, drawn; not compared",
            LIQUID,
            "one run",
        ),
        (
            "ice cells",
            "nine, 288 to 2304 atoms",
            "six of these (288 to 1080 atoms), and nine by GenIce2 (288 to 576)",
            f"{SYMMETRY}; {ICE}",
            "",
        ),
        (
            "starting energy, meV/atom",
            "0.015 to 0.023",
            span,
            SYMMETRY,
            "none of the cells has a dipole, and the error of `pet-water` cancels there ([ice](ice.md))",
        ),
        (
            "relaxation energy, meV/atom",
            "at most 0.003",
            "rms 0.0008 ± 0.0002, nine cells by GenIce2; the largest was not recorded",
            ICE,
            "the same",
        ),
        (
            "spread of relaxed energies, meV/H₂O",
            "0.32",
            "0.100 ± 0.013",
            ICE,
            "other cells, another network; perhaps another measure of spread",
        ),
        ("relative energies, unsymmetrized and 2i, meV/H₂O", "0.007", "0.0024 ± 0.0003", ICE, "cells without a dipole"),
        (
            "strategies",
            "augmentation, grids, inversion, random rotation, multiple time steps, fine-tune",
            "all of these, and tumbling frames, planned rules and space groups ([which remedy](which-remedy.md))",
            "",
            "",
        ),
        (
            "verdict",
            "negligible in the bulk, visible yet stable for the lone molecule, gone with 2i",
            "molecule: the angular momentum is conserved with 2i, not without. Bulk: not decided here",
            "",
            "no liquid runs from independent starts",
        ),
    ]
