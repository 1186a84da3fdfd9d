"""Has a pipeline draw what a request asks, batch by batch, and says how far it is; what it holds is no matter here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from workbench.errors import NonFiniteWarning, warn
from workbench.render.noise_levels import taking_turns
from workbench.render.parts import Cancel, bar_of, go_on
from workbench.render.request import Request
from workbench.render.samplers import make_sampler
from workbench.render.schedule import Changes
from workbench.render.silence import quiet
from workbench.render.stage import Stage

if TYPE_CHECKING:
    from PIL.Image import Image
    from tqdm.auto import tqdm

_BATCH_PIXELS = {"cpu": 1 << 18}  # 64 pictures of 64x64, or one of 512x512
_BATCH_PIXELS_GPU = 1 << 21
_SAMPLE_STEPS, _SAMPLE_EDGE = 4, 256  # of a small picture that previews learn from


@dataclass(frozen=True)
class Step:
    """How far drawing is: the pictures that are `finished`, and of the `batch` of pictures after them so many steps."""

    finished: tuple[Image, ...]
    pictures: int
    batch: int
    step: int
    steps: int
    preview: Callable[[], list[Image] | None]  # what the batch looks like now, small; None where nobody can say yet

    @property
    def done(self) -> int:
        """How many pictures are finished."""
        return len(self.finished)

    @property
    def share(self) -> float:
        """How much of everything is done, from 0 to 1."""
        return (self.done + self.batch * self.step / self.steps) / self.pictures


OnStep = Callable[[Step], None]


@dataclass(frozen=True)
class Drawing:
    """One request on one stage; `name` is the model's, `changes` what its markers say of the schedule."""

    stage: Stage
    request: Request
    name: str
    device: torch.device
    changes: Changes

    def pictures(self, batch_size: int | None, progress: bool, cancelled: Cancel | None, on_step: OnStep | None) -> list[Image]:
        """One picture per prompt and seed."""
        wanted, size = self.request.pictures, batch_size or self.batch_size
        drawn: list[Image] = []
        with bar_of(progress, total=len(wanted) * (self.request.steps or 1), desc=self.name, unit="step") as bar, torch.inference_mode():
            if on_step is not None:
                self._learn_colours(cancelled)
            while len(drawn) < len(wanted):
                batch = wanted[len(drawn) : len(drawn) + size]
                after = partial(self._after, bar, on_step, tuple(drawn), len(batch))
                try:
                    drawn += self._decoded(self.run(batch, cancelled, after, learn=on_step is not None))
                except torch.OutOfMemoryError:
                    if self.stage.residents.nbytes:
                        self.stage.residents.clear()  # inputs of merges, which can be read again
                    elif len(batch) > 1:
                        size = len(batch) // 2
                    else:
                        raise
                    bar.update(len(drawn) * (self.request.steps or 1) - bar.n)
        return drawn

    @property
    def batch_size(self) -> int:
        """How many pictures a device holds comfortably at once."""
        pixels = (self.request.width or 1) * (self.request.height or 1)
        return max(1, _BATCH_PIXELS.get(self.device.type, _BATCH_PIXELS_GPU) // pixels)

    def run(
        self,
        batch: Sequence[tuple[str, int]],
        cancelled: Cancel | None = None,
        after: Callable[[int, torch.Tensor], None] | None = None,
        output: str = "np",
        learn: bool = False,
    ) -> Any:
        """What the pipeline makes of a batch of prompts and seeds: pixels, or latents. Raises Cancelled between two steps."""
        stage, last = self.stage, {}

        def on_step(step: int, latents: torch.Tensor) -> None:
            go_on(cancelled)
            last["latents"] = latents
            if after is not None:
                after(step, latents)

        with quiet():
            stage.pipeline.scheduler = make_sampler(self.request.sampler, stage.own_scheduler, self.changes)
            with taking_turns(stage.pipeline, stage.blueprint.denoiser, stage.second):
                made = stage.pipeline(
                    prompt=[prompt for prompt, _ in batch],
                    generator=[torch.Generator().manual_seed(seed) for _, seed in batch],  # one each: same seed, same noise, in any batch
                    output_type=output,
                    **stage.manner.arguments(self.request, len(batch), on_step),
                ).images
        if learn and last:
            stage.colours.learn(last["latents"], made)
        return made

    def _after(
        self, bar: tqdm[Any], on_step: OnStep | None, finished: tuple[Image, ...], batch: int, step: int, latents: torch.Tensor
    ) -> None:
        """A step of a batch was taken."""
        bar.update(batch)
        if on_step is not None:
            steps, preview = self.request.steps or 1, partial(self._preview, latents)
            on_step(Step(finished, len(self.request.pictures), batch, min(step + 1, steps), steps, preview))

    def _preview(self, latents: torch.Tensor) -> list[Image] | None:
        width, height = self.request.width or 1, self.request.height or 1
        small = min(1.0, _SAMPLE_EDGE / max(width, height))
        return self.stage.colours.show(latents, round(width * small), round(height * small))

    def _learn_colours(self, cancelled: Cancel | None) -> None:
        """Draw a small picture in few steps for previews to learn from, where the pictures are so large that one would wait for them."""
        width, height, multiple = self.request.width or 1, self.request.height or 1, self.stage.manner.multiple
        if self.stage.colours.learnt or width * height <= 2 * _SAMPLE_EDGE**2:
            return
        edge = -(-_SAMPLE_EDGE // multiple) * multiple
        small = replace(self.request, width=edge, height=edge, steps=min(_SAMPLE_STEPS, self.request.steps or _SAMPLE_STEPS))
        replace(self, request=small).run([self.request.pictures[0]], cancelled, learn=True)

    def _decoded(self, pixels: np.ndarray) -> list[Image]:
        if not np.isfinite(pixels).all():
            message = f"{self.name!r} draws pictures that are no numbers (shown black): a weight is huge or NaN"
            warn(message, NonFiniteWarning)
            pixels = np.nan_to_num(pixels, nan=0.0)
        drawn: list[Image] = self.stage.pipeline.image_processor.numpy_to_pil(pixels)
        return drawn
