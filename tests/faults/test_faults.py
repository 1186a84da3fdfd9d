"""A short run of the faults that `python -m tests.faults` tries at length: nothing is lost, and nothing is run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("crash-points", "disk-errors", "interrupts", "signals", "pairs", "fuzzed")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")

_WITHOUT_A_JOURNAL = """
import sys
from workbench.checkpoint.files import journal
journal._read = lambda stage: {"new": [], "old": [], "made": []}
from tests.faults.__main__ import main
sys.exit(main())
"""


def tried(*start: str, only: str = "", **counts: int) -> subprocess.CompletedProcess[str]:
    options = [f"--{kind}={counts.get(kind.replace('-', '_'), 0)}" for kind in KINDS]
    return subprocess.run([sys.executable, *start, *options, f"--only={only}"], cwd=ROOT, capture_output=True, text=True)


def test_nothing_is_lost_in_a_short_run():
    done = tried("-m", "tests.faults", crash_points=10, disk_errors=10, interrupts=6, signals=2, pairs=4)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n") == len(KINDS) + 1


def test_no_damaged_file_is_more_than_one_of_our_errors_in_a_short_run():
    done = tried("-m", "tests.faults", fuzzed=220)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("fuzzed: ") == 11


def test_the_run_finds_what_is_lost_where_an_exchange_is_not_taken_back():
    done = tried("-c", _WITHOUT_A_JOURNAL, only="folder over another", crash_points=8)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "LOST killed" in done.stdout
