"""What the tensors of a file are stored as, in words, with bits per weight by component."""

from __future__ import annotations

from collections import Counter, defaultdict

from workbench.checkpoint.base import Checkpoint


def stored_as(model: Checkpoint) -> list[str]:
    """A line for each component, in the file's order; none where every tensor is stored as it reads. Bits are with the scales."""
    keys = defaultdict(list)
    for key in model:
        keys[model.structure.component(key)].append(key)
    if all(model.storage(key).kind == model.info(key).dtype_name for key in model):
        return []
    return [_line(model, component, held) for component, held in keys.items()]


def _line(model: Checkpoint, component: str, keys: list[str]) -> str:
    storages = [model.storage(key) for key in keys]
    kinds = ", ".join(f"{kind} {count}" for kind, count in Counter(one.kind for one in storages).most_common())
    nbytes, weights = sum(one.nbytes for one in storages), sum(model.info(key).numel for key in keys)
    return f"{component}, {8 * nbytes / max(weights, 1):.2f} bits per weight, {nbytes / 1e6:.1f} MB: {kinds}"
