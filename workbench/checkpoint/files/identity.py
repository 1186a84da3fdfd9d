"""Whether a file is still as it was when it was opened. Nothing is read."""

from __future__ import annotations

import os
from pathlib import Path

Identity = tuple[int, int]


def identity(found: os.stat_result) -> Identity:
    """Size and time of writing; inodes change by themselves on network drives, and say nothing alike on Windows."""
    return found.st_size, found.st_mtime_ns


def lies_at(path: Path, opened: Identity) -> bool:
    """Whether the file that was opened is still the one at `path`, as it was."""
    try:
        return identity(path.stat()) == opened
    except OSError:
        return False
