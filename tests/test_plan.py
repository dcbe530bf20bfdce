"""The plan: the cheapest rule against brute force, its certificate and its refusals; tolerances as users write them."""

import dataclasses
import importlib.util
import io
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from goniometer.errors import InputError
from goniometer.planning.gate import breaches
from goniometer.planning.planner import ATTEMPTS, RulePlan, plan
from goniometer.planning.tolerance import Tolerance, parse_limit, parse_tolerance
from goniometer.potentials import Potential
from goniometer.probing.document import read_probe
from goniometer.probing.measure import probe
from goniometer.probing.residuals import candidates
from goniometer.reporting.listings import print_plan
from goniometer.rotations import Rule, rule
from goniometer.symmetrization import response
from goniometer.testing import Noisy, PeriodicToy, SumOf


def tilted(formula: str = "CO") -> Atoms:
    """A molecule without any of its axes along a laboratory axis."""
    atoms = molecule(formula)
    atoms.rotate(37.0, (1.0, 2.0, -0.5))
    return atoms


def boxed() -> Atoms:
    atoms = tilted()
    atoms.set_cell([[6.0, 0.0, 0.0], [0.7, 5.5, 0.0], [0.2, -0.4, 5.0]])
    atoms.pbc = True
    return atoms


def mixed() -> Potential:
    """Content at ℓ = 1, 2 and 4: the weight falls with ℓ, as in a trained network."""
    return SumOf([PeriodicToy(1, -1, 0.03), PeriodicToy(2, 1, 0.01), PeriodicToy(4, 1, 0.003)])


def average(potential: Potential, atoms: Atoms, over: Rule) -> float:
    return float(over.weights @ response(potential, atoms, over.matrices).energies)


@pytest.fixture(scope="module")
def mixed_probe():
    return probe(mixed(), tilted())


# Tolerances

UNITS = {
    ("energy", "eV"): 1.0,
    ("energy", "meV"): 1e-3,
    ("energy", "µeV"): 1e-6,
    ("energy", "ueV"): 1e-6,
    ("energy", "μeV/atom"): 1e-6,
    ("energy", "eV/atom"): 1.0,
    ("energy", "meV/atom"): 1e-3,
    ("force", "eV/Å"): 1.0,
    ("force", "meV/Å"): 1e-3,
    ("forces", "meV/A"): 1e-3,
    ("force", "meV/Angstrom"): 1e-3,
    ("force", "µeV/Å"): 1e-6,
    ("stress", "eV/Å³"): 1.0,
    ("stress", "meV/A^3"): 1e-3,
    ("stress", "eV/A3"): 1.0,
    # 1 eV/Å³ = 1.602176634e-19 J / 1e-30 m³
    ("stress", "GPa"): 1.0 / 160.2176634,
    ("stress", "MPa"): 1e-3 / 160.2176634,
}


@given(value=st.floats(1e-9, 1e9), key=st.sampled_from(sorted(UNITS)), space=st.sampled_from(["", " "]))
def test_a_number_and_a_unit_are_a_tolerance(value, key, space):
    quantity, unit = key
    tolerance = parse_tolerance(quantity, f"{value!r}{space}{unit}")
    assert tolerance.value == pytest.approx(value * UNITS[key], rel=1e-7)
    assert tolerance.quantity == {"force": "forces"}.get(quantity, quantity)
    assert tolerance.per_atom == unit.endswith("/atom")
    assert tolerance.limit(10) == pytest.approx(tolerance.value * (10 if tolerance.per_atom else 1))
    assert parse_limit(f"{quantity}={value!r}{unit}").value == tolerance.value


@pytest.mark.parametrize(
    "text",
    ["", "1", "meV/Å", "-1meV/Å", "0meV/Å", "1e999meV/Å", "1e-999eV/Å", "nan meV/Å", "inf eV/Å", "1meV", "1meV/atom",
     "1MPa", "1,5meV/Å", "1 2meV/Å", "1meV/Å/atom", "1MeV/Å", "--1eV/Å", "0x1eV/Å", "1eV Å"],
)  # fmt: skip
def test_what_is_no_tolerance_of_a_force_is_refused(text):
    with pytest.raises(InputError, match=r"tolerance|unit"):
        parse_tolerance("force", text)


