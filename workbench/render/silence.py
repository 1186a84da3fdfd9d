"""What is said while pictures are drawn: silence for libraries, and who hears which warning. What is drawn does not matter here.

Warnings' filters, and where warnings go, are the process's and not a thread's; `warnings.catch_warnings` by two threads at once leaves what
the one set to the other for good. Here the first of the threads that draw sets them aside, and the last to leave puts them back.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from workbench.together import Together

_filters = Together(warnings.catch_warnings)
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


quiet = Together(_silenced)  # silences diffusers' and transformers' bars, deprecations, and what they log below an error


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
