"""Gathers the changes of single tensors, from several threads, into a LoRA with its report. How they are found is the caller's."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.views.low_rank import LowRank
from workbench.checkpoint.views.matching import place
from workbench.errors import OptionError
from workbench.lora.choosing import Chosen, LoraLimit
from workbench.lora.decomposition import Decomposed
from workbench.lora.formats import in_memory
from workbench.lora.report import WHOLE, Layer, Report
from workbench.lora.sizes import HEAD, pair_overhead, whole_overhead

if TYPE_CHECKING:
    import torch


class Gathered:
    """Changes of tensors of `model`, by its names; `totals` are their sums of squares."""

    def __init__(self, wanted: LoraLimit, model: Checkpoint) -> None:
        self._wanted, self._model = wanted, model
        self._limit = wanted.max_bytes or 0
        self._chosen = Chosen(wanted, partial(pair_overhead, model, self._limit))
        self._whole: dict[str, torch.Tensor] = {}
        self.totals: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, layer: Decomposed) -> None:
        """A change of which the strongest directions are kept."""
        self._chosen.add(layer)
        with self._lock:
            self.totals[layer.key] = layer.total

    def keep(self, key: str, change: torch.Tensor, total: float) -> None:
        """A change that is kept as it is."""
        with self._lock:
            self._whole[key], self.totals[key] = change, total

    def lora(self, name: str, keys: Iterable[str], notes: tuple[str, ...], who: str) -> LowRank:
        """What is kept, in the order of `keys`. Raises OptionError where no byte is left for it."""
        keys = [key for key in keys if key in self.totals]
        whole = {key: self._whole[key] for key in keys if key in self._whole}
        size = self._wanted.itemsize
        taken = HEAD + sum(change.numel() * size + whole_overhead(self._model, self._limit, key) for key, change in whole.items())
        found = self._chosen.layers(taken)
        if not found and (not whole or taken > (self._wanted.max_bytes or taken)):
            told = f"{taken} bytes go to names and whole changes" if whole else "no direction fits beside the names in the file"
            raise OptionError(f"{who}: max_bytes={self._wanted.max_bytes} is too little: {told}; allow more")
        layers = [self._layer(key, found.get(key), whole.get(key)) for key in keys]
        pairs = {key: (found[key].up, found[key].down, found[key].shape) for key in keys if key in found}
        return in_memory(pairs, whole, name, self._model, Report(name, self._model, tuple(layers), notes))

    def _layer(self, key: str, found: Decomposed | None, whole: torch.Tensor | None) -> Layer:
        """What the report says of a tensor."""
        where, total, size = place(self._model, key), self.totals[key], self._wanted.itemsize
        if whole is not None:
            return Layer(key, where, 0, total, 0.0, whole.numel() * size, WHOLE)
        if found is None:
            return Layer(key, where, 0, total, total, 0, "left out: other tensors buy more")
        short = found.rank < (self._wanted.rank or 0)
        note = "has no more directions" if short else ""
        return Layer(key, where, found.rank, total, float(found.left[found.rank]), found.rank * found.width * size, note)
