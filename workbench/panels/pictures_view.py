"""The pictures of a panel: those that are known are shown, the others drawn on a thread of their own, the result's first."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, final

from workbench.checkpoint import Checkpoint
from workbench.errors import Cancelled, RenderError, WorkbenchError
from workbench.panels.callbacks import in_words
from workbench.panels.drawing_view import DrawingView
from workbench.panels.full_size import FullSize
from workbench.panels.picture_columns import PictureColumns
from workbench.panels.remembering import Remembering
from workbench.panels.shelf import RESULT
from workbench.panels.state import Wanted
from workbench.panels.studio import Studio, key_of
from workbench.panels.worker import Worker
from workbench.render.request import Request

if TYPE_CHECKING:
    from PIL.Image import Image

    from workbench.render.drawing import Step


@final
class PicturesView:
    """Shows what models draw, in `columns`, and how that goes, in `status`; `show` takes other models and pictures at any time.

    `again()` is called when a person wants what was stopped; `measure(cancelled)` on the drawing thread once the pictures are there: it
    returns what to say of it.
    """

    def __init__(
        self, studio: Studio, remembering: Remembering, again: Callable[[], None], measure: Callable[[Callable[[], bool]], list[str]]
    ) -> None:
        self.studio, self._remembering, self._measure = studio, remembering, measure
        self.columns = PictureColumns()
        self.status = DrawingView(self.stop, again)
        self.enlarged = FullSize(lambda name: self.images.get(name, []))
        self.publishing = threading.RLock()  # between the threads of the kernel and the one that draws
        self._worker = Worker()

    @property
    def images(self) -> dict[str, list[Image]]:
        """The pictures that are shown, by model, the result's last."""
        with self.publishing:
            return dict(self.columns.images)

    def show(self, beside: Mapping[str, Checkpoint], result: Checkpoint | None, wanted: Wanted) -> None:
        """Show the pictures that are known, dim the others, and have them drawn: the result's first; None where there is none."""
        models = ({} if result is None else {RESULT: result}) | dict(beside)
        try:
            request, problem = wanted.request(), ""
            self.studio.place(wanted)
        except RenderError as error:
            request, problem = None, "Write a prompt to see pictures." if not wanted.prompts else str(error)
        with self.publishing:
            self._worker.cancel()
            self.columns.arrange(list(beside), request)
            missing = {name: model for name, model in models.items() if request is None or not self._show_known(name, model, request)}
            for name in {*beside, RESULT} - {*models} | {*missing}:
                self.columns.dim(name)
            if request is not None and missing:
                self.status.waits("Drawing …")
            else:
                self.status.say([problem] if problem else [])
            self._worker.submit(lambda cancelled: self._work(missing if request else {}, request, cancelled))

    def stop(self) -> None:
        """Stop what is drawn."""
        self._worker.cancel()
        with self.publishing:
            self.status.stopped()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all pictures are drawn; returns whether they were within so many seconds."""
        return self._worker.wait(timeout)

    def close(self) -> None:
        """Draw nothing any more, and let go of all pictures, and of the pipeline, unless another panel has it too."""
        self._worker.cancel()
        self._worker.wait()
        with self.publishing:
            self.studio.close()
            self.columns.images.clear()

    def _show_known(self, name: str, model: Checkpoint, request: Request) -> bool:
        known = self.studio.known(key_of(model, request, self.studio.placement))
        if known is not None:
            self.columns.show(name, known)
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
        with self.publishing:
            if said and not cancelled():
                self.status.say(said)

    def _where(self) -> str:
        """The devices that drew, and what stays on them."""
        told = [renderer.where for renderer in self.studio.renderers if hasattr(renderer, "where")]
        return f" on {' and '.join(dict.fromkeys(told))}" if told else ""

    def _draw(self, models: dict[str, Checkpoint], request: Request, cancelled: Callable[[], bool]) -> list[str]:
        """Draw models, and show what is still wanted; returns what went wrong, model by model."""
        failed = []
        self.status.begin(len(models))
        for name, model in models.items():
            on_tensor, on_step = partial(self._reading, cancelled, name), partial(self._stepped, cancelled, name)
            try:
                images = self.studio.draw(model, request, cancelled, on_tensor, on_step)
            except Cancelled:
                raise
            except Exception as error:  # the others are drawn all the same
                failed.append(str(error) if isinstance(error, WorkbenchError) else f"{name}: {type(error).__name__}: {error}")
                continue
            with self.publishing:
                if cancelled():
                    raise Cancelled("another picture is wanted by now")
                self.columns.show(name, images)
                self.status.drawn()
            self._remembering.keep(name, model, request, images)
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
