"""`uncollected`: nobody looks for garbage while modules are imported, which come to stay. What is imported does not matter here."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from workbench.together import Together

_MANY = 10_000  # objects that came meanwhile


@contextmanager
def _uncollected() -> Iterator[None]:
    if not gc.isenabled():  # by whoever wants it so
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        # both at once make what came meanwhile old: the next search need not go through all of it
        if gc.get_count()[0] > _MANY and not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()
        gc.enable()


uncollected = Together(_uncollected)  # the collector waits: of the imports of what draws, a sixth of the time was its own
