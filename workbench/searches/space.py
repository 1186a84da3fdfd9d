"""What a search may vary: dimensions, from what a person says or from an operator's declaration, and the options that a point means."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from workbench.errors import SearchError
from workbench.merge import Flag, OneOf, Operator, Range

if TYPE_CHECKING:
    from workbench.merge.declaration import Option

Point = Mapping[str, Any]  # a dimension's name -> its value

GROUPS = ("all", "parts", "ramp", "every")
_UNET = {"in": "IN", "mid": "MID", "out": "OUT"}  # how the names of a U-Net's blocks begin
_KNOWN = ("low", "high", "step", "log", "choices", "each", "blocks")


@dataclass(frozen=True)
class Dimension:
    """One number between `low` and `high`, in steps where `step` is given, or one of `choices`.

    `default` is what it is unless it is varied; None where nobody says.
    """

    name: str
    low: float = math.nan
    high: float = math.nan
    step: float | None = None
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] = ()
    default: Any = None

    def levels(self, count: int) -> list[Any]:
        """So many values from end to end, as a grid has them; all choices, whatever the count."""
        if self.choices:
            return list(self.choices)
        if count == 1:
            return [self.fitted((self.low * self.high) ** 0.5 if self.log else (self.low + self.high) / 2)]
        shares = [number / (count - 1) for number in range(count)]
        return list(dict.fromkeys(self.fitted(self.at(share)) for share in shares))

    def at(self, share: float) -> float:
        """What lies that far from `low` to `high`."""
        return self.low * (self.high / self.low) ** share if self.log else self.low + share * (self.high - self.low)

    def holds(self, value: Any) -> bool:
        """Whether it may have this value."""
        if self.choices:
            return value in self.choices
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def fitted(self, value: float) -> Any:
        """The nearest value that it may have."""
        if self.step:
            value = min(self.low + self.step * round((value - self.low) / self.step), self.high)
        return round(value) if self.whole else min(max(float(f"{value:.4g}"), self.low), self.high)


@dataclass(frozen=True)
class Axis:
    """An option, its dimensions, and how its value is made of theirs."""

    option: str
    dimensions: tuple[Dimension, ...]
    value: Callable[[Sequence[Any]], Any]


@dataclass(frozen=True)
class SearchSpace:
    """All that is varied."""

    axes: tuple[Axis, ...]

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        return tuple(dimension for axis in self.axes for dimension in axis.dimensions)

    @property
    def default(self) -> Point | None:
        """The point at which everything is as it is without a search; None where that is not known, or not within the space."""
        point = {one.name: one.default for one in self.dimensions}
        return point if all(one.holds(point[one.name]) for one in self.dimensions) else None

    def options(self, point: Point) -> dict[str, Any]:
        """What a point means for the merge."""
        return {axis.option: axis.value([point[one.name] for one in axis.dimensions]) for axis in self.axes}

    def grid(self, most: int) -> Iterator[Point]:
        """The coarse grid of at most so many points: as many levels in each dimension as there is room for, two at least.

        Where two of each are too many, the points that differ from the middle in one dimension.
        """
        levels = max((count for count in range(2, most + 1) if self._size(count) <= most), default=0)
        if levels:
            names = [one.name for one in self.dimensions]
            yield from (dict(zip(names, values, strict=True)) for values in product(*(one.levels(levels) for one in self.dimensions)))
            return
        middle = {one.name: one.levels(1)[0] for one in self.dimensions}
        around = [middle, *({**middle, one.name: value} for one in self.dimensions for value in one.levels(2))]
        seen: list[Point] = []
        for point in around:
            if point not in seen and len(seen) < most:
                seen.append(point)
                yield point

    def _size(self, count: int) -> int:
        return math.prod(len(one.levels(count)) for one in self.dimensions)


def space_of(
    given: Mapping[str, Any] | None, operator: Operator | None, models: Sequence[str] = (), blocks: Sequence[str] = ()
) -> SearchSpace:
    """The space that somebody describes; None takes all of the operator's options but vectors. Raises SearchError.

    An option maps to `(low, high)`, to a list of choices, or to a mapping: `low` and `high`, or `choices`; with `step`, `log`;
    `each: model` for a number of its own for each model; `blocks`: `all` for one number, `parts` for one each of the way in, the
    middle and the way out, `ramp` for the two ends of a ramp, `every` for one for each block, or a list of blocks that are varied while
    the others stay as they are. What is left out comes from the operator's declaration. `models` are the names of those
    that the operator takes several of, `blocks` those that they have, in order.
    """
    options = dict(operator.declaration.options) if operator else {}
    if given is None:
        if operator is None:
            raise SearchError("a function of options tells nothing of them: give space=, as in {'density': (0.1, 0.9)}")
        found = [_declared(option, models) for option in options.values()]
        axes = tuple(axis for axis in found if axis is not None)
    elif not isinstance(given, Mapping):
        raise SearchError(f"space must be a mapping of options, as in {{'density': (0.1, 0.9)}}, got {given!r}")
    else:
        axes = tuple(_axis(name, told, options.get(name), models, blocks) for name, told in given.items())
    if not axes:
        raise SearchError("space is empty: name an option and where it may lie, as in {'density': (0.1, 0.9)}")
    return SearchSpace(axes)


def _declared(option: Option, models: Sequence[str]) -> Axis | None:
    """An option as its declaration has it: through its slider, one number for each model where it has one."""
    constraint = option.constraint
    default = None if option.required else option.default
    if isinstance(constraint, OneOf | Flag):
        choices = constraint.choices if isinstance(constraint, OneOf) else (False, True)
        return _plain(Dimension(option.name, choices=choices, default=default))
    if not isinstance(constraint, Range) or option.optional:
        return None
    low, high = constraint.slider
    dimension = Dimension(option.name, low, high, whole=constraint.whole, default=default)
    return _each(dimension, models) if option.per_model and len(models) > 1 else _plain(dimension)


def _axis(name: str, told: Any, option: Option | None, models: Sequence[str], blocks: Sequence[str]) -> Axis:
    where = f"space[{name!r}]"
    if isinstance(told, tuple) and len(told) == 2:
        told = {"low": told[0], "high": told[1]}
    elif isinstance(told, Sequence) and not isinstance(told, str):
        told = {"choices": list(told)}
    if not isinstance(told, Mapping):
        raise SearchError(f"{where} must be (low, high), a list of choices, or a mapping, got {told!r}")
    if unknown := sorted(map(str, set(told) - set(_KNOWN))):
        raise SearchError(f"{where} has no {', '.join(map(repr, unknown))}; there are {', '.join(_KNOWN)}")
    default = None if option is None or option.required else option.default
    if "choices" in told:
        if not isinstance(told["choices"], Sequence) or isinstance(told["choices"], str) or not told["choices"]:
            raise SearchError(f"{where}: choices must be a list of one or more values, got {told['choices']!r}")
        return _plain(Dimension(name, choices=tuple(told["choices"]), default=default))
    dimension = _number(where, name, told, option, default)
    if told.get("each") not in (None, "model"):
        raise SearchError(f"{where}: each must be 'model', got {told['each']!r}")
    grouped = "all" if told.get("blocks") is None else told["blocks"]
    if told.get("each") and grouped != "all":
        raise SearchError(f"{where}: choose one of each= and blocks=: numbers for each model and block are more than a search finds")
    return _each(dimension, models) if told.get("each") else _by_block(where, dimension, grouped, blocks)


def _number(where: str, name: str, told: Mapping[str, Any], option: Option | None, default: Any) -> Dimension:
    constraint = option.constraint if option else None
    declared = constraint.slider if isinstance(constraint, Range) else (math.nan, math.nan)
    low, high = told.get("low", declared[0]), told.get("high", declared[1])
    for number in (low, high, told.get("step") or 1):
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise SearchError(f"{where} needs low and high (and step, if any), finite numbers, got {dict(told)!r}")
    if not low < high:
        raise SearchError(f"{where} is empty: low must be below high, got {low!r} and {high!r}")
    if told.get("step") is not None and not 0 < told["step"] <= high - low:
        raise SearchError(f"{where}: step must be above 0 and at most {high - low:g}, got {told['step']!r}")
    if told.get("log") and low <= 0:
        raise SearchError(f"{where}: log needs low above 0, got {low!r}")
    if isinstance(constraint, Range):
        for number in (low, high):
            if number < constraint.low or number > constraint.high:
                raise SearchError(f"{where}: {number!r} is none: {name} must be {constraint.allowed}")
    whole = isinstance(constraint, Range) and constraint.whole
    return Dimension(name, low, high, told.get("step"), bool(told.get("log")), whole, default=default)


def _plain(dimension: Dimension) -> Axis:
    return Axis(dimension.name, (dimension,), lambda values: values[0])


def _each(dimension: Dimension, models: Sequence[str]) -> Axis:
    if not models:
        raise SearchError(f"space[{dimension.name!r}]: each: model needs inputs= with a list of models")
    own = dimension.default if isinstance(dimension.default, Sequence) else [dimension.default] * len(models)
    told = models if len(set(models)) == len(models) else range(len(models))
    names = [f"{dimension.name}[{one}]" for one in told]
    return Axis(dimension.name, tuple(replace(dimension, name=name, default=one) for name, one in zip(names, own, strict=True)), list)


def _by_block(where: str, dimension: Dimension, grouped: Any, blocks: Sequence[str]) -> Axis:
    if grouped == "all":
        return _plain(dimension)
    if grouped == "ramp":
        return _named(dimension, ("start", "end"), lambda values: {"ramp": {"start": values[0], "end": values[1]}})
    if grouped != "parts" and grouped != "every" and (isinstance(grouped, str) or not isinstance(grouped, Sequence) or not grouped):
        raise SearchError(f"{where}: blocks must be one of {', '.join(map(repr, GROUPS))}, or a list of blocks, got {grouped!r}")
    if grouped in ("parts", "every") and not blocks:
        raise SearchError(f"{where}: blocks: {grouped} needs inputs= with models that have blocks; or list the blocks yourself")
    if grouped == "parts":
        return _parts(dimension, blocks)
    chosen = list(blocks if grouped == "every" else grouped)

    def value(values: Sequence[Any]) -> Any:
        return {"blocks": dict(zip(chosen, values, strict=True))}

    return _named(dimension, chosen, value)


def _parts(dimension: Dimension, blocks: Sequence[str]) -> Axis:
    """The way in, the middle and the way out of a U-Net; of other models the first, middle and last third of their blocks."""
    parts = {part: [name for name in blocks if name.startswith(begins)] for part, begins in _UNET.items()}
    if sum(map(len, parts.values())) != len(blocks):
        ends = [round(len(blocks) * share / 3) for share in range(4)]
        parts = {part: list(blocks[first:last]) for part, first, last in zip(_UNET, ends, ends[1:], strict=False)}
    there = {part: names for part, names in parts.items() if names}

    def value(values: Sequence[Any]) -> Any:
        return {"blocks": {name: one for names, one in zip(there.values(), values, strict=True) for name in names}}

    return _named(dimension, list(there), value)


def _named(dimension: Dimension, names: Sequence[str], value: Callable[[Sequence[Any]], Any]) -> Axis:
    return Axis(dimension.name, tuple(replace(dimension, name=f"{dimension.name}.{name}") for name in names), value)
