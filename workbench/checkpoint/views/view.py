"""`View`: a checkpoint's tensors under other names, cut and joined along dimension 0 where a layout wants it so; nothing is held."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, final

from workbench.checkpoint.base import Checkpoint, hashed, retyped
from workbench.checkpoint.names.structure import Structure, structure_of
from workbench.tensors import Calculation, Flat, Part, SavedDtype, Scope, Storage, TensorInfo, cut, elements, part_shape

if TYPE_CHECKING:
    import torch

    import workbench
    from workbench.checkpoint.names.naming import Layout


@dataclass(frozen=True)
class Piece:
    """Flat elements `start:stop` of a tensor of the source; without a name, as many zeros."""

    key: str | None
    start: int
    stop: int


@dataclass(frozen=True)
class Composite:
    """A tensor of a view: pieces one after another, in another shape, or one whole matrix, `transposed`."""

    info: TensorInfo
    pieces: tuple[Piece, ...]
    transposed: bool = False


@dataclass(frozen=True)
class Indices:
    """A tensor of a view that is in no file: the whole numbers from 0 on."""

    info: TensorInfo


Where = Composite | Indices | str  # what a tensor of a view is: put together, counted, or one of the source


@dataclass(frozen=True)
class Incomplete:
    """Why a tensor cannot be put together, and the tensors of the source that would be in it."""

    why: str
    keys: tuple[str, ...]


@final
class View(Checkpoint):
    """The tensors of `source` in another layout.

    `where` maps each name to a name in the source, or to the pieces that it is made of. `incomplete` has what is left out, by the name
    it would have; `layout` is the name of the layout, where it has one; `whole` is what the source's names say, or those of a whole model.
    """

    def __init__(
        self,
        source: Checkpoint,
        where: Mapping[str, Where],
        incomplete: Mapping[str, Incomplete] | None = None,
        layout: Layout | None = None,
        whole: Structure | None = None,
    ) -> None:
        self.source, self.incomplete, self.layout, self._whole = source, incomplete or {}, layout, whole
        self.name, self.metadata, self.space = source.name, source.metadata, source.space
        self.notes, self.scope, self.path, self.address = source.notes, source.scope, source.path, source.address
        self.rounding, self.precision = source.rounding, source.precision
        self._where = where

    @property
    def entries(self) -> Mapping[str, Where]:
        return self._where

    @cached_property
    def structure(self) -> Structure:
        """Architecture, components and blocks; what is counted over all names, such as layers, is as in the source."""
        return structure_of(self, lambda key: len(self.info(key).shape), self.metadata, self._whole or self.source.structure)

    @property
    def parents(self) -> tuple[Checkpoint, ...]:
        return self.source.parents

    @property
    def merge(self) -> workbench.Merge | None:
        return self.source.merge

    @property
    def recipe(self) -> workbench.Recipe | None:
        """The source's, in this layout."""
        found = self.source.recipe
        return found.with_output(layout=self.layout) if found and self.layout else found

    def _rounded_to(self, dtype: SavedDtype) -> View:
        def changed(key: str, entry: Where) -> Where:
            return entry if isinstance(entry, str) else replace(entry, info=retyped(key, entry.info, dtype))

        where = {key: changed(key, entry) for key, entry in self._where.items()}
        return View(self.source.with_dtype(dtype), where, self.incomplete, self.layout, self._whole)

    def info(self, key: str) -> TensorInfo:
        entry = self.entry(key)
        return self.source.info(entry) if isinstance(entry, str) else entry.info

    def storage(self, key: str) -> Storage:
        """As the source has it; of what is put together, the share of each tensor, and what the first is stored as."""
        entry = self.entry(key)
        if isinstance(entry, str):
            return self.source.storage(entry)
        pieces = [piece for piece in entry.pieces if piece.key] if isinstance(entry, Composite) else []
        if not pieces:
            return super().storage(key)
        held = [(self.source.storage(str(piece.key)), piece, self.source.info(str(piece.key)).numel) for piece in pieces]
        return Storage(held[0][0].kind, round(sum(one.nbytes * (piece.stop - piece.start) / count for one, piece, count in held if count)))

    def read(self, key: str, part: Part = None) -> torch.Tensor:
        entry = self.entry(key)
        if isinstance(entry, str):
            return self.source.read(entry, part)
        if isinstance(entry, Indices):
            return _numbers(entry, part)
        return _gathered(entry, part, self.source.read, entry.info.dtype, "cpu")

    def exact(self, key: str, part: Part = None) -> torch.Tensor:
        import torch

        entry = self.entry(key)
        if isinstance(entry, str):
            return self.source.exact(entry, part)
        if isinstance(entry, Indices):
            return _numbers(entry, part)
        wide = torch.promote_types(entry.info.dtype, torch.float32) if entry.info.is_float else entry.info.dtype
        return _gathered(entry, part, self.source.exact, wide, "cpu")

    def calculate(self, key: str, part: Part, calculation: Calculation) -> torch.Tensor:
        entry = self.entry(key)
        if isinstance(entry, str):
            return self.source.calculate(entry, part, calculation)
        if isinstance(entry, Indices):
            return _numbers(entry, part).to(calculation.device, calculation.dtype)

        def fetch(name: str, piece: Part) -> torch.Tensor:
            return self.source.calculate(name, piece, calculation)

        return _gathered(entry, part, fetch, calculation.dtype, calculation.device)

    def fused(self, key: str, part: Part, calculation: Calculation, dtype: torch.dtype) -> torch.Tensor | None:
        entry = self.entry(key)
        return self.source.fused(entry, part, calculation, dtype) if isinstance(entry, str) else None

    def grain(self, calculation: Calculation) -> Scope:
        return self.source.grain(calculation)

    def start(self, key: str, part: Part, calculation: Calculation) -> torch.Tensor | None:
        """As ever; None for what is put together, whose pieces are measured where they are one tensor."""
        entry = self.entry(key)
        return self.source.start(entry, part, calculation) if isinstance(entry, str) else None

    def origin(self, key: str) -> tuple[Checkpoint, str] | None:
        """As ever; what is put together from untouched tensors comes from this view."""
        entry = self.entry(key)
        if isinstance(entry, str):
            return self.source.origin(entry)
        return (self, key) if all(self.source.origin(name) for name in keys_of(entry)) else None

    def fingerprint(self, key: str) -> str:
        entry = self.entry(key)
        if isinstance(entry, str):
            return self.source.fingerprint(entry)
        return hashed(entry, *(self.source.fingerprint(name) for name in keys_of(entry)))

    def sources(self) -> tuple[Path, ...]:
        return self.source.sources()

    def replaced(self) -> tuple[Path, ...]:
        return self.source.replaced()


