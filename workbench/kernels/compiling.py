"""`compiled`: a function of NumPy arrays as machine code. What the functions do is in the modules beside this one."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from workbench.kernels import available

Loop = TypeVar("Loop", bound=Callable[..., object])


def compiled(function: Loop) -> Loop:
    """The function, compiled when it is first called, and kept on the disk where numba finds a folder that it may write to.

    It runs beside other threads, rounds every operation as NumPy does (none is left out or fused), and does not check bounds.
    Without numba it stays Python: too slow to be called, and never asked.
    """
    return _compiled(function, False)


def summing(function: Loop) -> Loop:
    """The same, but several numbers are added up side by side: in another order than is written, the same in every call."""
    return _compiled(function, {"reassoc"})


def _compiled(function: Loop, fast: bool | set[str]) -> Loop:
    if not available():
        return function
    import numba

    try:
        made: Loop = numba.njit(function, nogil=True, cache=True, error_model="numpy", fastmath=fast)
        _forget_others(Path(made.stats.cache_path))  # type: ignore[attr-defined]
    except RuntimeError:  # "no locator available": nowhere to keep it, so it is compiled in every process
        made = numba.njit(function, nogil=True, error_model="numpy", fastmath=fast)
    return made


@functools.cache
def _forget_others(folder: Path) -> None:
    """Remove what was compiled from other sources than these. numba does so where a function's own file has changed, and not where one
    has that it calls into, whose code is in it.
    """
    sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    now, stamp = hashlib.sha256(sources).hexdigest(), folder / "sources.sha256"
    if stamp.exists() and stamp.read_bytes() == now.encode():
        return
    with suppress(OSError):  # a folder that may only be read: numba keeps nothing there either
        for kept in folder.glob("*.nb[ic]"):
            kept.unlink(missing_ok=True)
        stamp.write_text(now, encoding="ascii")
