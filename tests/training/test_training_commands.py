"""The commands that train and measure: what they are asked for wrongly is answered before anything is done."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from training.measure import ASKED
from training.stages import NAMES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("module", "names"), [("training", NAMES), ("training.measure", ASKED)])
def test_a_wrong_name_is_answered_with_all_there_are_and_nothing_is_written(module, names, tmp_path):
    command = [sys.executable, "-m", module, "--out", str(tmp_path / "out"), "--only", "nobody"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COLUMNS": "1000"})
    assert done.returncode == 2
    assert "got" in done.stderr
    assert not [name for name in names if name not in done.stderr]
    assert not (tmp_path / "out").exists()
