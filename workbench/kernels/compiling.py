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
    if not available():
        return function
    import numba

    try:
        made: Loop = numba.njit(function, nogil=True, cache=True, error_model="numpy")
    except RuntimeError:  # "no locator available": nowhere to keep it, so it is compiled in every process
        made = numba.njit(function, nogil=True, error_model="numpy")
    return made
