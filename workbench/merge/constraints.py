"""What an option may be: bounds of a number, a choice, yes or no, a vector. Each judges a value and says what is allowed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.merge import sources


@dataclass(frozen=True)
class Range:
    """Bounds of a number, the step of its slider, and what it does; `per_block` lets it differ by block.

    `whole` (an annotation of `int` sets it) allows whole numbers only. `soft` is where its slider goes from and to, if not through all
    of its bounds; the rest is typed. `shares` says that values of several models count by their ratios alone.
    """

    low: float
    high: float
    step: float
    help: str
    per_block: bool = False
    whole: bool = False
    soft: tuple[float, float] | None = None
    shares: bool = False

    @property
    def slider(self) -> tuple[float, float]:
        """From where to where its slider goes."""
        return self.soft or (self.low, self.high)

    @property
    def allowed(self) -> str:
        return f"in [{self.low:g}, {self.high:g}]"

    def complaint(self, value: Any) -> str | None:
        """What is wrong with a value, as the end of a sentence that begins with the option's name; None when nothing is."""
        kinds, told = (int, "a whole number") if self.whole else ((int, float), "a number")
        if not isinstance(value, kinds) or isinstance(value, bool):
            return f"must be {told} {self.allowed}, got {value!r}"
        if not (math.isfinite(value) and self.low <= value <= self.high):
            return f"must be {self.allowed}, got {value!r}"
        return None


@dataclass(frozen=True)
class OneOf:
    """What a choice decides; the annotation's `Literal` values are the `choices`."""

    help: str
    choices: tuple[str, ...] = ()
    per_block: bool = False

    @property
    def allowed(self) -> str:
        return f"one of {', '.join(map(repr, self.choices))}"

    def complaint(self, value: Any) -> str | None:
        """As `Range.complaint`."""
        return None if isinstance(value, str) and value in self.choices else f"must be {self.allowed}, got {value!r}"


@dataclass(frozen=True)
class Flag:
    """What happens when it is true."""

    help: str
    per_block: bool = False
    allowed: str = "true or false"

    def complaint(self, value: Any) -> str | None:
        """As `Range.complaint`."""
        return None if isinstance(value, bool) else f"must be {self.allowed}, got {value!r}"


@dataclass(frozen=True)
class Vector:
    """Real numbers in a row, or a mapping that says where they come from (see `workbench.merge.sources`), and what they do."""

    help: str
    per_block: bool = False

    @property
    def allowed(self) -> str:
        return f"a vector of numbers, or one of {', '.join(f'{{{name}: ...}}' for name in sources.registry)}"

    def complaint(self, value: Any) -> str | None:
        """As `Range.complaint`."""
        if isinstance(value, Mapping):
            complaint = sources.complaint(value)
            return complaint and f"cannot be had from {dict(value)!r}: {complaint}"
        if not isinstance(value, Sequence) or isinstance(value, str):
            return f"must be {self.allowed}, got {value!r}"
        if not value:
            return "must have one number or more, got an empty vector"
        wrong = next((one for one in value if isinstance(one, bool) or not isinstance(one, (int, float)) or not math.isfinite(one)), None)
        return None if wrong is None else f"must hold finite real numbers only, got {wrong!r} among them"


Constraint = Range | OneOf | Flag | Vector