@given(st.text(max_size=12))
def test_any_text_is_a_positive_tolerance_or_refused(text):
    for quantity in ("energy", "force", "stress", text):
        try:
            tolerance = parse_tolerance(quantity, text)
        except InputError:
            continue
        assert 0.0 < tolerance.value < math.inf


@pytest.mark.parametrize("text", ["", "force", "=1meV/Å", "mass=1eV", "force:1meV/Å", "energy=", "energy=0eV"])
def test_what_is_no_limit_is_refused(text):
    with pytest.raises(InputError):
        parse_limit(text)


def test_the_gate_compares_each_structure_with_each_limit(mixed_probe):
    figure = mixed_probe.structures[0].energy
    assert figure.special > figure.rms  # the largest of 48 orientations
    assert breaches(mixed_probe, [parse_limit(f"energy={figure.special * 1.001!r}eV")]) == []
    per_atom = figure.special / 2.0
    assert breaches(mixed_probe, [parse_limit(f"energy={per_atom * 1.001!r}eV/atom")]) == []
    (line,) = breaches(mixed_probe, [parse_limit(f"energy={per_atom * 0.999!r}eV/atom")])
    assert line.startswith("CO: energy deviation in an axis-aligned orientation ")
    assert "eV/atom exceeds" in line
    (line,) = breaches(mixed_probe, [parse_limit(f"energy={figure.rms * 0.999!r}eV")])
    assert line.startswith("CO: energy rms ")
    with pytest.raises(InputError, match="stress"):
        breaches(mixed_probe, [parse_limit("stress=1MPa")])


# The cheapest rule


@pytest.mark.parametrize("millielectronvolts", [20.0, 6.0, 2.0, 0.7, pytest.param(0.1, marks=pytest.mark.nightly)])
def test_it_is_the_cheapest_that_brute_force_finds_adequate(mixed_probe, millielectronvolts):
    """Every rule is measured as it stands and over random two-sided turns, against the known mean."""
    tolerance = millielectronvolts * 1e-3
    made = plan(mixed_probe, energy=tolerance, potential=mixed())
    assert made.certified is True
    potential, atoms = mixed(), tilted()
    mean = average(potential, atoms, rule("gauss:9", inversion=True))
    turns = 40

    def left(over: Rule) -> tuple[float, float]:
        turned = [average(potential, atoms, over.turned_at_random(seed)) - mean for seed in range(turns)]
        return abs(average(potential, atoms, over) - mean), float(np.sqrt(np.mean(np.square(turned))))

    # The rms over n turns of what is about normal has a relative error of 1/√(2n): four of these.
    margin = 4.0 / math.sqrt(2.0 * turns)
    stands, turned = left(rule(made.rule, made.inversion))
    assert stands <= tolerance
    assert turned <= tolerance * (1.0 + margin)
    for each in candidates(rule("identity"), 0):
        if len(each.rule) < made.n:
            stands, turned = left(each.rule)
            assert max(stands, turned) > tolerance * (1.0 - margin), each.rule.name


def test_what_is_measured_is_what_was_predicted(mixed_probe):
    """As it stands: the response is within the probe's band, so the prediction is the rule's own residual."""
    made = plan(mixed_probe, energy="6meV", force="50meV/Å", potential=mixed())
    assert {each.quantity for each in made.measurements} == {"energy", "forces"}
    structure = mixed_probe.structures[0]
    row = next(each for each in structure.rules if (each.name, each.inversion) == (made.rule, made.inversion))
    for each in made.measurements:
        residual = getattr(row, each.quantity)
        assert each.measured == pytest.approx(residual.as_it_stands, rel=1e-6)
        assert each.measured + each.uncertainty <= each.limit
        assert each.holds
    assert made.reference is not None
    assert made.failed == []


def test_tolerances_are_all_kept(mixed_probe):
    alone = [plan(mixed_probe, energy="5meV", certify=False), plan(mixed_probe, force="2meV/Å", certify=False)]
    both = plan(mixed_probe, energy="5meV", force="2meV/Å", certify=False)
    assert both.n == max(each.n for each in alone) > min(each.n for each in alone)
    assert both.certified is None
    assert both.tolerances == ["forces 2meV/Å", "energy 5meV"]


