"""`Together`: a setting of the whole process that several threads need for a while. What the setting is does not matter here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import final


@final
class Together:
    """A context that several threads are in at once: entered with the first of them, left with the last."""

    def __init__(self, make: Callable[[], AbstractContextManager[object]]) -> None:
        self._make, self._held, self._inside, self._counting = make, ExitStack(), 0, threading.Lock()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._counting:
            if not self._inside:
                self._held.enter_context(self._make())
            self._inside += 1
        try:
            yield
        finally:
            with self._counting:
                self._inside -= 1
                if not self._inside:
                    self._held.close()
