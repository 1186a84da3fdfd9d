"""`MergePanel`: choose models and a method, move sliders, look, go back, export. It only ties the parts together."""

from __future__ import annotations

import html
import os
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import ipywidgets as widgets

from workbench.checkpoint import Checkpoint
from workbench.errors import Cancelled, RecipeError, RenderError, WorkbenchError
from workbench.merge import Merge
from workbench.panels import keeping
from workbench.panels.gallery import Gallery
from workbench.panels.history_view import HistoryView
from workbench.panels.judging import Judged, depth_of, judge
from workbench.panels.merge_view import MergeView
from workbench.panels.models_view import ModelsView
from workbench.panels.outcome_view import OutcomeView
from workbench.panels.shelf import FAMILY, RESULT, Given, Shelf
from workbench.panels.state import PanelState, Wanted
from workbench.panels.studio import Studio, key_of
from workbench.panels.timeline import Moment, Timeline
from workbench.panels.wanted_view import WantedView
from workbench.panels.worker import Worker
from workbench.recipe import Recipe
from workbench.render.request import Request

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

    from workbench.render import Renderer

_STYLE = (Path(__file__).parent / "panel.css").read_text(encoding="utf-8")
_OF_THE_FAMILY = Wanted(("a red heart on a white background", "a yellow moon on a black background"), (0,), steps=12, guidance=3.0)


