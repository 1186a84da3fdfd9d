"""An accident before the n-th call that an export makes of the file system: the process is killed or interrupted, or the disk fails."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_TOLD = {  # what the interpreter tells before it does it
    "open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.scandir", "os.listdir",
}  # fmt: skip
_SILENT = ("fsync", "pwrite", "posix_fallocate")  # of an open file, by its handle
_HARMLESS = {"os.scandir", "os.listdir", "reading"}  # need no room on a disk
_FREEING = {"os.remove", "os.rmdir", "os.rename", "os.link"}

Accident = Callable[[str], None]


def kill(_: str) -> None:
    """As a power cut, or the kernel when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt(_: str) -> None:
    """Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def terminate(_: str) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def failing(number: int) -> Accident:
    """The disk refuses this call."""

    def fail(_: str) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def filling(number: int) -> Accident:
    """The disk refuses what needs room."""

    def fail(call: str) -> None:
        if call not in _HARMLESS | _FREEING:
            raise OSError(number, os.strerror(number))

    return fail


def before(folder: Path, first: int, accident: Accident, work: Callable[[], Any], last: int | None = None) -> Any:
    """Do `work`, with an accident before its calls number `first` to `last` in a folder. Only for a process of its own."""
    seen, inside = 0, False
    last = first if last is None else last

    def comes(call: str) -> None:
        nonlocal seen
        seen += 1
        if first <= seen <= last:
            accident(call)

    def told(event: str, given: tuple[Any, ...]) -> None:
        if inside and event in _TOLD and _is_in(folder, event, given):
            comes("reading" if event == "open" and not given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else event)

    def watched(name: str) -> Callable[..., Any]:
        plain = getattr(os, name)

        def call(*given: Any) -> Any:
            comes(name)
            return plain(*given)

        return call

    sys.addaudithook(told)
    for name in _SILENT:
        setattr(os, name, watched(name))
    inside = True
    work()
    inside = False
    return seen


def _is_in(folder: Path, event: str, given: tuple[Any, ...]) -> bool:
    """Whether a call is about something in the folder; those that remove a tree name files as seen from an open folder."""
    if event in ("os.remove", "os.rmdir") and given[1] not in (-1, None):
        return True
    return isinstance(given[0], str | bytes | os.PathLike) and os.fsdecode(given[0]).startswith(str(folder))
