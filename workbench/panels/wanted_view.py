"""The part of a panel that says which pictures are wanted: prompts, seeds, steps, guidance."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, final

import ipywidgets as widgets

from workbench.panels.controls import heading
from workbench.panels.fields import full
from workbench.panels.state import Wanted


@final
class WantedView:
    """Tells `changed(wanted)` whenever a field was changed; `show` sets the fields and tells nothing."""

    def __init__(self, changed: Callable[[Wanted], None]) -> None:
        self._changed, self._showing = changed, False
        self._prompts = widgets.Textarea(continuous_update=False, rows=2, placeholder="one prompt per line", layout=full())
        self._seeds = widgets.Text(continuous_update=False, placeholder="0, 1", layout=_narrow("110px"))
        self._steps = widgets.BoundedIntText(min=1, max=150, layout=_narrow("72px"))
        self._guidance = widgets.BoundedFloatText(min=0, max=30, step=0.5, layout=_narrow("72px"))
        for field in (self._prompts, self._seeds, self._steps, self._guidance):
            field.observe(self._typed, "value")
        numbers = [
            _named("seeds", "Whole numbers; a-b for all from a to b", self._seeds),
            _named("steps", "Steps of the sampler", self._steps),
            _named("guidance", "How closely the prompt is followed; 1 is not at all", self._guidance),
        ]
        self.widget = widgets.VBox([self._prompts, widgets.HBox(numbers).add_class("wb-numbers")]).add_class("wb-column")

    def show(self, wanted: Wanted) -> None:
        """Set the fields."""
        self._showing = True
        try:
            if wanted != self._read():
                self._prompts.value = "\n".join(wanted.prompts)
                self._seeds.value = ", ".join(map(str, wanted.seeds))
            self._steps.value, self._guidance.value = wanted.steps, wanted.guidance
        finally:
            self._showing = False

    def _typed(self, _: Any) -> None:
        if not self._showing:
            self._changed(self._read())

    def _read(self) -> Wanted:
        prompts = tuple(line.strip() for line in self._prompts.value.splitlines() if line.strip())
        return Wanted(prompts, whole_numbers(self._seeds.value), self._steps.value, self._guidance.value)


def whole_numbers(text: str) -> tuple[int, ...]:
    """`"0, 3, 5-7"` as numbers, each once; what is no number is left out."""
    found: dict[int, None] = {}
    for first, last in re.findall(r"(\d+)(?:\s*-\s*(\d+))?", text):
        found |= dict.fromkeys(range(int(first), min(int(last or first), int(first) + 999) + 1))
    return tuple(found)


def _narrow(width: str) -> widgets.Layout:
    return widgets.Layout(width=width, flex="0 0 auto")


def _named(name: str, told: str, field: widgets.Widget) -> widgets.HBox:
    return widgets.HBox([heading(name, told), field]).add_class("wb-row")
