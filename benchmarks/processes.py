"""Runs a whole process and says how long it took, and how much anonymous memory it held at most."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

_GLANCE = 0.02  # seconds between two looks at the memory


def run_python(arguments: Sequence[str], **environment: str) -> tuple[float, float]:
    """Seconds of a Python process with these arguments, and the peak of its anonymous memory in MB."""
    began, peak = time.monotonic(), 0
    with tempfile.TemporaryFile() as said:  # a pipe that nobody reads would fill, and hold the process up
        command = [sys.executable, *arguments]
        process = psutil.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=said)
        while process.poll() is None:
            peak = max(peak, _anonymous(process.pid))
            time.sleep(_GLANCE)
        if process.returncode:
            said.seek(0)
            raise SystemExit(said.read().decode())
    return time.monotonic() - began, peak / 1e3


def _anonymous(pid: int) -> int:
    """The process's anonymous memory in kB, as Linux counts it; mapped files are not in it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)
