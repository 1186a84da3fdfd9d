"""`Steered`: an FFT merge whose coefficients are a tensor that gets gradients; ordinary merges have numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch
from torch.utils.checkpoint import checkpoint

from workbench.checkpoint import Checkpoint
from workbench.families import Location
from workbench.merge import Merge
from workbench.merge.evaluation import evaluate
from workbench.tensors import Calculation, Part, TensorInfo


@final
class Steered(Checkpoint):
    """The merge with row i of `coefficients` [places, count] for the tensors of `blocks[i]`, and the last row for all others.

    What is read is in float32 and not rounded. Transforms are not kept for the way back but made again, one tensor at a time:
    what lives beside the merged tensors is bounded by the largest of them.
    """

    def __init__(self, merge: Merge, coefficients: torch.Tensor, blocks: Sequence[str]) -> None:
        self.name = merge.name
        self.metadata = {}
        self._merge = merge
        self._coefficients = coefficients
        self._rows = {block: row for row, block in enumerate(blocks)}

    @property
    def entries(self) -> Mapping[str, Any]:
        return self._merge.entries

    def info(self, key: str) -> TensorInfo:
        return self._merge.info(key)

    def sources(self) -> tuple[Path, ...]:
        return self._merge.sources()

    def read(self, key: str, part: Part = None) -> torch.Tensor:
        entry = self._merge.entry(key)
        if entry.take is not None:
            return self._merge.read(key, part)

        def blended(coefficients: torch.Tensor) -> torch.Tensor:
            options = {**self._merge.bound, "coefficients": lambda location: coefficients[self._row(location)]}
            return evaluate(self._merge.call, entry, options, self._merge.settings.seed, part, Calculation("float32"))

        tensor: torch.Tensor = checkpoint(blended, self._coefficients, use_reentrant=False, preserve_rng_state=False)
        return tensor

    def _row(self, location: Location) -> int:
        known = (row for name in (location.block.names if location.block else ()) if (row := self._rows.get(name)) is not None)
        return next(known, -1)
