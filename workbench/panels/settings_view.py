"""The part of a panel behind "more": how the pictures that are wanted are drawn, and where. Prompts and seeds are in `wanted_view`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, final

import ipywidgets as widgets

from workbench.errors import InputError
from workbench.panels.callbacks import on_change
from workbench.panels.controls import heading
from workbench.panels.fields import full
from workbench.panels.prompt_file import PromptFile
from workbench.panels.prompts import prompts_in, prompts_of
from workbench.panels.state import Wanted
from workbench.render.devices import DTYPES, devices_here

if TYPE_CHECKING:
    from workbench.render import Renderer

_OWN = "each model's own"
_FIXED = "This panel was given a renderer of its own, which says where and in which dtype it draws"
_OFFLOADS = [("no", ""), ("one part there at a time", "model"), ("one layer there at a time", "sequential")]


@final
class SettingsView:
    """Calls `changed()` whenever a field was changed, and `listed(prompts)` with the prompts of a file; `show` sets them and tells nothing.

    `said(text)` is told of a file that is none. `renderer` is the one that a panel was given: then nothing else can say where it draws.
    """

    def __init__(
        self,
        changed: Callable[[], None],
        listed: Callable[[tuple[str, ...]], None],
        said: Callable[[str], None],
        samplers: Sequence[str],
        renderer: Renderer | None = None,
    ) -> None:
        self._changed, self._listed, self._said, self._renderer, self._showing = changed, listed, said, renderer, False
        self._negative = widgets.Text(continuous_update=False, placeholder="what should not be there", layout=full())
        self._size = widgets.Text(continuous_update=False, placeholder="own", layout=narrow("96px"))
        self._steps = widgets.BoundedIntText(min=1, max=150, layout=narrow("72px"))
        self._guidance = widgets.BoundedFloatText(min=0, max=30, step=0.5, layout=narrow("72px"))
        self._sampler = widgets.Dropdown(options=[(_OWN, ""), *((name, name) for name in samplers)], layout=narrow("180px"))
        self._clip_skip = widgets.BoundedIntText(min=0, max=12, layout=narrow("56px"))
        self._device = widgets.Dropdown(layout=narrow("160px"))
        self._dtype = widgets.Dropdown(layout=narrow("120px"))
        self._offload = widgets.Dropdown(options=_OFFLOADS, layout=narrow("190px"))
        self._path = widgets.Text(
            continuous_update=False, placeholder="prompts.txt", layout=widgets.Layout(flex="1 1 140px", min_width="140px")
        )
        self._placing = (self._device, self._dtype, self._offload)
        for menu in self._placing if renderer is not None else ():
            menu.disabled, menu.tooltip = True, _FIXED
        fields = (self._negative, self._size, self._steps, self._guidance, self._sampler, self._clip_skip, *self._placing)
        for field in fields:
            on_change(field, lambda _: None if self._showing else self._changed())
        on_change(self._path, self._path_typed)
        self.widget = widgets.VBox(self._rows()).add_class("wb-column")

    def _rows(self) -> list[widgets.Widget]:
        where = _FIXED if self._renderer is not None else ""
        drawing = [
            named("size", "Width x height in pixels; empty is each model's own", self._size),
            named("steps", "Steps of the sampler", self._steps),
            named("guidance", "How closely the prompt is followed; 1 is not at all", self._guidance),
            named("sampler", "The scheduler that takes the steps", self._sampler),
            named("clip skip", "How many of CLIP's last layers are left out; 1 here is what A1111 calls 2", self._clip_skip),
        ]
        placing = [
            named("device", where or "What the pictures are calculated on", self._device),
            named("dtype", where or "The numbers that they are calculated in; not the dtype of the result's file", self._dtype),
            named("offload", where or "For a device that is too small: what is not needed right now waits in memory", self._offload),
        ]
        told = "A text file, one prompt on each line, # before comments: its path, or choose it"
        chosen = PromptFile(lambda content, name: self._take(lambda: prompts_of(content, name)))
        return [
            named("negative prompt", "What should not be there; for all prompts", self._negative),
            widgets.HBox(drawing).add_class("wb-numbers"),
            widgets.HBox(placing).add_class("wb-numbers"),
            widgets.HBox([heading("prompts from", told), self._path, chosen]).add_class("wb-row").add_class("wb-list"),
        ]

    def show(self, wanted: Wanted) -> None:
        """Set the fields."""
        self._showing = True
        try:
            if not self._says_size(wanted):
                self._size.value = size_in_words(wanted.width, wanted.height)
            self._negative.value, self._sampler.value = wanted.negative, wanted.sampler or ""
            self._steps.value, self._guidance.value, self._clip_skip.value = wanted.steps, wanted.guidance, wanted.clip_skip or 0
            self._show_placement(wanted)
        finally:
            self._showing = False

    def read(self, wanted: Wanted) -> Wanted:
        """The pictures that are wanted, with what the fields say. Raises InputError for a size that is none."""
        width, height = pixels(self._size.value)
        settings = replace(
            wanted,
            steps=self._steps.value,
            guidance=self._guidance.value,
            negative=self._negative.value,
            width=width,
            height=height,
            sampler=self._sampler.value or None,
            clip_skip=self._clip_skip.value or None,
        )
        if self._renderer is not None:
            return settings
        return replace(settings, device=self._device.value or None, dtype=self._dtype.value or None, offload=self._offload.value or None)

    def _show_placement(self, wanted: Wanted) -> None:
        """What is asked for, or what a renderer that was given has; a device that is not here is shown as such."""
        device, dtype, offload = wanted.device, wanted.dtype, wanted.offload
        if (given := self._renderer) is not None:
            device, dtype = str(getattr(given, "device", "")), str(getattr(given, "dtype", "")).removeprefix("torch.")
            offload = getattr(given, "offload", None)
        here = devices_here()
        absent = [(device if given is not None else f"{device} (not here)", device)] if device and device not in here else []
        _offer(self._device, [(f"best here: {here[0]}", ""), *((name, name) for name in here), *absent], device)
        others = [dtype] if dtype and dtype not in DTYPES else []
        _offer(self._dtype, [("usual", ""), *((name, name) for name in (*DTYPES, *others))], dtype)
        self._offload.value = offload or ""

    def _path_typed(self, change: dict[str, Any]) -> None:
        if path := change["new"].strip():
            self._take(lambda: prompts_in(path))
            self._path.value = ""

    def _take(self, read: Callable[[], tuple[str, ...]]) -> None:
        try:
            found = read()
        except InputError as error:
            self._said(str(error))
        else:
            self._listed(found)

    def _says_size(self, wanted: Wanted) -> bool:
        try:
            return pixels(self._size.value) == (wanted.width, wanted.height)
        except InputError:
            return False


def in_a_line(wanted: Wanted) -> str:
    """What is behind "more", in a line: steps and guidance, and whatever was chosen beside them."""
    told = [
        f"{wanted.steps} step{'s' if wanted.steps != 1 else ''}",
        f"guidance {wanted.guidance:g}",
        size_in_words(wanted.width, wanted.height),
        wanted.sampler,
        f"clip skip {wanted.clip_skip}" if wanted.clip_skip else "",
        "a negative prompt" if wanted.negative else "",
        f"on {wanted.device}" if wanted.device else "",
        wanted.dtype,
        f"offload by {'part' if wanted.offload == 'model' else 'layer'}" if wanted.offload else "",
    ]
    return ", ".join(filter(None, told))


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


def narrow(width: str) -> widgets.Layout:
    """The layout of a field of this width."""
    return widgets.Layout(width=width, flex="0 0 auto")


def named(name: str, told: str, field: widgets.Widget) -> widgets.HBox:
    """A field with its name before it."""
    return widgets.HBox([heading(name, told), field]).add_class("wb-row")


def _offer(menu: widgets.Dropdown, options: Sequence[tuple[str, str]], value: str | None) -> None:
    if menu.options != tuple(options):
        menu.options = tuple(options)
    menu.value = value or ""
