"""`Panel`: what the panels that merge have in common: states that come and go, the merge each makes, and its pictures."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from workbench.checkpoint import Checkpoint, in_layout
from workbench.errors import RecipeError
from workbench.merge import Merge
from workbench.merge.call import unique
from workbench.panels.callbacks import in_words, tells
from workbench.panels.fields import close_all
from workbench.panels.first_wanted import samplers_of
from workbench.panels.history_view import HistoryView
from workbench.panels.judging import Judged, judge
from workbench.panels.merge_view import MergeView
from workbench.panels.outcome_view import OutcomeView
from workbench.panels.picking import Picking
from workbench.panels.pictures_view import PicturesView
from workbench.panels.remembering import Remembering
from workbench.panels.shelf import RESULT, Shelf
from workbench.panels.state import PanelState
from workbench.panels.studio import Studio
from workbench.panels.timeline import Timeline
from workbench.panels.wanted_view import WantedView
from workbench.recipe import Recipe

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

    from workbench.render import Renderer

_STYLE = (Path(__file__).parent / "panel.css").read_text(encoding="utf-8")


class Panel(ABC):
    """A state with its past, shown by widgets; every change of it is drawn on a thread of its own."""

    def __init__(self, shelf: Shelf, renderer: Renderer | None, timeline: Timeline, gallery: str | os.PathLike[str] | None) -> None:
        self._shelf, self._timeline = shelf, timeline
        does = {"undo": self.undo, "redo": self.redo, "stop": self.stop, "again": self._present}
        looks = lambda view: self._changed(lambda state: state.with_view(**vars(view)), "view")  # noqa: E731
        self._pictures = PicturesView(Studio(renderer, shelf.checkpoints), Remembering(gallery), self._measure, looks, does)
        self._changing = threading.RLock()  # between threads of the kernel: JupyterLab has what widgets say handled beside the cells
        self._judged = Judged(None, ())
        self._reacting: list[Callable[[PanelState], None]] = []
        self._history = HistoryView(self.undo, self.redo, self.keep_as, self.back_to)
        self._wanted = WantedView(
            lambda wanted: self._changed(lambda state: state.with_wanted(**vars(wanted)), "pictures"),
            lambda text: self._pictures.status.say([text]),
            samplers_of(list(shelf.checkpoints.values())),
            renderer,
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
        return self._pictures.images

    @property
    def widget(self) -> widgets.Widget:
        """The panel as a widget, to be put beside others."""
        return self._root

    def on_change(self, react: Callable[[PanelState], None]) -> None:
        """Have `react(state)` called with every other state from now on; what goes wrong in it is said under the controls."""
        self._reacting.append(react)

    def show(self, state: PanelState, change: str = "by Python") -> None:
        """Go on to another state; it can be undone."""
        self._go(lambda timeline: timeline.went_on(state, change))

    def undo(self) -> None:
        """Go one step back."""
        self._go(lambda timeline: timeline.undone(), self._timeline.undoes)

    def redo(self) -> None:
        """Go one step forth again."""
        self._go(lambda timeline: timeline.redone(), self._timeline.redoes)

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
        self._pictures.stop()

    def close(self) -> None:
        """Take the panel down: nothing is drawn any more, its widgets go, and its pipeline, unless another panel has it too."""
        self._pictures.close()
        close_all(self._root)

    @property
    def pictures(self) -> Picking:
        """What can be done with the pictures that are shown: tick, compare, star them."""
        return self._pictures.picking

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all pictures are drawn; returns whether they were within so many seconds."""
        return self._pictures.wait(timeout)

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

    def _ipython_display_(self) -> None:
        """The panel, and beneath it its last pictures as a PNG, which a notebook shows that is opened without its kernel."""
        from IPython.display import display

        display(self._root)
        self._pictures.still.display()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        return self._root._repr_mimebundle_(include=include, exclude=exclude)

    def _lay_out(self, left: Sequence[widgets.Widget], right: Sequence[widgets.Widget]) -> None:
        """Two columns, with the outcome below the right one; beneath one another where there is little room."""
        style = widgets.HTML(f"<style>{_STYLE}</style>", layout=widgets.Layout(display="none"))
        columns = [widgets.VBox(list(left)).add_class("wb-left"), widgets.VBox(list(right)).add_class("wb-right")]
        main = widgets.Box([*columns, self._outcome.widget]).add_class("wb-main")
        self._root = widgets.VBox([style, main, self._pictures.enlarged]).add_class("wb-panel")
        tells(self._root, self.tell)

    def _changed(self, change: Callable[[PanelState], PanelState], what: str) -> None:
        with self._changing:
            state = change(self.state)
            if (state, state.view) != (self.state, self.state.view):
                self.show(state, what)

    def _go(self, change: Callable[[Timeline], Timeline], renaming: tuple[str, str] | None = None) -> None:
        """Go to another moment; the shelf follows it in what a model is called (`renaming`: from, to)."""
        with self._changing:
            if renaming:
                self._give_way(renaming[1])
                self._shelf.rename(*renaming)
            before = self._timeline
            self._timeline = change(before)
            looks = self.state == before.now and self.state.view != before.now.view
            try:
                self._look() if looks else self._present()
            except Exception:
                self._timeline = before
                if renaming:
                    self._shelf.rename(renaming[1], renaming[0])
                self._present()
                raise
            if self.state != before.now:
                self._react()

    def _react(self) -> None:
        """Call those who want to know; none of them can hinder another, or the panel."""
        for react in self._reacting:
            try:
                react(self.state)
            except Exception as error:
                self.tell(in_words(error))

    def _look(self) -> None:
        """Show the same pictures in the present view."""
        self._pictures.look(self.state.view)

    def _give_way(self, name: str) -> None:
        """Call the model otherwise that has a name which another is about to get back: it came later, and what it is in was undone."""
        if name in self._shelf.checkpoints:
            other = unique(name, {**self._shelf.checkpoints, RESULT: None})
            self._shelf.rename(name, other)
            self._timeline = self._timeline.renamed(name, other)

    def _present(self) -> None:
        """Show the present state in every part, and have the pictures drawn that it wants."""
        state = self.state
        self._pictures.look(self.state.view)
        self._judged = judge(state, self._shelf.checkpoints)
        self._wanted.show(state.wanted)
        self._history.show(self._timeline)
        self._outcome.show(self._judged.merge, state, self._judged.ok)
        self._show(state)
        models: dict[str, Checkpoint] = {name: self._model(name) for name in self._beside(state)}
        moment = self._timeline.moments[self._timeline.position]
        change = f"{moment.change} {moment.when:%H:%M:%S}"
        self._pictures.show(models, self._judged.merge if self._judged.ok else None, state.wanted, change)
