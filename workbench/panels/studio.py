"""Draws checkpoints for a panel: one pipeline at a time for each renderer, and nothing twice. No widget is here."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, final
from weakref import WeakKeyDictionary

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.base import hashed
from workbench.errors import Cancelled
from workbench.render.request import Request

if TYPE_CHECKING:
    from PIL.Image import Image

    from workbench.render import Renderer

Key = tuple[str, Request]

_KEPT = 256  # pictures that are remembered
_locks: WeakKeyDictionary[Renderer, threading.Lock] = WeakKeyDictionary()  # one pipeline cannot draw two things at once
_making = threading.Lock()


def key_of(checkpoint: Checkpoint, request: Request) -> Key:
    """What tells pictures apart: equal keys mean equal pictures. Nothing is read."""
    return content_of(checkpoint), request


def content_of(checkpoint: Checkpoint) -> str:
    """What tells checkpoints apart: equal hashes mean equal numbers. Nothing is read."""
    return hashed(*(checkpoint.fingerprint(key) for key in checkpoint))


@final
class Studio:
    """Pictures of checkpoints by one renderer, which several panels may share; without one it is made when first used."""

    def __init__(self, renderer: Renderer | None, checkpoints: Sequence[Checkpoint]) -> None:
        self._renderer = renderer
        self._checkpoints = tuple(checkpoints)
        self._drawn: OrderedDict[Key, list[Image]] = OrderedDict()

    @property
    def ready(self) -> bool:
        """Whether the pipeline is loaded."""
        return self._renderer is not None

    def known(self, key: Key) -> list[Image] | None:
        """Pictures that were drawn already."""
        if key in self._drawn:
            self._drawn.move_to_end(key)
        return self._drawn.get(key)

    def draw(self, checkpoint: Checkpoint, request: Request, cancelled: Callable[[], bool]) -> list[Image]:
        """One picture per prompt and seed. Raises Cancelled, and RenderError for a checkpoint that does not fit."""
        key = key_of(checkpoint, request)
        if (known := self.known(key)) is not None:
            return known
        renderer = self._made()
        with _lock_of(renderer):
            if cancelled():
                raise Cancelled("another picture is wanted by now")
            renderer.load(checkpoint, progress=False, cancelled=cancelled)
            pictures = renderer.draw(request, progress=False, cancelled=cancelled)
        self._drawn[key] = pictures
        while sum(map(len, self._drawn.values())) > _KEPT and len(self._drawn) > 1:
            self._drawn.popitem(last=False)
        return pictures

    def _made(self) -> Renderer:
        from workbench.render import Renderer
        from workbench.render.assembly import default_config

        with _making:
            if self._renderer is None:
                self._renderer = Renderer(default_config(self._checkpoints))
            return self._renderer


def _lock_of(renderer: Renderer) -> threading.Lock:
    with _making:
        return _locks.setdefault(renderer, threading.Lock())
