"""`Scaled`: a checkpoint with scaled fp8 weights, as the weights they stand for. Which ones these are, `quantised` says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, final

from workbench.checkpoint.base import Checkpoint, hashed
from workbench.checkpoint.views.quantised import scales
from workbench.tensors import Flat, Part, TensorInfo, elements, rounded

if TYPE_CHECKING:
    import torch

_CODE = "BF16"  # what such models were made from; its rounding is a sixteenth of fp8's
_LAYERS = "_quantization_metadata"  # in the header: what ComfyUI is to make of each layer


def dequantised(model: Checkpoint) -> Checkpoint:
    """The model itself, or with its fp8 weights times their scales. Raises CheckpointError for a format that is not read."""
    found, beside = scales(model)
    return Scaled(model, found, beside) if beside else model


@final
class Scaled(Checkpoint):
    """The tensors of `holder`, those in `found` times the scale it names, without what is `beside` them.

    The products are calculated in float32 when they are read, part by part; they read as bfloat16, and a merge has them unrounded.
    """

    def __init__(self, holder: Checkpoint, found: Mapping[str, str], beside: frozenset[str]) -> None:
        self.name, self.path = holder.name, holder.path
        self.metadata = {name: value for name, value in holder.metadata.items() if name != _LAYERS}
        self._holder = holder
        self._scales = {key: found.get(key) for key in holder if key not in beside}
        self.notes = holder.notes
        if found:
            self.notes += (f"{len(found)} of {len(self)} tensors are scaled fp8, and are read times their scales, as bfloat16",)

    @property
    def entries(self) -> Mapping[str, str | None]:
        return self._scales

    def info(self, key: str) -> TensorInfo:
        scale = self.entry(key)
        info = self._holder.info(key)
        return info if scale is None else TensorInfo(info.shape, _CODE)

    def read(self, key: str, part: Part = None) -> torch.Tensor:
        return rounded(self.exact(key, part), self.info(key).dtype)

    def exact(self, key: str, part: Part = None) -> torch.Tensor:
        scale = self.entry(key)
        stored = self._holder.read(key, part)
        if scale is None:
            return stored
        values = stored.float()
        return values.mul_(self._spread(scale, self._holder.info(key).shape, part).reshape(values.shape))

    def origin(self, key: str) -> tuple[Checkpoint, str] | None:
        return None if self.entry(key) else (self, key)

    def fingerprint(self, key: str) -> str:
        scale = self.entry(key)
        weight = self._holder.fingerprint(key)
        return weight if scale is None else hashed(weight, self._holder.fingerprint(scale))

    def sources(self) -> tuple[Path, ...]:
        return self._holder.sources()

    def replaced(self) -> tuple[Path, ...]:
        return self._holder.replaced()

    def _spread(self, scale: str, shape: tuple[int, ...], part: Part) -> torch.Tensor:
        """The scale of every element of a part, flat."""
        first, last = elements(part, shape)
        if self._holder.info(scale).numel == 1:
            return self._holder.read(scale).float().reshape(1).expand(last - first)
        row = max(math.prod(shape[1:]), 1)
        begin = first // row
        of_rows = self._holder.read(scale, Flat(begin, -(-last // row))).float()
        return of_rows.repeat_interleave(row)[first - begin * row : last - begin * row]
