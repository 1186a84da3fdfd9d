"""What a merge costs: CPU seconds beside those of a plain average, and the most bytes that its largest tensor needs at once."""

from __future__ import annotations

import time
import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from workbench.checkpoint import Checkpoint

_FLOAT32 = 4  # bytes
_ROUNDS = 3


def against(merge: Checkpoint, average: Checkpoint) -> dict[str, float]:
    """`time` and `memory` of a merge over those of an average of the same models; of times the least of a few, in turns."""
    times = [(_seconds(merge), _seconds(average)) for _ in range(_ROUNDS)]
    mine, others = (min(column) for column in zip(*times, strict=True))
    return {"time": round(mine / others, 2), "memory": round(_memory(merge) / _memory(average), 2)}


def _seconds(merge: Checkpoint) -> float:
    """CPU seconds of calculating every tensor."""
    began = time.process_time()
    for key in merge:
        merge[key]
    return time.process_time() - began


def _memory(merge: Checkpoint) -> float:
    """The most bytes of tensors alive at once while the largest tensor is calculated, over its size in float32."""
    key = max(merge, key=lambda name: merge.info(name).numel)
    with Alive() as alive:
        merge[key]
    return alive.most / (merge.info(key).numel * _FLOAT32)


class Alive(TorchDispatchMode):  # type: ignore[misc]
    """Counts bytes of the storages that operations make, for as long as they live; what a library keeps for itself is not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.most = self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place in self._known:
            return
        self._known.add(place)
        self._now += size
        self.most = max(self.most, self._now)
        weakref.finalize(storage, self._gone, place, size)

    def _gone(self, place: int, size: int) -> None:
        self._known.discard(place)
        self._now -= size
