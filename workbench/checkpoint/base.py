"""`Checkpoint`: a read-only, lazy mapping from tensor name to tensor; `Rounded`, one in another dtype. No file is read here."""

from __future__ import annotations

import hashlib
import uuid
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, final, get_args

import workbench  # recipes are floors above; the package's own front door is the way up
from workbench.checkpoint.names.buffers import is_marker
from workbench.checkpoint.names.lora_modules import ModuleNames
from workbench.checkpoint.names.structure import Structure, structure_of
from workbench.devices import at_once, moved
from workbench.errors import MissingTensorError, OptionError
from workbench.families import GENERIC
from workbench.tensors import (
    Calculation,
    Flat,
    Part,
    Precision,
    SavedDtype,
    Scope,
    Space,
    Storage,
    TensorInfo,
    cut,
    elements,
    part_shape,
    rounded,
)

if TYPE_CHECKING:
    import torch

    from workbench.checkpoint.names.naming import Layout

Entry = TypeVar("Entry", covariant=True)


UNKNOWN = "unknown"  # what changes are for, where nothing tells
MOST_MERGES = 10_000  # in a merge, each counted as often as it is an input


def hashed(*parts: object) -> str:
    """A short hash of parts that are told apart by their `repr`."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def tree(checkpoint: Checkpoint) -> list[Checkpoint]:
    """A checkpoint and all that it is made of, each once however often it is an input, the innermost first."""
    found: dict[Checkpoint, None] = {}

    def visit(model: Checkpoint) -> None:
        if model not in found:
            for parent in model.parents:
                visit(parent)
            found[model] = None

    visit(checkpoint)
    return list(found)


def merges_in(checkpoint: Checkpoint) -> int:
    """How many merges it is made of, itself too, each counted as often as it is an input: so often it is calculated."""
    counts: dict[Checkpoint, int] = {}
    for model in tree(checkpoint):
        counts[model] = (model.merge is not None) + sum(counts[parent] for parent in model.parents)
    return counts[checkpoint]


class _Held(Protocol[Entry]):
    """A checkpoint of whose entries it is known what they are; so `entry` is as well."""

    @property
    def entries(self) -> Mapping[str, Entry]: ...

    def missing(self, key: str) -> str: ...


class Checkpoint(Mapping[str, "torch.Tensor"]):
    """Named tensors that are read when asked for.

    `len`, `in`, iteration and `keys()` cost nothing; `checkpoint[key]` is `checkpoint.read(key)`.
    """

    name: str
    path: Path | None = None  # what `open` would open again
    address: str | None = None  # where it was fetched from, when that is not this disk: `hf://org/repo@commit/path`
    metadata: Mapping[str, str]
    space: Space = Space.WEIGHT
    notes: tuple[str, ...] = ()  # what somebody who merges it would want to know
    scope: Scope = Scope.ELEMENT  # what a part of it costs: ELEMENT means a slice is as cheap as its size
    layout: Layout | None = None  # that it was put into; None for its own
    rounding: SavedDtype | None = None  # the dtype that it was asked to be rounded to; None where each tensor has its own
    precision: Precision = "float32"  # what it is calculated in

    @property
    @abstractmethod
    def entries(self) -> Mapping[str, Any]:
        """Every tensor's name in order, with what it takes to read it."""

    @abstractmethod
    def info(self, key: str) -> TensorInfo:
        """Shape and dtype of `key`, without reading it. Raises MissingTensorError."""

    def storage(self, key: str) -> Storage:
        """What a tensor of a file is stored as; elsewhere, as what it is read."""
        info = self.info(key)
        return Storage(info.dtype_name, info.nbytes)

    @abstractmethod
    def read(self, key: str, part: Part = None) -> torch.Tensor:
        """The tensor, or `Rows(start, stop)` or `Flat(start, stop)` of it, on the CPU in its own dtype; the caller's to keep."""

    def exact(self, key: str, part: Part = None) -> torch.Tensor:
        """What `read` gives, before it is rounded to the dtype of `info`, where it has to be calculated."""
        return self.read(key, part)

    @abstractmethod
    def sources(self) -> tuple[Path, ...]:
        """Every file this checkpoint is read from."""

    def replaced(self) -> tuple[Path, ...]:
        """Those of its sources that have changed, or have another file in their place, since they were opened."""
        return ()

    def calculate(self, key: str, part: Part, calculation: Calculation) -> torch.Tensor:
        """What `read` gives, in the calculation's dtype and on its device; a merge gives it unrounded. The caller's to keep."""
        import torch

        shape = self.info(key).shape
        if calculation.kept is not None:
            whole = calculation.kept.tensor(self.fingerprint(key), lambda: self.exact(key))
            tensor = cut(whole, part).to(calculation.dtype, copy=True)
            calculation.watch(self.name, key, tensor)
            return tensor
        first, last = elements(part, shape)
        step = at_once(calculation.device)
        if last - first <= step or self.scope is not Scope.ELEMENT:
            tensor = moved(self.exact(key, part), calculation.device, calculation.dtype)
            calculation.watch(self.name, key, tensor)
            return tensor
        # in pieces that stay in the cache: memory that is touched for the first time costs more than all arithmetic
        tensor = torch.empty(last - first, dtype=calculation.dtype, device=calculation.device)
        for start in range(first, last, step):
            piece = self.exact(key, Flat(start, min(start + step, last)))
            calculation.watch(self.name, key, piece)
            tensor[start - first : start - first + step] = piece
        return tensor.reshape(part_shape(part, shape))

    def fused(self, key: str, part: Part, calculation: Calculation, dtype: torch.dtype) -> torch.Tensor | None:
        """What `calculate` gives, rounded to a dtype, where a merge has a loop for that and all numbers are finite; None elsewhere."""
        return None

    def grain(self, calculation: Calculation) -> Scope:
        """As `scope`, when one part of a tensor after another is calculated: what was found out of the whole for the first is kept."""
        return self.scope

    def prepare(self, *, progress: bool = False, cancelled: Callable[[], bool] | None = None) -> None:
        """Have merges in it that need a pass over the whole model first do it; else they do when a tensor is read. Raises Cancelled."""
        for parent in self.parents:
            parent.prepare(progress=progress, cancelled=cancelled)

    def start(self, key: str, part: Part, calculation: Calculation) -> torch.Tensor | None:
        """What a merge changes: the same part in the model that it starts from, calculated; None where it starts from none."""
        return None

    @property
    def parents(self) -> tuple[Checkpoint, ...]:
        """What it is made of: the inputs of a merge; nothing for what lies in a file or in memory."""
        return ()

    @property
    def merge(self) -> workbench.Merge | None:
        """The merge that decides its numbers, in the layout it is calculated in; None for what is none."""
        return None

    @property
    def recipe(self) -> workbench.Recipe | None:
        """The recipe that makes it again: a merge's own, or the one that a file carries; None where there is none. Raises RecipeError."""
        return workbench.Recipe.carried_by(self)

    @final
    def with_dtype(self, dtype: SavedDtype) -> Checkpoint:
        """The same checkpoint, rounded to another dtype where it is read; integers and markers keep theirs. Raises OptionError."""
        if dtype not in get_args(SavedDtype):
            raise OptionError(f"{self.name}: dtype must be one of {', '.join(map(repr, get_args(SavedDtype)))}, got {dtype!r}")
        return self._rounded_to(dtype)

    def _rounded_to(self, dtype: SavedDtype) -> Checkpoint:
        return Rounded(self, dtype)

    def upon(self, base: Checkpoint) -> Checkpoint:
        """What it is when it is put on a model: changes that only the model tells in full (a LoRA's); itself for all else."""
        return self

    @cached_property
    def module_names(self) -> ModuleNames:
        """Its modules by what LoRA files call them."""
        return ModuleNames(self.structure)

    def origin(self, key: str) -> tuple[Checkpoint, str] | None:
        """The file's checkpoint and name that a tensor comes from untouched; None when it is calculated."""
        return self, key

    def fingerprint(self, key: str) -> str:
        """Where a tensor's numbers come from: in one process, equal fingerprints mean equal numbers. Nothing is read."""
        self.entry(key)
        return f"{self._identifier}/{key}"

    @cached_property
    def content(self) -> str:
        """What tells checkpoints apart: equal hashes mean equal names and numbers. Nothing is read."""
        return hashed(*((key, self.fingerprint(key)) for key in self))

    @cached_property
    def _identifier(self) -> str:
        """What tells this checkpoint from every other that holds other numbers."""
        return uuid.uuid4().hex

    def entry(self: _Held[Entry], key: str) -> Entry:
        """What it takes to read a tensor. Raises MissingTensorError for a name that is not there."""
        try:
            return self.entries[key]
        except KeyError:
            raise MissingTensorError(self.missing(key)) from None

    def missing(self, key: str) -> str:
        """What to say of a tensor that is not there."""
        return f"{self.path or self.name}: there is no tensor {key!r}; `keys()` lists the {len(self)} there are"

    @final
    def __getitem__(self, key: str) -> torch.Tensor:
        return self.read(key)

    @final
    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    @final
    def __len__(self) -> int:
        return len(self.entries)

    @final
    def __contains__(self, key: object) -> bool:
        return key in self.entries

    @cached_property
    def structure(self) -> Structure:
        """Architecture, components, layouts, and the block of each key."""
        return structure_of(self, lambda key: len(self.info(key).shape), self.metadata)

    @property
    def architecture(self) -> str:
        """The name of its family, told by key names (`"SDXL"`, `"Z-Image"`, ...; see `workbench.families`), or `"generic"`.

        Of changes, such as a LoRA's, whose names and header do not prove it, `"unknown"`: they fit every model whose tensors they fit.
        """
        family = self.structure.family
        return UNKNOWN if family is GENERIC and self.space is Space.DELTA else family.name

    @property
    def components(self) -> tuple[str, ...]:
        """The parts of a pipeline that are present: `unet` or `transformer`, `vae`, `text_encoder`, `text_encoder_2`, ..., `other`."""
        return self.structure.components

    def block(self, key: str) -> str | None:
        """The block that `key` belongs to, as its community names it (`IN04`, `MID`, `double_blocks.3`), or None."""
        block = self.structure.block(key)
        return None if block is None else block.name

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(self.info(key).nbytes for key in self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {self.architecture}, {len(self)} tensors, {self.nbytes / 1e6:.1f} MB>"

    # Mapping would compare (and so read) every tensor
    __eq__ = object.__eq__
    __hash__ = object.__hash__


@final
class Rounded(Checkpoint):
    """The tensors of `source` in another dtype; integers and markers keep theirs. No file has it like this, so it has no `path`."""

    rounding: SavedDtype

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

    def fused(self, key: str, part: Part, calculation: Calculation, dtype: torch.dtype) -> torch.Tensor | None:
        return self.source.fused(key, part, calculation, dtype)

    def grain(self, calculation: Calculation) -> Scope:
        return self.source.grain(calculation)

    def start(self, key: str, part: Part, calculation: Calculation) -> torch.Tensor | None:
        return self.source.start(key, part, calculation)

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
