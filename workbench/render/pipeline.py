"""`Renderer`: one diffusers pipeline that any checkpoint, written or not, is swapped into and drawn with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from workbench.checkpoint.base import Checkpoint
from workbench.errors import Cancelled, NonFiniteWarning, RenderError, warn
from workbench.render.assembly import build_pipeline, embed_guidance, has_weights, kind_of, quiet
from workbench.render.denoising import Denoiser
from workbench.render.fitting import Fitting, Plan, prediction
from workbench.render.keymap import as_in_module
from workbench.render.kinds import has_guidance
from workbench.render.request import Defaults, Request
from workbench.render.samplers import make_sampler

if TYPE_CHECKING:
    from PIL.Image import Image

Cancel = Callable[[], bool]  # whether the work is not wanted any more

_BATCH_PIXELS = {"cpu": 1 << 18}  # 64 pictures of 64x64, or one of 512x512
_BATCH_PIXELS_GPU = 1 << 21


@dataclass(frozen=True)
class Loaded:
    """What a renderer holds: whose each component is, and which tensors of the last checkpoint had no place in it."""

    name: str
    components: Mapping[str, str]
    unused: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """One line: the checkpoint, and every component that is another's."""
        others = [f"{component} of {owner!r}" for component, owner in self.components.items() if owner != self.name]
        return f"{self.name!r}" + (f" with {' and '.join(others)}" if others else "")


