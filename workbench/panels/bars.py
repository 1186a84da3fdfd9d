"""An option that differs by block, as the numbers that the block editor draws, and back again. No widget is here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from workbench.errors import OptionError
from workbench.families import Location
from workbench.merge import Range, schedules
from workbench.merge.declaration import Option
from workbench.merge.schedules import Depth
from workbench.panels.state import per_model

Row = tuple[float, ...]

# by how deep a block lies, from 0 to 1: how far its value goes from the lower to the upper level
_SHAPES: dict[str, Callable[[float], float]] = {
    "hill": lambda depth: 1 - abs(2 * depth - 1),
    "valley": lambda depth: abs(2 * depth - 1),
    "first half": lambda depth: float(depth < 0.5),
    "second half": lambda depth: float(depth >= 0.5),
}
PRESETS = ("flat", "rising", "falling", *_SHAPES)


@final
@dataclass(frozen=True)
class Bars:
    """A number for each block, and one for all tensors in no block (`elsewhere`): a row of them for each series.

    A series is a model of an option that goes per model; other options have one.
    """

    option: Option
    depth: Depth
    rows: tuple[Row, ...]
    elsewhere: Row
    modules: tuple[Row, ...] = ()  # of each module beside the blocks

    @classmethod
    def of(cls, value: Any, option: Option, depth: Depth, series: int) -> Bars:
        """The bars of an option's value, whatever its form; of one that these blocks have no place for, the default's."""
        try:
            at = schedules.parse(value, option).bind(depth)
        except OptionError:  # preflight says why
            at = schedules.Constant(option.default).bind(depth)
        columns = [per_model(at(Location(block)), series) for block in depth.blocks]
        modules = tuple(tuple(per_model(at(Location(module=module)), series)) for module in depth.modules)
        return cls(option, depth, tuple(zip(*columns, strict=True)), tuple(per_model(at(Location()), series)), modules)

    def painted(self, series: int, values: Sequence[float], elsewhere: float) -> Any:
        """The option's value after one series was painted."""
        rounded = tuple(self._rounded(value) for value in values)
        rest = _replaced(self.elsewhere, series, self._rounded(elsewhere))
        return self._value(_replaced(self.rows, series, rounded), rest)

    def ramped(self, series: int, ends: tuple[int, int], values: tuple[float, float]) -> Any:
        """The option's value after a ramp was drawn through one series, from block to block (positions in depth)."""
        (first, start), (last, end) = sorted(zip(ends, map(self._rounded, values), strict=True))
        names = [self.depth.blocks[i].name for i in (first, last)]
        if self._apart or any(len(set(row)) > 1 for i, row in enumerate(self.rows) if i != series):
            at = schedules.Ramp(start, end, end, *names).bind(self.depth)
            return self.painted(series, [at(Location(block)) for block in self.depth.blocks], self.elsewhere[series])
        flat = [row[0] for row in self.rows]
        given = {"start": self._cell(_replaced(flat, series, start)), "end": self._cell(_replaced(flat, series, end))}
        return {"ramp": {**given, "first": names[0], "last": names[1], "elsewhere": self._cell(self.elsewhere)}}

    def preset(self, series: int, name: str) -> Any:
        """The option's value after one series was given a shape: between zero, or the lower bound, and the default."""
        low, high = self._levels()
        last = len(self.depth.blocks) - 1
        if name == "flat":
            level = self.option.default if isinstance(self.option.default, (int, float)) and self.option.default > low else high
            return self.painted(series, [level] * (last + 1), level)
        if name in ("rising", "falling"):
            return self.ramped(series, (0, last), (low, high) if name == "rising" else (high, low))
        shape = _SHAPES[name]
        return self.painted(series, [low + (high - low) * shape(i / max(last, 1)) for i in range(last + 1)], self.elsewhere[series])

    def pasted(self, series: int, weights: Mapping[str, float]) -> Any:
        """The option's value after one series was given weights by name, exactly; what they do not name stays. Raises OptionError."""
        for name, weight in weights.items():
            if complaint := self.option.constraint.complaint(weight):
                raise OptionError(f"{name}: {complaint}")
        blocks = tuple(weights.get(name, value) for name, value in zip(self.depth.names, self.rows[series], strict=True))
        rest = _replaced(self.elsewhere, series, weights.get("default", self.elsewhere[series]))
        old = {module: self._apart.get(module, rest) for module in self.depth.modules}
        modules = tuple(_replaced(row, series, weights.get(module, row[series])) for module, row in old.items())
        return replace(self, rows=_replaced(self.rows, series, blocks), elsewhere=rest, modules=modules).value

    def weights(self, series: int) -> dict[str, float]:
        """One series by the names of the blocks, and `default`."""
        return dict(zip(self.depth.names, self.rows[series], strict=True)) | {"default": self.elsewhere[series]}

    @property
    def value(self) -> Any:
        """The shortest value that gives these bars."""
        return self._value(self.rows, self.elsewhere)

    @property
    def _apart(self) -> dict[str, Row]:
        """The modules beside the blocks that have a value of their own: it stays when bars are painted."""
        pairs = zip(self.depth.modules, self.modules, strict=False)
        return {module: row for module, row in pairs if row != self.elsewhere}

    def _levels(self) -> tuple[float, float]:
        bounds = bounds_of(self.option)
        if bounds.soft and bounds.soft[0] >= 0:
            return bounds.soft
        low = max(bounds.low, 0)
        high = self.option.default if isinstance(self.option.default, (int, float)) and self.option.default > low else bounds.high
        return low, high

    def _value(self, rows: Sequence[Row], elsewhere: Sequence[float]) -> Any:
        """The shortest value that gives these bars: one for all, or those blocks that are not as the rest."""
        columns = list(zip(*rows, strict=True))
        rest = tuple(elsewhere)
        named = {block.name: self._cell(column) for block, column in zip(self.depth.blocks, columns, strict=True) if column != rest}
        named |= {module: self._cell(row) for module, row in self._apart.items()}
        return {"blocks": {**named, "default": self._cell(rest)}} if named else self._cell(rest)

    def _cell(self, column: Sequence[float]) -> Any:
        return list(column) if self.option.per_model else column[0]

    def _rounded(self, value: float) -> float:
        bounds = bounds_of(self.option)
        near = min(max(round(value / bounds.step) * bounds.step, bounds.low), bounds.high)
        return round(near) if bounds.whole else round(near, 6)


def bounds_of(option: Option) -> Range:
    """Between what its numbers lie. Raises TypeError for an option that is no number, which has no bars."""
    if not isinstance(option.constraint, Range):
        raise TypeError(f"{option.name} is no number, and has no bars: {option.allowed}")
    return option.constraint


def differs_by_block(value: Any, option: Option) -> bool:
    """Whether a value is a mapping of blocks or a ramp."""
    return isinstance(value, Mapping) and not option.is_value(value)


def _replaced(items: Sequence[Any], position: int, item: Any) -> tuple[Any, ...]:
    return (*items[:position], item, *items[position + 1 :])
