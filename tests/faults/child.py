"""Runs a function in a process of its own, which may be killed; and says how it ended, how long that took, and in how much memory."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.errors import WorkbenchError

_PATIENCE = 4.0  # seconds beyond its own, in which a process that hears no signal may still end
_ROOM = 3 << 30  # bytes of addresses on top of its own that a process may take: the machine is to survive, too


class Late(BaseException):
    """The time is up; no `except Exception` stops it."""


@dataclass(frozen=True)
class Outcome:
    """How one call ended: `done`, `error` (one of ours), `stopped` (Ctrl-C, exit), `raw` (any other error), `late` or `killed`."""

    kind: str
    text: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0

    @property
    def said(self) -> str:
        return f"{self.kind} {self.text}".strip()


def outcome(work: Callable[[], Any], seconds: float = 30) -> Outcome:
    """How one call ends in a process of its own."""
    return outcomes([work], seconds)[0]


def outcomes(works: Sequence[Callable[[], Any]], seconds: float) -> list[Outcome]:
    """How calls end, one after another in one process; those after one that ended the process are made in another."""
    ended: list[Outcome] = []
    while len(ended) < len(works):
        lines = _lines(works[len(ended) :], seconds)
        ended += [Outcome(*json.loads(line)) for line in lines]
        if len(ended) < len(works):
            ended.append(Outcome("killed"))
    return ended


def start(work: Callable[[], Any], seconds: float) -> tuple[int, int]:
    """Begin a call in a process of its own: the process, and where its outcome can be read."""
    here, there = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(here)
        try:
            _prepare()
            _run(work, seconds, there)
        finally:
            os._exit(0)
    os.close(there)
    return process, here


def ended(process: int, here: int) -> Outcome:
    """How it ended."""
    with os.fdopen(here, "rb") as told:
        line = told.read()
    os.waitpid(process, 0)
    return Outcome(*json.loads(line)) if line.endswith(b"\n") else Outcome("killed")


def _lines(works: Sequence[Callable[[], Any]], seconds: float) -> list[bytes]:
    here, there = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(here)
        try:
            _prepare()
            for work in works:
                _run(work, seconds, there)
        finally:
            os._exit(0)
    os.close(there)
    told, read = b"", 0
    while select.select([here], [], [], seconds + _PATIENCE)[0] and (some := os.read(here, 1 << 16)):
        told, read = told + some, read + len(some)
    os.close(here)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return told.split(b"\n")[:-1]


def _prepare() -> None:
    """Be quiet, and stay within the machine's memory."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    size = _status("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (size + _ROOM, size + _ROOM))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background ignores it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run(work: Callable[[], Any], seconds: float, there: int) -> None:
    def late(*_: object) -> None:
        raise Late

    kind, text, began, at = "done", "", time.monotonic(), _status("VmRSS")
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.3)
    try:
        text = str(work() or "")
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Late:
        kind = "late"
    except WorkbenchError as error:
        kind, text = "error", f"{type(error).__name__}: {error}"
    except (KeyboardInterrupt, SystemExit) as error:
        kind, text = "stopped", type(error).__name__
    except BaseException as error:
        kind, text = "raw", f"{type(error).__name__}: {error}"
    signal.setitimer(signal.ITIMER_REAL, 0)
    found = [kind, text[:2000], time.monotonic() - began, (_status("VmHWM") - at) / 1e6]
    os.write(there, json.dumps(found).encode() + b"\n")


def _status(name: str) -> int:
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
