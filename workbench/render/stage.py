"""A pipeline that is built, with all that goes with it: how it is called, what it holds, what its encoders have said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from workbench.checkpoint.base import Checkpoint
from workbench.errors import RenderError
from workbench.render.assembly import Blueprint, build_pipeline
from workbench.render.calling import Manner
from workbench.render.devices import Offload, check_room, free_memory
from workbench.render.fitting import Fitting, PartPlan
from workbench.render.noise_levels import SECOND, NoiseLevels, Second
from workbench.render.parts import Parts
from workbench.render.previews import LatentColours
from workbench.render.residents import Residents
from workbench.render.silence import quiet
from workbench.render.texts import KnownTexts

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_HALF_OF = 2  # the share of free memory that inputs of merges may take
_SMALL = 1 << 25  # bytes of a pipeline on the CPU whose merges' inputs stay in memory: there reading takes as long as calculating
_ROOM_OF_SMALL = 8 * _SMALL


class Stage:
    """Builds the pipeline; its parts are without weights at first. With `offload`, they lie on the CPU and visit the device."""

    def __init__(self, blueprint: Blueprint, device: torch.device, dtype: torch.dtype, offload: Offload | None) -> None:
        self.blueprint, self._device, self._offload = blueprint, device, offload
        self.pipeline: DiffusionPipeline = build_pipeline(blueprint)
        self.own_scheduler = self.pipeline.scheduler
        self.manner = Manner(self.pipeline, blueprint.denoiser)
        self.fitting = Fitting(self.pipeline, blueprint)
        self.residents = Residents(device, 0)
        home = torch.device("cpu") if offload else device
        self.parts = Parts(self.pipeline, home, dtype, device, self.residents)
        if device.type == "cpu" and sum(self.parts.sizes().values()) <= _SMALL:
            self.residents.room = _ROOM_OF_SMALL
        encoders = [part for part in blueprint.weighted if part.startswith("text_encoder")]
        self.texts = KnownTexts(self.pipeline, lambda: [self.parts.contents(part) for part in encoders])
        self.colours = LatentColours()
        self.second: Second | None = None  # the denoiser for low noise, where there are two

    def check_offload(self, checkpoint: Checkpoint) -> None:
        """Raises RenderError for two denoisers where parts only visit the device."""
        if self._offload and isinstance(checkpoint, NoiseLevels):
            raise RenderError(
                f"{checkpoint.name!r} has two denoisers, which are drawn with where both lie on the device: make a Renderer without "
                f"offload={self._offload!r}"
            )

    def set_levels(self, checkpoint: Checkpoint) -> None:
        """Have a second denoiser, empty at first, where a checkpoint has two; let go of it where it has one."""
        boundary = checkpoint.boundary if isinstance(checkpoint, NoiseLevels) else None
        self.parts.stand_beside(SECOND, None if boundary is None else self.blueprint.denoiser)
        self.second = None if boundary is None else Second(self.parts.module(SECOND), boundary)

    def lent(
        self, checkpoint: Checkpoint, plans: Mapping[str, PartPlan], lenders: Iterator[Checkpoint]
    ) -> dict[str, tuple[Checkpoint, PartPlan]]:
        """What others supply that a checkpoint lacks. Raises RenderError for a part that neither they nor an earlier load has."""
        missing = [part for part in self.blueprint.weighted if part not in plans]
        lent: dict[str, tuple[Checkpoint, PartPlan]] = {}
        while len(lent) < len(missing) and (one := next(lenders, None)) is not None:
            lent |= {part: (one, self.fitting.plan(one, part)) for part in missing if part not in lent and part in one.components}
        if nobody := [part for part in missing if part not in lent and part not in self.parts.owners]:
            raise RenderError(
                f"{checkpoint.name!r} has no {' and no '.join(nobody)}, only {', '.join(checkpoint.components)}: load a "
                "checkpoint that has it first, or name one to borrow from in Renderer(..., fallback=checkpoint)"
            )
        return lent

    def check_room(self, two: bool) -> None:
        """Raises RenderError where the device has no room for the pipeline, and for a second denoiser if it has `two`.

        Lets inputs of merges stay there, in half of what is free beside it.
        """
        free = free_memory(self._device)
        if free is None:
            return
        sizes = self.parts.sizes()
        sizes |= {SECOND: sizes[self.blueprint.denoiser]} if two else {}
        held = self.parts.bytes_on(self._device)
        check_room(self._device, free + held, sizes, self._offload)
        needed = {None: sum(sizes.values()), "model": max(sizes.values()), "sequential": 0}[self._offload]
        self.residents.room = self.residents.nbytes + max(0, free + held - needed) // _HALF_OF

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """While parts are filled, nothing moves them; afterwards they visit the device again, if that is how it is done."""
        if not self._offload:
            yield
            return
        self.pipeline.remove_all_hooks()
        yield
        with quiet():
            if self._offload == "model":
                self.pipeline.enable_model_cpu_offload(device=self._device)
            elif self._device.type != "cpu":  # where every layer is already, and accelerate stumbles
                self.pipeline.enable_sequential_cpu_offload(device=self._device)
