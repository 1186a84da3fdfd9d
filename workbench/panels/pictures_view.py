"""The pictures of a panel: those that are known are shown, the others drawn on a thread of their own, the result's first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, final

import ipywidgets as widgets

from workbench.checkpoint import Checkpoint
from workbench.errors import Cancelled, RenderError, WorkbenchError
from workbench.panels.callbacks import in_words
from workbench.panels.drawing_view import DrawingView
from workbench.panels.full_size import FullSize
from workbench.panels.picking import Picking
from workbench.panels.picture_columns import PictureColumns
from workbench.panels.remembering import Remembering
from workbench.panels.shelf import RESULT
from workbench.panels.state import Wanted
from workbench.panels.still import Drawing, Still
from workbench.panels.studio import Studio, key_of
from workbench.panels.ticks import Shown
from workbench.panels.view_controls import ViewControls
from workbench.panels.viewing import Viewing
from workbench.panels.worker import Worker
from workbench.render.request import Request
from workbench.render.silence import heard

if TYPE_CHECKING:
    from PIL.Image import Image

    from workbench.render.drawing import Step


@final
@dataclass(frozen=True)
class DrawnFrom:
    """Where pictures come from: what drew them, what was asked, and what led to it."""

    model: Checkpoint
    request: Request
    change: str


@final
class PicturesView:
    """Shows what models draw, in `widget`, and how that goes, in `status`; `show` takes other models and pictures at any time.

    `measure(cancelled)` is called on the drawing thread once the pictures are there: it returns what to say of it. `looks(view)` is told
    how a person wants to look; `does` has what the keyboard does: undo, redo, stop, and `again`, for what was stopped.
    """

    def __init__(
        self,
        studio: Studio,
        remembering: Remembering,
        measure: Callable[[Callable[[], bool]], list[str]],
        looks: Callable[[Viewing], None],
        does: Mapping[str, Callable[[], None]],
    ) -> None:
        self.studio, self._remembering, self._measure = studio, remembering, measure
        self.publishing = threading.RLock()  # between the threads of the kernel and the one that draws
        self.columns = PictureColumns()
        self.status = DrawingView(self.stop, does["again"])
        self.enlarged = FullSize(lambda name: self.images.get(name, []))
        self._controls = ViewControls(looks)
        self._origins: dict[str, DrawnFrom] = {}
        self.picking = Picking(self._shown, remembering, does)
        self.still = Still(self._drawing)
        parts = [self._controls.widget, self.picking.actions, self.picking.comparing, self.columns.widget]
        self.widget = widgets.VBox(parts).add_class("wb-looking")
        self._worker = Worker()

    @property
    def images(self) -> dict[str, list[Image]]:
        """The pictures that are shown, by model, the result's last."""
        with self.publishing:
            return dict(self.columns.images)

    def look(self, view: Viewing) -> None:
        """Show the same pictures otherwise; nothing is drawn for that."""
        with self.publishing:
            self._controls.show(view)
            self.columns.look(view)

    def show(self, beside: Mapping[str, Checkpoint], result: Checkpoint | None, wanted: Wanted, change: str) -> None:
        """Show the pictures that are known, dim the others, and have them drawn: the result's first; None where there is none.

        `change` is what led to them, as a ticked one is to say.
        """
        models = ({} if result is None else {RESULT: result}) | dict(beside)
        try:
            request, problem = wanted.request(), ""
            self.studio.place(wanted)
        except RenderError as error:
            request, problem = None, "Write a prompt to see pictures." if not wanted.prompts else str(error)
        with self.publishing:
            self._worker.cancel()
            self.columns.arrange(list(beside), request)
            origins = {} if request is None else {name: DrawnFrom(model, request, change) for name, model in models.items()}
            missing = {name: origin for name, origin in origins.items() if not self._show_known(name, origin)}
            for name in {*beside, RESULT} - {*origins} | {*missing}:
                self.columns.dim(name)
            if missing:
                self.status.waits("Drawing …")
            else:
                self.status.say([problem] if problem else [])
            self.picking.refresh()
            self._worker.submit(lambda cancelled: self._work(missing, cancelled))

    def stop(self) -> None:
        """Stop what is drawn."""
        self._worker.cancel()
        with self.publishing:
            self.status.stopped()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all pictures are drawn; returns whether they were within so many seconds."""
        there = self._worker.wait(timeout)
        self.still.catch_up()  # here, as whoever runs a notebook reads what the running cell puts out
        return there

    def close(self) -> None:
        """Draw nothing any more, and let go of all pictures, and of the pipeline, unless another panel has it too."""
        self._worker.cancel()
        self._worker.wait()
        self.still.close()
        with self.publishing:
            self.studio.close()
            self.picking.close()
            self.enlarged.looked_at = []
            self.columns.clear()
            self._origins.clear()

    def _shown(self) -> list[Shown]:
        """The pictures that are shown, each with where it comes from."""
        return [
            Shown(name, number, image, origin.model, origin.request, origin.change)
            for name, images in self.images.items()
            if (origin := self._origins.get(name)) is not None
            for number, image in enumerate(images)
        ]

    def _drawing(self) -> Drawing | None:
        """The pictures that are shown, with what was asked of them."""
        with self.publishing:
            origin = self._origins.get(RESULT) or next(iter(self._origins.values()), None)
            return (origin.request, self.images) if origin else None

    def _show_known(self, name: str, origin: DrawnFrom) -> bool:
        known = self.studio.known(key_of(origin.model, origin.request, self.studio.placement))
        if known is not None:
            self._put(name, origin, known)
        return known is not None

    def _put(self, name: str, origin: DrawnFrom, images: Sequence[Image]) -> None:
        """Show fresh pictures."""
        self._origins[name] = origin
        self.columns.show(name, images)
        self.still.changed()

    def _work(self, models: Mapping[str, DrawnFrom], cancelled: Callable[[], bool]) -> None:
        """On the worker's thread: draw, measure, say how it went, and keep what was drawn: nobody waits for that."""
        drawn: dict[str, list[Image]] = {}
        circumstances: dict[str, str] = {}
        with heard() as warned:
            said: list[str] = []
            try:
                missing = models if self.studio.renderers else self._show_kept(models, cancelled)
                began = time.monotonic()
                failed = self._draw(missing, cancelled, drawn, circumstances)
                told = [f"Drawn in {time.monotonic() - began:.1f} s{self._where()}."] if len(failed) < len(missing) else []
                said += ["Drawn before, and kept in the gallery."] if models and not missing else told
                said += [*failed, *self._measure(cancelled)]
                self._say([*said, *warned], cancelled)
                if models and not missing:
                    self.studio.drawn_by(next(iter(models.values())).model)  # so that the next picture need not wait for what draws it
            except Cancelled:
                raise
            except Exception as error:  # on a thread of its own nobody else would hear of it
                said.append(in_words(error))
            finally:
                said += self._keep(models, drawn, {} if warned else circumstances)  # what is warned of is to be said again
        self._say([*said, *warned], cancelled)

    def _say(self, said: Sequence[str], cancelled: Callable[[], bool]) -> None:
        with self.publishing:
            if said and not cancelled():
                self.status.say(said)

    def _keep(self, models: Mapping[str, DrawnFrom], drawn: Mapping[str, Sequence[Image]], circumstances: Mapping[str, str]) -> list[str]:
        """Keep pictures that were drawn in the folder, and show which of them have a star there; returns what went wrong."""
        failed = []
        for name, images in drawn.items():
            try:
                self._remembering.keep(name, models[name].model, models[name].request, images, circumstances.get(name, ""))
            except Exception as error:
                failed.append(f"{name}: not kept: {in_words(error)}")
        with self.publishing:
            self.picking.refresh()
        return failed

    def _where(self) -> str:
        """The devices that drew, and what stays on them."""
        told = [renderer.where for renderer in self.studio.renderers if hasattr(renderer, "where")]
        return f" on {' and '.join(dict.fromkeys(told))}" if told else ""

    def _show_kept(self, models: Mapping[str, DrawnFrom], cancelled: Callable[[], bool]) -> dict[str, DrawnFrom]:
        """Show what was drawn in another process: it is there before what draws is loaded. Returns the models that it is not there of."""
        missing: dict[str, DrawnFrom] = {}
        for name, origin in models.items():
            kept = partial(self._remembering.drawn, name, origin.model, origin.request)
            images = self.studio.recalled(origin.model, origin.request, kept)
            if images is None:
                missing[name] = origin
            else:
                self._publish(name, origin, images, cancelled)
        return missing

    def _publish(self, name: str, origin: DrawnFrom, images: Sequence[Image], cancelled: Callable[[], bool]) -> None:
        """Show pictures if they are still wanted, and raise Cancelled if not."""
        with self.publishing:
            if cancelled():
                raise Cancelled("another picture is wanted by now")
            self._put(name, origin, images)

    def _draw(
        self,
        models: Mapping[str, DrawnFrom],
        cancelled: Callable[[], bool],
        drawn: dict[str, list[Image]],
        circumstances: dict[str, str],
    ) -> list[str]:
        """Draw models into `drawn`, each under its `circumstances`, and show what is still wanted; returns what went wrong, by model."""
        failed: list[str] = []
        if models:
            self.status.begin(len(models))
        for name, origin in models.items():
            on_tensor, on_step = partial(self._reading, cancelled, name), partial(self._stepped, cancelled, name)
            try:
                images = self.studio.draw(origin.model, origin.request, cancelled, on_tensor, on_step)
            except Cancelled:
                raise
            except Exception as error:  # the others are drawn all the same
                failed.append(str(error) if isinstance(error, WorkbenchError) else f"{name}: {type(error).__name__}: {error}")
                continue
            self._publish(name, origin, images, cancelled)
            self.status.drawn()
            drawn[name] = images
            circumstances[name] = self.studio.under
        return failed

    def _reading(self, cancelled: Callable[[], bool], name: str, part: str, done: int, tensors: int) -> None:
        with self.publishing:
            if not cancelled():
                self.status.reading(name, part, done, tensors)

    def _stepped(self, cancelled: Callable[[], bool], name: str, step: Step) -> None:
        """Say how far it is, and now and then show what it will look like."""
        with self.publishing:
            if not cancelled() and self.status.drawing(name, step):
                self.columns.preview(name, [*step.finished, *(step.preview() or ())])
