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


class ProcessFailed(SystemExit):
    """A process ended with an error; the text is what it wrote."""


def run_python(arguments: Sequence[str], **environment: str) -> tuple[float, float]:
    """Seconds of a process of this Python with these arguments, and the peak of its anonymous memory in MB. Raises ProcessFailed."""
    return run_process([sys.executable, *arguments], **environment)


def run_process(command: Sequence[str], **environment: str) -> tuple[float, float]:
    """The same of any command."""
    began, peak = time.monotonic(), 0
    with tempfile.TemporaryFile() as said:  # a pipe that nobody reads would fill, and hold the process up
        process = psutil.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=said)
        try:
            while process.poll() is None:
                peak = max(peak, _anonymous(process.pid))
                time.sleep(_GLANCE)
        finally:
            if process.poll() is None:  # whoever waits was interrupted
                process.kill()
        seconds = time.monotonic() - began
        if process.returncode:
            said.seek(0)
            raise ProcessFailed(said.read().decode(errors="replace") or f"{command[0]} ended with {process.returncode}")
    return seconds, peak / 1e3


def _anonymous(pid: int) -> int:
    """The process's anonymous memory in kB, as Linux counts it; mapped files are not in it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)