def test_a_limit_per_atom_is_for_every_structure_its_own(mixed_probe):
    assert plan(mixed_probe, energy="1meV/atom", certify=False).n == plan(mixed_probe, energy="2meV", certify=False).n
    assert plan(mixed_probe, energy=0.002, certify=False).n == plan(mixed_probe, energy="2meV", certify=False).n
    typed = Tolerance("energy", 0.002, False, "2meV")
    assert plan(mixed_probe, energy=typed, certify=False).tolerances == ["energy 2meV"]


def test_a_rule_must_do_for_every_structure():
    result = probe(mixed(), [tilted("CO"), tilted("HCN")])
    made = plan(result, energy="1meV", potential=mixed())
    assert made.certified is True
    assert set(made.predicted) == {"CO#0", "CHN#1"}
    assert [each.structure for each in made.measurements] == ["CO#0", "CHN#1"]
    singles = [plan(probe(mixed(), tilted(each)), energy="1meV", certify=False).n for each in ("CO", "HCN")]
    assert made.n >= max(singles)


def test_a_stress_is_planned_for_in_a_crystal():
    potential = PeriodicToy(2, 1, 0.01)
    made = plan(potential, boxed(), stress="0.01MPa")
    assert made.certified is True
    assert made.degree >= 2
    assert [each.quantity for each in made.measurements] == ["stress"]


def test_an_invariant_potential_needs_no_rotation():
    made = plan(PeriodicToy(0, 1, 0.01), tilted(), energy="1µeV", force="1µeV/Å")
    assert (made.rule, made.n, made.certified) == ("identity", 1, True)


def test_a_plan_is_plain_data(mixed_probe):
    made = plan(mixed_probe, energy="2meV", potential=mixed())
    data = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    assert data["schema"] == "goniometer/plan/1"
    assert data["measurements"][0]["structure"] == "CO"


def test_another_turn_of_the_reference_gives_the_same_verdict(mixed_probe):
    first, second = (plan(mixed_probe, energy="6meV", potential=mixed(), seed=seed) for seed in (1, 7))
    assert first.reference != second.reference
    assert first.measurements[0].measured == pytest.approx(second.measurements[0].measured, rel=1e-6)


# Refusals


def printed(made: RulePlan) -> str:
    console = Console(file=io.StringIO(), width=100)
    print_plan(made, console)
    return console.file.getvalue()


def test_what_the_calculator_does_not_take_is_left_out_of_the_probe():
    made = plan(PeriodicToy(2, 1, 0.01), tilted(), energy="1meV", without=["translation"], certify=False)
    assert made.certified is None
    with pytest.raises(InputError, match="'motion' is no operation"):
        plan(PeriodicToy(2, 1, 0.01), tilted(), energy="1meV", without=["motion"])


def test_nothing_is_certified_below_the_floor():
    noise = 1e-4
    result = probe(Noisy(PeriodicToy(2, 1, 0.01), noise, 0), tilted())
    refused = plan(result, energy="0.05meV", potential=Noisy(PeriodicToy(2, 1, 0.01), noise, 1))
    assert refused.certified is False
    assert "below the noise floor" in refused.reason
    assert refused.measurements == []
    with pytest.raises(InputError, match="below the noise floor"):
        plan(result, energy="1e-3µeV")
    assert "to use it" not in printed(refused)
    certified = plan(result, energy="1meV", potential=Noisy(PeriodicToy(2, 1, 0.01), noise, 1))
    assert ("to use it" in printed(certified)) == (certified.certified is not False)
    assert certified.certified is True


def test_the_packaged_model_has_a_floor_too():
    result = probe("pet-water", "molecule", lmax=1)
    assert result.model.dtype == "float32"
    with pytest.raises(InputError, match="below the noise floor"):
        plan(result, energy="1e-9µeV")


