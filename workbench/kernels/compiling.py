"""`compiled`: a function of NumPy arrays as machine code. What the functions do is in the modules beside this one."""

from __future__ import annotations

from collections.abc import Callable
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
    except RuntimeError:  # "no locator available": nowhere to keep it, so it is compiled in every process
        made = numba.njit(function, nogil=True, error_model="numpy", fastmath=fast)
    return made
