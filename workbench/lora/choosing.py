"""How many directions each tensor of a LoRA keeps: a rank, what an error asks for, or what a file's size allows. No matrix is made here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import numpy as np

from workbench.errors import OptionError
from workbench.lora.decomposition import Decomposed
from workbench.tensors import SavedDtype, TensorInfo, dtype_code


@dataclass(frozen=True)
class LoraLimit:
    """What limits a LoRA: one of the three, or none; `dtype` is that of the numbers in the file, which `max_bytes` goes by."""

    rank: int | None = None
    target_error: float | None = None
    max_bytes: int | None = None
    dtype: str = "float16"

    @property
    def itemsize(self) -> int:
        """Bytes of a number in the file."""
        return TensorInfo((), dtype_code(self.dtype)).itemsize

    def check(self, who: str, *, needed: bool = True) -> None:
        """Raise OptionError unless exactly one is given, or none where none is `needed`, and all make sense."""
        if self.dtype not in get_args(SavedDtype):
            raise OptionError(f"{who}: dtype must be one of {', '.join(map(repr, get_args(SavedDtype)))}, got {self.dtype!r}")
        given = {name: getattr(self, name) for name in ("rank", "target_error", "max_bytes") if getattr(self, name) is not None}
        if not given and not needed:
            return
        if len(given) != 1:
            raise OptionError(f"{who}: give one of rank, target_error and max_bytes, got {' and '.join(given) or 'none'}")
        ((name, value),) = given.items()
        if name == "target_error":
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
                raise OptionError(f"{who}: target_error, that of each tensor over its change, must be above 0 and below 1, got {value!r}")
        elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise OptionError(f"{who}: {name} must be a whole number from 1, got {value!r}")


class Chosen:
    """Gathers decomposed tensors from several threads, and keeps of each only what is wanted.

    `overhead` says how many bytes of a file a tensor takes beside its numbers. Under a limit in bytes, directions are taken in the
    order in which they buy most squared error per byte; what falls out of the limit on the way could not come back, and is let go.
    The same are chosen in whatever order the tensors come.
    """

    def __init__(self, wanted: LoraLimit, overhead: Callable[[str], int]) -> None:
        self._wanted, self._overhead, self._lock = wanted, overhead, threading.Lock()
        self._layers: dict[str, Decomposed] = {}

    def add(self, layer: Decomposed) -> None:
        """Keep of a tensor what is wanted."""
        wanted = self._wanted
        if wanted.rank is not None:
            layer = layer.first(wanted.rank)
        elif wanted.target_error is not None:
            layer = layer.first(int(np.argmax(layer.left <= wanted.target_error**2 * layer.total)))
        with self._lock:
            self._layers[layer.key] = layer
            if wanted.max_bytes is not None:
                self._cut(wanted.max_bytes)

    def layers(self, taken: int = 0) -> dict[str, Decomposed]:
        """What is kept, by name; of the bytes that are allowed, `taken` are for something else."""
        if self._wanted.max_bytes is not None and self._layers:
            self._cut(self._wanted.max_bytes - taken)
        return self._layers

    def _cut(self, allowed: int) -> None:
        """Let go of the directions that buy least, until the rest fits."""
        keys = sorted(self._layers)
        offers = [self._offers(key) for key in keys]
        gains, nbytes = (np.concatenate(column) for column in zip(*offers, strict=True))
        best = np.argsort(-gains, kind="stable")  # of one tensor the stronger come first
        best = best[: np.searchsorted(nbytes[best].cumsum(), allowed, side="right")]
        owners = np.repeat(np.arange(len(keys)), [len(gains) for gains, _ in offers])
        ranks = np.bincount(owners[best], minlength=len(keys))
        self._layers = {key: self._layers[key].first(int(rank)) for key, rank in zip(keys, ranks, strict=True) if rank}

    def _offers(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Of each direction that a tensor still has, the squared error that a byte of it buys, and its bytes.

        The first is dearer by the tensor's overhead; so it goes for one price with as many after it as make them the best buy.
        """
        layer = self._layers[key]
        nbytes = np.full(len(layer.squares), layer.width * self._wanted.itemsize)
        nbytes[0] += self._overhead(key)
        gains, together = layer.squares / nbytes, layer.squares.cumsum() / nbytes.cumsum()
        gains[: together.argmax() + 1] = together.max()
        return gains[: layer.rank], nbytes[: layer.rank]
