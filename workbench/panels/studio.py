"""Draws checkpoints for a panel: each by the renderer of its kind, and nothing twice. No widget is here."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, final

from workbench.checkpoint import Checkpoint
from workbench.errors import Cancelled, RenderError
from workbench.render.circumstances import circumstances
from workbench.render.configs import find_configs
from workbench.render.devices import Placement, chosen_device, release
from workbench.render.request import Request

if TYPE_CHECKING:
    from PIL.Image import Image

    from workbench.panels.state import Wanted
    from workbench.render import Renderer
    from workbench.render.drawing import OnStep
    from workbench.render.parts import OnTensor
    from workbench.render.shared import Renderers

Key = tuple[str, Request, Placement]

_KEPT = 256  # pictures that are remembered
_BEST = Placement()


def key_of(checkpoint: Checkpoint, request: Request, placement: Placement = _BEST) -> Key:
    """What tells pictures apart: equal keys mean equal pictures. Nothing is read."""
    return checkpoint.content, request, placement


@final
class Studio:
    """Pictures of checkpoints: by one renderer that is given, or by those that this process shares, made when first used.

    `placement` is where those that are shared draw; a renderer that is given stays where it is.
    """

    def __init__(self, renderer: Renderer | None, checkpoints: Mapping[str, Checkpoint]) -> None:
        self._given, self.placement = renderer, _BEST
        self._checkpoints = checkpoints  # those on the shelf, whichever they are by then
        self._alone = threading.RLock()
        self._shared: Renderers | None = None
        self._drawn: OrderedDict[Key, list[Image]] = OrderedDict()
        self.under = ""  # the circumstances of what was drawn last; empty where another process may not have the same
        self.pace = math.nan  # seconds that a step of one picture took, the model's loading shared out among them; NaN before the first

    @property
    def renderers(self) -> tuple[Renderer, ...]:
        """The renderers that have drawn, or will."""
        shared = self._shared
        return (self._given,) if self._given is not None else shared.held if shared is not None else ()

    def recalled(self, checkpoint: Checkpoint, request: Request, kept: Callable[[str], list[Image] | None]) -> list[Image] | None:
        """Pictures that another process drew, known from now on; `kept` is asked for those of the circumstances that there are now."""
        placement = self.placement
        try:
            configs = find_configs(checkpoint, progress=False)
        except RenderError:  # which drawing it raises again
            return None
        pictures = kept(circumstances(checkpoint, configs, chosen_device(placement.device), placement.dtype))
        if pictures is not None:
            self._keep(key_of(checkpoint, request, placement), pictures)
        return pictures

    def place(self, wanted: Wanted) -> None:
        """Draw where these pictures are wanted, unless a renderer was given. Raises RenderError for a device that is not here."""
        if self._given is None:
            self.placement = wanted.placement

    def known(self, key: Key) -> list[Image] | None:
        """Pictures that were drawn already."""
        if key in self._drawn:
            self._drawn.move_to_end(key)
        return self._drawn.get(key)

    def draw(
        self,
        checkpoint: Checkpoint,
        request: Request,
        cancelled: Callable[[], bool],
        on_tensor: OnTensor | None = None,
        on_step: OnStep | None = None,
    ) -> list[Image]:
        """One picture per prompt and seed. Raises Cancelled, and RenderError for a checkpoint that cannot be drawn."""
        placement = self.placement  # there may be another one by the time this is drawn
        key = key_of(checkpoint, request, placement)
        if (known := self.known(key)) is not None:
            self.under = ""
            return known
        renderer, lender = self._renderer_of(checkpoint, placement)
        with self._lock_of(renderer):
            if cancelled():
                raise Cancelled("another picture is wanted by now")
            began = time.monotonic()
            loaded = renderer.load(checkpoint, fallback=lender, progress=False, cancelled=cancelled, on_tensor=on_tensor)
            pictures: list[Image] = renderer.draw(request, progress=False, cancelled=cancelled, on_step=on_step)
            whole = self._given is None and {*loaded.components.values()} == {checkpoint.name}  # nothing is lent by another model
            self.under = circumstances(checkpoint, renderer.configs, renderer.device, placement.dtype) if whole else ""
            self.pace = (time.monotonic() - began) / max(1, len(pictures) * (request.steps or 1))
        self._keep(key, pictures)
        return pictures

    def _keep(self, key: Key, pictures: list[Image]) -> None:
        self._drawn[key] = pictures
        while sum(map(len, self._drawn.values())) > _KEPT and len(self._drawn) > 1:
            self._drawn.popitem(last=False)

    def close(self) -> None:
        """Forget all pictures, and let go of the renderers: their pipelines go with the last panel that has them."""
        self._given = None
        self._drawn.clear()
        self._let_go()

    def _let_go(self) -> None:
        """Let go of the shared renderers, and of the memory that they took where nobody else has them."""
        devices = {one.device for one in self._shared.held} if self._shared else set()
        self._shared = None
        for device in devices:
            release(device)

    def drawn_by(self, checkpoint: Checkpoint) -> tuple[Any, Checkpoint | None]:
        """The renderer that draws a checkpoint, and the one on the shelf that lends it what it lacks. Raises RenderError."""
        return self._renderer_of(checkpoint, self.placement)

    def _renderer_of(self, checkpoint: Checkpoint, placement: Placement) -> tuple[Any, Checkpoint | None]:
        """The renderer that draws a checkpoint, and the one on the shelf that lends it what it lacks."""
        if self._given is not None:
            return self._given, None
        from workbench.render.shared import Renderers

        if self._shared is not None and self._shared.placement != placement:
            self._let_go()  # a device need not hold a pipeline twice
        group = Renderers(self._checkpoints.values(), self._shared, placement)
        renderer = group.of(checkpoint, progress=False)
        self._shared = group
        return renderer, group.lender(checkpoint, renderer)

    def _lock_of(self, renderer: Renderer) -> AbstractContextManager[object]:
        """Held while a renderer draws: it cannot draw two things at once."""
        return getattr(renderer, "lock", self._alone)
