"""`LowRank`: a LoRA, of whatever kind, as a checkpoint of changes under its model's own names, calculated when read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from workbench import families
from workbench.checkpoint.base import Checkpoint, hashed
from workbench.checkpoint.changes.change import LoraChange
from workbench.checkpoint.changes.products import Factors as Factors
from workbench.checkpoint.names.peft_settings import PeftSettings, in_header
from workbench.checkpoint.names.structure import Structure, structure_of
from workbench.checkpoint.views.layouts import like
from workbench.checkpoint.views.lora_entries import Content, Entry, content_of, fitted, named_by
from workbench.checkpoint.views.xlabs import plainly_named
from workbench.errors import InputError
from workbench.tensors import Calculation, Part, Rows, Scope, Space, TensorInfo, elements

if TYPE_CHECKING:
    import torch

    from workbench.figures.results import Result


@final
class LowRank(Checkpoint):
    """The changes that a LoRA makes, tensor by tensor: low-rank ones, whole ones (`diff`) as they are, and all other kinds.

    `holder` has what they are made of; `path` is where it lies, if anywhere. Reading calculates, in float32. `report` tells how it was
    made, and shows in a cell; `model` is whose tensors it changes, where that is known; `config` are PEFT's settings beside the file.
    Changes that depend on what they change (DoRA, OFT, ...) are read from `upon(base)` alone.
    Raises CheckpointError for parts that do not fit together, and for what is no LoRA.
    """

    space = Space.DELTA

    def __init__(
        self, holder: Checkpoint, report: Result | None = None, model: Checkpoint | None = None, config: PeftSettings | None = None
    ) -> None:
        holder = plainly_named(holder)
        settings = ({"": config} if config else {}) | in_header(holder.metadata, holder.path or holder.name)
        self._config = config
        self._take(holder, report, model, content_of(holder, settings))
        self._hold(named_by(self._content, holder.path or holder.name), None)

    def _take(self, holder: Checkpoint, report: Result | None, model: Checkpoint | None, content: Content) -> None:
        self.holder, self.report, self._model, self._content, self.notes = holder, report, model, content, content.notes
        self.name, self.path, self.metadata, self.address = holder.name, holder.path, holder.metadata, holder.address

    def _hold(self, entries: Mapping[str, Entry], base: Checkpoint | None) -> None:
        self._entries, self._base = entries, base
        self._last: tuple[Checkpoint, Checkpoint] | None = None
        self.scope = max([Scope.ROW, *(one.scope for one in entries.values() if not isinstance(one, str))])

    @property
    def entries(self) -> Mapping[str, Entry]:
        return self._entries

    def kind(self, key: str) -> str:
        """What people call the change of a tensor: `LoRA`, `LoHa`, `LoKr`, `DoRA`, `full`, `OFT`, `BOFT`, `IA3`, `GLoRA`, `replaced`."""
        entry = self.entry(key)
        return "full" if isinstance(entry, str) else entry.kind

    @property
    def relative(self) -> tuple[str, ...]:
        """The tensors whose change depends on what they are in the model: it has to be known before these are read."""
        return tuple(key for key, one in self._entries.items() if not isinstance(one, str) and one.relative)

    def for_model(self, model: Checkpoint) -> LowRank:
        """The same LoRA, with the model that it is for, which tells what its names do not."""
        return LowRank(self.holder, self.report, model, self._config)

    def upon(self, base: Checkpoint) -> Checkpoint:
        """The same changes under the names, and in the shapes, that the tensors of `base` have; those that depend on it know it.

        The names of the file are looked for among those that the model has in either layout; what it has not keeps its name. That of the
        last base is remembered, for a merge is planned more than once.
        """
        last = self._last  # once: another thread may put it on another model meanwhile
        if last is None or last[0] is not base:
            last = self._last = base, self._put(base)
        return last[1]

    def _put(self, base: Checkpoint) -> Checkpoint:
        entries = named_by(self._content, self.path or self.name, base.module_names.find)
        keeps = entries.keys() == self._entries.keys()
        if keeps and (base.space is Space.DELTA or not (self.relative or self._other_shapes(base))):
            return self
        found = object.__new__(LowRank)
        found._config = self._config
        found._take(self.holder, self.report, self._model, self._content)
        found._hold(entries, None)
        if base.space is Space.WEIGHT and (found.relative or found._other_shapes(base)):
            seen = like(base, found)  # as it would be with the names of the LoRA
            found._hold({key: found._fitted(key, seen) for key in found}, seen)
        return found

    def _other_shapes(self, base: Checkpoint) -> bool:
        """Whether tensors are of another shape in a model, or have another name there, so that this is not known."""
        return any(key not in base or base.info(key).shape != self.info(key).shape for key in self)

    def _fitted(self, key: str, base: Checkpoint) -> Entry:
        entry = self._entries[key]
        return fitted(self.holder, entry, base.info(key).shape) if key in base else entry

    @cached_property
    def structure(self) -> Structure:
        """Architecture, components, layouts, and the block of each key; what few names do not tell, its model does, or its header."""
        return structure_of(
            self,
            lambda key: 0,  # a matrix may be stored as a 1x1 convolution, and the other way round
            self.metadata,
            whole=self._model.structure if self._model else None,
            hint=families.named_in(self.metadata),
            partial=True,
        )

    def info(self, key: str) -> TensorInfo:
        """Shape and dtype of a change; of one whose shape only the model tells, the shape of what is stored of it."""
        entry = self.entry(key)
        return self.holder.info(entry) if isinstance(entry, str) else entry.info

    def read(self, key: str, part: Part = None) -> torch.Tensor:
        """As ever. Raises InputError for a change that depends on a model, where there is none."""
        entry = self.entry(key)
        if isinstance(entry, str):
            return self.holder.read(entry, part)
        shape = entry.info.shape
        first, last = elements(part, shape)
        row = math.prod(shape[1:])
        rows = Rows(first // row, -(-last // row))  # those that the part lies in
        change = self._calculated(key, entry, rows)
        if part is None or isinstance(part, Rows):
            return change
        return change.reshape(-1)[first - rows.start * row : last - rows.start * row].clone()

    def factors(self, key: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Of a low-rank change, matrices whose product it is, in float32: rows x rank (the scale in it), rank x others; else None."""
        entry = self.entry(key)
        if not isinstance(entry, Factors) or entry.mid is not None:
            return None
        up, down = (self.holder.read(name).float().flatten(1) for name in (entry.up, entry.down))
        return up * entry.scale, down

    def fingerprint(self, key: str) -> str:
        entry = self.entry(key)
        if isinstance(entry, str):
            return self.holder.fingerprint(entry)
        base = self._base.fingerprint(key) if entry.relative and self._base is not None and key in self._base else None
        return hashed(entry, base, *(self.holder.fingerprint(name) for name in entry.names))

    def sources(self) -> tuple[Path, ...]:
        return self.holder.sources()

    def replaced(self) -> tuple[Path, ...]:
        return self.holder.replaced()

    def __repr__(self) -> str:
        return super().__repr__() if self.report is None else f"<{type(self).__name__} {self.name!r}: {self.report.headline}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any] | None:
        if self.report is None:
            return None
        return self.report._repr_mimebundle_(include, exclude) | {"text/plain": repr(self)}

    def _calculated(self, key: str, entry: LoraChange, rows: Rows) -> torch.Tensor:
        def base(wanted: Rows | None) -> torch.Tensor:
            if self._base is None or key not in self._base:
                told = f"{self.path or self.name}: {key!r} is changed by a {entry.kind}, which depends on the model that it is put on"
                raise InputError(f"{told}; add it to one: wb.lora.apply(base, [(lora, 1.0)]), or wb.operators.add_delta(base, [lora])")
            return self._base.calculate(key, wanted, Calculation())

        return entry.rows(self.holder, rows, base)
