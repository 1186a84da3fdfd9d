"""Which file it is that lies at a path, so that another one put in its place is noticed. Nothing is read."""

from __future__ import annotations

import os
from pathlib import Path

Identity = tuple[int, ...]


def identity(found: os.stat_result) -> Identity:
    """What differs between a file and whatever takes its place: where it lies on disk, its size, when it was written."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def lies_at(path: Path, opened: Identity) -> bool:
    """Whether the file that was opened is still the one at `path`, as it was."""
    try:
        return identity(path.stat()) == opened
    except OSError:
        return False
