"""What is asked of a renderer, checked once: prompts, seeds and settings. Drawing is in `pipeline`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from typing import Any

from workbench.errors import RenderError

_EDGE = (1, 16384)  # pixels
_WHOLE = {"steps": (1, 1000), "width": _EDGE, "height": _EDGE, "clip_skip": (0, 64)}  # least and most


@dataclass(frozen=True)
class Defaults:
    """The settings that a model is drawn with unless told otherwise; its scheduler is its own."""

    steps: int
    guidance: float
    width: int
    height: int


@dataclass(frozen=True)
class Request:
    """Every prompt with every seed, in prompt-major order. Settings that are None are each model's own.

    `width` and `height` are pixels; `sampler` is a name of `samplers`, None the scheduler of the model's own pipeline; `negative` None
    asks for no negative prompt, which SDXL tells from an empty one; `clip_skip` is how many of CLIP's last layers are left out, as
    diffusers counts (1 here is what A1111 calls 2). Raises RenderError for what cannot be drawn.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    negative: str | None = None
    width: int | None = None
    height: int | None = None
    clip_skip: int | None = None

    def __post_init__(self) -> None:
        if not self.prompts or not all(isinstance(prompt, str) for prompt in self.prompts):
            raise RenderError(f"prompts must be one or more strings, got {self.prompts!r}")
        if not self.seeds or not all(_whole(seed) and 0 <= seed < 1 << 63 for seed in self.seeds):
            raise RenderError(f"seeds must be one or more whole numbers from 0, got {self.seeds!r}")
        for name, (low, high) in _WHOLE.items():
            value = getattr(self, name)
            if value is not None and (not _whole(value) or not low <= value <= high):
                raise RenderError(f"{name} must be a whole number in [{low}, {high}], got {value!r}")
        if self.guidance is not None and (not isinstance(self.guidance, int | float) or not math.isfinite(self.guidance)):
            raise RenderError(f"guidance must be a finite number, got {self.guidance!r}")
        for name in ("negative", "sampler"):
            if not isinstance(getattr(self, name), str | None):
                raise RenderError(f"{name} must be a string, got {getattr(self, name)!r}")

    @classmethod
    def of(cls, prompts: str | Sequence[str], seeds: int | Sequence[int], **settings: Any) -> Request:
        """A request; one prompt or seed may stand for a list of one."""
        prompts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
        seeds = (seeds,) if isinstance(seeds, int) else tuple(seeds)
        return cls(prompts, seeds, **settings)

    def settled(self, defaults: Sequence[Defaults]) -> Request:
        """The request with what it leaves open filled in, where all of the defaults have the same."""
        own = {name: {getattr(each, name) for each in defaults} for name in _OPEN if getattr(self, name) is None}
        return replace(self, **{name: values.pop() for name, values in own.items() if len(values) == 1})

    @property
    def pictures(self) -> list[tuple[str, int]]:
        """Prompt and seed of each picture."""
        return [(prompt, seed) for prompt in self.prompts for seed in self.seeds]

    @property
    def settings(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


SETTINGS = tuple(field.name for field in fields(Request) if field.name not in ("prompts", "seeds"))  # each may be an axis of a grid
_OPEN = tuple(field.name for field in fields(Defaults))


def requests(prompts: str | Sequence[str], seeds: int | Sequence[int], **settings: Any) -> tuple[Request, ...]:
    """A request for each combination of settings, each of which may be a list. Raises RenderError for what cannot be drawn."""
    each = {name: _listed(name, settings.get(name)) for name in SETTINGS}
    return tuple(Request.of(prompts, seeds, **dict(zip(each, values, strict=True))) for values in product(*each.values()))


def differing(asked: Sequence[Request]) -> Mapping[str, list[Any]]:
    """The settings in which requests differ, and their values in order."""
    values = {name: list(dict.fromkeys(getattr(request, name) for request in asked)) for name in SETTINGS}
    return {name: found for name, found in values.items() if len(found) > 1}


def _listed(name: str, given: Any) -> list[Any]:
    found = given.tolist() if hasattr(given, "tolist") else given
    values = list(found) if isinstance(found, Sequence) and not isinstance(found, str) else [found]
    if not values or len(set(values)) < len(values):
        raise RenderError(f"{name} must be one value, or one or more different ones, got {given!r}")
    return values


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
