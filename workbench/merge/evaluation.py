"""The one place where a part of a merge is computed: read, cast, subtract, resolve options, call the operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbench import kernels
from workbench.checkpoint import Checkpoint
from workbench.errors import MergeError, OptionError
from workbench.families import Location
from workbench.merge.asked import Prepared, Random, TensorName
from workbench.merge.call import Call
from workbench.merge.declaration import Input, Missing, spread
from workbench.merge.plan import Entry
from workbench.tensors import PIECE, Calculation, Part, Space, elements, part_shape

if TYPE_CHECKING:
    import torch

Bound = Mapping[str, Callable[[Location], Any]]  # option -> its value at a place


def evaluate(call: Call, entry: Entry, options: Bound, seed: int, part: Part, calculation: Calculation, state: Any = None) -> torch.Tensor:
    """`part` of one tensor of a merge, in the calculation's dtype; a part that the operator's scope allows. `state` is what it prepared."""
    named = resolve_options(call, entry, options) | _answers(call, entry, seed, part, state)
    import torch

    try:
        return call.operator.function(*tensors_of(call, entry, part, calculation), **named)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # NaN and infinity have no singular vectors
        told = "a model holds NaN or infinity there, or it does not converge; take the tensor from a sound model by a rule"
        raise MergeError(f"{call.operator.name}: {entry.key!r}: {told} ({error})") from error


def fused(
    call: Call, entry: Entry, options: Bound, seed: int, part: Part, calculation: Calculation, state: Any, dtype: torch.dtype
) -> torch.Tensor | None:
    """What `evaluate` gives, rounded to a dtype, in one pass from what is stored; None where that cannot be, or something is not finite."""
    import torch

    asked = call.operator.fused
    if asked is None or not readable(call, entry, calculation):
        return None
    out = torch.empty(part_shape(part, entry.info.shape), dtype=dtype)
    if kernels.dtype_name(out) not in kernels.STORED:
        return None
    loop = asked(**resolve_options(call, entry, options) | _answers(call, entry, seed, part, state))
    stored = None if loop is None else stored_inputs(call, entry, part, calculation)
    return out if loop is not None and stored is not None and loop(out, *stored) else None


def readable(call: Call, entry: Entry, calculation: Calculation) -> bool:
    """Whether stored inputs are all there is to a tensor, loops can read them, and it is so large that importing those is worth it."""
    exactly = calculation.device == "cpu" and calculation.precision == "float32" and calculation.kept is None
    models = all(model.space is Space.WEIGHT for model in call.inputs)  # of changes there is none whose difference to the base they are
    return exactly and models and not entry.narrower and entry.info.numel > PIECE and kernels.read_stored()


def stored_inputs(call: Call, entry: Entry, part: Part, calculation: Calculation) -> list[Any] | None:
    """What goes into the operator's inputs as it is stored, of deltas the models, and None for what a model lacks; None where no loop can
    read that.
    """
    if not readable(call, entry, calculation):
        return None
    arguments: list[Any] = []
    for slot in call.operator.inputs:
        tensors: list[torch.Tensor | None] = []
        for i in call.slots[slot.name]:
            name = entry.names[i]
            if name is not None:
                tensors.append(_stored(call.viewed[i], name, part, calculation))
            elif slot.space is Space.DELTA:
                tensors.append(None)
        arguments.append(tensors if slot.many else tensors[0])
    return arguments if kernels.fit_stored(*(one for one in _flat(arguments) if one is not None)) else None


def _stored(model: Checkpoint, name: str, part: Part, calculation: Calculation) -> torch.Tensor:
    """A part of a tensor in the dtype of its file, where loops know it; else calculated."""
    origin = model.origin(name)
    if origin is not None and origin[0].info(origin[1]).dtype_name in kernels.STORED:
        holder, key = origin
        return holder.exact(key, part)
    return model.calculate(name, part, calculation)


def _flat(arguments: Sequence[Any]) -> list[torch.Tensor | None]:
    return [one for given in arguments for one in (given if isinstance(given, list) else [given])]


def tensors_of(call: Call, entry: Entry, part: Part, calculation: Calculation) -> list[Any]:
    """What goes into the operator's inputs, deltas subtracted."""
    import torch

    first, last = elements(part, entry.info.shape)
    if last - first <= PIECE and (found := _widened(call, entry, part, calculation)) is not None:
        return found
    arguments: list[Any] = []
    base: torch.Tensor | None = None
    for slot in call.operator.inputs:
        tensors = []
        for i in call.slots[slot.name]:
            name = entry.names[i]
            if name is not None:
                tensor = call.viewed[i].calculate(name, part, calculation)
                base = tensor if base is None else base
                weights_given = slot.space is Space.DELTA and call.inputs[i].space is Space.WEIGHT
                if i in entry.narrower:
                    tensor = _continued(tensor, base, call.inputs[i].space)
                tensors.append(tensor.sub_(base) if weights_given else tensor)  # what `calculate` gives is ours
            elif slot.space is Space.DELTA:  # a model without the tensor did not change it
                tensors.append(torch.zeros(part_shape(part, entry.info.shape), dtype=calculation.dtype, device=calculation.device))
        arguments.append(tensors if slot.many else tensors[0])
    return arguments


