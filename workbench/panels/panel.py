"""`Panel`: what the panels that merge have in common: states that come and go, the merge each makes, and its pictures."""

from __future__ import annotations

import os
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from workbench.checkpoint import Checkpoint, in_layout
from workbench.errors import Cancelled, RecipeError, RenderError, WorkbenchError
from workbench.merge import Merge
from workbench.panels.callbacks import in_words, tells
from workbench.panels.drawing_view import DrawingView
from workbench.panels.fields import close_all
from workbench.panels.first_wanted import samplers_of
from workbench.panels.full_size import FullSize
from workbench.panels.history_view import HistoryView
from workbench.panels.judging import Judged, judge
from workbench.panels.merge_view import MergeView
from workbench.panels.outcome_view import OutcomeView
from workbench.panels.picture_columns import PictureColumns
from workbench.panels.remembering import Remembering
from workbench.panels.shelf import RESULT, Shelf
from workbench.panels.state import PanelState
from workbench.panels.studio import Studio, key_of
from workbench.panels.timeline import Timeline
from workbench.panels.wanted_view import WantedView
from workbench.panels.worker import Worker
from workbench.recipe import Recipe
from workbench.render.request import Request

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

    from workbench.render import Renderer
    from workbench.render.drawing import Step

_STYLE = (Path(__file__).parent / "panel.css").read_text(encoding="utf-8")


