"""What the names and shapes of a module's tensors say: how many layers, which sides. What that means for a config is in `sizes`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import gcd
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]


def numbered(shapes: Shapes, prefix: str) -> list[int]:
    """The numbers that follow `prefix` in the names, in order."""
    tails = (name.removeprefix(prefix).split(".", 1)[0] for name in shapes if name.startswith(prefix))
    return sorted({int(tail) for tail in tails if tail.isdigit()})


def side(shapes: Shapes, name: str, axis: int) -> int | None:
    """One side of a tensor; None where there is no such tensor."""
    shape = shapes.get(name)
    return shape[axis] if shape is not None and len(shape) > axis else None


def changed(config: Mapping[str, Any], found: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The config with what was found; what says the same as the config, or is None for not found, is left as it was written."""
    new = {key: value for key, value in found.items() if value is not None and config.get(key, defaults.get(key)) != value}
    return {**config, **new}


def groups(shipped: int, widths: Iterable[int]) -> int:
    """The largest number of groups, the shipped one at most, that divides every width."""
    return largest_divisor(gcd(*widths), shipped)


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of a number up to a limit."""
    return next(divisor for divisor in range(min(number, limit), 0, -1) if number % divisor == 0)


def same(values: list[Any]) -> Any:
    """The one value of a list where all are equal; otherwise the list."""
    return values[0] if all(value == values[0] for value in values) else values
