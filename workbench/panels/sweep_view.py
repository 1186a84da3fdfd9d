"""The part of a panel that asks for a sweep: which options, which values, how many cells that makes and how long it takes."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import Any, final

import ipywidgets as widgets

from workbench.errors import WorkbenchError
from workbench.panels.callbacks import on_change, on_click
from workbench.panels.fields import full
from workbench.panels.sweep_plan import MANY, SweepPlan
from workbench.panels.swept import MOST_AXES, Sweepable

_NONE = "option …"


@final
class SweepView:
    """Tells `plan(over)` to learn what a sweep would come to, and `run(over)` to have it done; `show` says what can be swept over.

    More than 64 pictures are asked about first.
    """

    def __init__(
        self, plan: Callable[[Mapping[str, str]], SweepPlan], pace: Callable[[], float], run: Callable[[Mapping[str, str]], None]
    ) -> None:
        self._plan, self._pace, self._run = plan, pace, run
        self._known: Mapping[str, Sweepable] = {}
        self._rows = [_Row(self._typed) for _ in range(MOST_AXES)]
        self._said = widgets.HTML().add_class("wb-hint")
        self._button = widgets.Button(description="Run", icon="th", button_style="primary", layout=_narrow("90px"))
        self._yes = widgets.Button(description="Yes, all of them", layout=_narrow("130px"))
        self._no = widgets.Button(description="No", layout=_narrow("60px"))
        on_click(self._button, self._pressed)
        on_click(self._yes, self._confirmed)
        on_click(self._no, self._typed)
        bottom = widgets.HBox([self._said, self._button, self._yes, self._no]).add_class("wb-row").add_class("wb-sweep-row")
        self.widget = widgets.VBox([*(row.widget for row in self._rows), bottom]).add_class("wb-column")
        self._typed()

    def show(self, known: Mapping[str, Sweepable]) -> None:
        """Offer these options; rows whose option is there no more become empty."""
        if list(known) != list(self._known):
            self._known = known
            for row in self._rows:
                row.offer(known)
        self._typed()

    @property
    def over(self) -> dict[str, str]:
        """What is typed, by option."""
        return {row.name: row.text for row in self._rows if row.name}

    def _typed(self) -> None:
        """Say what it would come to, or what cannot be read."""
        self._ask(False)
        first_empty = next((number for number, row in enumerate(self._rows) if not row.name), len(self._rows))
        for number, row in enumerate(self._rows):
            row.widget.layout.display = "" if number <= first_empty or row.name else "none"
        self._button.disabled = True
        if not self.over:
            self._say("Choose up to three options, and values for each.")
        elif all(self.over.values()):
            try:
                self._say(self._plan(self.over).told(self._pace()))
                self._button.disabled = False
            except WorkbenchError as error:
                self._say(str(error), wrong=True)
        else:
            self._say("Type the values.")

    def _pressed(self) -> None:
        plan = self._plan(self.over)
        if plan.pictures > MANY:
            self._say(f"{plan.pictures:,} pictures. Draw them?")
            self._ask(True)
        else:
            self._confirmed()

    def _confirmed(self) -> None:
        self._ask(False)
        try:
            self._run(self.over)
        except WorkbenchError as error:
            self._say(str(error), wrong=True)

    def _ask(self, asking: bool) -> None:
        for button, shown in ((self._button, not asking), (self._yes, asking), (self._no, asking)):
            button.layout.display = "" if shown else "none"

    def _say(self, text: str, wrong: bool = False) -> None:
        self._said.value = f'<span class="{"wb-wrong" if wrong else ""}">{html.escape(text)}</span>'


class _Row:
    """One option and its values; prompts are typed one on a line."""

    def __init__(self, typed: Callable[[], None]) -> None:
        self._typed = typed
        self._known: Mapping[str, Sweepable] = {}
        self._option = widgets.Dropdown(options=[(_NONE, "")], layout=_narrow("136px"))
        self._line = widgets.Text(continuous_update=False, layout=full())
        self._lines = widgets.Textarea(continuous_update=False, rows=3, layout=full())
        on_change(self._option, self._chosen)
        for field in (self._line, self._lines):
            on_change(field, lambda _: self._typed())
        self.widget = widgets.HBox([self._option, self._line, self._lines]).add_class("wb-row")
        self._fit()

    @property
    def name(self) -> str:
        return str(self._option.value or "")

    @property
    def text(self) -> str:
        return str(self._field.value).strip()

    @property
    def _field(self) -> widgets.Widget:
        one = self._known.get(self.name)
        return self._lines if one is not None and one.lines else self._line

    def offer(self, known: Mapping[str, Sweepable]) -> None:
        """Other options; the chosen one stays if it is among them."""
        kept = self.name if self.name in known else ""
        self._known = known
        self._option.options = [(_NONE, ""), *((name, name) for name in known)]
        self._option.value = kept
        self._fit()

    def _chosen(self, change: Mapping[str, Any]) -> None:
        self._fit()
        self._typed()

    def _fit(self) -> None:
        one = self._known.get(self.name)
        self._field.placeholder = self._field.tooltip = one.example if one else "0..1 step 0.1, or 0.2, 0.5"
        self._field.disabled = one is None
        for field in (self._line, self._lines):
            field.layout.display = "" if field is self._field else "none"


def _narrow(width: str) -> widgets.Layout:
    return widgets.Layout(width=width, flex="0 0 auto")
