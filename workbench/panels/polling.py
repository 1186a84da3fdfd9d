"""`Polling`: has something looked at again and again, on a thread of its own, for as long as there is something to see."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import final

_PAUSE = 1.0  # seconds


@final
class Polling:
    """Calls `look()` every second from `start()` on, until that returns False or `stop()` is called."""

    def __init__(self, look: Callable[[], bool]) -> None:
        self._look = look
        self._alone = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def start(self) -> None:
        """Look, if nobody does yet."""
        with self._alone:
            if self._stopped.is_set() or (self._thread is not None and self._thread.is_alive()):
                return
            self._thread = threading.Thread(target=self._run, name="workbench-polling", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Look no more, ever."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(_PAUSE):
            if not self._look():
                with self._alone:  # before `start` can find this thread still alive
                    self._thread = None
                return
