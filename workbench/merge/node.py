"""`Merge`: a checkpoint that has not been written yet. Reading a tensor runs the operator on that tensor of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, final, get_args

import workbench  # recipes are a floor above; the package's own front door is the way up
from workbench.checkpoint import Checkpoint
from workbench.checkpoint.base import hashed, tree
from workbench.checkpoint.names.buffers import is_marker
from workbench.checkpoint.names.structure import PREDICTION, Structure, structure_of
from workbench.errors import MergeError, OptionError
from workbench.families import Location
from workbench.merge import evaluation, schedules, sources
from workbench.merge.asked import Prepared
from workbench.merge.call import Call
from workbench.merge.declaration import UNION
from workbench.merge.evaluation import Bound, resolve_options
from workbench.merge.plan import Entry, Plan, plan_merge
from workbench.merge.preparing import States, prepared
from workbench.merge.rules import Rule
from workbench.tensors import (
    PIECE,
    Calculation,
    Part,
    Precision,
    SavedDtype,
    Scope,
    TensorInfo,
    elements,
    narrowed,
    part_shape,
    pieces,
    rounded,
    widened,
)

if TYPE_CHECKING:
    import torch


PRECISIONS = get_args(Precision)
DTYPES: tuple[SavedDtype | None, ...] = (None, *get_args(SavedDtype))


@dataclass(frozen=True)
class Settings:
    """What goes for a whole recipe: the seed, the precision of calculation, and the dtype of the result."""

    seed: int = 0
    precision: Precision = "float32"
    dtype: SavedDtype | None = None  # None: as the first input that holds the tensor


@final
class Merge(Checkpoint):
    """An operator, its inputs, options and rules; made by calling an operator, `wb.operators.ties(base, [a, b])`.

    Calculation is in the settings' precision, and only the result is rounded: to the settings' dtype, or each tensor to
    the dtype of the first input that holds it, in Flux bfloat16 where that is fp8. Integers and markers keep theirs.
    """

    def __init__(self, call: Call, options: Mapping[str, Any], rules: tuple[Rule, ...], settings: Settings) -> None:
        self.call = call
        self.options = options
        self.rules = rules
        self.settings = settings
        self._fingerprints: dict[str, str] = {}
        self.name = call.operator.name
        self.metadata = {}
        self.space = call.operator.space
        self.rounding, self.precision = settings.dtype, settings.precision
        self.own_scope, self.own_grain = call.operator.scope_for(options), call.operator.grain_for(options)
        self._states = States()
        self.scope = max(self.own_scope, *(model.scope for model in call.inputs))

    @cached_property
    def plan(self) -> Plan:
        """What becomes of each tensor; computed from names and shapes alone."""
        return plan_merge(self.call, self.rules)

    @cached_property
    def depth(self) -> schedules.Depth:
        """The blocks of the result, and the modules beside them."""
        return schedules.Depth.of(entry.location for entry in self.plan.entries.values())

    @cached_property
    def structure(self) -> Structure:
        """Told by its tensors' names; what it predicts where no marker says so, by the first model whose tensors it has."""
        return structure_of(self, lambda key: len(self.info(key).shape), {PREDICTION: self._carried_prediction()})

    def _carried_prediction(self) -> str:
        call = self.call
        first = call.inputs if call.operator.keys == UNION else [call.inputs[call.slots[call.operator.keys][0]]]
        for model in first:
            if model.structure.denoiser in model.components:
                # a marker that a rule leaves out says no more
                return "unknown" if model.structure.marked("v_pred", "edm_vpred") else model.structure.prediction
        return "unknown"

    @property
    def parents(self) -> tuple[Checkpoint, ...]:
        return self.call.inputs

    @property
    def merge(self) -> Merge:
        return self

    @property
    def recipe(self) -> workbench.Recipe:
        """This merge as data: `.save(path)` writes the file that makes it again. Raises RecipeError where an input lies in no file."""
        return workbench.Recipe.of(self)

    def _rounded_to(self, dtype: SavedDtype) -> Merge:
        made = Merge(self.call, self.options, self.rules, replace(self.settings, dtype=dtype))
        made.notes = self.notes
        return made

    @property
    def entries(self) -> Mapping[str, Entry]:
        return self.plan.entries

    def missing(self, key: str) -> str:
        why = self.plan.left_out.get(key)
        return f"{self.name}: {key!r} is not in the merge: {why or 'none of the inputs has it'}"

    def info(self, key: str) -> TensorInfo:
        info = self.entry(key).info
        dtype = self.settings.dtype or self._usual_dtype(info)
        return info.with_dtype(dtype) if dtype and not is_marker(key) else info

    def _usual_dtype(self, info: TensorInfo) -> str | None:
        """What a tensor is rounded to unasked, where that is not its own dtype: fp8 would swallow most of what merging changes."""
        return self.call.inputs[0].structure.family.dtype or None if info.is_float and info.itemsize == 1 else None

    def read(self, key: str, part: Part = None) -> torch.Tensor:
        origin = self.origin(key)
        if origin is None:
            return rounded(self.exact(key, part), self.info(key).dtype)
        holder, name = origin
        return rounded(holder.read(name, part), self.info(key).dtype)

    def exact(self, key: str, part: Part = None) -> torch.Tensor:
        origin = self.origin(key)
        if origin is None:
            return self.calculate(key, part, Calculation(self.settings.precision))
        holder, name = origin
        return holder.exact(name, part)

    def fingerprint(self, key: str) -> str:
        if key not in self._fingerprints:  # a merge may be an input many times over
            own = self._fingerprint(key)
            self._fingerprints[key] = hashed(own, self._content) if self.own_scope is Scope.MODEL else own
        return self._fingerprints[key]

    def _fingerprint(self, key: str) -> str:
        entry, settings = self.entry(key), self.settings
        inputs = [None if name is None else model.fingerprint(name) for model, name in zip(self.call.viewed, entry.names, strict=True)]
        if entry.take is not None:
            return hashed(inputs[entry.take], settings.dtype)
        operator = self.call.operator
        options = sorted(resolve_options(self.call, entry, self.bound).items())
        asked = (entry.key, settings.seed) if {*operator.asks.values()} - {Prepared} else ()
        return hashed(self._definition, options, asked, settings.precision, self.info(key).code, inputs)

    @cached_property
    def _definition(self) -> str:
        """What its operator does, not its name: in a notebook an operator may be defined anew."""
        return hashed(self.call.operator.definition)

    def origin(self, key: str) -> tuple[Checkpoint, str] | None:
        taken = self.entry(key).taken
        return None if taken is None else self.call.viewed[taken[0]].origin(taken[1])

    def calculate(self, key: str, part: Part, calculation: Calculation) -> torch.Tensor:
        entry = self.entry(key)
        if (taken := entry.taken) is not None:
            return self.call.viewed[taken[0]].calculate(taken[1], part, calculation)
        if entry.problem:
            raise MergeError(f"{self.name}: {entry.problem.text(key)}")
        shape = entry.info.shape
        if entry.narrower or entry.info.numel <= PIECE or calculation.device != "cpu" or self.grain(calculation) >= Scope.TENSOR:
            wide = widened(part, Scope.TENSOR if entry.narrower else self.own_scope, shape)
            state = self._state(calculation.device) if self.own_scope is Scope.MODEL else None
            tensor = self._evaluate(entry, wide, calculation, state)
        else:
            wide = widened(part, self.own_grain, shape)
            tensor = self._in_pieces(entry, wide, calculation)
        return tensor if wide == part else narrowed(tensor, wide, part, shape)

    def _in_pieces(self, entry: Entry, part: Part, calculation: Calculation) -> torch.Tensor:
        """A part of a tensor whose inputs need not be held whole, on the CPU."""
        import torch

        state, calculation = self._known(entry, calculation)
        shape = entry.info.shape
        first, last = elements(part, shape)
        if last - first <= PIECE:
            return self._evaluate(entry, part, calculation, state)
        result = torch.empty(last - first, dtype=calculation.dtype)
        for one in pieces(part, self.own_grain, shape):
            start, stop = elements(one, shape)
            result[start - first : stop - first] = self._evaluate(entry, one, calculation, state).reshape(-1)
        return result.reshape(part_shape(part, shape))

    def _known(self, entry: Entry, calculation: Calculation) -> tuple[Any, Calculation]:
        """What is prepared of a tensor whose inputs need not be held whole, and who is yet to hear of NaN and infinity in them."""
        if self.own_scope is Scope.MODEL:
            return self._state(calculation.device), calculation
        if self.own_grain == self.own_scope:
            return None, calculation
        found = self._states.of(self.call, entry, self.bound, self.settings.seed, calculation, self.grain(calculation))
        for model, key in found.nonfinite:
            calculation.hear(model, key)
        return found.prepared, replace(calculation, on_nonfinite=None)

    def _evaluate(self, entry: Entry, part: Part, calculation: Calculation, state: Any) -> torch.Tensor:
        given = self.call, entry, self.bound, self.settings.seed, part, calculation, state
        found = evaluation.fused(*given, calculation.dtype)
        return evaluation.evaluate(*given) if found is None else found

    def fused(self, key: str, part: Part, calculation: Calculation, dtype: torch.dtype) -> torch.Tensor | None:
        entry = self.entry(key)
        if entry.taken is not None or entry.problem or self.call.operator.fused is None:
            return None
        if not evaluation.readable(self.call, entry, calculation):  # before anything is prepared for it
            return None
        shape = entry.info.shape
        if widened(part, self.own_grain, shape) != part or (self.own_grain < self.own_scope and entry.info.numel <= PIECE):
            return None
        state, calculation = self._known(entry, calculation)
        return evaluation.fused(self.call, entry, self.bound, self.settings.seed, part, calculation, state, dtype)

    def grain(self, calculation: Calculation) -> Scope:
        if calculation.device != "cpu" or calculation.precision != "float32":
            return self.scope
        return max(self.own_grain, self._inputs_grain(calculation))

    def _inputs_grain(self, calculation: Calculation) -> Scope:
        """In what parts the inputs can be read, and stay as small."""
        return max(model.grain(calculation) for model in self.call.inputs)

    def prepare(self, *, progress: bool = False, cancelled: Callable[[], bool] | None = None) -> None:
        super().prepare(progress=progress, cancelled=cancelled)
        if self.own_scope is Scope.MODEL:
            self._state("cpu", progress, cancelled)

    def _state(self, device: str, progress: bool = False, cancelled: Callable[[], bool] | None = None) -> Any:
        """What the operator prepared for the whole model."""
        calculation = Calculation(self.settings.precision, device)
        grain = self._inputs_grain(calculation)
        return prepared(self._content, self.call, self.entries, self.bound, self.settings.seed, calculation, grain, progress, cancelled)

    @cached_property
    def _content(self) -> str:
        """What tells all that is read for it from every other whole model."""
        return hashed(*(self._fingerprint(key) for key in self.entries))

    def start(self, key: str, part: Part, calculation: Calculation) -> torch.Tensor | None:
        entry = self.entry(key)
        at = self.starts_from(entry)
        name = entry.names[at]
        return None if name is None or entry.take is not None else self.call.viewed[at].calculate(name, part, calculation)

    def starts_from(self, entry: Entry) -> int:
        """The position of the model that is changed: whose tensors the result has, or the first that has this one."""
        keys = self.call.operator.keys
        return entry.holder if keys == UNION else self.call.slots[keys][0]

    def sources(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(path for model in tree(self) if not model.parents for path in model.sources()))

    def replaced(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(path for model in tree(self) if not model.parents for path in model.replaced()))

    def check_options(self, key: str) -> None:
        """Raise OptionError if the options make no sense for this tensor (weights of its holders that sum to 0)."""
        entry = self.entry(key)
        if entry.take is None:
            resolve_options(self.call, entry, self.bound)

    @cached_property
    def schedules(self) -> Mapping[str, schedules.Schedule]:
        """Every option as a schedule over blocks, defaults included; numbers that come from a source are there."""
        found = {}
        for name, option in self.call.operator.options.items():
            given = self.options.get(name, option.default)
            value = sources.resolve(given) if option.is_value(given) else given
            found[name] = schedules.parse(value, option).mapped(sources.within_block)
        return found

    def by_block(self, option: str) -> dict[str, Any]:
        """An option's value in every block, by name, in order of depth: what a ramp or a mapping of blocks comes to."""
        at = self.bound[self.call.operator.option(option).name]
        return {block.name: at(Location(block)) for block in self.depth.blocks}

    @cached_property
    def bound(self) -> Bound:
        """Every option as a function of the block."""
        bound = {}
        for name, schedule in self.schedules.items():
            try:
                bound[name] = schedule.bind(self.depth)
            except OptionError as error:
                raise OptionError(f"{self.name}: {name}: {error}") from None
        return bound
