"""The part of a panel that says which pictures are wanted: prompts and seeds; how they are drawn is in `settings_view`."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, final

import ipywidgets as widgets

from workbench.errors import InputError, RenderError, WorkbenchError
from workbench.panels.callbacks import on_change, on_click
from workbench.panels.fields import full
from workbench.panels.prompts import count
from workbench.panels.settings_view import SettingsView, in_a_line, named, narrow
from workbench.panels.state import Wanted

if TYPE_CHECKING:
    from workbench.render import Renderer

_MANY = 64  # pictures of a model; more are asked about first
_MOST_SEEDS = 1_000_000
_LAST_SEED = (1 << 63) - 1
_FRESH = 1 << 32  # random seeds are below that: other programs take them, too


@final
class WantedView:
    """Tells `changed(wanted)` whenever a field was changed, and `said(text)` what cannot be read; `show` sets them and tells nothing.

    Many pictures are asked about first. `renderer` is the one that the panel was given, if any.
    """

    def __init__(
        self, changed: Callable[[Wanted], None], said: Callable[[str], None], samplers: Sequence[str], renderer: Renderer | None = None
    ) -> None:
        self._changed, self._said, self._showing = changed, said, False
        self._shown = self._asked = Wanted()
        self._before: tuple[int, ...] = ()  # the seeds before these
        self._begun = False
        self._prompts = widgets.Textarea(continuous_update=False, rows=2, placeholder="one prompt per line", layout=full())
        self._seeds = widgets.Text(continuous_update=False, placeholder="0, 1", layout=narrow("150px"))
        self._random = widgets.Button(description="random seed", tooltip="One fresh seed in place of these", layout=narrow("110px"))
        self._again = widgets.Button(description="same seed again", tooltip="The seeds before these", layout=narrow("140px"))
        listed = lambda prompts: self._go_on(replace(self._shown, prompts=prompts))  # noqa: E731
        self._settings = SettingsView(self._typed, listed, said, samplers, renderer)
        for field in (self._prompts, self._seeds):
            on_change(field, lambda _: None if self._showing else self._typed())
        on_click(self._random, lambda: self._go_on(replace(self._shown, seeds=(secrets.randbelow(_FRESH),))))
        on_click(self._again, lambda: self._go_on(replace(self._shown, seeds=self._before)))
        seeds = named("seeds", "Whole numbers; a-b for all from a to b", self._seeds)
        row = widgets.HBox([seeds, self._random, self._again]).add_class("wb-numbers")
        self._question = widgets.HTML().add_class("wb-hint")
        yes, no = (widgets.Button(description=name, layout=narrow("80px")) for name in ("Draw", "Go back"))
        on_click(yes, lambda: self._changed(self._asked))
        on_click(no, lambda: self.show(self._shown))
        self._asking = widgets.HBox([self._question, yes, no]).add_class("wb-row")
        self._more = widgets.Accordion([self._settings.widget], titles=["more"], selected_index=None).add_class("wb-fold")
        self.widget = widgets.VBox([self._prompts, row, self._asking, self._more.add_class("wb-more")]).add_class("wb-column")

    def show(self, wanted: Wanted) -> None:
        """Set the fields."""
        if self._begun and wanted.seeds != self._shown.seeds:
            self._before = self._shown.seeds
        self._begun = True
        self._again.disabled = not self._before
        self._showing, self._shown = True, wanted
        self._asking.layout.display = "none"
        try:
            if not self._says(wanted):
                self._prompts.value = "\n".join(wanted.prompts)
                self._seeds.value = ", ".join(map(str, wanted.seeds))
            self._settings.show(wanted)
            self._more.set_title(0, f"more: {in_a_line(wanted)}")
        finally:
            self._showing = False

    def _typed(self) -> None:
        try:
            self._go_on(self._read())
        except WorkbenchError as error:
            self._said(str(error))

    def _go_on(self, wanted: Wanted) -> None:
        """Tell of other pictures; of many only once a person has said yes. Raises RenderError for prompts that cannot be read."""
        prompts, seeds = count(wanted.prompts), len(wanted.seeds)
        if prompts * seeds > max(_MANY, self._many):
            self._asked = wanted
            each = " x ".join(f"{n:,} {name}{'s' if n != 1 else ''}" for n, name in ((prompts, "prompt"), (seeds, "seed")))
            self._question.value = f"{prompts * seeds:,} pictures of each model: {each}. Draw them?"
            self._asking.layout.display = ""
        else:
            self._changed(wanted)

    @property
    def _many(self) -> int:
        """The pictures of each model that are wanted already."""
        try:
            return count(self._shown.prompts) * len(self._shown.seeds)
        except RenderError:  # of a state by Python
            return 0

    def _says(self, wanted: Wanted) -> bool:
        """Whether the fields say these prompts and seeds already, in whatever words."""
        try:
            return (wanted.prompts, wanted.seeds) == (self._typed_prompts, whole_numbers(self._seeds.value))
        except InputError:
            return False

    @property
    def _typed_prompts(self) -> tuple[str, ...]:
        return tuple(line.strip() for line in self._prompts.value.splitlines() if line.strip())

    def _read(self) -> Wanted:
        """What the fields say. Raises InputError for seeds and a size that are none."""
        return self._settings.read(replace(self._shown, prompts=self._typed_prompts, seeds=whole_numbers(self._seeds.value)))


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
