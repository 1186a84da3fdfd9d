"""Merges by a method's name: which of a base and its tuned models goes into which input. What methods do is in `operators`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from workbench.checkpoint import Checkpoint
from workbench.errors import InputError, SweepError
from workbench.merge import Merge
from workbench.merge.declaration import Declaration
from workbench.operators import find


def by_method(method: str, *, base: Checkpoint, models: Sequence[Checkpoint], **options: Any) -> Merge:
    """The merge of `models`, tuned from `base`, by the method of that name.

    A method of two models takes them in order, and the base where it asks for what they were tuned from; one that corrects a
    merge (`clamp`, `svc`, `truncate_rank`) corrects the sum of the changes. Raises UnknownOperatorError for a name that is none,
    InputError where the number of models does not fit, and OptionError.
    """
    operator = find(method)
    return operator(**placed(operator.declaration, base, models), **options)


def of_methods(cells: Sequence[Mapping[str, Any]], inputs: Mapping[str, Any] | None) -> Callable[..., Merge]:
    """What makes the merge of each cell, which names its `method`. Raises SweepError where one names none, or for other inputs."""
    if not all(isinstance(cell.get("method"), str) for cell in cells):
        raise SweepError(
            'without make, over names the method of each cell, as in over={"method": ["ties", "slerp"]} or '
            'over=[{"method": "ties", "density": 0.2}, {"method": "slerp"}]'
        )
    if inputs is None or set(inputs) != {"base", "models"}:
        given = "none" if inputs is None else ", ".join(inputs) or "none"
        raise SweepError(f'a sweep over methods takes inputs={{"base": base, "models": [first, second]}}, got {given}')
    return partial(by_method, **inputs)


def placed(declared: Declaration, base: Checkpoint, models: Sequence[Checkpoint]) -> dict[str, Any]:
    """The checkpoint, or the list of them, for each input of a method. Raises InputError where the number of models does not fit."""
    names = [slot.name for slot in declared.inputs if not slot.many]
    several = {} if declared.many is None else {declared.many.name: list(models)}
    if corrected := _CORRECTED.get(declared.name):
        summed = find("task_arithmetic")(base, list(models))
        return {name: summed if name == corrected else base for name in names} | several
    if several:
        return dict.fromkeys(names, base) | several
    given = _singles(names, base, models)
    if given is None:
        raise InputError(f"{declared.name} takes two models tuned from a base, got {len(models)}: {', '.join(one.name for one in models)}")
    return given


_CORRECTED = {"clamp": "model", "svc": "merged", "truncate_rank": "tuned"}  # the input that is a merge already
_COMMON = ("anchor", "original")  # inputs that are what the others were tuned from


def _singles(names: Sequence[str], base: Checkpoint, models: Sequence[Checkpoint]) -> dict[str, Checkpoint] | None:
    """Two models in order, the base where a third input asks for it; None where their number does not fit."""
    common = [name for name in names if name in _COMMON] or (["base"] if len(names) > 2 else [])
    free = [name for name in names if name not in common]
    if len(models) != len(free):
        return None
    return dict.fromkeys(common, base) | dict(zip(free, models, strict=True))
