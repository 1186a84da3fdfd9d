"""What a merge comes to in float64, from its paper's formula, and how a written file differs from that. Nothing here uses the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

WEIGHTS = (0.3, 0.7)  # of the average
DENSITY = 0.5  # of TIES and DARE
TURN = 0.5  # of slerp
_STRAIGHT = 0.9995  # cosine from which on slerp is linear, in mergekit as here
_SAMPLED = 24  # tensors that are compared
_LARGEST = 1 << 23  # elements of one of them, at most
_CANCELLED = 4 * torch.finfo(torch.float32).eps  # of the largest input: what float32 may be off by where inputs cancel out
_SIGN = {torch.float16: -(1 << 15), torch.bfloat16: -(1 << 15)}

Tensors = Sequence[torch.Tensor]
# The tensors of all inputs in float64, the base first where there is one -> every value that is right
Reference = Callable[[Tensors], Tensors]


@dataclass(frozen=True)
class Wrong:
    """What a tool did wrong: tensors lost, added, of another shape or dtype, and values that are off.

    `off` is the share of elements, of those that the merge changes, that are further from every right value than one unit in the last place
    of the dtype that the inputs have, and than float32 can be where inputs cancel out; `furthest` the largest such distance in units.
    """

    lost: int = 0
    added: int = 0
    reshaped: int = 0
    dtypes: Mapping[str, int] | None = None
    off: float = 0.0
    furthest: int = 0


def average(inputs: Tensors) -> Tensors:
    return [sum(weight * tensor for weight, tensor in zip(WEIGHTS, inputs, strict=True))]  # type: ignore[list-item]


def slerp(inputs: Tensors) -> Tensors:
    """Shoemake's, with the tensors' own lengths; or with the lengths interpolated, as sd-mecha has it. Both are right."""
    first, second = inputs
    lengths = first.norm(), second.norm()
    if not all(lengths):
        return [torch.lerp(first, second, TURN)]
    cosine = ((first * second).sum() / (lengths[0] * lengths[1])).clamp(-1, 1)
    if cosine.abs() > _STRAIGHT:
        return [torch.lerp(first, second, TURN)]
    angle = cosine.acos()
    one, other = ((1 - TURN) * angle).sin() / angle.sin(), (TURN * angle).sin() / angle.sin()
    turned = first / lengths[0] * one + second / lengths[1] * other
    return [first * one + second * other, turned * torch.lerp(*lengths, TURN)]


def ties(inputs: Tensors) -> Tensors:
    """Yadav et al. 2023, arXiv:2306.01708, section 3: what ties with the smallest that is kept stays too, a tied vote is plus."""
    base, *models = inputs
    return [base + _elected([_trimmed(model - base) for model in models])]


def dare_ties(inputs: Tensors) -> Tensors:
    """All that may come of dropping each change or scaling it up: which it is of each element is chance."""
    base, *models = inputs
    first, second = ((model - base) / DENSITY for model in models)
    return [base, base + first, base + second, base + _elected([first, second])]


def _trimmed(delta: torch.Tensor) -> torch.Tensor:
    count = int(DENSITY * delta.numel())
    if not count:
        return torch.zeros_like(delta)
    smallest = delta.abs().flatten().kthvalue(delta.numel() - count + 1).values
    return torch.where(delta.abs() >= smallest, delta, 0)


def _elected(deltas: Tensors) -> torch.Tensor:
    """The mean of those that have the sign of their sum."""
    stacked = torch.stack(list(deltas))
    sign = torch.where(stacked.sum(0) >= 0, 1.0, -1.0).to(stacked)
    agree = stacked * sign > 0
    return (stacked * agree).sum(0) / agree.sum(0).clamp(min=1)


def differences(written: Sequence[Path], inputs: Sequence[Path], reference: Reference) -> Wrong:
    """How the files that a tool wrote differ from what the inputs' merge comes to; values are compared in some tensors of all sizes."""
    with _opened(written) as out, _opened(inputs[:1]) as first:
        shared = [key for key in first if key in out]
        found = {key: (first[key].get_slice(key), out[key].get_slice(key)) for key in shared}
        reshaped = [key for key, (ours, theirs) in found.items() if ours.get_shape() != theirs.get_shape()]
        dtypes: dict[str, int] = {}
        for ours, theirs in found.values():
            if (change := f"{ours.get_dtype()} became {theirs.get_dtype()}") and ours.get_dtype() != theirs.get_dtype():
                dtypes[change] = dtypes.get(change, 0) + 1
        off, furthest = _values(_sampled({key: found[key][0].get_shape() for key in shared if key not in reshaped}), out, inputs, reference)
        return Wrong(len(first) - len(shared), len(out) - len(shared), len(reshaped), dtypes, off, furthest)


def _sampled(shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """Tensors evenly through the file, none larger than a limit."""
    keys = [key for key, shape in shapes.items() if torch.Size(shape).numel() <= _LARGEST]
    return keys[:: max(1, len(keys) // _SAMPLED)]


def _values(keys: Sequence[str], out: Mapping[str, safe_open], inputs: Sequence[Path], reference: Reference) -> tuple[float, int]:
    changed = off = furthest = 0
    with ExitStack() as stack:
        sources = [stack.enter_context(safe_open(path, "pt")) for path in inputs]
        for key in keys:
            tensors = [source.get_tensor(key) for source in sources]
            if tensors[0].dtype not in _SIGN:
                continue
            exact = [tensor.double() for tensor in tensors]
            right, found = reference(exact), out[key].get_tensor(key)
            slack = _CANCELLED * torch.stack([tensor.abs() for tensor in exact]).amax(0)
            away = torch.stack([_away(found, value, tensors[0].dtype, slack) for value in right]).amin(0)
            moved = torch.stack([value.to(tensors[0].dtype) != tensors[0] for value in right]).any(0)
            changed += int(moved.sum())
            off += int(((away > 1) & moved).sum())
            furthest = max(furthest, int(away.max()))
    return off / max(changed, 1), furthest


def _away(found: torch.Tensor, right: torch.Tensor, dtype: torch.dtype, slack: torch.Tensor) -> torch.Tensor:
    """How many units a tensor is from what is right; none where that is within the slack."""
    return torch.where((found.double() - right).abs() <= slack, 0, units(found.to(dtype), right.to(dtype)))


def units(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """How many numbers of their 16-bit dtype lie between two tensors; from NaN it is as far as can be."""
    steps = []
    for tensor in (one, other):
        bits = tensor.contiguous().view(torch.int16).to(torch.int32)
        steps.append(torch.where(bits < 0, _SIGN[tensor.dtype] - bits, bits))  # in the order of the values
    away = (steps[0] - steps[1]).abs()
    return torch.where(one.isnan() | other.isnan(), 1 << 16, away)


@contextmanager
def _opened(paths: Sequence[Path]) -> Iterator[Mapping[str, safe_open]]:
    """The open file of each tensor."""
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(path, "pt")) for path in paths]
        yield {key: file for file in files for key in file.keys()}  # noqa: SIM118
