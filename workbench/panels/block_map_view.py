"""The part of a panel that asks which block of a model does it, and shows what was found out. Drawing is the queue's."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from typing import final

import ipywidgets as widgets

from workbench.panels.callbacks import on_click
from workbench.panels.controls import heading
from workbench.panels.fields import full
from workbench.panels.labels import labels
from workbench.sweeps import BlockMap
from workbench.sweeps.block_map_result import ALONE, Effect

_MENU = 40  # letters of a name in a menu


@final
class BlockMapView:
    """Tells `asked(base, tuned)` which models are to be compared, and `used(result)` that a result is to go into the bars.

    Without `used` there are no bars for it. `form` asks, `result` shows.
    """

    def __init__(self, asked: Callable[[str, str], object], used: Callable[[BlockMap], None] | None) -> None:
        self._asked = asked
        self._names: tuple[str, ...] = ()
        self._base, self._tuned = (widgets.Dropdown(layout=full()) for _ in range(2))
        run = widgets.Button(description="Run", icon="th", button_style="primary", layout=widgets.Layout(width="90px", flex="0 0 auto"))
        on_click(run, self._pressed)
        told = widgets.HTML(
            "Each block of the model is put into the base alone, and left out of the model; drawn with these prompts and seeds."
        ).add_class("wb-hint")
        base = widgets.HBox([heading("base", "What the blocks are put into"), self._base]).add_class("wb-row")
        tuned = widgets.HBox([heading("model", "Whose blocks are tried"), self._tuned, run]).add_class("wb-row")
        self.form = widgets.VBox([told, base, tuned]).add_class("wb-column")
        self._shown: BlockMap | None = None
        self._table = widgets.HTML().add_class("wb-block-map")
        bars = widgets.Button(description="Show in the bars", icon="bar-chart", layout=widgets.Layout(width="150px", flex="0 0 auto"))
        away = widgets.Button(icon="times", tooltip="Put this away", layout=widgets.Layout(width="34px", flex="0 0 auto"))
        on_click(away, self.hide)
        if used is not None:
            on_click(bars, lambda: used(self._shown) if self._shown is not None else None)
        self._title = widgets.HTML()
        head = widgets.HBox([self._title, *([bars] if used is not None else []), away]).add_class("wb-row")
        self.result = widgets.VBox([head, self._table]).add_class("wb-column")
        self.hide()

    def _pressed(self) -> None:
        self._asked(self._base.value or "", self._tuned.value or "")

    def offer(self, names: Sequence[str], used: Sequence[str]) -> None:
        """Let these models be chosen; at first the first two that are merged."""
        if tuple(names) == self._names:
            return
        kept = [menu.value for menu in (self._base, self._tuned)]
        begins = [*used, *(name for name in names if name not in used), "", ""]
        self._names = tuple(names)
        for place, menu in enumerate((self._base, self._tuned)):
            menu.options = [(label, name) for name, label in labels(names, _MENU).items()]
            menu.value = kept[place] if kept[place] in names else begins[place] or None

    def show(self, result: BlockMap) -> None:
        """Show a result, block by block."""
        self._shown = result
        self._title.value = f"<b>Which block of {html.escape(result.names[1])} does it?</b>"
        self._table.value = _table(result)
        self.result.layout.display = ""

    def hide(self) -> None:
        """Show none."""
        self._shown, self.result.layout.display = None, "none"


def _table(result: BlockMap) -> str:
    """A row for each block: a bar for it alone, and one for where it is left out."""
    blocks: dict[str, dict[str, Effect]] = {}
    for one in result.effects[1:]:
        blocks.setdefault(one.block, {})[one.way] = one
    known = [abs(one.effect) for one in result.effects[1:] if math.isfinite(one.effect)]
    most = max(known, default=0.0) or 1.0
    rows = []
    for block, ways in blocks.items():
        cells = "".join(f"<td>{_bar(one, most)}</td>" for one in sorted(ways.values(), key=lambda one: one.way != ALONE))
        rows.append(f"<tr><th>{html.escape(block)}</th>{cells}</tr>")
    base, tuned = map(html.escape, result.names)
    heads = f"<tr><th></th><td>alone, in {base}</td><td>left out of {tuned}</td></tr>"
    same = f"<p>The same in both: {html.escape(', '.join(result.same))}.</p>" if result.same else ""
    whole = f"<p>How far pictures move, from 0 to 1; every block together {result.effects[0].effect:.3g}.</p>"
    return f"<table>{heads}{''.join(rows)}</table>{whole}{same}"


def _bar(effect: Effect, most: float) -> str:
    if effect.problem or not math.isfinite(effect.effect):
        return f'<span class="wb-wrong" title="{html.escape(effect.problem)}">✖ {html.escape(effect.problem)}</span>'
    width = 100 * abs(effect.effect) / most
    return f'<span class="wb-effect"><i style="width:{width:.0f}px"></i>{effect.effect:.3f}</span>'
