"""A short run of the faults that `python -m tests.faults` tries at length: nothing is lost, and nothing is run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from workbench.checkpoint.files import journal

ROOT = Path(__file__).resolve().parents[2]
NONE = {name: 0 for name in ("crash-points", "disk-errors", "interrupts", "signals", "pairs", "fuzzed")}
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")


def tried(**counts: int) -> subprocess.CompletedProcess[str]:
    asked = NONE | {name.replace("_", "-"): count for name, count in counts.items()}
    command = [sys.executable, "-m", "tests.faults", *(f"--{name}={count}" for name, count in asked.items())]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    "kind", [{"crash_points": 10}, {"disk_errors": 10}, {"interrupts": 8}, {"signals": 3}, {"pairs": 5}, {"fuzzed": 330}], ids=str
)
def test_nothing_is_lost(kind):
    done = tried(**kind)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| lost |" in done.stdout


def test_a_harness_that_finds_nothing_would_not_be_one(monkeypatch, tmp_path):
    """With an exchange that is not taken back, cases are lost."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code = (
        "import sys; sys.argv[1:] = ['--crash-points=12'] + [f'--{n}=0' for n in ('disk-errors', 'interrupts', 'signals', 'pairs', 'fuzzed')]\n"
        "from workbench.checkpoint.files import journal\n"
        "journal._read = lambda stage: {'new': [], 'old': [], 'made': []}\n"
        "from tests.faults.__main__ import main; sys.exit(main())"
    )
    assert journal._read
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "LOST killed" in done.stdout
