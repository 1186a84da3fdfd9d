"""Renderers that this process shares: one pipeline for all models that it can hold, however many panels and grids ask for it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import final
from weakref import WeakValueDictionary

from workbench.checkpoint.base import Checkpoint
from workbench.render.configs import find_configs
from workbench.render.fitting import check_given
from workbench.render.pipeline import Renderer

_making = threading.Lock()
_renderers: WeakValueDictionary[str, Renderer] = WeakValueDictionary()  # by what their configs say


def renderer_for(checkpoint: Checkpoint, *, progress: bool = True) -> Renderer:
    """The renderer of a checkpoint's kind on the device that is best here; it lasts as long as somebody holds it. Raises RenderError."""
    check_given(checkpoint)
    configs = find_configs(checkpoint, progress=progress)
    with _making:
        found = _renderers.get(configs.identity)
        if found is None:
            found = _renderers[configs.identity] = Renderer(configs)
        return found


@final
class Renderers:
    """The renderers of some checkpoints, which lend one another the components that one of them lacks."""

    def __init__(self, checkpoints: Iterable[Checkpoint], before: Renderers | None = None) -> None:
        self._checkpoints = tuple(checkpoints)
        self._held: dict[int, Renderer] = dict(before._held) if before else {}

    def of(self, checkpoint: Checkpoint, *, progress: bool = True) -> Renderer:
        """The renderer that draws a checkpoint. Raises RenderError."""
        found = renderer_for(checkpoint, progress=progress)
        self._held[id(found)] = found  # for as long as this is there
        return found

    def lender(self, checkpoint: Checkpoint, renderer: Renderer) -> Checkpoint | None:
        """One of the checkpoints that has every component that this one lacks, and goes into the same pipeline."""
        weighted = renderer.configs.blueprint.weighted
        missing = {part for part in weighted if part not in checkpoint.components}
        alike = [one for one in self._checkpoints if one.structure.family is checkpoint.structure.family]
        return next((one for one in alike if missing <= set(one.components)), None) if missing else None

    @property
    def held(self) -> tuple[Renderer, ...]:
        """The renderers that were asked for."""
        return tuple(self._held.values())