@final
class MergePanel:
    """Merges models by hand: shown in a notebook, it draws parents and result side by side while controls are moved.

    `checkpoints` is a mapping from names, a list of checkpoints and paths, or a folder; by default the family that comes
    with the project. `renderer` draws; by default one is made on the CPU, of the diffusers folder that the checkpoints lie
    in. `keep` names a YAML file in which the panel keeps its state, and finds it again when the notebook is reopened.

    Everything the panel does can be done in Python: `panel.show(panel.state.with_option("density", 0.3))`.
    Raises CheckpointError and InputError for checkpoints that cannot be opened, RecipeError for a damaged `keep`.
    """

    def __init__(
        self, checkpoints: Given | None = None, renderer: Renderer | None = None, *, keep: str | os.PathLike[str] | None = None
    ) -> None:
        self._shelf = Shelf(checkpoints)
        self._keep = Path(keep) if keep is not None else None
        self._studio = Studio(renderer, list(self._shelf.checkpoints.values()))
        self._worker = Worker()
        self._publishing = threading.RLock()  # between the kernel's thread and the worker's
        self._judged = Judged(None, ())
        self._timeline, self._said = self._begin()
        self._gallery = Gallery()
        self._status = widgets.HTML().add_class("wb-status")
        self._history = HistoryView(self.undo, self.redo, self.keep_as, self.back_to)
        self._merging = MergeView(self._changed)
        self._wanted = WantedView(lambda wanted: self._changed(lambda state: state.with_wanted(**vars(wanted)), "pictures"))
        self._outcome = OutcomeView(lambda dtype: self._changed(lambda state: state.with_dtype(dtype), "dtype"))
        folder = next((one.path.parent for one in self._shelf.checkpoints.values() if one.path is not None), Path())
        arrange = lambda names: self._changed(lambda state: state.with_models(names), "models")  # noqa: E731
        self._models = ModelsView(folder, self.add, arrange, self.read_again)
        self._root = self._laid_out()
        self._present()

    def _begin(self) -> tuple[Timeline, list[str]]:
        """The state that was kept, or a first one; and what to say of models that are not there any more."""
        found = self._shelf.checkpoints
        if self._keep is None or not self._keep.exists():
            family = found and all(one.path is not None and one.path.parent == FAMILY for one in found.values())
            state = PanelState.start(list(found), _OF_THE_FAMILY if family else Wanted())
            return Timeline((Moment(state, "start"),)), []
        kept, said = keeping.load(self._keep), []
        for name, path in kept.paths.items():
            try:
                if name not in found:
                    self._shelf.add(path, name)
            except WorkbenchError as error:
                said.append(f"{name} was there when this panel was kept: {error}")
        names = [name for name in kept.state.models if name in found]
        names += [name for name in found if name not in names]
        snapshots = {name: state.with_models(names) for name, state in kept.snapshots.items()}
        return Timeline((Moment(kept.state.with_models(names), "start"),), snapshots=snapshots), said

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
        """The current merge as data."""
        return self.merge.recipe

    @property
    def images(self) -> dict[str, list[Image]]:
        """The pictures that are shown, by model, `"result"` last; `wait()` first for those that are being drawn."""
        with self._publishing:
            return dict(self._gallery.images)

    def show(self, state: PanelState, change: str = "by Python") -> None:
        """Go on to another state; it can be undone."""
        self._timeline = self._timeline.went_on(state, change)
        self._present()

    def undo(self) -> None:
        """Go one step back."""
        self._timeline = self._timeline.undone()
        self._present()

    def redo(self) -> None:
        """Go one step forth again."""
        self._timeline = self._timeline.redone()
        self._present()

    def keep_as(self, name: str) -> None:
        """Keep the present state under a name."""
        self._timeline = self._timeline.with_snapshot(name)
        self._present()

    def back_to(self, name: str) -> None:
        """Go to a state that was kept under a name. Raises RecipeError when there is none."""
        if name not in self._timeline.snapshots:
            raise RecipeError(f"there is no snapshot {name!r}; there are: {', '.join(self._timeline.snapshots) or 'none'}")
        names = tuple(self._shelf.checkpoints)
        self.show(self._timeline.snapshots[name].with_models([*names]), f"back to {name}")

    def add(self, path: str | os.PathLike[str]) -> None:
        """Open one more checkpoint to choose from."""
        try:
            name = self._shelf.add(path)
        except (WorkbenchError, OSError) as error:
            self._say_again([("error", str(error))])
            return
        self._changed(lambda state: state.with_model(name), f"added {name}")

    def read_again(self) -> None:
        """Open files anew that have changed since."""
        self._said = self._shelf.open_again()
        self._present()

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

    def _laid_out(self) -> widgets.Widget:
        style = widgets.HTML(f"<style>{_STYLE}</style>", layout=widgets.Layout(display="none"))
        shelf = widgets.Accordion([self._models.widget], titles=["models to choose from"], selected_index=None if self.state.models else 0)
        left = widgets.VBox([shelf.add_class("wb-shelf"), self._merging.widget]).add_class("wb-left")
        pictures = [self._history.widget, self._wanted.widget, self._gallery.widget, self._status]
        right = widgets.VBox(pictures).add_class("wb-right")
        main = widgets.Box([left, right, self._outcome.widget]).add_class("wb-main")
        root = widgets.VBox([style, main])
        return root.add_class("wb-panel")

    def _changed(self, change: Callable[[PanelState], PanelState], what: str) -> None:
        state = change(self.state)
        if state != self.state:
            self.show(state, what)

    def _present(self) -> None:
        """Show the present state in every part, and have the pictures drawn that it wants."""
        state, checkpoints = self.state, self._shelf.checkpoints
        self._judged = judge(state, checkpoints)
        self._models.show(state.models)
        self._merging.show(state, depth_of(state, checkpoints), self._words)
        self._wanted.show(state.wanted)
        self._history.show(self._timeline)
        self._outcome.show(self._judged.merge, state.dtype, self._judged.ok)
        self._save()
        self._picture(state)

    @property
    def _words(self) -> list[tuple[str, str]]:
        return [*(("warning", text) for text in self._said), *self._judged.words]

    def _say_again(self, words: Sequence[tuple[str, str]]) -> None:
        self._merging.say([*words, *self._words])

    def _save(self) -> None:
        if self._keep is None:
            return
        try:
            keeping.save(self._keep, self.state, self._timeline.snapshots, self._shelf.checkpoints)
        except OSError as error:
            self._say_again([("warning", f"{self._keep}: the panel's state could not be kept: {error.strerror}")])

    def _picture(self, state: PanelState) -> None:
        """Show the pictures that are known, dim the others, and have them drawn: the result's first."""
        models = {RESULT: self._judged.merge} if self._judged.ok else {}
        models |= {name: self._shelf.checkpoints[name] for name in state.used}
        try:
            request, problem = state.wanted.request(), ""
        except RenderError as error:
            request, problem = None, "Write a prompt to see pictures." if not state.wanted.prompts else str(error)
        with self._publishing:
            self._worker.cancel()
            self._gallery.arrange(state.used, request)
            missing = {name: model for name, model in models.items() if request is None or not self._show_known(name, model, request)}
            for name in {*state.used, RESULT} - {*models} | {*missing}:
                self._gallery.dim(name)
            if request is None or not missing:
                self._status.value = html.escape(problem)
                return
            self._status.value = "Drawing …" if self._studio.ready else "Loading the pipeline …"
            self._worker.submit(lambda cancelled: self._draw(missing, request, cancelled))

    def _show_known(self, name: str, model: Checkpoint, request: Request) -> bool:
        known = self._studio.known(key_of(model, request))
        if known is not None:
            self._gallery.show(name, known)
        return known is not None

    def _draw(self, models: dict[str, Checkpoint], request: Request, cancelled: Callable[[], bool]) -> None:
        """On the worker's thread: draw, and show what is still wanted."""
        began, said = time.monotonic(), []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            for name, model in models.items():
                try:
                    images = self._studio.draw(model, request, cancelled)
                except Cancelled:
                    raise
                except Exception as error:  # on a thread of its own nobody else would hear of it
                    said.append(str(error) if isinstance(error, WorkbenchError) else f"{name}: {type(error).__name__}: {error}")
                    continue
                with self._publishing:
                    if cancelled():
                        raise Cancelled("another picture is wanted by now")
                    self._gallery.show(name, images)
        said += [str(one.message) for one in caught if issubclass(one.category, UserWarning)]
        with self._publishing:
            if not cancelled():
                told = f"Drawn in {time.monotonic() - began:.1f} s." if len(said) < len(models) else ""
                self._status.value = "<br>".join(map(html.escape, filter(None, dict.fromkeys([told, *said]))))
