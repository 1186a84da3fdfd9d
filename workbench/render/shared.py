"""Renderers that this process shares: one pipeline for all models that it can hold, however many panels and grids ask for it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import final
from weakref import WeakValueDictionary

from workbench.checkpoint.base import Checkpoint
from workbench.render.configs import find_configs
from workbench.render.devices import Placement, chosen_device
from workbench.render.fitting import check_given
from workbench.render.pipeline import Renderer

_making = threading.Lock()
_BEST = Placement()
_renderers: WeakValueDictionary[tuple[str, Placement], Renderer] = WeakValueDictionary()  # by what their configs say, and where they are


def renderer_for(checkpoint: Checkpoint, placement: Placement = _BEST, *, progress: bool = True) -> Renderer:
    """The renderer of a checkpoint's kind, by default on the device that is best here; it lasts as long as somebody holds it.

    Raises RenderError.
    """
    check_given(checkpoint)
    configs = find_configs(checkpoint, progress=progress)
    key = configs.identity, replace(placement, device=str(chosen_device(placement.device)))
    with _making:
        found = _renderers.get(key)
        if found is None:
            found = _renderers[key] = Renderer(configs, **vars(placement))
        return found


@final
class Renderers:
    """The renderers of some checkpoints, which lend one another the components that one of them lacks."""

    def __init__(self, checkpoints: Iterable[Checkpoint], before: Renderers | None = None, placement: Placement = _BEST) -> None:
        self._checkpoints, self.placement = tuple(checkpoints), placement
        self._held: dict[int, Renderer] = dict(before._held) if before else {}

    def of(self, checkpoint: Checkpoint, *, progress: bool = True) -> Renderer:
        """The renderer that draws a checkpoint. Raises RenderError."""
        found = renderer_for(checkpoint, self.placement, progress=progress)
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
