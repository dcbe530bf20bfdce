"""Numbers of the study by M. F. Langer, S. N. Pozdnyakov and M. Ceriotti, arXiv 2406.17747, some read off figures."""

from __future__ import annotations

#: Test errors of its model on 190 boxes of 64 H2O: meV a box, and meV/Å a component.
TEST_ERRORS = {"energy_meV": 74.0, "forces_meV_per_A": 16.6}
#: ⟨|E_grid − E_3i|⟩ in meV: of the test set, of frames of the liquid (512 H2O) and of the molecule.
ENERGY_BY_GRID = {
    "test": {"none": 5.085, "i": 2.569, "2": 0.558, "2i": 0.284, "3": 0.157},
    "liquid": {"none": 7.938, "i": 4.880, "2": 1.088, "2i": 0.683, "3": 0.415},
    "gas": {"none": 2.822, "i": 1.058, "2": 0.084, "2i": 0.045, "3": 0.015},
}
#: ⟨|F_grid − F_3i|⟩ a component in meV/Å; those with averages are read off a figure.
FORCES_BY_GRID = {
    "test": {"none": 2.04, "2i": 0.1, "3": 0.05},
    "liquid": {"none": 1.21, "2i": 0.1, "3": 0.05},
    "gas": {"none": 11.77, "2i": 0.1, "3": 0.05},
}
#: rms torque of the molecule in meV, read off figure 1.
TORQUE_BY_GRID = {"none": 5.0, "2": 0.3, "3i": 0.02}
#: Orientational free energy of the raw molecule, largest deviation from flat in kT, from figure 1.
ORIENTATION = 0.4
#: Drift of the conserved quantity in meV/ps for each H2O: over 500 ps 1, 6 and 10 meV.
DRIFT = {"raw": 0.002, "2i": 0.012, "random": 0.020}
#: Of nine cells of ice, none with a net dipole: ranges and maxima over cells of the quantities of which
#: :func:`goniometer.studies.experiments.ice.ice` gives the rms.
ICE = {
    "starting energy": "0.015 to 0.023",
    "relaxation energy": "at most 0.003",
    "relative energy": "0.007",
    "spread of relative energies": "0.32",
}
