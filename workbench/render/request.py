"""What is asked of a renderer, checked once: prompts, seeds and settings. Drawing is in `pipeline`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from typing import Any

from workbench.errors import RenderError


@dataclass(frozen=True)
class Defaults:
    """The settings that a model is drawn with unless told otherwise."""

    steps: int
    guidance: float
    sampler: str


@dataclass(frozen=True)
class Request:
    """Every prompt with every seed, in prompt-major order. Steps, guidance and sampler that are None are each model's own.

    Raises RenderError for what cannot be drawn.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    negative: str = ""

    def __post_init__(self) -> None:
        if not self.prompts or not all(isinstance(prompt, str) for prompt in self.prompts):
            raise RenderError(f"prompts must be one or more strings, got {self.prompts!r}")
        if not self.seeds or not all(_whole(seed) and 0 <= seed < 1 << 63 for seed in self.seeds):
            raise RenderError(f"seeds must be one or more whole numbers from 0, got {self.seeds!r}")
        if self.steps is not None and (not _whole(self.steps) or not 1 <= self.steps <= 1000):
            raise RenderError(f"steps must be a whole number in [1, 1000], got {self.steps!r}")
        if self.guidance is not None and (not isinstance(self.guidance, int | float) or not math.isfinite(self.guidance)):
            raise RenderError(f"guidance must be a finite number, got {self.guidance!r}")
        if not isinstance(self.negative, str):
            raise RenderError(f"negative must be a string, got {self.negative!r}")

    @classmethod
    def of(cls, prompts: str | Sequence[str], seeds: int | Sequence[int], **settings: Any) -> Request:
        """A request; one prompt or seed may stand for a list of one."""
        prompts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
        seeds = (seeds,) if isinstance(seeds, int) else tuple(seeds)
        return cls(prompts, seeds, **settings)

    def settled(self, defaults: Sequence[Defaults]) -> Request:
        """The request with what it leaves open filled in, where all of the defaults have the same."""
        said = {name: {getattr(each, name) for each in defaults} for name in _OPEN if getattr(self, name) is None}
        return replace(self, **{name: values.pop() for name, values in said.items() if len(values) == 1})

    @property
    def pictures(self) -> list[tuple[str, int]]:
        """Prompt and seed of each picture."""
        return [(prompt, seed) for prompt in self.prompts for seed in self.seeds]

    @property
    def settings(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def requests(
    prompts: str | Sequence[str], seeds: int | Sequence[int], *, steps: Any, guidance: Any, **settings: Any
) -> tuple[Request, ...]:
    """A request for each combination of `steps` and `guidance`, which may be lists. Raises RenderError for what cannot be drawn."""
    each = product(_listed("steps", steps), _listed("guidance", guidance))
    return tuple(Request.of(prompts, seeds, steps=number, guidance=scale, **settings) for number, scale in each)


def _listed(name: str, given: Any) -> list[Any]:
    found = given.tolist() if hasattr(given, "tolist") else given
    values = list(found) if isinstance(found, Sequence) and not isinstance(found, str) else [found]
    if not values or len(set(values)) < len(values):
        raise RenderError(f"{name} must be a number, or one or more different numbers, got {given!r}")
    return values


_OPEN = tuple(field.name for field in fields(Defaults))


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