class Renderer:
    """Draws with any checkpoint of one architecture.

    `config` is a local diffusers folder: `model_index.json`, component configs, tokenizers, scheduler; weights are not
    needed. `device` is `"cpu"`, `"cuda"` or another of torch's; `dtype` is float32 on the CPU and elsewhere float16
    (of Flux bfloat16), unless given. `fallback` lends components that a checkpoint lacks (a U-Net-only file has no VAE); without one the
    config folder does, if it holds weights, and else the checkpoint loaded before.

    Raises RenderError when the folder describes no pipeline that can be held here.
    """

    def __init__(self, config: str | Path, *, device: str = "cpu", dtype: str | None = None, fallback: Checkpoint | None = None) -> None:
        self.config = Path(config)
        self.device = torch.device(device)
        self.kind = kind_of(self.config)
        self.dtype = getattr(torch, dtype or ("float32" if self.device.type == "cpu" else self.kind.half))
        self.loaded: Loaded | None = None
        self._pipeline = build_pipeline(self.config)
        self._defaults = self.kind.defaults(getattr(self._pipeline.components[self.kind.denoiser].config, "guidance_embeds", False))
        self._schedule = dict(self._pipeline.scheduler.config)
        self._schedule_changes: dict[str, Any] = {}
        self._fitting = Fitting(self._pipeline, self.kind)
        self._given_fallback = fallback
        self._owners: dict[str, str] = {}
        self._held: dict[str, Mapping[str, object]] = {}  # part -> tensor -> what was read for it

    def __repr__(self) -> str:
        width, height = self.size
        holds = self.loaded.note if self.loaded else "nothing yet"
        return f"<Renderer of {width}x{height} pictures on {self.device}, holds {holds}>"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a picture in pixels."""
        return self.kind.size(self._pipeline)

    def check(self, checkpoint: Checkpoint) -> None:
        """Raises RenderError when the checkpoint does not fit this pipeline; reads no tensor."""
        self._fitting.plans(checkpoint)

    def defaults(self, checkpoint: Checkpoint | None = None) -> Defaults:
        """Steps, guidance and sampler unless told otherwise: of a checkpoint, or else of what would be drawn with now."""
        if checkpoint is None or self.kind.denoiser not in checkpoint.components:
            return self._defaults
        return self.kind.defaults(has_guidance(checkpoint))

    def load(self, checkpoint: Checkpoint, *, progress: bool = True, cancelled: Cancel | None = None) -> Loaded:
        """Put a checkpoint (a file or a merge, in LDM or diffusers layout) into the pipeline, one tensor at a time.

        What it holds already is not read again: of a merge whose option changed for one block, that block is.

        The renderer keeps a copy, in its own dtype, of what `checkpoint.read` gives: a merge draws as its exported file
        would. Components that the checkpoint lacks come from the fallback, or stay; the result's `note` says so.

        Raises RenderError for another architecture, a missing, extra or misshapen tensor, or a component that nobody
        supplies: all before anything is read. `cancelled` is asked before every tensor; once it is true, Cancelled is raised,
        and the renderer holds nothing to draw with until the next load.
        """
        plans = self._fitting.plans(checkpoint)
        sources = {part: (checkpoint, plan) for part, plan in plans.items()} | self._lent(checkpoint, plans)
        self.loaded = None  # a read that fails half-way must not leave a mixture to draw with
        for part, (owner, plan) in sources.items():
            self._owners.pop(part, None)
            self._assign(owner, part, plan, progress, cancelled)
            self._owners[part] = owner.name
        if self.kind.denoiser in sources:
            denoising = sources[self.kind.denoiser][0]
            self._schedule_changes, self._defaults = prediction(denoising), self.defaults(denoising)
        used = {key for plan in plans.values() for origin in plan.values() for key in origin.keys}
        components = {part: self._owners[part] for part in self.kind.weighted}
        self.loaded = Loaded(checkpoint.name, components, tuple(key for key in checkpoint if key not in used))
        return self.loaded

    def images(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int] = (0,),
        *,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
        negative: str = "",
        batch_size: int | None = None,
        progress: bool = True,
        cancelled: Cancel | None = None,
    ) -> list[Image]:
        """One RGB picture per prompt and seed, in prompt-major order.

        A seed gives the same noise for every model, prompt and batch size. `guidance` is the scale of classifier-free
        guidance (1 is none); of a Flux model it is what the guidance embedder is told, and a model without one heeds no
        guidance. Settings left out are the model's own (`defaults`); `batch_size` defaults to what the device holds comfortably.

        Raises RenderError when nothing is loaded, or for an argument out of range; Cancelled between two steps once
        `cancelled` is true.
        """
        request = Request.of(prompts, seeds, steps=steps, guidance=guidance, sampler=sampler, negative=negative)
        return self.draw(request, batch_size=batch_size, progress=progress, cancelled=cancelled)

    def draw(
        self, request: Request, *, batch_size: int | None = None, progress: bool = True, cancelled: Cancel | None = None
    ) -> list[Image]:
        """`images`, of a request that is made already."""
        if self.loaded is None:
            raise RenderError("this renderer holds no checkpoint yet: call .load(checkpoint) first")
        self.kind.check(request)
        request = request.settled([self._defaults])
        self._warn_of_long([*request.prompts, request.negative])
        wanted, size = request.pictures, batch_size or self._batch_size
        pictures: list[Image] = []
        with _bar(progress, total=len(wanted), desc=self.loaded.name, unit="picture") as bar, torch.inference_mode():
            for start in range(0, len(wanted), size):
                batch = wanted[start : start + size]
                pictures += self._draw_batch(batch, request, cancelled)
                bar.update(len(batch))
        return pictures

    def noise(self, seed: int) -> torch.Tensor:
        """The noise that a picture starts from, float32 on the CPU: latents [1, channels, height, width], of Flux [1, tokens, channels]."""
        return self.kind.noise(self._pipeline, torch.Generator().manual_seed(seed))

    def _lent(self, checkpoint: Checkpoint, plans: Mapping[str, Plan]) -> dict[str, tuple[Checkpoint, Plan]]:
        """What the fallback supplies. Raises RenderError for a component that neither it nor an earlier load has."""
        missing = [part for part in self.kind.weighted if part not in plans]
        fallback = self.fallback if missing else None
        lent = [part for part in missing if fallback is not None and part in fallback.components]
        if nobody := [part for part in missing if part not in lent and part not in self._owners]:
            raise RenderError(
                f"{checkpoint.name!r} has no {' and no '.join(nobody)}, only {', '.join(checkpoint.components)}: load a "
                "checkpoint that has it first, or name one to borrow from in Renderer(config, fallback=checkpoint)"
            )
        return {} if fallback is None else {part: (fallback, self._fitting.plan(fallback, part)) for part in lent}

    @cached_property
    def fallback(self) -> Checkpoint | None:
        """What lends the components that a checkpoint lacks."""
        if self._given_fallback is not None or not has_weights(self.config):
            return self._given_fallback
        from workbench.checkpoint import open as open_checkpoint

        return open_checkpoint(self.config)

    def _assign(self, checkpoint: Checkpoint, part: str, plan: Plan, progress: bool, cancelled: Cancel | None) -> None:
        """Read what changed of one component and hand it to its module: copies, so that nobody else's tensor is aliased."""
        view = as_in_module(checkpoint, plan)
        prints = {name: view.fingerprint(name) for name in view}
        held = self._held.get(part, {})
        changed = [name for name, known in prints.items() if held.get(name) != known]
        state = {}
        with _bar(progress, total=len(changed), desc=f"{checkpoint.name}: {part}", unit="tensor") as bar:
            for name in changed:
                _go_on(cancelled)
                state[name] = view.read(name).detach().to(self.device, self.dtype, copy=True)
                bar.update()
        module = getattr(self._pipeline, part)
        if part == "transformer":
            embed_guidance(module, has_guidance(checkpoint))
        module.load_state_dict(state, assign=True, strict=False)  # the plan has every tensor of the module
        if getattr(module, "_tied_weights_keys", None):
            module.tie_weights()
        module.to(self.device)  # its buffers; the parameters are there already
        self._held[part] = prints

    @property
    def _batch_size(self) -> int:
        width, height = self.size
        return max(1, _BATCH_PIXELS.get(self.device.type, _BATCH_PIXELS_GPU) // (width * height))

    @cached_property
    def denoiser(self) -> Denoiser:
        """Single steps of denoising, as training a merge needs them. Raises RenderError for a pipeline without a U-Net."""
        if self.kind.denoiser != "unet":
            raise RenderError(f"merges are trained through a U-Net, and {self.config} is of a {self.kind.pipeline}")
        return Denoiser(self._pipeline, self._fitting, self._latents, torch.empty(0, device=self.device, dtype=self.dtype))

    def _latents(self, prompts: Sequence[str], seeds: Sequence[int], *, steps: int, guidance: float) -> torch.Tensor:
        """What `images` decodes."""
        request = Request.of(prompts, seeds, steps=steps, guidance=guidance).settled([self._defaults])
        with torch.inference_mode():
            starts = range(0, len(request.pictures), self._batch_size)
            found = [self._run(request.pictures[start : start + self._batch_size], request, None, "latent") for start in starts]
        return torch.cat(found).clone()  # inference tensors could not be trained on

    def _draw_batch(self, batch: Sequence[tuple[str, int]], request: Request, cancelled: Cancel | None) -> list[Image]:
        pixels = self._run(batch, request, cancelled, "np")
        if not np.isfinite(pixels).all():
            message = f"{self.loaded.name!r} draws pictures that are no numbers (shown black): a weight is huge or NaN"
            warn(message, NonFiniteWarning)
            pixels = np.nan_to_num(pixels, nan=0.0)
        drawn: list[Image] = self._pipeline.image_processor.numpy_to_pil(pixels)
        return drawn

    def _run(self, batch: Sequence[tuple[str, int]], request: Request, cancelled: Cancel | None, output: str) -> Any:
        def after_step(pipeline: object, step: int, time: int, values: dict[str, Any]) -> dict[str, Any]:
            _go_on(cancelled)
            return values

        generators = [torch.Generator().manual_seed(seed) for _, seed in batch]
        with quiet():
            self._pipeline.scheduler = make_sampler(request.sampler, self._schedule, self.kind.samplers, **self._schedule_changes)
            return self._pipeline(
                [prompt for prompt, _ in batch],
                **self.kind.asked(self._pipeline, request, len(batch)),
                num_inference_steps=request.steps,
                guidance_scale=request.guidance,
                latents=torch.cat([self.kind.noise(self._pipeline, generator) for generator in generators]).to(self.dtype),
                generator=generators,  # samplers that add noise go on drawing from each picture's own
                output_type=output,
                callback_on_step_end=after_step,
            ).images

    def _warn_of_long(self, prompts: Sequence[str]) -> None:
        tokenizer = self._pipeline.components[self.kind.reader]
        limit = tokenizer.model_max_length
        with quiet():
            long = [prompt for prompt in prompts if len(tokenizer(prompt).input_ids) > limit]
        if long:
            warn(f"{long[0]!r} has more than the {limit} tokens a model reads: its end is ignored", UserWarning)


def _go_on(cancelled: Cancel | None) -> None:
    if cancelled is not None and cancelled():
        raise Cancelled("the work was given up")


def _bar(shown: bool, **options: Any) -> tqdm[Any]:
    """A progress bar for what takes longer than two seconds."""
    return tqdm(**options, delay=2, leave=False, disable=not shown)
