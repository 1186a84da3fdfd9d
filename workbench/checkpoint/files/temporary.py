"""Names and locks of what is written before it takes its place: hidden, and locked while its writer lives. Nothing is moved here."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

SUFFIX = ".workbench.tmp"
LOCK = "lock"  # in a hidden folder, the file that is locked for all of it
_LONGEST = 200  # bytes of a file's name that its hidden name repeats; file systems take 255 in all
_FAR_OFF = 1 << 40  # the byte that is locked on Windows, where nobody reads or writes: locks are mandatory there
_NO_DETOURS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # neither a link out of the folder nor a pipe that waits


def is_temporary(name: str) -> bool:
    """Whether a file or folder of this name is one that an export has not finished."""
    return name.startswith(".") and name.endswith(SUFFIX)


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, without what is still being written there."""
    return [path for path in folder.iterdir() if not is_temporary(path.name)]


def hidden_beside(path: Path, folder: Path) -> Path:
    """A name in `folder` that is nobody's yet, for what is to become `path`."""
    shown = os.fsencode(path.name)[:_LONGEST].decode(errors="ignore")
    return folder / f".{shown}.{secrets.token_hex(4)}{SUFFIX}"


@contextmanager
def locked(path: Path, *flags: int) -> Iterator[bool]:
    """Whether the file is this caller's alone for the length of the block: nobody else holds it, and it is still there.

    The system ends a lock with the process that holds it, however that ends. A disk that knows no locks says False.
    """
    handle = os.open(path, os.O_RDWR | _NO_DETOURS | sum(flags), 0o666)
    try:
        yield _lock(handle) is True and os.fstat(handle).st_nlink > 0
    finally:
        os.close(handle)


def create_locked(path: Path) -> FileIO:
    """Make an empty file of a name that is nobody's; its lock is held until what is returned is closed."""
    while True:
        file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT | _NO_DETOURS, 0o666), "r+")
        try:
            _lock(file.fileno(), wait=True)  # a disk that knows no locks has no leftovers removed either
            if os.fstat(file.fileno()).st_nlink:
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # between the two it was taken for a leftover


def create_locked_folder(path: Path) -> FileIO:
    """The same for a folder, by a file in it."""
    while True:
        path.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):
            return create_locked(path / LOCK)


@contextmanager
def folder_locked(folder: Path) -> Iterator[None]:
    """Let one process at a time move files in a folder; the others wait. Where folders cannot be locked, nobody waits."""
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, wait=True)
        yield
    finally:
        os.close(handle)


def flush(path: Path) -> None:
    """Have a file on the disk; of a folder only as far as the disk cares, since what lies in it is whole with or without."""
    if path.is_dir():
        if os.name == "posix":
            with suppress(OSError):
                _synchronise(path, os.O_RDONLY)
    else:
        _synchronise(path, os.O_RDWR)


def _synchronise(path: Path, how: int) -> None:
    handle = os.open(path, how)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _lock(handle: int, wait: bool = False) -> bool | None:
    """Whether the lock is this handle's now; None where the disk knows no locks."""
    try:
        if sys.platform == "win32":
            os.lseek(handle, _FAR_OFF, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        return False if isinstance(error, BlockingIOError | PermissionError) else None
    return True
