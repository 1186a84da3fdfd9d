"""The passes over a tensor, or over the whole model, that an operator is given first: what it returns is small, and kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tqdm.auto import tqdm

from workbench.errors import Cancelled
from workbench.merge.asked import Random
from workbench.merge.call import Call
from workbench.merge.evaluation import Bound, resolve_options, stored_inputs, tensors_of
from workbench.merge.plan import Entry
from workbench.tensors import Calculation, Part, Scope, elements, pieces
from workbench.wording import printable


@dataclass(frozen=True)
class ReadingPart:
    """Reads a part of what goes into the operator's inputs; `random` has its elements' random numbers."""

    call: Call
    entry: Entry
    part: Part
    calculation: Calculation
    random: Random

    def __call__(self) -> list[Any]:
        """In the calculation's dtype, deltas subtracted."""
        return tensors_of(self.call, self.entry, self.part, self.calculation)

    def stored(self) -> list[Any] | None:
        """As it is stored, of deltas the models; None where that is not all there is to them."""
        return stored_inputs(self.call, self.entry, self.part, self.calculation)


@dataclass(frozen=True)
class Reading:
    """Reads what goes into the operator's inputs for one tensor: called, all of it."""

    call: Call
    entry: Entry
    calculation: Calculation
    grain: Scope
    seed: int

    def __call__(self) -> list[Any]:
        return tensors_of(self.call, self.entry, None, self.calculation)

    def parts(self) -> Iterator[ReadingPart]:
        """One part after another, flat or of rows, of about PIECE elements where the inputs can be read so."""
        shape = self.entry.info.shape
        for part in pieces(None, self.grain, shape):
            random = Random(self.seed, self.entry.key, elements(part, shape)[0])
            yield ReadingPart(self.call, self.entry, part, self.calculation, random)


# each call goes anew through all tensors that are merged, or through one: what reads its inputs, and its options
Passes = Callable[[], Iterator[tuple[Reading, dict[str, Any]]]]

_MOST = 16  # states that are kept
_kept: OrderedDict[str, Any] = OrderedDict()
_preparing = threading.RLock()  # of threads that read the same merge one prepares; an inner merge is prepared by the one that has it


def prepared(
    content: str,
    call: Call,
    entries: Mapping[str, Entry],
    options: Bound,
    seed: int,
    calculation: Calculation,
    grain: Scope,
    progress: bool,
    cancelled: Callable[[], bool] | None,
) -> Any:
    """What the operator's `prepare` returns for these tensors, read in parts of `grain`, done once for equal `content`.

    Raises Cancelled; then nothing is kept.
    """
    with _preparing:
        if content not in _kept:
            merged = {entry.key: entry for entry in entries.values() if entry.take is None}  # once, where a file has both of its names

            def passes() -> Iterator[tuple[Reading, dict[str, Any]]]:
                shown = tqdm(
                    merged.values(), unit="tensor", delay=2, disable=not progress, desc=printable(f"{call.operator.name}, whole model")
                )
                for entry in shown:
                    if cancelled is not None and cancelled():
                        raise Cancelled(f"{call.operator.name} is not wanted any more")
                    parts = Scope.TENSOR if entry.narrower else grain
                    yield Reading(call, entry, calculation, parts, seed), resolve_options(call, entry, options)

            assert call.operator.prepare is not None  # only then a merge asks
            _kept[content] = call.operator.prepare(passes)
        _kept.move_to_end(content)
        while len(_kept) > _MOST:
            _kept.popitem(last=False)
        return _kept[content]


@dataclass(frozen=True)
class State:
    """What an operator prepared of one tensor, and which tensors of which models hold NaN or infinity: (model, tensor)."""

    prepared: Any
    nonfinite: tuple[tuple[str, str], ...]


class States:
    """Those of the tensors of a merge that were read last. Two threads that ask for the same one may both prepare it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, State] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, call: Call, entry: Entry, options: Bound, seed: int, calculation: Calculation, grain: Scope) -> State:
        """That of one tensor, on the CPU in float32; its inputs are read in parts of `grain`."""
        with self._lock:
            if entry.key in self._kept:
                self._kept.move_to_end(entry.key)
                return self._kept[entry.key]
        found: dict[tuple[str, str], None] = {}
        listening = replace(calculation, on_nonfinite=lambda model, key: found.setdefault((model, key)))
        reading = Reading(call, entry, listening, grain, seed)
        assert call.operator.prepare is not None  # only then a merge asks
        state = call.operator.prepare(lambda: iter([(reading, resolve_options(call, entry, options))]))
        with self._lock:
            kept = self._kept[entry.key] = State(state, tuple(found))
            while len(self._kept) > _MOST:
                self._kept.popitem(last=False)
        return kept
