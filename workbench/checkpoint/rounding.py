"""`Rounded`: what is no merge, rounded to another dtype where it is read; nothing is held."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from workbench.checkpoint.base import Checkpoint, hashed
from workbench.checkpoint.structure import Structure, is_marker
from workbench.tensors import Calculation, Part, SavedDtype, TensorInfo, rounded

if TYPE_CHECKING:
    import torch

    import workbench


@final
class Rounded(Checkpoint):
    """The tensors of `source` in another dtype; integers and markers keep theirs. No file has it like this, so it has no `path`."""

    def __init__(self, source: Checkpoint, dtype: SavedDtype) -> None:
        self.source, self.rounding = source, dtype
        self.name, self.metadata, self.space, self.notes = source.name, source.metadata, source.space, source.notes
        self.scope, self.layout, self.precision = source.scope, source.layout, source.precision

    @property
    def entries(self) -> Mapping[str, Any]:
        return self.source.entries

    @cached_property
    def structure(self) -> Structure:
        """Rounding changes none of it."""
        return self.source.structure

    @property
    def recipe(self) -> workbench.Recipe | None:
        """The source's, with this dtype; None where the source is rounded already, for rounding twice may give other numbers."""
        infos = map(self.source.info, self.source)
        exact = all(info.code == "F32" for info in infos if info.is_float)
        found = self.source.recipe
        return found.with_output(dtype=self.rounding) if found and exact and found.data.precision == "float32" else None

    def _rounded_to(self, dtype: SavedDtype) -> Checkpoint:
        return self.source.with_dtype(dtype)

    def info(self, key: str) -> TensorInfo:
        return retyped(key, self.source.info(key), self.rounding)

    def read(self, key: str, part: Part = None) -> torch.Tensor:
        return rounded(self.source.exact(key, part), self.info(key).dtype)

    def calculate(self, key: str, part: Part, calculation: Calculation) -> torch.Tensor:
        return self.source.calculate(key, part, calculation)

    def origin(self, key: str) -> tuple[Checkpoint, str] | None:
        return self.source.origin(key)

    def fingerprint(self, key: str) -> str:
        return hashed(self.source.fingerprint(key), self.info(key).code)

    def sources(self) -> tuple[Path, ...]:
        return self.source.sources()

    def replaced(self) -> tuple[Path, ...]:
        return self.source.replaced()


def retyped(key: str, info: TensorInfo, dtype: str) -> TensorInfo:
    """A tensor as it is when a checkpoint is rounded; markers keep their dtype, and what holds no floats."""
    return info if is_marker(key) else info.with_dtype(dtype)
