"""Two models whose weights count only by their ratio, as one slider from the first to the second, also by block."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, final

import ipywidgets as widgets

from workbench.merge import Range
from workbench.merge.declaration import Option
from workbench.merge.schedules import Depth
from workbench.panels.bars import Bars, bounds_of
from workbench.panels.fields import CompositeField, full
from workbench.panels.labels import labels
from workbench.panels.state import each_value, per_model

_DIGITS = 10


def is_between(option: Option, models: Sequence[str]) -> bool:
    """Whether an option's values for these models are one number: how far it is from the first to the second."""
    constraint = option.constraint
    return isinstance(constraint, Range) and constraint.shares and option.per_model and len(models) == 2


def share_option(option: Option, models: Sequence[str]) -> Option:
    """The option of that one number: 0 is the first model alone, 1 the second."""
    given = bounds_of(option)
    low, high = max(given.low, 1 - given.high), min(given.high, 1 - given.low)
    constraint = replace(given, low=low, high=high, soft=(0.0, 1.0), help=f"0 is {models[0]}, 1 is {models[1]}", shares=False)
    return replace(option, default=0.5, constraint=constraint, per_model=False)


def as_share(value: Any, option: Option, depth: Depth) -> Any:
    """A value of the option, in any of its forms, as one of its share's that makes the same merge.

    A ramp between weights of different sums is no straight line of shares: it comes out as a share for each block.
    """
    if isinstance(value, Mapping) and "ramp" in value and len({sum(per_model(end, 2)) for end in _ends(value["ramp"])}) > 1:
        bars = Bars.of(value, option, depth, 2)
        pairs = [tuple(map(_share, zip(*rows, strict=True))) for rows in (bars.rows, [(one,) for one in bars.elsewhere])]
        modules = tuple((_share(row),) for row in bars.modules)
        return Bars(replace(option, per_model=False), depth, (pairs[0],), pairs[1], modules).value
    return each_value(value, _share)


def as_weights(share: Any) -> Any:
    """A value of the share, in any of its forms, as one of the option's."""
    return each_value(share, lambda one: [round(1 - one, _DIGITS), one])


@final
class Between(CompositeField):
    """Holds weights of two models; `field` is the share's control."""

    def __init__(self, option: Option, models: Sequence[str], depth: Depth, field: widgets.Widget, value: Any) -> None:
        self._share_of, self._field = partial(as_share, option=option, depth=depth), field
        self.switch, self.editor = getattr(field, "switch", None), getattr(field, "editor", None)
        names = "".join(f'<span title="{html.escape(name)}">{html.escape(short)}</span>' for name, short in labels(models).items())
        ends = widgets.HTML(f'<div class="wb-ends">{names}</div>')
        super().__init__([field], value, children=[ends, field], layout=full())
        self.add_class("wb-column")

    def read(self) -> Any:
        return as_weights(self._field.value)

    def write(self, value: Any) -> None:
        self._field.value = self._share_of(value)


def _share(weights: Any) -> float:
    """How much of two weights is the second's; a half where they come to nothing, which preflight says."""
    first, second = per_model(weights, 2)
    return round(second / (first + second), _DIGITS) if first + second else 0.5


def _ends(ramp: Mapping[str, Any]) -> list[Any]:
    return [given for name, given in ramp.items() if name in ("start", "end")]
