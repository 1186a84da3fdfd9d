"""Merging changes of low rank by any method, in matrices as small as their ranks. Which tensors, and what is kept, is `combining`'s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.errors import OptionError
from workbench.lora.decomposition import Decomposed, decompose_product
from workbench.merge import Operator, Prepared, Random, TensorName
from workbench.merge.declaration import near
from workbench.merge.decorator import check_options
from workbench.tensors import Space

if TYPE_CHECKING:
    import torch

LINEAR = "linear"  # the sum, which needs no core space
ROUNDING = 1e-6  # of the strongest direction, or of the changes: what is below is float32's rounding
# options that LoRAs have another word for, or only one answer to
_TAKEN = dict.fromkeys(("weights", "strengths"), "strengths= says how much of each LoRA") | {
    "convolutions": "the convolutions of a LoRA are matrices",
    "over": "each layer is merged by itself, in directions of its own, which are no rows and columns",
    "filter_wise": "a layer is merged in directions of its own, which are no rows",
}


@dataclass(frozen=True)
class Method:
    """An operator that merges changes, with its options, as it is used on those of `count` LoRAs."""

    operator: Operator
    options: Mapping[str, Any]
    seed: int
    count: int

    @property
    def told(self) -> str:
        """What it is, in words."""
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return self.operator.declaration.name + (f" ({options})" if options else "")

    def merged(self, key: str, changes: Sequence[torch.Tensor], side: int) -> torch.Tensor:
        """What becomes of changes of tensor `key`, one for each LoRA, all of one shape; `side` is the smaller one of its whole matrix."""
        import torch

        declared = self.operator.declaration
        answers = {Random: Random(self.seed, key), TensorName: TensorName(key), Prepared: Prepared()}
        named = dict(self.options) | {name: answers[asked] for name, asked in declared.asks.items()}
        if "convolutions" in declared.options:
            named["convolutions"] = "matrix"
        if "directions" in declared.options and "directions" not in named:  # counted by the whole matrix, and not by its core
            named["directions"] = side // self.count
        return self.operator.function(torch.zeros_like(changes[0]), list(changes), **named)


def method_named(name: str, options: Mapping[str, Any], seed: int, count: int, who: str) -> Method | None:
    """The method of that name for `count` LoRAs; None for the sum. Raises OptionError for what is no method, or no option of it."""
    from workbench.operators import registry

    known = {each: operator for each, operator in registry().items() if _merges_changes(operator)}
    if name not in (LINEAR, *known):
        raise OptionError(f"{who}: there is no method {name!r} for LoRAs{near(str(name), [LINEAR, *known])}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise OptionError(f"{who}: seed must be a whole number from 0 to 2**64 - 1, got {seed!r}")
    for option in options:
        if name == LINEAR or option in _TAKEN:
            raise OptionError(f"{who}: {name} has no option {option!r} here: {_TAKEN.get(option, 'it is the sum of strength * change')}")
    if name == LINEAR:
        return None
    check_options(known[name].declaration, options, count)
    if by_block := [option for option, value in options.items() if isinstance(value, Mapping)]:
        raise OptionError(f"{who}: {name}: {by_block[0]} cannot differ by block for LoRAs; give one value")
    return Method(known[name], dict(options), seed, count)


def in_core_space(
    key: str, shape: tuple[int, ...], changes: Sequence[Decomposed | None], strengths: Sequence[float], method: Method
) -> Decomposed | None:
    """The merge of changes of one tensor, each at its strength, with all of its directions; None where it comes to nothing.

    A change C of LoRA i has the core strength * U^T C V: U are the left singular vectors of all up factors side by side, V those of
    all down factors. The method works on the cores, r x r for ranks that add up to r, and what it makes of them is put back,
    U core V^T. It works in float64, and no matrix of the tensor's size is made.

    The factors are balanced (each singular value of a change is shared by both), so that equal changes give equal results, however a
    file divides them into factors. Source: Panariello et al. 2025, arXiv:2509.17786, section 4.
    """
    import torch

    there = [change for change in changes if change is not None]
    if not there:
        return None
    left = basis([change.up for change in there])
    right = basis([change.down.T for change in there])
    cores = [
        left.new_zeros(left.shape[1], right.shape[1])
        if change is None
        else strength * (left.T @ change.up.double()) @ (change.down.double() @ right)
        for change, strength in zip(changes, strengths, strict=True)
    ]
    merged = method.merged(key, cores, min(len(left), len(right)))
    if not merged.norm() > ROUNDING * torch.stack(cores).norm():
        return None
    return decompose_product(key, shape, left @ merged, right.T)


def basis(factors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The left singular vectors of matrices side by side, those that are rounding left out: rows x directions, in float64."""
    import torch

    tall, small = torch.linalg.qr(torch.cat([factor.double() for factor in factors], 1))
    left, values, _ = torch.linalg.svd(small, full_matrices=False)
    kept = int((values > ROUNDING * values[0]).sum())
    found: torch.Tensor = tall @ left[:, :kept]
    return found


def _merges_changes(operator: Operator) -> bool:
    """Whether it is for a base and changes of it."""
    inputs = operator.declaration.inputs
    return [(slot.space, slot.many) for slot in inputs] == [(Space.WEIGHT, False), (Space.DELTA, True)]
