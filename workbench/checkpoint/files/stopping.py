"""SIGTERM during a write: it ends as at Ctrl-C, by an exception, so that nothing is left behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
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


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    raise _Terminated