class Panel(ABC):
    """A state with its past, shown by widgets; every change of it is drawn on a thread of its own."""

    def __init__(self, shelf: Shelf, renderer: Renderer | None, timeline: Timeline, gallery: str | os.PathLike[str] | None) -> None:
        self._shelf, self._timeline = shelf, timeline
        self._remembering = Remembering(gallery)
        self._studio = Studio(renderer, shelf.checkpoints)
        self._worker = Worker()
        self._changing = threading.RLock()  # between threads of the kernel: JupyterLab has what widgets say handled beside the cells
        self._publishing = threading.RLock()  # between those and the worker's
        self._judged = Judged(None, ())
        self._gallery = PictureColumns()
        self._status = DrawingView(self.stop, self._present)
        self._history = HistoryView(self.undo, self.redo, self.keep_as, self.back_to)
        self._wanted = WantedView(
            lambda wanted: self._changed(lambda state: state.with_wanted(**vars(wanted)), "pictures"),
            lambda text: self._status.say([text]),
            samplers_of(list(shelf.checkpoints.values())),
        )
        self._outcome = OutcomeView(
            lambda dtype: self._changed(lambda state: state.with_dtype(dtype), "dtype"),
            lambda layout: self._changed(lambda state: state.with_layout(layout), "layout"),
        )

    _merging: MergeView

    @abstractmethod
    def _show(self, state: PanelState) -> None:
        """Show a state, and what is said of it, in the parts that only this panel has."""

    @property
    def _words(self) -> list[tuple[str, str]]:
        """What is to be said of the merge, under the controls."""
        return list(self._judged.words)

    def _beside(self, state: PanelState) -> Sequence[str]:
        """The models whose pictures stand beside the result's."""
        return state.used

    def _model(self, name: str) -> Checkpoint:
        """What is drawn under a model's name."""
        return self._shelf.checkpoints[name]

    def _measure(self, cancelled: Callable[[], bool]) -> list[str]:
        """What else to do on the worker's thread once the pictures are there; returns what to say of it."""
        return []

    @property
    def state(self) -> PanelState:
        """What the panel shows, as data; `show` takes another."""
        return self._timeline.now

    @property
    def merge(self) -> Merge:
        """The current merge. Raises RecipeError when the panel's state makes none, and says why."""
        if self._judged.merge is None:
            raise RecipeError("; ".join(text for _, text in self._judged.words))
        return self._judged.merge

    @property
    def recipe(self) -> Recipe:
        """The current merge as data, in the layout it is to be written in."""
        return (in_layout(self.merge, self.state.layout) if self.state.layout else self.merge).recipe

    @property
    def images(self) -> dict[str, list[Image]]:
        """The pictures that are shown, by model, `"result"` last; `wait()` first for those that are being drawn."""
        with self._publishing:
            return dict(self._gallery.images)

    def show(self, state: PanelState, change: str = "by Python") -> None:
        """Go on to another state; it can be undone."""
        self._go(lambda timeline: timeline.went_on(state, change))

    def undo(self) -> None:
        """Go one step back."""
        self._go(lambda timeline: timeline.undone())

    def redo(self) -> None:
        """Go one step forth again."""
        self._go(lambda timeline: timeline.redone())

    def keep_as(self, name: str) -> None:
        """Keep the present state under a name."""
        self._go(lambda timeline: timeline.with_snapshot(name))

    def back_to(self, name: str) -> None:
        """Go to a state that was kept under a name. Raises RecipeError when there is none."""
        if name not in self._timeline.snapshots:
            raise RecipeError(f"there is no snapshot {name!r}; there are: {', '.join(self._timeline.snapshots) or 'none'}")
        names = tuple(self._shelf.checkpoints)
        self.show(self._timeline.snapshots[name].with_models([*names]), f"back to {name}")

    def tell(self, text: str) -> None:
        """Say under the controls what went wrong; the next change takes it away."""
        self._merging.say([("error", text), *self._words])

    def stop(self) -> None:
        """Stop what is drawn; any change draws again."""
        self._worker.cancel()
        with self._publishing:
            self._status.stopped()

    def close(self) -> None:
        """Take the panel down: nothing is drawn any more, its widgets go, and its pipeline, unless another panel has it too."""
        self._worker.cancel()
        self._worker.wait()
        with self._publishing:
            self._studio.close()
            self._gallery.images.clear()
            close_all(self._root)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all pictures are drawn; returns whether they were within so many seconds."""
        return self._worker.wait(timeout)

    def history(self) -> pd.DataFrame:
        """One row for each state the panel was in: when, what was changed, operator, inputs, options, snapshot names, whether now."""
        import pandas as pd

        rows = []
        for position, moment in enumerate(self._timeline.moments):
            state = moment.state
            names = [name for name, kept in self._timeline.snapshots.items() if kept == state]
            inputs = {slot: list(given) for slot, given in state.inputs.items()}
            now = position == self._timeline.position
            rows.append((moment.when, moment.change, state.operator, inputs, dict(state.options), ", ".join(names), now))
        return pd.DataFrame(rows, columns=["when", "change", "operator", "inputs", "options", "snapshot", "now"])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        return self._root._repr_mimebundle_(include=include, exclude=exclude)

    def _lay_out(self, left: Sequence[widgets.Widget], right: Sequence[widgets.Widget]) -> None:
        """Two columns, with the outcome below the right one; beneath one another where there is little room."""
        style = widgets.HTML(f"<style>{_STYLE}</style>", layout=widgets.Layout(display="none"))
        columns = [widgets.VBox(list(left)).add_class("wb-left"), widgets.VBox(list(right)).add_class("wb-right")]
        main = widgets.Box([*columns, self._outcome.widget]).add_class("wb-main")
        enlarged = FullSize(lambda name: self.images.get(name, []))
        self._root = widgets.VBox([style, main, enlarged]).add_class("wb-panel")
        tells(self._root, self.tell)

    def _changed(self, change: Callable[[PanelState], PanelState], what: str) -> None:
        with self._changing:
            state = change(self.state)
            if state != self.state:
                self.show(state, what)

    def _go(self, change: Callable[[Timeline], Timeline]) -> None:
        with self._changing:
            before = self._timeline
            self._timeline = change(before)
            try:
                self._present()
            except Exception:
                self._timeline = before
                self._present()
                raise

    def _present(self) -> None:
        """Show the present state in every part, and have the pictures drawn that it wants."""
        state = self.state
        self._judged = judge(state, self._shelf.checkpoints)
        self._wanted.show(state.wanted)
        self._history.show(self._timeline)
        self._outcome.show(self._judged.merge, state, self._judged.ok)
        self._show(state)
        self._picture(state)

    def _picture(self, state: PanelState) -> None:
        """Show the pictures that are known, dim the others, and have them drawn: the result's first."""
        models = {RESULT: self._judged.merge} if self._judged.ok else {}
        beside = self._beside(state)
        models |= {name: self._model(name) for name in beside}
        try:
            request, problem = state.wanted.request(), ""
        except RenderError as error:
            request, problem = None, "Write a prompt to see pictures." if not state.wanted.prompts else str(error)
        with self._publishing:
            self._worker.cancel()
            self._gallery.arrange(beside, request)
            missing = {name: model for name, model in models.items() if request is None or not self._show_known(name, model, request)}
            for name in {*beside, RESULT} - {*models} | {*missing}:
                self._gallery.dim(name)
            if request is not None and missing:
                self._status.waits("Drawing …")
            else:
                self._status.say([problem] if problem else [])
            self._worker.submit(lambda cancelled: self._work(missing if request else {}, request, cancelled))

    def _show_known(self, name: str, model: Checkpoint, request: Request) -> bool:
        known = self._studio.known(key_of(model, request))
        if known is not None:
            self._gallery.show(name, known)
        return known is not None

    def _work(self, models: dict[str, Checkpoint], request: Request | None, cancelled: Callable[[], bool]) -> None:
        """On the worker's thread: draw, measure, and say how it went."""
        began = time.monotonic()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                failed = self._draw(models, request, cancelled) if request else []
                told = [f"Drawn in {time.monotonic() - began:.1f} s{self._where()}."] if len(failed) < len(models) else []
                said = [*told, *failed, *self._measure(cancelled)]
            except Cancelled:
                raise
            except Exception as error:  # on a thread of its own nobody else would hear of it
                said = [in_words(error)]
        said += [str(one.message) for one in caught if issubclass(one.category, UserWarning)]
        with self._publishing:
            if said and not cancelled():
                self._status.say(said)

    def _where(self) -> str:
        """The devices that drew, and what stays on them."""
        told = [renderer.where for renderer in self._studio.renderers if hasattr(renderer, "where")]
        return f" on {' and '.join(dict.fromkeys(told))}" if told else ""

    def _draw(self, models: dict[str, Checkpoint], request: Request, cancelled: Callable[[], bool]) -> list[str]:
        """Draw models, and show what is still wanted; returns what went wrong, model by model."""
        failed = []
        self._status.begin(len(models))
        for name, model in models.items():
            on_tensor, on_step = partial(self._reading, cancelled, name), partial(self._stepped, cancelled, name)
            try:
                images = self._studio.draw(model, request, cancelled, on_tensor, on_step)
            except Cancelled:
                raise
            except Exception as error:  # the others are drawn all the same
                failed.append(str(error) if isinstance(error, WorkbenchError) else f"{name}: {type(error).__name__}: {error}")
                continue
            with self._publishing:
                if cancelled():
                    raise Cancelled("another picture is wanted by now")
                self._gallery.show(name, images)
                self._status.drawn()
            self._remembering.keep(name, model, request, images)
        return failed

    def _reading(self, cancelled: Callable[[], bool], name: str, part: str, done: int, tensors: int) -> None:
        with self._publishing:
            if not cancelled():
                self._status.reading(name, part, done, tensors)

    def _stepped(self, cancelled: Callable[[], bool], name: str, step: Step) -> None:
        """Say how far it is, and now and then show what it will look like."""
        with self._publishing:
            if not cancelled() and self._status.drawing(name, step):
                self._gallery.preview(name, [*step.finished, *(step.preview() or ())])
