"""Public data sets: fetched from a server of the test's own, gone on with, refused; and the units they come out in."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from ase.units import Bohr, Hartree

from goniometer.errors import InputError
from goniometer.structures import public_sets as fetching
from goniometer.structures.labelled import read_labelled
from goniometer.structures.public_sets import blob_id, converted, fetch
from labels import toy_water

BOXES = toy_water(40, molecules=4)


def original() -> bytes:
    """The boxes as the public file has them: bohr, hartree, hartree/bohr, and names of their own for the labels."""
    lines = []
    for box in BOXES:
        lattice = " ".join(f"{number:.6f}" for number in (box.cell.array / Bohr).ravel())
        energy = box.get_potential_energy() / Hartree
        lines += [
            str(len(box)),
            f'Lattice="{lattice}" Properties=species:S:1:pos:R:3:force:R:3 TotEnergy={energy:.9f} nneightol=1.2',
        ]
        columns = np.hstack([box.positions / Bohr, box.get_forces() / (Hartree / Bohr)])
        lines += [
            f"{symbol} " + " ".join(f"{number:.9f}" for number in row)
            for symbol, row in zip(box.get_chemical_symbols(), columns, strict=True)
        ]
    return "\n".join([*lines, ""]).encode()


CONTENT = original()


class Server:
    """Serves one file; may break off after so many bytes, or know no ranges."""

    def __init__(self, content: bytes) -> None:
        self.content, self.breaks_after, self.ranges, self.status = content, len(content), True, 0
        self.asked: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/dataset.xyz"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.asked.append(asked)
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.ranges else 0
        outside = first >= len(self.content)
        request.send_response(self.status or (416 if outside else 206 if first else 200))
        request.send_header("Content-Length", str(0 if self.status else len(self.content[first:])))
        request.end_headers()
        if not self.status:
            request.wfile.write(self.content[first:][: self.breaks_after])
        request.close_connection = True

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of the stand-in, which is the set 'water' as long as this lasts; the cache is empty."""
    server = Server(CONTENT)
    blob = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()
    wanted = dataclasses.replace(fetching.SETS["water"], url=server.url, blob=blob, structures=len(BOXES))
    monkeypatch.setitem(fetching.SETS, "water", wanted)
    monkeypatch.setenv("GONIOMETER_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.close()


def part(folder: Path) -> Path:
    return folder / "cache" / "dataset.xyz.part"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    from goniometer.cli import main

    monkeypatch.setattr("sys.argv", ["goniometer", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_id_is_that_of_git(tmp_path: Path) -> None:
    # `printf 'what is up, doc?' | git hash-object --stdin`, from the book Pro Git.
    (tmp_path / "doc").write_bytes(b"what is up, doc?")
    assert blob_id(tmp_path / "doc") == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"


def test_the_command_writes_what_training_reads(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "data", "fetch", "water") == 0
    assert "water.xyz: 40 structures of dataset.xyz" in capsys.readouterr().out
    found = read_labelled(["water.xyz"])
    assert len(found) == len(BOXES)
    for sample, box in zip(found, BOXES, strict=True):
        # The stand-in has 6 digits of the cell in bohr and 9 of the rest; the file that is written has 8 in Å.
        np.testing.assert_allclose(sample.atoms.cell.array, box.cell.array, atol=1e-6)
        np.testing.assert_allclose(sample.atoms.positions, box.positions, atol=2e-8)
        np.testing.assert_allclose(sample.forces, box.get_forces(), atol=1e-6)
        # ASE's hartree is older than the one that converts, by 8e-9 of it.
        assert sample.energy == pytest.approx(box.get_potential_energy(), abs=1e-4)
        assert sample.atoms.pbc.all()
    assert run(monkeypatch, "data", "check", "water.xyz") == 0
    # The control: the original as it is has another look.
    with pytest.raises(InputError, match="there is no energy"):
        read_labelled([str(tmp_path / "cache" / "dataset.xyz")])


def test_what_is_in_the_cache_is_not_fetched_again(server: Server) -> None:
    first = fetch("water")
    assert fetch("water") == first
    assert len(server.asked) == 1
    first.write_bytes(CONTENT[:-1] + b"x")
    assert fetch("water").read_bytes() == CONTENT
    assert len(server.asked) == 2


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_broke_off_goes_on(server: Server, tmp_path: Path, ranges: bool) -> None:
    half = len(CONTENT) // 2
    server.breaks_after = half
    with pytest.raises(InputError, match="cannot be reached: the same command goes on with what has arrived"):
        fetch("water")
    assert 0 < part(tmp_path).stat().st_size <= half
    have = part(tmp_path).stat().st_size
    server.breaks_after, server.ranges = len(CONTENT), ranges
    seen: list[tuple[int, int, str]] = []
    assert fetch("water", progress=lambda *step: seen.append(step)).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={have}-"]
    assert seen[-1] == (len(CONTENT), len(CONTENT), "fetching dataset.xyz")
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert not part(tmp_path).exists()


def test_a_part_that_is_whole_needs_no_server(server: Server, tmp_path: Path) -> None:
    part(tmp_path).parent.mkdir()
    part(tmp_path).write_bytes(CONTENT)
    assert fetch("water").read_bytes() == CONTENT
    assert server.asked == []


def test_another_content_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT.replace(b"TotEnergy=-", b"TotEnergy= ", 1)
    with pytest.raises(InputError, match=r"is not the dataset.xyz that was meant: its \d+ bytes have the git blob id"):
        fetch("water")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_part_of_another_content_does_not_stay(server: Server, tmp_path: Path) -> None:
    part(tmp_path).parent.mkdir()
    for stale, message in ((b"x" * 100, "is not the dataset.xyz"), (b"x" * (len(CONTENT) + 1), "answers 416")):
        part(tmp_path).write_bytes(stale)
        with pytest.raises(InputError, match=message):
            fetch("water")
        assert fetch("water").read_bytes() == CONTENT
        fetch("water").unlink()


def test_a_server_that_is_not_there_takes_one_sentence(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    server.status = 503
    part(tmp_path).parent.mkdir()
    part(tmp_path).write_bytes(CONTENT[:10])
    assert run(monkeypatch, "data", "fetch", "water") == 2
    assert "answers 503" in capsys.readouterr().err
    assert part(tmp_path).read_bytes() == CONTENT[:10]
    server.close()
    assert run(monkeypatch, "data", "fetch", "water") == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"goniometer: {server.url} cannot be reached: ")
    assert not Path("water.xyz").exists()


def test_a_mirror_is_taken_from_the_option_or_the_environment(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = Server(CONTENT)
    monkeypatch.setitem(
        fetching.SETS, "water", dataclasses.replace(fetching.SETS["water"], url="http://127.0.0.1:9/dataset.xyz")
    )
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "data", "fetch", "water", "--url", mirror.url, "-o", "one.xyz") == 0
    (tmp_path / "cache" / "dataset.xyz").unlink()
    monkeypatch.setenv("GONIOMETER_DATA_URL", mirror.url)
    assert run(monkeypatch, "data", "fetch", "water", "-o", "two.xyz") == 0
    assert len(mirror.asked) == 2
    assert Path("one.xyz").read_bytes() == Path("two.xyz").read_bytes()
    mirror.close()


def test_an_unknown_set_is_refused() -> None:
    with pytest.raises(InputError, match="there is no data set 'watr'; there are water; did you mean 'water'"):
        fetch("watr")


def test_the_units_are_those_of_the_archive_of_the_paper(tmp_path: Path) -> None:
    # A line of the public file (6 digits in bohr, 5 in hartree), and what the archive says of it in Å and eV.
    (tmp_path / "one.xyz").write_text(
        '1\nLattice="22.56527 0 0 0 22.56527 0 0 0 22.56527" Properties=species:S:1:pos:R:3:force:R:3 '
        "TotEnergy=-1102.37889\nO 7.240350 4.898090 1.310380 -0.0133567 -0.0237143 -0.0714154\n",
        encoding="utf-8",
    )
    (atoms,) = converted(tmp_path / "one.xyz", fetching.SETS["water"])
    np.testing.assert_allclose(atoms.positions, [[3.83142822, 2.59195760, 0.69342323]], rtol=0, atol=6e-9)
    assert atoms.get_potential_energy() == pytest.approx(-29997.257765213515, abs=1e-9)
    np.testing.assert_allclose(atoms.get_forces(), [[-0.68682938, -1.21943878, -3.67232885]], atol=3e-6)
