"""Runs a whole process and says how long it took, and how much anonymous memory it held at most."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

_GLANCE = 0.02  # seconds between two looks at the memory


def run_python(arguments: Sequence[str], **environment: str) -> tuple[float, float]:
    """Seconds of a Python process with these arguments, and the peak of its anonymous memory in MB."""
    began, peak = time.monotonic(), 0
    process = psutil.Popen(
        [sys.executable, *arguments], env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    while process.poll() is None:
        peak = max(peak, _anonymous(process.pid))
        time.sleep(_GLANCE)
    if process.returncode:
        raise SystemExit(process.stderr.read().decode())
    return time.monotonic() - began, peak / 1e3


def _anonymous(pid: int) -> int:
    """The process's anonymous memory in kB, as Linux counts it; mapped files are not in it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)
