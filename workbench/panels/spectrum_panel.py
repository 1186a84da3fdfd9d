"""`SpectrumPanel`: drag the curve of an FFT merge, and see its spectrum and its pictures follow."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, final

import ipywidgets as widgets
import numpy as np

from workbench.analysis.spectra import spectrum
from workbench.analysis.spectrum_result import ALL, OF_PARTS, Spectrum
from workbench.checkpoint import Checkpoint
from workbench.errors import OptionError, WorkbenchError
from workbench.figures import COLOURS
from workbench.panels.callbacks import on_change
from workbench.panels.controls import heading
from workbench.panels.curve_editor import CurveEditor, Point
from workbench.panels.first_wanted import first_wanted
from workbench.panels.judging import depth_of
from workbench.panels.merge_view import MergeView
from workbench.panels.panel import Panel
from workbench.panels.shelf import Shelf
from workbench.panels.state import PanelState
from workbench.panels.timeline import Moment, Timeline
from workbench.sweeps.picture_store import GALLERY

if TYPE_CHECKING:
    from workbench.render import Renderer

Folder = str | os.PathLike[str]
Given = Checkpoint | Folder

_OPERATOR, _OPTION = "fft_blend", "coefficients"
_OPTIONS = ("over", "dim", "mix", "entanglement_strength", "decoherence_factor", "low", "high")  # beside the curve
_FLAT = [[0.0, 0.0], [0.25, 0.0], [0.5, 0.0], [0.75, 0.0], [1.0, 0.0]]
_BOUNDS = (-1.5, 1.5)  # of a dragged coefficient: beyond, the weights hardly change any more
_BANDS = 24
_KEPT = 64  # spectra that are remembered


@final
class SpectrumPanel(Panel):
    """Blends two models frequency by frequency: drag the points of the curve, and the spectrum and the pictures follow.

    `first` and `second` are checkpoints or paths. `renderer` draws; by default that of the models' kind, which all panels of the
    process share (see `Renderer`). A point is (frequency, coefficient), as in `fft_blend`'s `{"curve": ...}`: frequency 1
    is the highest, and the higher the coefficient, the more there is of the first model. Pictures are kept in the folder `gallery`
    (see `MergePanel`).

    Everything the panel does can be done in Python: `panel.show(panel.state.with_option("coefficients", {"curve": [[0, 1],
    [1, -1]]}))`. Raises CheckpointError and InputError for checkpoints that cannot be opened.
    """

    def __init__(self, first: Given, second: Given, renderer: Renderer | None = None, *, gallery: Folder | None = GALLERY) -> None:
        shelf = Shelf([first, second])
        names = tuple(shelf.checkpoints)
        inputs = {"first": names[:1], "second": names[-1:]}
        wanted = first_wanted(list(shelf.checkpoints.values()))
        state = PanelState(names, _OPERATOR, inputs, {_OPTION: {"curve": _FLAT}}, wanted=wanted)
        super().__init__(shelf, renderer, Timeline((Moment(state, "start"),)), gallery)
        self._spectra: OrderedDict[str, Spectrum] = OrderedDict()
        self._merging = MergeView(self._changed, only=_OPTIONS)
        low, high = _BOUNDS
        self._editor = CurveEditor(self._moved, title=f"coefficient: up is more {names[0]}, down is more {names[-1]}", low=low, high=high)
        self._block = widgets.Dropdown(options=[ALL], layout=widgets.Layout(width="150px"), tooltip="Whose spectrum is shown")
        on_change(self._block, lambda _: self._chart())
        block = widgets.HBox([heading("spectrum of", "All tensors that are blended, or those of one block"), self._block]).add_class(
            "wb-row"
        )
        seen = [self._history.widget, self._editor, block, self._pictures.status.widget, self._pictures.widget]
        self._lay_out([self._wanted.widget, self._merging.widget], seen)
        self._present()

    @property
    def spectrum(self) -> Spectrum | None:
        """The spectrum of the current merge; None while it is not measured yet, `wait()` first."""
        return self._spectra.get(self._judged.merge.content) if self._judged.ok else None

    def show(self, state: PanelState, change: str = "by Python") -> None:
        """Go on to another state, of the same method, with a curve; it can be undone. Raises OptionError for any other."""
        coefficients = state.options.get(_OPTION)
        if state.operator != _OPERATOR or not isinstance(coefficients, dict) or set(coefficients) != {"curve"}:
            raise OptionError(
                f"SpectrumPanel shows {_OPERATOR} with {{'curve': [[frequency, value], ...]}}, got {state.operator} {coefficients!r}"
            )
        super().show(state, change)

    def _moved(self, points: list[Point]) -> None:
        self._changed(lambda state: state.with_option(_OPTION, {"curve": [list(point) for point in points]}), "curve")

    def _show(self, state: PanelState) -> None:
        self._editor.show(state.options[_OPTION]["curve"])
        self._merging.show(state, depth_of(state, self._shelf.checkpoints), self._words)
        self._chart()

    def _chart(self) -> None:
        """Draw the spectrum that is known, or dim the one before."""
        with self._pictures.publishing:
            found = self.spectrum
            self._editor.stale = found is None
            if found is None:
                return
            if self._block.options != (blocks := (ALL, *found.places)):
                self._block.options = blocks
            self._editor.charts = [_shares(found, self._block.value or ALL), _amplitudes(found, self._block.value or ALL)]

    def _measure(self, cancelled: Callable[[], bool]) -> list[str]:
        judged = self._judged
        if not judged.ok or cancelled():
            return []
        try:
            if (content := judged.merge.content) not in self._spectra:
                self._spectra[content] = spectrum(judged.merge, bands=_BANDS, progress=False)
        except (WorkbenchError, OSError) as error:  # on a thread of its own nobody else would hear of it
            return [str(error)]
        while len(self._spectra) > _KEPT:
            self._spectra.popitem(last=False)
        self._chart()  # that of an earlier merge is kept, but not shown
        return []


def _shares(found: Spectrum, block: str) -> dict[str, Any]:
    """The chart of what was asked for, and of what was taken."""
    curves = found.curves()
    curves = curves[curves["block"] == block]
    lines = [_line(part, colour, curves["frequency"], curves[part], thin=True) for part, colour in zip(found.parts, OF_PARTS, strict=True)]
    lines.append(_line("as measured", COLOURS[2], curves["frequency"], curves["taken"]))
    ends = [0, 1, *(value for line in lines for value in line["y"])]
    return {"title": f"share of {found.models[0]} in the result", "lines": lines, "low": min(ends), "high": max(ends)}


def _amplitudes(found: Spectrum, block: str) -> dict[str, Any]:
    """The chart of the models' amplitudes, and of that of their difference."""
    frame = found.frame()
    frame = frame[frame["block"] == block].set_index("model")
    first, second, _ = found.models
    amplitudes = {model: frame.loc[[model], "amplitude"] for model in found.models} | {f"{first} − {second}": frame.loc[[second], "apart"]}
    lines = [
        _line(name, colour, found.frequencies, values.where(values > 0))  # a logarithm has no 0
        for (name, values), colour in zip(amplitudes.items(), COLOURS, strict=False)
    ]
    there = [value for line in lines for value in line["y"]]
    return {"title": "amplitude", "lines": lines, "low": min(there, default=0.1) / 1.2, "high": max(there, default=1) * 1.2, "log": True}


def _line(name: str, colour: str, x: Sequence[float], y: Sequence[float], *, thin: bool = False) -> dict[str, Any]:
    """A line over the frequencies that have a value, so that it goes on between them."""
    there = [(float(one), float(value)) for one, value in zip(x, y, strict=True) if np.isfinite(value)]
    return {"name": name, "colour": colour, "x": [one for one, _ in there], "y": [value for _, value in there], "thin": thin}
