"""An operator with checkpoints bound to its inputs: who is in which slot, and whether they belong there."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.views.layouts import like
from workbench.checkpoint.views.live import live
from workbench.errors import InputError
from workbench.merge.declaration import Declaration, Input
from workbench.tensors import Space


@dataclass(frozen=True)
class Call:
    """`models` maps slots (`base`, `models[0]`) to checkpoints in order; `slots` maps each input to its positions there."""

    operator: Declaration
    models: Mapping[str, Checkpoint]
    slots: Mapping[str, range]

    @cached_property
    def inputs(self) -> tuple[Checkpoint, ...]:
        return tuple(self.models.values())

    @cached_property
    def live(self) -> tuple[Checkpoint, ...]:
        """The models with each tensor once, and whole numbers for positions."""
        return tuple(map(live, self.inputs))

    @cached_property
    def viewed(self) -> tuple[Checkpoint, ...]:
        """Those as they would be written in the first's layout: in them, equal names mean the same tensor."""
        return tuple(like(model, self.live[0]) for model in self.live)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The models' names, made unique."""
        taken: dict[str, None] = {}
        for model in self.inputs:
            taken[unique(model.name, taken)] = None
        return tuple(taken)

    def position(self, slot: str) -> int:
        """Where the model of a slot is among the inputs."""
        return list(self.models).index(slot)

    @cached_property
    def many(self) -> range:
        """The positions of the input that takes several models; empty when no input does."""
        return self.slots[self.operator.many.name] if self.operator.many else range(0)


def unique(name: str, taken: Collection[str]) -> str:
    """`name`, or with a number after it what is not taken yet."""
    return next(one for one in itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2))) if one not in taken)


def bind(operator: Declaration, inputs: Mapping[str, Any]) -> Call:
    """Bind checkpoints to an operator's inputs by name. Raises InputError for what does not belong there."""
    models: dict[str, Checkpoint] = {}
    slots = {}
    for slot in operator.inputs:
        given = inputs[slot.name]
        many = _models(operator, slot, given)
        slots[slot.name] = range(len(models), len(models) + len(many))
        models |= {f"{slot.name}[{i}]" if slot.many else slot.name: model for i, model in enumerate(many)}
    return Call(operator, models, slots)


def _models(operator: Declaration, slot: Input, given: Any) -> list[Checkpoint]:
    if slot.many and (isinstance(given, (str, Checkpoint)) or not isinstance(given, Sequence) or not given):
        raise InputError(f"{operator.name}: {slot.name} takes a list of one or more checkpoints, got {given!r}")
    models = list(given) if slot.many else [given]
    for model in models:
        if not isinstance(model, Checkpoint):
            raise InputError(f"{operator.name}: {slot.name} takes checkpoints (see workbench.open), got {model!r}")
        if slot.space is Space.WEIGHT and model.space is Space.DELTA:
            raise InputError(f"{operator.name}: {slot.name} takes weights, but {model.name} holds changes to be added to weights")
    return models