@pytest.mark.parametrize("hidden", [True, False])
def test_a_tail_that_could_hide_more_than_the_tolerance_is_not_certified(hidden):
    """Content at ℓ = 7, which a probe to ℓ = 2 does not resolve; the control lacks it."""
    parts = [PeriodicToy(2, 1, 0.01), *([PeriodicToy(7, -1, 0.005)] if hidden else [])]
    result = probe(SumOf(parts), tilted(), lmax=2)
    if hidden:
        with pytest.raises(InputError, match=r"missed by a factor of .* on CO; probe with a higher lmax"):
            plan(result, energy="0.02meV", potential=SumOf(parts))
        # Resolved, the same tolerance can be met.
        assert plan(probe(SumOf(parts), tilted(), lmax=7), energy="0.02meV", potential=SumOf(parts)).certified is True
    else:
        assert plan(result, energy="0.02meV", potential=SumOf(parts)).certified is True


def test_the_reference_itself_may_hide_too_much(mixed_probe):
    """The same tail, had it been found after the rule was chosen: what the reference leaves counts as uncertainty."""
    structure = mixed_probe.structures[0]
    spectrum = dataclasses.replace(structure.energy.spectrum, unresolved=1.0)
    energy = dataclasses.replace(structure.energy, spectrum=spectrum)
    changed = dataclasses.replace(mixed_probe, structures=[dataclasses.replace(structure, energy=energy)])
    made = plan(changed, energy="6meV", potential=mixed())
    assert made.certified is False
    assert "the unresolved tail could hide" in made.reason


class Renamed(SumOf):
    """A sum that goes by a given name."""

    def __init__(self, *potentials: Potential) -> None:
        super().__init__(potentials)
        self.name = "renamed"


def test_the_next_rule_is_taken_if_the_measurement_contradicts_the_prediction():
    """A probe of proper rotations cannot see that the energy is odd under inversion: the identity looks perfect."""
    odd = PeriodicToy(0, -1, 0.003)
    result = probe(odd, boxed(), inversion=False)
    assert result.structures[0].energy.rms < 1e-12
    made = plan(result, energy="0.1meV", potential=odd)
    assert made.certified is True
    assert (made.rule, made.inversion, made.n) == ("identity", True, 2)
    (failed,) = made.failed
    assert failed.startswith("identity: failed: on ")


def test_it_refuses_a_model_that_does_not_give_the_energy_of_the_probe():
    result = probe(Renamed(PeriodicToy(1, -1, 1e-6)), tilted(), lmax=1)
    with pytest.raises(InputError, match="it is not the model that was probed"):
        plan(result, energy="0.01meV", potential=Renamed(PeriodicToy(1, -1, 1e-6), PeriodicToy(2, 1, 1.0)))


def test_it_gives_up_if_no_measurement_bears_the_probe_out(monkeypatch):
    """The potential has become worse since the probe, everywhere but where the structure stands."""
    monkeypatch.setattr("goniometer.planning.planner._SAME", float("inf"))
    result = probe(Renamed(PeriodicToy(1, -1, 1e-6)), tilted(), lmax=1)
    made = plan(result, energy="0.01meV", potential=Renamed(PeriodicToy(1, -1, 1e-6), PeriodicToy(2, 1, 1.0)))
    assert made.certified is False
    assert made.reason.startswith("failed: on CO the residual of the energy is ")
    assert len(made.failed) == ATTEMPTS - 1
    assert made.measurements[0].measured > made.measurements[0].limit


def test_nothing_meets_says_by_how_much():
    hidden = SumOf([PeriodicToy(2, 1, 0.01), PeriodicToy(7, -1, 0.005)])
    result = probe(hidden, tilted(), lmax=2)
    factors = []
    for tolerance in (1e-5, 5e-6):
        with pytest.raises(InputError, match="no known rule meets the tolerance") as refused:
            plan(result, energy=tolerance)
        factors.append(float(str(refused.value).split("factor of ")[1].split()[0]))
    assert factors[0] > 1.0
    assert factors[1] == pytest.approx(2.0 * factors[0], rel=0.01)


def test_what_a_plan_cannot_be_made_of_is_refused(mixed_probe):
    with pytest.raises(InputError, match="needs a tolerance"):
        plan(mixed_probe)
    with pytest.raises(InputError, match="has a stress"):
        plan(mixed_probe, stress="1MPa")
    with pytest.raises(InputError, match="no structure to plan for"):
        plan(PeriodicToy(2, 1, 0.01), Atoms("CO", positions=np.zeros((2, 3))), energy="1meV")
    with pytest.raises(InputError, match="cannot be certified with"):
        plan(mixed_probe, energy="1meV", potential=PeriodicToy(2, 1, 0.01))
    for bad in (-1.0, 0.0, math.nan, math.inf):
        with pytest.raises(InputError, match="tolerance"):
            plan(mixed_probe, energy=bad)


