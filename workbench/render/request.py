"""What is asked of a renderer, checked once: prompts, seeds and settings. Drawing is in `pipeline`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from workbench.errors import RenderError
from workbench.render.samplers import DEFAULT_SAMPLER, check_sampler

STEPS = 20
GUIDANCE = 5.0


@dataclass(frozen=True)
class Request:
    """Every prompt with every seed, in prompt-major order.

    Raises RenderError for what cannot be drawn.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int = STEPS
    guidance: float = GUIDANCE
    sampler: str = DEFAULT_SAMPLER
    negative: str = ""

    def __post_init__(self) -> None:
        if not self.prompts or not all(isinstance(prompt, str) for prompt in self.prompts):
            raise RenderError(f"prompts must be one or more strings, got {self.prompts!r}")
        if not self.seeds or not all(_whole(seed) and 0 <= seed < 1 << 63 for seed in self.seeds):
            raise RenderError(f"seeds must be one or more whole numbers from 0, got {self.seeds!r}")
        if not _whole(self.steps) or not 1 <= self.steps <= 1000:
            raise RenderError(f"steps must be a whole number in [1, 1000], got {self.steps!r}")
        if not isinstance(self.guidance, int | float) or not math.isfinite(self.guidance):
            raise RenderError(f"guidance must be a finite number, got {self.guidance!r}")
        if not isinstance(self.negative, str):
            raise RenderError(f"negative must be a string, got {self.negative!r}")
        check_sampler(self.sampler)

    @classmethod
    def of(cls, prompts: str | Sequence[str], seeds: int | Sequence[int], **settings: Any) -> Request:
        """A request; one prompt or seed may stand for a list of one."""
        prompts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
        seeds = (seeds,) if isinstance(seeds, int) else tuple(seeds)
        return cls(prompts, seeds, **settings)

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


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
