"""Options that differ by block: a mapping of block patterns to values, a ramp from one block to another, or LiNeS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, final

from workbench.errors import OptionError
from workbench.families import Block, Location
from workbench.families.blocks import BASE
from workbench.merge.declaration import Option, near

Value = Any  # a number, or a list with one per model
_RAMP = ("start", "end", "first", "last", "elsewhere")


@dataclass(frozen=True)
class Depth:
    """The blocks that are present in a model, in order, and the modules beside them."""

    blocks: tuple[Block, ...]
    modules: tuple[str, ...] = ()

    @classmethod
    def of(cls, locations: Iterable[Location]) -> Depth:
        there = dict.fromkeys(locations)
        blocks = sorted((location.block for location in there if location.block), key=lambda block: block.depth)
        return cls(tuple(blocks), tuple(location.module for location in there if location.module))

    @property
    def names(self) -> list[str]:
        return [block.name for block in self.blocks]

    @cached_property
    def _offsets(self) -> dict[int, int]:
        """Where each stack begins when all are counted through."""
        lengths: dict[int, int] = {}
        for block in self.blocks:
            lengths[block.depth[0]] = max(lengths.get(block.depth[0], 0), block.depth[1] + 1)
        return dict(zip(lengths, accumulate(lengths.values(), initial=0), strict=False))

    def through(self, block: Block) -> int:
        """The block's position when all stacks are counted through."""
        return self._offsets[block.depth[0]] + block.depth[1]

    def find(self, name: str) -> Block:
        """The one block of that name; OptionError when the model has none."""
        for block in self.blocks:
            if name in block.names:
                return block
        raise OptionError(f"there is no block {name!r}{near(name, [block.name for block in self.blocks])}")

    def matches(self, pattern: str) -> bool:
        """Whether a pattern of block weights means anything in the model."""
        return (
            pattern == BASE
            or any(Location(block).matches(pattern) for block in self.blocks)
            or any(Location(module=module).matches(pattern) for module in self.modules)
        )


@final
@dataclass(frozen=True)
class Constant:
    """One value for every tensor."""

    value: Value

    def bind(self, depth: Depth) -> Callable[[Location], Value]:
        """The value at each place in a model with these blocks."""
        return lambda location: self.value

    def mapped(self, change: Callable[[Value], Value]) -> Constant:
        """The same schedule of changed values."""
        return Constant(change(self.value))


@final
@dataclass(frozen=True)
class ByBlock:
    """The value of the first pattern that matches a block's name or LDM alias, or a module beside the blocks; else `default`."""

    patterns: tuple[tuple[str, Value], ...]
    default: Value

    def bind(self, depth: Depth) -> Callable[[Location], Value]:
        """The value at each place in a model with these blocks. Raises OptionError for a pattern that matches nothing there."""
        if unused := [pattern for pattern, _ in self.patterns if not depth.matches(pattern)]:
            blocks, modules = (", ".join(names) or "none" for names in (depth.names, depth.modules))
            raise OptionError(
                f"no block matches {', '.join(map(repr, unused))}; the blocks are {blocks}; the modules beside them {modules}"
            )

        def at(location: Location) -> Value:
            return next((value for pattern, value in self.patterns if location.matches(pattern)), self.default)

        return at

    def mapped(self, change: Callable[[Value], Value]) -> ByBlock:
        """The same schedule of changed values."""
        return ByBlock(tuple((pattern, change(value)) for pattern, value in self.patterns), change(self.default))


@final
@dataclass(frozen=True)
class Ramp:
    """`start` up to block `first`, `end` from block `last` on, linear between; `elsewhere` for tensors in no block.

    Whole numbers mean a block's own number (which Flux's two stacks share); names mean a place in the model's depth.
    """

    start: Value
    end: Value
    elsewhere: Value
    first: int | str | None = None
    last: int | str | None = None

    def bind(self, depth: Depth) -> Callable[[Location], Value]:
        """The value at each place in a model with these blocks. Raises OptionError for a name that is no block, or without blocks."""
        if not depth.blocks:
            raise OptionError("a ramp goes from block to block, and there are none here; give one value")
        named = [depth.find(end) for end in (self.first, self.last) if isinstance(end, str)]
        place: Callable[[Block], int] = depth.through if named else lambda block: block.number
        first, last = self._ends(depth, named, place)

        def at(location: Location) -> Value:
            if location.block is None:
                return self.elsewhere
            position = place(location.block)
            share = 0.0 if position <= first else 1.0 if position >= last else (position - first) / (last - first)
            return _mix(self.start, self.end, share)

        return at

    def mapped(self, change: Callable[[Value], Value]) -> Ramp:
        """The same schedule of changed values."""
        return replace(self, start=change(self.start), end=change(self.end), elsewhere=change(self.elsewhere))

    def _ends(self, depth: Depth, named: list[Block], place: Callable[[Block], int]) -> tuple[int, int]:
        """Positions of both ends. Where one is named, the other is by default the end of the same stack."""
        stack = [place(block) for block in depth.blocks if not named or block.depth[0] == named[0].depth[0]]

        def position(end: int | str | None, default: int) -> int:
            if end is None:
                return default
            return place(depth.find(end)) if isinstance(end, str) else end

        first, last = position(self.first, min(stack)), position(self.last, max(stack))
        if first > last:
            raise OptionError(f"a ramp must not end before it begins: first is {self.first!r}, last is {self.last!r}")
        return first, last


