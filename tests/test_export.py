from goniometer.symmetrize.export import export


def test_it(tmp_path):
    e = export("pet-water", "klein", tmp_path / "k.pt")
    from metatomic_ase import MetatomicCalculator
    from goniometer.data import read_structures

    a = read_structures("molecule")[0].atoms
    a.calc = MetatomicCalculator(str(tmp_path / "k.pt"), device="cpu", check_consistency=True)
    assert abs(a.get_potential_energy() + 469.1) < 0.1
