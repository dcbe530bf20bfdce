"""Signals: SIGTERM and SIGHUP are handled as Ctrl-C is, and what a killed program has started ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from goniometer import interruption
from goniometer.studies.workflow import process_group as keeper


def waited(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def is_alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().split()[2] not in "ZX"
    except OSError:
        return False


@pytest.fixture
def handlers():
    """The handlers of this process, put back afterwards."""
    before = {number: signal.getsignal(number) for number in interruption.ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_raised_as_ctrl_c_is_and_gives_its_exit_code(handlers: None, number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    interruption.handle_signals()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    assert interruption.exit_code() == 128 + number


def test_a_signal_that_was_ignored_at_the_start_stays_ignored(handlers: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interruption.handle_signals()
    signal.raise_signal(signal.SIGHUP)
    with interruption.deferred() as interrupted:
        signal.raise_signal(signal.SIGHUP)
        assert not interrupted()


def test_the_first_signal_is_deferred_and_the_second_is_not(handlers: None) -> None:
    interruption.handle_signals()
    with interruption.deferred() as interrupted:
        assert not interruption.interruption_requested()
        signal.raise_signal(signal.SIGTERM)
        assert interrupted()
        assert interruption.interruption_requested()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert not interruption.interruption_requested()


def test_a_program_that_handles_no_sigterm_ends_by_it_after_the_block() -> None:
    program = (
        "import signal\nfrom goniometer.interruption import deferred\n"
        "with deferred():\n    signal.raise_signal(signal.SIGTERM)\n    print('kept', flush=True)\nprint('not ended')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "kept\n")


SLOW = """
import time
from ase.calculators.lj import LennardJones

class Slow(LennardJones):
    def calculate(self, atoms=None, *arguments, **more):
        if len(atoms) == 4:  # ammonia
            open("reached", "w").close()
            time.sleep(60.0)
        super().calculate(atoms, *arguments, **more)

def made():
    return Slow(epsilon=0.01)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.nightly)])
def test_finished_structures_of_a_probe_are_kept_without_json(number: int, tmp_path: Path) -> None:
    from ase.build import molecule

    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    for name in ("CO", "NH3"):
        molecule(name).write(tmp_path / f"{name}.xyz")
    command = [sys.executable, "-m", "goniometer.cli", "probe", "slow.py:made", "CO.xyz", "NH3.xyz", "--lmax", "1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=tmp_path, text=True, **pipes)
    waited((tmp_path / "reached").exists, 60.0)
    process.send_signal(number)
    out, error = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert "CO.xyz" in out
    assert "Traceback" not in error
    assert error.splitlines()[-1].startswith("goniometer: stopped after 1 of 2 structures")
    assert (tmp_path / "goniometer-probe.partial.json").is_file()


GROUP = """
import subprocess, sys, time
left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(left.pid, flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep({seconds})
"""


@pytest.mark.parametrize("how", ["heeds Ctrl-C", "heeds nothing"])
def test_what_a_killed_process_has_started_ends_with_it(how: str, tmp_path: Path) -> None:
    """By SIGKILL, which no program can handle."""
    fast = "import process_group, signal, sys\nprocess_group.PATIENCE = ((signal.SIGINT, 1.0), (signal.SIGTERM, 0.5))\n"
    (tmp_path / "kept.py").write_text(fast + "sys.exit(process_group.keep(sys.argv[1:]))\n", encoding="utf-8")
    (tmp_path / "group.py").write_text(GROUP.format(seconds=0.1 if how == "heeds Ctrl-C" else 60), encoding="utf-8")
    parent = (
        "import subprocess, sys, time\n"
        f"command = [sys.executable, {str(tmp_path / 'kept.py')!r}, sys.executable, {str(tmp_path / 'group.py')!r}]\n"
        f"kept = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)\n"
        "print(kept.pid, flush=True)\ntime.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(keeper.__file__).parent)}
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    numbers = [int(process.stdout.readline()) for _ in range(2)]
    assert all(map(is_alive, numbers))
    process.kill()
    waited(lambda: not any(map(is_alive, numbers)))
    process.communicate()


@pytest.mark.parametrize(("ending", "code"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 137), ("pass", 0)])
def test_the_keeper_ends_with_the_exit_code_of_its_command(ending: str, code: int) -> None:
    command = [sys.executable, "-P", keeper.__file__, sys.executable, "-c", f"import os, sys\n{ending}"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    assert process.wait(20) == code
    process.communicate()
