"""The block editor: a model as its column of blocks, one bar each, to be painted. What bars mean for an option is in `bars`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import anywidget
import traitlets

from workbench.merge.declaration import Option
from workbench.merge.schedules import Depth
from workbench.panels.bars import PRESETS, Bars, bounds_of
from workbench.panels.block_text import DEFAULT, presets_of, read_number, read_weights, write_weights
from workbench.panels.callbacks import on_message
from workbench.panels.labels import labels

_HERE = Path(__file__).parent
_TAB = 16  # letters of a name in a tab


@final
class BlockEditor(anywidget.AnyWidget):
    """Holds the `value` of an option that may differ by block, in any of its forms; painting it gives the shortest form.

    The synchronised traits are what is drawn; what a person draws comes back as messages.
    """

    _esm = _HERE / "block_editor.js"
    _css = _HERE / "block_editor.css"
    value = traitlets.Any()
    blocks: traitlets.List[Any] = traitlets.List().tag(sync=True)
    series: traitlets.List[Any] = traitlets.List().tag(sync=True)
    rows: traitlets.List[Any] = traitlets.List().tag(sync=True)
    elsewhere: traitlets.List[Any] = traitlets.List().tag(sync=True)
    bounds = traitlets.Dict().tag(sync=True)
    texts: traitlets.List[Any] = traitlets.List().tag(sync=True)  # of each series, as people share it
    short: traitlets.List[Any] = traitlets.List().tag(sync=True)  # names of the series, cut so that they can be told apart
    presets = traitlets.List(list(PRESETS)).tag(sync=True)
    named: traitlets.List[Any] = traitlets.List().tag(sync=True)  # presets by name that these blocks take
    effects = traitlets.Dict().tag(sync=True)  # what each block does, as `block_effects` tells it
    effects_of = traitlets.Int(-1).tag(sync=True)  # of which series; -1 for none

    def __init__(self, option: Option, depth: Depth, series: Sequence[str]) -> None:
        self._option, self._depth = option, depth
        bounds, short = bounds_of(option), labels(series, _TAB)
        super().__init__(
            blocks=[block.name for block in depth.blocks],
            series=list(series),
            short=[short[name] for name in series],
            named=presets_of(depth),
            bounds={"low": bounds.slider[0], "high": bounds.slider[1], "step": bounds.step},
        )
        on_message(self, self._drawn)
        self.value = option.default

    def colour(self, effects: Mapping[str, Any] | None, model: str) -> None:
        """Show what each block of a model does on the bars of its series; None takes the colours away."""
        place = self.series.index(model) if model in self.series else 0 if not self._option.per_model else -1
        with self.hold_sync():
            self.effects, self.effects_of = (dict(effects), place) if effects and place >= 0 else ({}, -1)

    @property
    def everywhere(self) -> Any:
        """One value for all blocks, in place of those there are: that of the tensors in no block."""
        values = list(self._bars.elsewhere)
        return values if self._option.per_model else values[0]

    @property
    def _bars(self) -> Bars:
        return Bars.of(self.value, self._option, self._depth, len(self.series))

    @traitlets.observe("value")
    def _value_changed(self, _: Any) -> None:
        bars = self._bars
        with self.hold_sync():
            self.rows = [list(row) for row in bars.rows]
            self.elsewhere = list(bars.elsewhere)
            self.texts = [write_weights(bars.weights(series), self._depth) for series in range(len(bars.rows))]

    def _drawn(self, said: Mapping[str, Any], _: object) -> None:
        bars, series = self._bars, said["series"]
        if said["kind"] == "painted":
            self.value = bars.painted(series, said["values"], said["elsewhere"])
        elif said["kind"] == "ramp":
            self.value = bars.ramped(series, tuple(said["ends"]), tuple(said["values"]))
        elif said["kind"] == "typed":
            name = [*self._depth.names, DEFAULT][said["place"]]
            self.value = bars.pasted(series, {name: read_number(said["text"])})
        elif said["kind"] == "text":
            self.value = bars.pasted(series, read_weights(said["text"], self._depth))
        else:
            self.value = bars.preset(series, said["name"])