def test_a_probe_has_its_own_structures(mixed_probe):
    for structures in (tilted("HCN"), []):
        with pytest.raises(InputError, match="leave structures out"):
            plan(mixed_probe, structures, energy="1meV")


@pytest.fixture(scope="module")
def own_rule():
    """A rule under a name of its own, which nobody can look up."""
    return dataclasses.replace(rule("gauss:8"), name="mine")


def test_a_probe_over_a_rule_of_ones_own_can_be_planned_for(own_rule, mixed_probe, tmp_path):
    result = probe(mixed(), tilted(), rule=own_rule)
    result.write(tmp_path / "probe.json")
    for each in (result, read_probe(tmp_path / "probe.json")):
        made = plan(each, energy="6meV", potential=mixed())
        assert made.certified is True
        assert made.rule == plan(mixed_probe, energy="6meV", certify=False).rule


def test_a_document_without_the_tail_factor_is_looked_up(own_rule, mixed_probe):
    """As they were written before it was recorded; of a rule of one's own it cannot be known then."""
    older = dataclasses.replace(mixed_probe, tail_factor=None)
    made, now = (plan(each, energy="6meV", potential=mixed()) for each in (older, mixed_probe))
    assert [each.uncertainty for each in made.measurements] == pytest.approx([e.uncertainty for e in now.measurements])
    mine = dataclasses.replace(probe(mixed(), tilted(), rule=own_rule), tail_factor=None)
    with pytest.raises(InputError, match="unknown rule 'mine'"):
        plan(mine, energy="6meV", potential=mixed())


def test_a_plan_holds_the_limit_of_each_structure_measured_or_not():
    result = probe(mixed(), [tilted("CO"), tilted("HCN")])
    limits = {"CO#0": {"energy": 2e-3, "forces": 0.05}, "CHN#1": {"energy": 3e-3, "forces": 0.05}}
    for potential in (None, mixed()):
        made = plan(result, energy="1meV/atom", force="50meV/Å", potential=potential)
        assert made.limits == {name: pytest.approx(of) for name, of in limits.items()}
        for each in made.measurements:
            assert each.limit == made.limits[each.structure][each.quantity]
    assert len(made.measurements) == 4


@pytest.mark.parametrize("inversion", [False, True])
def test_a_plan_that_is_not_measured_warns_of_what_its_probe_cannot_see(inversion):
    result = probe(SumOf([PeriodicToy(0, -1, 0.003), PeriodicToy(2, 1, 0.01)]), boxed(), inversion=inversion)
    made = plan(result, energy="0.1meV", certify=False)
    assert ("(odd, ℓ = 0): this rule would leave it" in made.reason) is not inversion
    assert made.inversion is inversion  # seen, it takes inversion to remove


@settings(max_examples=25, deadline=None)
@given(value=st.floats(1e-7, 1.0))
def test_a_looser_tolerance_never_costs_more(mixed_probe, value):
    try:
        tight = plan(mixed_probe, energy=value, certify=False)
    except InputError:
        return
    assert plan(mixed_probe, energy=1.5 * value, certify=False).n <= tight.n
    assert all(each["energy"] <= value for each in tight.predicted.values())


SCRIPT = Path(__file__).parents[1] / "scripts/measure_certificates.py"


@pytest.mark.nightly
@pytest.mark.parametrize("trusting", [False, True])
def test_certificates_are_hardly_ever_false(monkeypatch, trusting):
    """The control trusts its reference: without the uncertainty, the same adversary is certified falsely."""
    specification = importlib.util.spec_from_file_location("measure_certificates", SCRIPT)
    certificates = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "measure_certificates", certificates)
    specification.loader.exec_module(certificates)
    if trusting:
        monkeypatch.setattr("goniometer.planning.planner._left_by", lambda *_: 0.0)
    count = sum((certificates.trial(seed, 2) for seed in range(150)), certificates.Count())
    assert count.certified > 100
    assert count.false >= 2 if trusting else count.false <= 1
