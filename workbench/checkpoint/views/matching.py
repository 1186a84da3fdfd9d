"""Which tensors of several models can be set side by side, told by names and shapes. No weight is read here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.names.buffers import is_marker, leftover
from workbench.checkpoint.views.layouts import alike, incomplete
from workbench.errors import MergeError

_SHOWN = 3  # tensors that a message names


@dataclass(frozen=True)
class Matched:
    """A tensor's name in every model where it can be compared, viewed in the layout of the anchor, which is first, and its place there.

    The place is the tensor's block, or its component when it lies in none.
    """

    place: str
    names: Mapping[str, str]


@dataclass(frozen=True)
class LeftOut:
    """Tensors that cannot be compared with some candidates, and why."""

    why: str
    candidates: tuple[str, ...]
    keys: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.keys)} {self.why} {' and '.join(self.candidates)} ({listed(self.keys)})"


def match(models: Mapping[str, Checkpoint], who: str) -> tuple[list[Matched], list[LeftOut]]:
    """The first model's tensors that another one has too, in their order there, and what had to be left out.

    Tensors match in any layout; of one model alone all count. Raises MergeError for a model that has nothing to compare
    with the first, or no weights at all; `who` asks.
    """
    viewed = alike(models)
    first, *others = models
    anchor = models[first]
    if not others:
        if not any(_counted(anchor)):
            raise MergeError(f"{who}: {first} holds no floats; give a checkpoint with weights")
        return [Matched(place(anchor, key), {first: key}) for key in _counted(anchor)], []
    shared: dict[str, dict[str, str]] = {}
    left_out: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for other in others:
        names, reasons = _pair(anchor, viewed[other])
        if not names:
            raise MergeError(_strangers(who, models, other, reasons))
        for key, name in names.items():
            shared.setdefault(key, {first: key})[other] = name
        for why, keys in reasons.items():
            left_out.setdefault((why, tuple(keys)), []).append(other)
    matched = [Matched(place(anchor, key), shared[key]) for key in anchor if key in shared]
    return matched, [LeftOut(why, tuple(names), keys) for (why, keys), names in left_out.items()]


def places(model: Checkpoint) -> list[str]:
    """The blocks of a model by depth, then its components, that with the blocks first."""
    blocks = {block for key in model if (block := model.structure.block(key))}
    components = sorted(model.components, key=lambda component: component != model.structure.denoiser)
    return [block.name for block in sorted(blocks, key=lambda block: block.depth)] + components


def listed(keys: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(map(repr, keys[:_SHOWN])) + more


def place(model: Checkpoint, key: str) -> str:
    """The block that a tensor lies in, or its component where it lies in none."""
    return model.block(key) or model.structure.component(key)


def _pair(anchor: Checkpoint, candidate: Checkpoint) -> tuple[dict[str, str], dict[str, list[str]]]:
    """What the candidate calls the anchor's tensors that can be compared; and those that cannot, by what is the matter."""
    names: dict[str, str] = {}
    reasons: dict[str, list[str]] = {}
    for key in _counted(anchor):
        if key in incomplete(candidate):
            reasons.setdefault("of which only a part is in", []).append(key)
        elif key not in candidate:
            reasons.setdefault("not in", []).append(key)
        elif candidate.info(key).shape != anchor.info(key).shape:
            reasons.setdefault("of another shape in", []).append(key)
        elif not candidate.info(key).is_float:
            reasons.setdefault("not of floats in", []).append(key)
        else:
            names[key] = key
    for key in _counted(candidate):
        if key not in anchor:
            reasons.setdefault("only in", []).append(key)
        elif not anchor.info(key).is_float:
            reasons.setdefault("of floats only in", []).append(key)
    return names, reasons


def _counted(model: Checkpoint) -> Iterator[str]:
    """The names that are a matter of arithmetic: floats, not empty, no markers, nothing that training left behind."""
    for key in model:
        info = model.info(key)
        if info.is_float and info.numel and not is_marker(key) and leftover(key) is None:
            yield key


def _strangers(who: str, models: Mapping[str, Checkpoint], candidate: str, reasons: Mapping[str, Sequence[str]]) -> str:
    """What to say of a candidate that shares nothing with the anchor."""
    pair = (next(iter(models)), candidate)
    one, other = (f"{name} ({models[name].architecture}, {models[name].structure.layout} names)" for name in pair)
    told = "; ".join(str(LeftOut(why, (candidate,), tuple(keys))) for why, keys in reasons.items())
    return (
        f"{who}: {one} and {other} have no tensor in common that could be compared: {told or 'neither holds floats'}; "
        "use models of one architecture"
    )
