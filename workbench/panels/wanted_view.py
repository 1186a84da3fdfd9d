"""The part of a panel that says which pictures are wanted: prompts, negative prompt, seeds, size, steps, guidance, sampler."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, final

import ipywidgets as widgets

from workbench.errors import InputError
from workbench.panels.callbacks import on_change, on_click
from workbench.panels.controls import heading
from workbench.panels.fields import full
from workbench.panels.state import Wanted

_OWN = "each model's own"
_MANY = 64  # pictures of a model; more are asked about first
_MOST_SEEDS = 1_000_000
_LAST_SEED = (1 << 63) - 1


@final
class WantedView:
    """Tells `changed(wanted)` whenever a field was changed, and `said(text)` what cannot be read; `show` sets them and tells nothing.

    Many pictures are asked about first.
    """

    def __init__(self, changed: Callable[[Wanted], None], said: Callable[[str], None], samplers: Sequence[str]) -> None:
        self._changed, self._said, self._showing = changed, said, False
        self._shown = Wanted()
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
            on_change(field, self._typed)
        numbers = [
            _named("seeds", "Whole numbers; a-b for all from a to b", self._seeds),
            _named("size", "Width x height in pixels; empty is each model's own", self._size),
            _named("steps", "Steps of the sampler", self._steps),
            _named("guidance", "How closely the prompt is followed; 1 is not at all", self._guidance),
            _named("sampler", "The scheduler that takes the steps", self._sampler),
            _named("clip skip", "How many of CLIP's last layers are left out; 1 here is what A1111 calls 2", self._clip_skip),
        ]
        self._question = widgets.HTML().add_class("wb-hint")
        yes = widgets.Button(description="Draw", layout=_narrow("80px"))
        no = widgets.Button(description="Go back", layout=_narrow("80px"))
        on_click(yes, lambda: self._changed(self._read()))
        on_click(no, lambda: self.show(self._shown))
        self._asking = widgets.HBox([self._question, yes, no]).add_class("wb-row")
        fields = [self._prompts, self._negative, widgets.HBox(numbers).add_class("wb-numbers"), self._asking]
        self.widget = widgets.VBox(fields).add_class("wb-column")

    def show(self, wanted: Wanted) -> None:
        """Set the fields."""
        self._showing, self._shown = True, wanted
        self._asking.layout.display = "none"
        try:
            if not self._says(wanted):
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
        try:
            wanted = self._read()
        except InputError as error:
            self._said(str(error))
            return
        pictures = len(wanted.prompts) * len(wanted.seeds)
        if pictures > max(_MANY, len(self._shown.prompts) * len(self._shown.seeds)):
            self._question.value = (
                f"{pictures:,} pictures of each model: {len(wanted.prompts):,} prompts x {len(wanted.seeds):,} seeds. Draw them?"
            )
            self._asking.layout.display = ""
        else:
            self._changed(wanted)

    def _says(self, wanted: Wanted) -> bool:
        """Whether the fields say this already, in whatever words."""
        try:
            return wanted == self._read()
        except InputError:
            return False

    def _read(self) -> Wanted:
        """What the fields say. Raises InputError for seeds and a size that are none."""
        size = pixels(self._size.value)
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
    """`"0, 3, 5-7"` as seeds, each once. Raises InputError, which names what is none, and for more than a million of them."""
    found: dict[int, None] = {}
    for word in filter(None, re.split(r"[,;\s]+", re.sub(r"(?<=\d)\s+-\s+(?=\d)", "-", text))):
        ends = re.fullmatch(r"([0-9]{1,19})(?:-([0-9]{1,19}))?", word)
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (0, -1)
        if not first <= last <= _LAST_SEED:
            raise InputError(f"seeds: {word!r} is none; write whole numbers from 0, as in 0, 3, 5-7")
        if len(found) + last - first >= _MOST_SEEDS:
            raise InputError(f"seeds: {word!r} is too many; at most {_MOST_SEEDS:,} are drawn")
        found |= dict.fromkeys(range(first, last + 1))
    return tuple(found)


def pixels(text: str) -> tuple[int | None, int | None]:
    """`"1024 x 768"` as width and height, `"768"` as a square, nothing as two times None. Raises InputError for what is no size."""
    if not text.strip():
        return None, None
    found = re.fullmatch(r"([0-9]{1,6})(?:\s*[x×*,]\s*([0-9]{1,6}))?", text.strip().lower())
    if not found:
        raise InputError(f"size: {text!r} is none; write 768, or 1024 x 768, or nothing for {_OWN}")
    return int(found[1]), int(found[2] or found[1])


def size_in_words(width: int | None, height: int | None) -> str:
    """Width and height as they are typed."""
    return "" if width is None and height is None else f"{width or height} x {height or width}"


def _narrow(width: str) -> widgets.Layout:
    return widgets.Layout(width=width, flex="0 0 auto")


def _named(name: str, told: str, field: widgets.Widget) -> widgets.HBox:
    return widgets.HBox([heading(name, told), field]).add_class("wb-row")
