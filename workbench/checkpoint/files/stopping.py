"""Signals that end a write: SIGTERM does so as Ctrl-C does, by an exception, so that nothing is left behind; and neither comes where
threads are begun and waited for.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class _Terminated(BaseException):
    """SIGTERM has come; not for `except Exception`."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Have SIGTERM end the block by an exception; once that has cleaned up, do what the program would have done at once.

    By default that is to exit, with status 143. A handler of the program's own is called; where it returns, the program exits, too.
    Where SIGTERM is ignored, and in other threads than the first, where Python hears of no signal, nothing changes.
    """
    own = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or own in (_raise, signal.SIG_IGN, None):
        yield
        return
    signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    except _Terminated:
        signal.signal(signal.SIGTERM, own)
        if callable(own):
            own(signal.SIGTERM, None)
        raise SystemExit(128 + signal.SIGTERM) from None
    finally:
        signal.signal(signal.SIGTERM, own)


@contextmanager
def held_back() -> Iterator[Callable[[], None]]:
    """Keep Ctrl-C and SIGTERM from interrupting the block: they do at its end, or earlier where it calls what it is given.

    For a block that begins threads and waits for them. Python's own conditions and semaphores are left locked, or unlocked twice, by an
    exception in the middle of them (https://github.com/python/cpython/issues/74174), and whoever waits for one then waits for ever.
    In other threads than the first, where Python hears of no signal, nothing changes.
    """
    came: list[tuple[int, FrameType | None]] = []
    own = {number: handler for number in (signal.SIGTERM, signal.SIGINT) if callable(handler := signal.getsignal(number))}
    over = threading.current_thread() is not threading.main_thread()

    def hear(number: int, frame: FrameType | None) -> None:
        came.append((number, frame))
        if over:  # what was held back has interrupted its own end, and left this in place
            deliver()

    def deliver() -> None:
        if came:
            number, frame = came.pop(0)
            try:
                own[signal.Signals(number)](number, frame)
            finally:
                deliver()  # the others too, where this one raises

    if over:
        yield deliver
        return
    try:
        for number in own:
            signal.signal(number, hear)
        yield deliver
    finally:
        over = True
        for number, handler in own.items():
            signal.signal(number, handler)
        deliver()


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    raise _Terminated