def keys_of(entry: Where) -> tuple[str, ...]:
    """The tensors of the source that one of a view is made of, each once."""
    if not isinstance(entry, Composite):
        return (entry,) if isinstance(entry, str) else ()
    return tuple(dict.fromkeys(piece.key for piece in entry.pieces if piece.key is not None))


def _numbers(entry: Indices, part: Part) -> torch.Tensor:
    import torch

    return cut(torch.arange(entry.info.numel).reshape(entry.info.shape), part).clone()


def _gathered(entry: Composite, part: Part, fetch: Callable[[str, Part], torch.Tensor], dtype: torch.dtype, device: str) -> torch.Tensor:
    """`part` of a composite tensor, read piece by piece: of each, only what lies in the part."""
    import torch

    shape = entry.info.shape
    if entry.transposed:
        whole = fetch(entry.pieces[0].key, None)  # type: ignore[arg-type]
        return cut(whole.to(dtype).T.contiguous(), part).clone()
    first, last = elements(part, shape)
    out = torch.empty(last - first, dtype=dtype, device=device)
    for piece, at, start, stop in _overlaps(entry, first, last):
        out[at : at + stop - start] = 0 if piece.key is None else fetch(piece.key, Flat(start, stop))
    return out.reshape(part_shape(part, shape))


def _overlaps(entry: Composite, first: int, last: int) -> Iterator[tuple[Piece, int, int, int]]:
    """The pieces that lie in elements `first:last`: each with its place in the result, and the elements of its tensor."""
    begin = 0
    for piece in entry.pieces:
        end = begin + piece.stop - piece.start
        low, high = max(first, begin), min(last, end)
        if low < high:
            yield piece, low - first, piece.start + low - begin, piece.start + high - begin
        begin = end
