"""The pass over the whole model that an operator of scope MODEL is given first: what it returns is small, and kept by content."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from tqdm.auto import tqdm

from workbench.errors import Cancelled
from workbench.merge.call import Call
from workbench.merge.evaluation import Bound, resolve_options, tensors_of
from workbench.merge.plan import Entry
from workbench.tensors import Calculation
from workbench.wording import printable

# each call goes through the model anew: of every tensor that is merged a function that reads its inputs, and its options
Passes = Callable[[], Iterator[tuple[Callable[[], list[Any]], dict[str, Any]]]]

_MOST = 16  # states that are kept
_kept: OrderedDict[str, Any] = OrderedDict()
_preparing = threading.RLock()  # of threads that read the same merge one prepares; an inner merge is prepared by the one that has it


def prepared(
    content: str,
    call: Call,
    entries: Mapping[str, Entry],
    options: Bound,
    calculation: Calculation,
    progress: bool,
    cancelled: Callable[[], bool] | None,
) -> Any:
    """What the operator's `prepare` returns for these tensors, done once for equal `content`. Raises Cancelled; then nothing is kept."""
    with _preparing:
        if content not in _kept:
            merged = {key: entry for key, entry in entries.items() if entry.take is None}

            def passes() -> Iterator[tuple[Callable[[], list[Any]], dict[str, Any]]]:
                shown = tqdm(
                    merged.values(), unit="tensor", delay=2, disable=not progress, desc=printable(f"{call.operator.name}, whole model")
                )
                for entry in shown:
                    if cancelled is not None and cancelled():
                        raise Cancelled(f"{call.operator.name} is not wanted any more")
                    yield partial(tensors_of, call, entry, None, calculation), resolve_options(call, entry, options)

            assert call.operator.prepare is not None  # only then a merge asks
            _kept[content] = call.operator.prepare(passes)
        _kept.move_to_end(content)
        while len(_kept) > _MOST:
            _kept.popitem(last=False)
        return _kept[content]
