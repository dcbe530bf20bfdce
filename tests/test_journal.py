"""The journal of a probe: linear in the number of structures, whole after a kill at any byte, gone at the end."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import goniometer
from goniometer.errors import InputError
from goniometer.probing import measure
from goniometer.probing.document import read_probe
from goniometer.probing.journal import Journal, journal_of
from goniometer.probing.result import Failure, ProbeResult
from goniometer.testing import PeriodicToy
from structures import crystal, molecule


@pytest.fixture(scope="module")
def probed() -> ProbeResult:
    return goniometer.probe(PeriodicToy(2, 1, 0.02), [crystal(), molecule(), crystal(2)], lmax=1, measured=())


def written(path: Path, result: ProbeResult, count: int | None = None) -> str:
    """The journal of a probe that was killed after so many structures."""
    with Journal(journal_of(path)) as journal:
        journal.start(replace(result, structures=[]))
        for each in result.structures[:count]:
            journal.append(each)
        journal.append(Failure("bad", "no such atom"))
    return journal_of(path).read_text(encoding="utf-8")


def test_what_is_read_from_a_journal_is_the_unfinished_result(tmp_path: Path, probed: ProbeResult) -> None:
    path = tmp_path / "probe.json"
    written(path, probed)
    found = read_probe(path)
    assert found.structures == probed.structures
    assert found.pooled == probed.pooled
    assert found.failures == [Failure("bad", "no such atom")]
    assert (found.complete, found.model, found.rule, found.lmax) == (False, probed.model, probed.rule, probed.lmax)
    assert read_probe(journal_of(path)) == found  # by its own name


def test_a_journal_that_is_cut_anywhere_keeps_every_whole_record(tmp_path: Path, probed: ProbeResult) -> None:
    path = tmp_path / "probe.json"
    text = written(path, probed)
    ends = [place for place, letter in enumerate(text) if letter == "\n"]
    cuts = sorted({1, *range(ends[0], len(text), len(text) // 40), *(end + shift for end in ends for shift in (0, 1))})
    for cut in cuts:
        journal_of(path).write_text(text[:cut], encoding="utf-8")
        whole = sum(end < cut for end in ends)
        if whole == 0:
            with pytest.raises(InputError, match="is not JSON"):
                read_probe(path)
        else:
            found = read_probe(path)
            assert found.structures == probed.structures[: min(whole - 1, 3)]
    # Control: a line that is broken in the middle is not taken for a torn one.
    lines = text.splitlines(keepends=True)
    journal_of(path).write_text("".join([lines[0], lines[1][:50] + "\n", *lines[2:]]), encoding="utf-8")
    with pytest.raises(InputError, match="is not JSON"):
        read_probe(path)


def test_the_newer_of_document_and_journal_is_read(tmp_path: Path, probed: ProbeResult) -> None:
    path = tmp_path / "probe.json"
    probed.write(path)
    written(path, probed, 1)
    assert len(read_probe(path).structures) == 1
    probed.write(path)  # killed after the document was written and before the journal was removed
    assert read_probe(path) == probed


def test_the_work_of_keeping_results_grows_with_the_number_of_structures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: writing the whole document after each structure would write n (n + 1) / 2 records."""
    pools: list[int] = []
    pool = measure.pool
    monkeypatch.setattr(measure, "pool", lambda found: pools.append(len(found)) or pool(found))
    sizes = []
    for count in (2, 8):
        journal = Journal(tmp_path / f"{count}.partial")
        bytes_written: list[int] = []
        append = journal.append

        def counted(each, append=append, path=journal.path, sizes=bytes_written):
            append(each)
            sizes.append(path.stat().st_size)

        monkeypatch.setattr(journal, "append", counted)
        structures = [crystal(seed) for seed in range(count)]
        result = goniometer.probe(PeriodicToy(2, 1, 0.02), structures, lmax=0, measured=(), journal=journal)
        assert len(bytes_written) == count
        sizes.append(bytes_written[-1] / count)
        assert read_probe(journal.path).structures == result.structures
    assert sizes[1] == pytest.approx(sizes[0], rel=0.2)
    assert pools == [2, 8]  # once for each probe, at its end


def test_a_resumed_probe_appends_only_what_is_new(tmp_path: Path) -> None:
    structures = [crystal(seed) for seed in range(3)]
    toy = PeriodicToy(2, 1, 0.02)
    whole = goniometer.probe(toy, structures, lmax=0, measured=())
    earlier = replace(whole, structures=whole.structures[:2], complete=False)
    journal = Journal(journal_of(tmp_path / "probe.json"))
    resumed = goniometer.probe(toy, structures, lmax=0, measured=(), resume=earlier, journal=journal)
    journal.close()
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    assert [line["structure"]["name"] for line in lines[1:]] == [each.name for each in whole.structures]
    assert [each.energy for each in resumed.structures] == [each.energy for each in whole.structures]
    journal.remove()
    assert not journal.path.exists()