def _widened(call: Call, entry: Entry, part: Part, calculation: Calculation) -> list[Any] | None:
    """The same, by loops over what is stored; None where that cannot be, or something is not finite."""
    stored = stored_inputs(call, entry, part, calculation)
    base = next((one for one in _flat(stored or []) if one is not None), None)
    if stored is None or base is None:
        return None
    import torch

    from workbench.kernels.mixtures import weighted_sum

    shape, finite = part_shape(part, entry.info.shape), True

    def wide(slot: Input, tensor: torch.Tensor | None) -> torch.Tensor:
        nonlocal finite
        if tensor is None:
            return torch.zeros(shape)
        out = torch.empty(shape)
        finite &= weighted_sum(out, [tensor, base], [1, -1]) if slot.space is Space.DELTA else weighted_sum(out, [tensor], [1])
        return out

    pairs = zip(call.operator.inputs, stored, strict=True)
    found = [[wide(slot, one) for one in given] if slot.many else wide(slot, given) for slot, given in pairs]
    return found if finite else None


def _continued(tensor: torch.Tensor, base: torch.Tensor, space: Space) -> torch.Tensor:
    """A tensor with the input channels that it lacks: unchanged there, so of weights those of the base, of changes zeros."""
    wide = base.clone() if space is Space.WEIGHT else base.new_zeros(base.shape)
    wide[:, : tensor.shape[1]] = tensor
    return wide


def _answers(call: Call, entry: Entry, seed: int, part: Part, state: Any) -> dict[str, Any]:
    """What the operator asks for beside tensors and options."""
    first, _ = elements(part, entry.info.shape)
    known = {TensorName: TensorName(entry.key), Random: Random(seed, entry.key, first), Prepared: Prepared(state)}
    return {name: known[asked] for name, asked in call.operator.asks.items()}


def resolve_options(call: Call, entry: Entry, options: Bound) -> dict[str, Any]:
    """The options as the operator gets them for one tensor: of its block, one per model it sees. Raises OptionError."""
    omit = call.operator.missing is Missing.OMIT
    seen = [i - call.many.start for i in call.many if not omit or entry.names[i] is not None]
    resolved = {name: spread(call.operator.options[name], at(entry.location), seen) for name, at in options.items()}
    complaint = call.operator.check(models=len(seen), **resolved) if call.operator.check else None
    if complaint:
        where = "" if entry.block is None else f", block {entry.block.name}"
        fewer = f" for the {len(seen)} of {len(call.many)} models that hold it" if len(seen) < len(call.many) else ""
        raise OptionError(f"{call.operator.name}: {complaint}{fewer} (at {entry.key!r}{where})")
    return resolved
