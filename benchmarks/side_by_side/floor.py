"""The floor: the least time in which files can be read and a new one written, which everything else is measured in."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

_PIECE = 256 << 10  # bytes
_GOES = 2
_FRESH = 30.0  # seconds in which a floor is that of the next measurement, too
_known: dict[tuple[tuple[Path, ...], tuple[Path, ...]], tuple[float, float]] = {}  # when it was measured, and what it was


def floor(copied: Sequence[Path], read: Sequence[Path], out: Path) -> float:
    """Seconds of the faster of two goes to read some files, and copy others one after another into a new one, preallocated and fsynced.

    Before each go all that waits to be written is (`sync`, not timed), and `out` is removed; it is also removed at the end. What was
    measured of the same files within half a minute is given again.
    """
    asked = tuple(copied), tuple(read)
    if asked not in _known or time.monotonic() - _known[asked][0] > _FRESH:
        found = min(_go(copied, read, out) for _ in range(_GOES))
        _known[asked] = time.monotonic(), found
    return _known[asked][1]


def _go(copied: Sequence[Path], read: Sequence[Path], out: Path) -> float:
    out.unlink(missing_ok=True)
    os.sync()
    began = time.perf_counter()
    reading(read)
    buffer = memoryview(bytearray(_PIECE))
    with out.open("wb", buffering=0) as target:
        os.posix_fallocate(target.fileno(), 0, sum(path.stat().st_size for path in copied))
        for path in copied:
            with path.open("rb", buffering=0) as source:
                while count := source.readinto(buffer):
                    target.write(buffer[:count])
        os.fsync(target.fileno())
    seconds = time.perf_counter() - began
    out.unlink()
    return seconds


def reading(paths: Sequence[Path]) -> float:
    """Seconds to read files into one small buffer."""
    began = time.perf_counter()
    buffer = memoryview(bytearray(_PIECE))
    for path in paths:
        with path.open("rb", buffering=0) as source:
            while source.readinto(buffer):
                pass
    return time.perf_counter() - began
