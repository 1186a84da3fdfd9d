"""The part of a panel that says which pictures are wanted: prompts, negative prompt, seeds, size, steps, guidance, sampler."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, final

import ipywidgets as widgets

from workbench.panels.controls import heading
from workbench.panels.fields import full
from workbench.panels.state import Wanted

_OWN = "each model's own"


@final
class WantedView:
    """Tells `changed(wanted)` whenever a field was changed, and `said(text)` what cannot be read; `show` sets them and tells nothing."""

    def __init__(self, changed: Callable[[Wanted], None], said: Callable[[str], None], samplers: Sequence[str]) -> None:
        self._changed, self._said, self._showing = changed, said, False
        self._prompts = widgets.Textarea(continuous_update=False, rows=2, placeholder="one prompt per line", layout=full())
        self._negative = widgets.Text(continuous_update=False, placeholder="negative prompt: what should not be there", layout=full())
        self._seeds = widgets.Text(continuous_update=False, placeholder="0, 1", layout=_narrow("110px"))
        self._size = widgets.Text(continuous_update=False, placeholder="own", layout=_narrow("96px"))
        self._steps = widgets.BoundedIntText(min=1, max=150, layout=_narrow("72px"))
        self._guidance = widgets.BoundedFloatText(min=0, max=30, step=0.5, layout=_narrow("72px"))
        self._sampler = widgets.Dropdown(options=[(_OWN, ""), *((name, name) for name in samplers)], layout=_narrow("180px"))
        self._clip_skip = widgets.BoundedIntText(min=0, max=12, layout=_narrow("56px"))
        self._fields = (self._prompts, self._negative, self._seeds, self._size, self._steps, self._guidance, self._sampler, self._clip_skip)
        for field in self._fields:
            field.observe(self._typed, "value")
        numbers = [
            _named("seeds", "Whole numbers; a-b for all from a to b", self._seeds),
            _named("size", "Width x height in pixels; empty is each model's own", self._size),
            _named("steps", "Steps of the sampler", self._steps),
            _named("guidance", "How closely the prompt is followed; 1 is not at all", self._guidance),
            _named("sampler", "The scheduler that takes the steps", self._sampler),
            _named("clip skip", "How many of CLIP's last layers are left out; 1 here is what A1111 calls 2", self._clip_skip),
        ]
        self.widget = widgets.VBox([self._prompts, self._negative, widgets.HBox(numbers).add_class("wb-numbers")]).add_class("wb-column")

    def show(self, wanted: Wanted) -> None:
        """Set the fields."""
        self._showing = True
        try:
            if wanted != self._read():
                self._prompts.value = "\n".join(wanted.prompts)
                self._seeds.value = ", ".join(map(str, wanted.seeds))
                self._size.value = size_in_words(wanted.width, wanted.height)
            self._negative.value, self._sampler.value = wanted.negative, wanted.sampler or ""
            self._steps.value, self._guidance.value, self._clip_skip.value = wanted.steps, wanted.guidance, wanted.clip_skip or 0
        finally:
            self._showing = False

    def _typed(self, _: Any) -> None:
        if self._showing:
            return
        if (wanted := self._read()) is None:
            self._said(f"size: {self._size.value!r} is none; write 768, or 1024 x 768, or nothing for {_OWN}")
        else:
            self._changed(wanted)

    def _read(self) -> Wanted | None:
        """What the fields say; None where the size is none."""
        size = pixels(self._size.value)
        if size is None:
            return None
        prompts = tuple(line.strip() for line in self._prompts.value.splitlines() if line.strip())
        return Wanted(
            prompts,
            whole_numbers(self._seeds.value),
            self._steps.value,
            self._guidance.value,
            self._negative.value,
            *size,
            self._sampler.value or None,
            self._clip_skip.value or None,
        )


def whole_numbers(text: str) -> tuple[int, ...]:
    """`"0, 3, 5-7"` as numbers, each once; what is no number is left out."""
    found: dict[int, None] = {}
    for first, last in re.findall(r"(\d+)(?:\s*-\s*(\d+))?", text):
        found |= dict.fromkeys(range(int(first), min(int(last or first), int(first) + 999) + 1))
    return tuple(found)


def pixels(text: str) -> tuple[int | None, int | None] | None:
    """`"1024 x 768"` as width and height, `"768"` as a square, nothing as two times None; None for what is no size."""
    if not text.strip():
        return None, None
    found = re.fullmatch(r"(\d+)(?:\s*[x×*,]\s*(\d+))?", text.strip().lower())
    return (int(found[1]), int(found[2] or found[1])) if found else None


def size_in_words(width: int | None, height: int | None) -> str:
    """Width and height as they are typed."""
    return "" if width is None and height is None else f"{width or height} x {height or width}"


def _narrow(width: str) -> widgets.Layout:
    return widgets.Layout(width=width, flex="0 0 auto")


def _named(name: str, told: str, field: widgets.Widget) -> widgets.HBox:
    return widgets.HBox([heading(name, told), field]).add_class("wb-row")