@final
@dataclass(frozen=True)
class Lines:
    """`alpha` in the first block and in no block, `alpha` + `beta` in the last, evenly over the blocks in depth between (LiNeS).

    Source: Wang et al. 2024, arXiv:2410.17146, section 4.
    """

    alpha: Value
    beta: Value

    @property
    def end(self) -> Value:
        """The value in the last block."""
        return _each(lambda alpha, beta: alpha + beta, self.alpha, self.beta)

    @classmethod
    def between(cls, start: Value, end: Value) -> Lines:
        """Those that begin and end with these values."""
        return cls(start, _each(lambda one, other: other - one, start, end))

    def bind(self, depth: Depth) -> Callable[[Location], Value]:
        """The value at each place in a model with these blocks. Raises OptionError without blocks."""
        if not depth.blocks:
            raise OptionError("lines go from block to block, and there are none here; give one value")
        first, last = depth.through(depth.blocks[0]), depth.through(depth.blocks[-1])

        def at(location: Location) -> Value:
            share = 0.0 if location.block is None else (depth.through(location.block) - first) / max(last - first, 1)
            return _mix(self.alpha, self.end, share)

        return at

    def mapped(self, change: Callable[[Value], Value]) -> Lines:
        """The same schedule of changed values."""
        return Lines(change(self.alpha), change(self.beta))


Schedule = Constant | ByBlock | Ramp | Lines


def parse(given: Any, option: Option) -> Schedule:
    """The schedule that an option's value spells. Raises OptionError (without the option's name) for a malformed one."""
    if not isinstance(given, Mapping) or option.is_value(given):
        return Constant(given)
    if set(given) == {"blocks"} and isinstance(given["blocks"], Mapping):
        patterns = tuple((str(pattern), value) for pattern, value in given["blocks"].items() if pattern != "default")
        return ByBlock(patterns, _remaining(given["blocks"], "default", option))
    if set(given) == {"ramp"} and isinstance(given["ramp"], Mapping):
        return _parse_ramp(given["ramp"], option)
    if set(given) == {"lines"} and isinstance(given["lines"], Mapping) and set(given["lines"]) == {"alpha", "beta"}:
        return Lines(**given["lines"])
    forms = "{'blocks': {pattern: value, ...}}, {'ramp': {start, end, ...}} or {'lines': {alpha, beta}}"
    raise OptionError(f"must be a value, {forms}, got {given!r}")


def values(schedule: Schedule) -> list[Value]:
    """Every value a schedule names, to be checked against the option's bounds."""
    if isinstance(schedule, Constant):
        return [schedule.value]
    if isinstance(schedule, ByBlock):
        return [*(value for _, value in schedule.patterns), schedule.default]
    if isinstance(schedule, Lines):
        return [schedule.alpha, schedule.end]
    return [schedule.start, schedule.end, schedule.elsewhere]


def _remaining(given: Mapping[str, Any], name: str, option: Option) -> Value:
    """The value for tensors that a schedule does not reach: its own, or the option's default."""
    if name not in given and option.required:
        raise OptionError(f"needs {name!r} too, {option.allowed}, for the tensors in no block")
    return given.get(name, option.default)


def _parse_ramp(given: Mapping[str, Any], option: Option) -> Ramp:
    for name in given:
        if name not in _RAMP:
            raise OptionError(f"a ramp has no {name!r}{near(str(name), _RAMP)}")
    if not {"start", "end"} <= set(given):
        raise OptionError(f"a ramp needs start and end, got {', '.join(given) or 'nothing'}")
    ends = [given.get("first"), given.get("last")]
    for end in ends:
        if isinstance(end, bool) or not isinstance(end, (int, str, type(None))):
            raise OptionError(f"a ramp's first and last must be a block's number or name, got {end!r}")
    if {type(end) for end in ends} == {int, str}:
        raise OptionError(f"a ramp's first and last must both be numbers or both be names, got {ends}")
    return Ramp(given["start"], given["end"], _remaining(given, "elsewhere", option), *ends)


def _mix(start: Value, end: Value, share: float) -> Value:
    return _each(lambda one, other: (1 - share) * one + share * other, start, end)


def _each(change: Callable[[Any, Any], Any], start: Value, end: Value) -> Value:
    """What comes of two values, or of each of two rows of them."""
    many = [value for value in (start, end) if isinstance(value, Sequence)]
    if not many:
        return change(start, end)
    each = [value if isinstance(value, Sequence) else [value] * len(many[0]) for value in (start, end)]
    if len(each[0]) != len(each[1]):
        raise OptionError(f"a ramp must begin and end with as many numbers, got {len(each[0])} and {len(each[1])}")
    return [_each(change, one, other) for one, other in zip(*each, strict=True)]
