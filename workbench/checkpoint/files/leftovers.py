"""What exports that were killed have left in a folder: found, measured and removed. What a living process writes is never touched."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from workbench.checkpoint.files.journal import discard
from workbench.checkpoint.files.temporary import LOCK, is_temporary, locked
from workbench.errors import CheckpointError


@dataclass(frozen=True)
class Leftover:
    """A hidden file or folder whose writer is gone, and the bytes that it takes."""

    path: Path
    nbytes: int

    def __str__(self) -> str:
        return f"{self.path.name}, {self.nbytes / 1e6:.1f} MB"


def leftovers(folder: Path) -> list[Leftover]:
    """What killed exports have left in a folder."""
    found = []
    for path, _ in _dead(folder):
        held = [path, *path.rglob("*")] if path.is_dir() else [path]
        found.append(Leftover(path, sum(one.lstat().st_size for one in held if one.is_file())))
    return found


def clear(folder: Path) -> None:
    """Remove what killed exports have left in a folder. What cannot be removed stays: that is no reason not to write there."""
    for path, is_folder in _dead(folder):
        with suppress(OSError, CheckpointError):
            if is_folder:
                discard(path)
            else:
                path.unlink()


def _dead(folder: Path) -> Iterator[tuple[Path, bool]]:
    """The unfinished in a folder that no process writes any more, each locked while it is looked at; and whether it is a folder."""
    with suppress(OSError):
        for path in sorted(path for path in folder.iterdir() if is_temporary(path.name)):
            with suppress(OSError):
                kind = path.lstat().st_mode
                is_folder = stat.S_ISDIR(kind)
                if not is_folder and not stat.S_ISREG(kind):
                    continue
                with locked(path / LOCK if is_folder else path, os.O_CREAT if is_folder else 0) as dead:
                    if dead:
                        yield path, is_folder
