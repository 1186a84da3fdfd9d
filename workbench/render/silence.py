"""What is said while pictures are drawn: silence for libraries, and who hears which warning. What is drawn does not matter here.

Warnings' filters, and where warnings go, are the process's and not a thread's; `warnings.catch_warnings` by two threads at once leaves what
the one set to the other for good. Here the first of the threads that draw sets them aside, and the last to leave puts them back.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, final


@final
class _Together:
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


_filters = _Together(warnings.catch_warnings)
_hearing: dict[int, list[str]] = {}  # by thread, what it was warned of


@contextmanager
def _silenced() -> Iterator[None]:
    import diffusers.utils.logging as diffusers_log
    import transformers.utils.logging as transformers_log

    levels = [(log, log.get_verbosity(), log.is_progress_bar_enabled()) for log in (diffusers_log, transformers_log)]
    try:
        for log, *_ in levels:
            log.set_verbosity_error()
            log.disable_progress_bar()
        with _filters():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        for log, level, bars in levels:
            log.set_verbosity(level)
            if bars:
                log.enable_progress_bar()


quiet = _Together(_silenced)  # silences diffusers' and transformers' bars, deprecations, and what they log below an error


@contextmanager
def heard() -> Iterator[list[str]]:
    """What this thread is warned of (UserWarning) comes into the list, and is not shown; other threads' warnings go where they went."""
    said: list[str] = []
    with _filters():
        warnings.simplefilter("always", UserWarning)
        _listen()
        _hearing[threading.get_ident()] = said
        try:
            yield said
        finally:
            del _hearing[threading.get_ident()]


def _listen() -> None:
    """Have warnings go by thread."""
    before = warnings.showwarning
    if getattr(before, "by_thread", False):
        return

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        said = _hearing.get(threading.get_ident())
        if said is not None and issubclass(category, UserWarning):
            said.append(str(message))
        else:
            before(message, category, *where, **more)

    show.by_thread = True  # type: ignore[attr-defined]
    warnings.showwarning = show
