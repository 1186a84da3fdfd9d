"""`Renderer`: one diffusers pipeline that any checkpoint, written or not, is swapped into and drawn with."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from workbench.checkpoint import open as open_checkpoint
from workbench.checkpoint.base import Checkpoint
from workbench.errors import RenderError
from workbench.families import GENERIC, Family, registry
from workbench.render.denoising import Denoiser
from workbench.render.devices import (
    OFFLOADS,
    Offload,
    chosen_device,
    describe,
    dtype_named,
    release,
    told_where_full,
)
from workbench.render.drawing import Drawing, OnStep
from workbench.render.fitting import embeds_guidance
from workbench.render.given import Given, opened
from workbench.render.loaded import Loaded
from workbench.render.noise_levels import SECOND, halves
from workbench.render.parts import Cancel, OnTensor
from workbench.render.request import Defaults, Request
from workbench.render.samplers import check_sampler, samplers_for
from workbench.render.schedule import Changes, schedule_changes
from workbench.render.stage import Stage

if TYPE_CHECKING:
    from PIL.Image import Image


class Renderer:
    """Draws with `x`, and with any other checkpoint of its kind that is loaded, by any text-to-image pipeline of diffusers.

    `x` is a diffusers pipeline folder (which may hold configs alone: then something is to be loaded first), an `hf://` address, one
    model's file, or a checkpoint, merges included. Configs and tokenizers are those of `config` (a folder or an address), of the folder
    that the model lies in, shipped with this package (SD 1.x, SD 2.x, SDXL, Flux), in the hub's cache, or fetched from the hub.

    `device` is one of torch's; by default CUDA, else MPS, else the CPU. `dtype` is float32 on the CPU and elsewhere what the family is
    drawn in, unless given. `offload` is for devices that are too small: `"model"` keeps one part there at a time, `"sequential"` one
    layer. `fallback` lends components that a checkpoint lacks (a U-Net-only file has no VAE); without one `x` does, or the config
    folder, if it holds weights, and else the checkpoint loaded before.

    One thread draws at a time: hold `lock` from a `load` to the `draw` that goes with it where others share the renderer.

    Raises RenderError for what describes no pipeline that draws from a prompt, and CheckpointError for a file that cannot be opened.
    """

    def __init__(
        self,
        x: Given,
        *,
        config: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        dtype: str | None = None,
        offload: Offload | None = None,
        fallback: Checkpoint | None = None,
    ) -> None:
        if offload not in (None, *OFFLOADS):
            raise RenderError(f"offload must be one of {', '.join(map(repr, OFFLOADS))}, or None, got {offload!r}")
        self.lock = threading.RLock()
        self.model, self.configs = opened(x, config)
        self.device, self.offload = chosen_device(device), offload
        half = "float32" if self.device.type == "cpu" else self._family.dtype or "float16"
        self.dtype = dtype_named(dtype or half)
        self.loaded: Loaded | None = None
        self._given_fallback = fallback
        self._changes: Changes = {}
        self._begun = False
        self._built: Stage | None = None
        self._defaults = self.defaults(self.model)

    def __repr__(self) -> str:
        width, height = self.size
        holds = self.loaded.note if self.loaded else "nothing yet"
        return f"<Renderer of {width}x{height} pictures on {describe(self.device)}, {self._dtype_name}, holds {holds}>"

    @property
    def config(self) -> Path:
        """The folder whose configs it has."""
        return self.configs.folder

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a picture in pixels, unless told otherwise."""
        return self._defaults.width, self._defaults.height

    @property
    def samplers(self) -> tuple[str, ...]:
        """The names of samplers that may be asked for."""
        return tuple(samplers_for(self._stage.own_scheduler))

    @property
    def where(self) -> str:
        """The device that draws, the dtype, and how much of merges' inputs stays there."""
        gigabytes = round(self.kept_bytes / 1e9, 1)
        kept = f", where {gigabytes} GB of inputs stay" if gigabytes else ""
        return f"{describe(self.device)} in {self._dtype_name}{kept}"

    @property
    def kept_bytes(self) -> int:
        """Bytes of inputs of merges that stay on the device, so that they are not read again."""
        return self._built.residents.nbytes if self._built else 0

    def check(self, checkpoint: Checkpoint, request: Request | None = None) -> None:
        """Raises RenderError when a checkpoint does not fit this pipeline, or cannot draw a request; reads no tensor."""
        self._stage.fitting.plans(checkpoint)
        self._stage.check_offload(checkpoint)
        if request is not None:
            self.check_request(request)

    def check_request(self, request: Request) -> None:
        """Raises RenderError for what this pipeline cannot draw."""
        self._stage.manner.check(request)
        check_sampler(request.sampler, samplers_for(self._stage.own_scheduler))

    def defaults(self, checkpoint: Checkpoint | None = None) -> Defaults:
        """Settings unless told otherwise: of a checkpoint, or else of what would be drawn with now."""
        stage = self._stage
        if checkpoint is not None and stage.blueprint.denoiser in checkpoint.components:
            names: Sequence[str] = tuple(checkpoint)
        elif self._begun:
            return self._defaults
        else:
            names = ("guidance",) if embeds_guidance(stage.pipeline.components[stage.blueprint.denoiser]) else ()
        family = self._family if checkpoint is None else checkpoint.structure.family
        return stage.manner.defaults(family.pictures_for(names))

    def load(
        self,
        checkpoint: Checkpoint,
        *,
        fallback: Checkpoint | None = None,
        progress: bool = True,
        cancelled: Cancel | None = None,
        on_tensor: OnTensor | None = None,
    ) -> Loaded:
        """Put a checkpoint (a file or a merge, in any layout) into the pipeline, one tensor at a time.

        What it holds already is not read again: of a merge whose option changed for one block, that block is.

        The renderer keeps a copy, in its own dtype, of what `checkpoint.read` gives: a merge draws as its exported file
        would. On a GPU merges are calculated there, and their inputs stay there while there is room. Components that the checkpoint
        lacks come from `fallback`, or the renderer's own, or stay; the result's `note` says so.

        Raises RenderError for another architecture, a missing, extra or misshapen tensor, a component that nobody supplies, or a device
        without room: all before anything is read; and for a device that is full all the same while it reads. `cancelled` is asked before
        every tensor; once it is true, Cancelled is raised, and the renderer holds nothing to draw with until the next load. `on_tensor`
        is told what is read, tensor by tensor.
        """
        with self.lock:
            self._begun = True
            stage = self._stage
            high, low = halves(checkpoint)
            plans = stage.fitting.plans(high)
            sources = {part: (high, plan) for part, plan in plans.items()} | stage.lent(high, plans, self._lenders(fallback))
            if low is not None:
                sources[SECOND] = low, stage.fitting.plan(low, stage.blueprint.denoiser)
            stage.check_offload(checkpoint)
            stage.check_room(two=low is not None)
            self.loaded = None  # a read that fails half-way must not leave a mixture to draw with
            stage.set_levels(checkpoint)
            stage.residents.begin()
            with self._told_where_full(repr(checkpoint.name), "free what else lies there"), stage.at_rest():
                for part, (owner, plan) in sources.items():
                    stage.parts.put(part, owner, plan, progress, cancelled, on_tensor)
            if (denoiser := stage.blueprint.denoiser) in sources:
                denoising = sources[denoiser][0]
                self._changes, self._defaults = schedule_changes(denoising), self.defaults(denoising)
            used = {key for plan in plans.values() for origin in plan.entries.values() for key in origin.keys}
            components = {part: stage.parts.owners[part] for part in stage.blueprint.weighted}
            components |= {stage.blueprint.denoiser: checkpoint.name} if low is not None else {}
            self.loaded = Loaded(checkpoint.name, components, tuple(key for key in checkpoint if key not in used))
            return self.loaded

    def images(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int] = (0,),
        *,
        width: int | None = None,
        height: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
        negative: str | None = None,
        clip_skip: int | None = None,
        batch_size: int | None = None,
        progress: bool = True,
        cancelled: Cancel | None = None,
    ) -> list[Image]:
        """One RGB picture per prompt and seed, in prompt-major order: what diffusers' pipeline draws with the same settings.

        A seed gives the same noise for every model, prompt and batch size. `width` and `height` are pixels. `guidance` is the scale of
        classifier-free guidance (1 is none), `true_cfg_scale` where a pipeline calls it that; of a Flux model it is what the guidance
        embedder is told, and a model without one heeds no guidance. `sampler=None` is the scheduler of the pipeline's folder.
        `negative=None` asks for no negative prompt, which SDXL tells from an empty one. `clip_skip` counts as diffusers does (1 is
        A1111's 2). Settings left out are the model's own (`defaults`); `batch_size` defaults to what the device holds comfortably.

        Raises RenderError when nothing is loaded, for an argument out of range, or where one picture is too large for the device;
        Cancelled between two steps once `cancelled` is true.
        """
        settings = {"steps": steps, "guidance": guidance, "sampler": sampler, "negative": negative, "clip_skip": clip_skip}
        request = Request.of(prompts, seeds, width=width, height=height, **settings)
        return self.draw(request, batch_size=batch_size, progress=progress, cancelled=cancelled)

    def draw(
        self,
        request: Request,
        *,
        batch_size: int | None = None,
        progress: bool = True,
        cancelled: Cancel | None = None,
        on_step: OnStep | None = None,
    ) -> list[Image]:
        """`images`, of a request that is made already; `on_step` is told after each step how far it is, and can have a preview."""
        with self.lock:
            self.check_request(request)
            drawing = self._drawing(request, progress)
            self._stage.manner.warn(drawing.request)
            with self._told_where_full(f"pictures of {drawing.request.width}x{drawing.request.height}", "smaller ones take less"):
                return drawing.pictures(batch_size, progress, cancelled, on_step)

    def free(self) -> None:
        """Let go of the pipeline and everything it holds, on every device; what is loaded next builds it anew."""
        with self.lock:
            self._built, self.loaded, self._begun = None, None, False
            self.__dict__.pop("denoiser", None)
            release(self.device)

    @property
    def fallback(self) -> Checkpoint | None:
        """What lends the components that a checkpoint lacks; the config folder lends what it lacks, too."""
        return self._given_fallback or self.model or self._in_folder

    @cached_property
    def _in_folder(self) -> Checkpoint | None:
        """What the config folder holds."""
        return open_checkpoint(self.config) if self.configs.has_weights else None

    def _lenders(self, given: Checkpoint | None) -> Iterator[Checkpoint]:
        """Who may be asked for what a checkpoint lacks, one after the other."""
        yield from (one for one in (given, self._given_fallback, self.model) if one is not None)
        if self._in_folder is not None:
            yield self._in_folder

    @cached_property
    def denoiser(self) -> Denoiser:
        """Single steps of denoising, as training a merge needs them. Raises RenderError for what has no U-Net that reads text alone."""
        stage = self._stage
        unet = stage.pipeline.components.get("unet")
        if unet is None or unet.config.get("addition_embed_type"):
            name = stage.blueprint.pipeline.__name__
            raise RenderError(f"merges are trained through the U-Nets of SD 1.x and 2.x, and {self.config} is of a {name}")
        return Denoiser(stage, self._latents, torch.empty(0, device=self.device, dtype=self.dtype))

    @property
    def _stage(self) -> Stage:
        with self.lock:
            if self._built is None:
                self._built = Stage(self.configs.blueprint, self.device, self.dtype, self.offload)
            return self._built

    @property
    def _pipeline(self) -> object:
        return self._stage.pipeline

    @property
    def _family(self) -> Family:
        """The family that it draws, as far as its model or its pipeline's class tell it."""
        name = self.configs.blueprint.pipeline.__name__
        alike = [family for family in registry().values() if family.pipeline == name]
        own = self.model.structure.family if self.model is not None else None
        return own if own in alike else alike[0] if alike else own or GENERIC

    @property
    def _dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def _told_where_full(self, what: str, advice: str) -> AbstractContextManager[None]:
        return told_where_full(what, advice, self.device, self._stage.parts.sizes, self.offload)

    def _drawing(self, request: Request, progress: bool = False) -> Drawing:
        """A request with all its settings, to be drawn by what is loaded; `x` is, when nothing else was. Raises RenderError."""
        if self.loaded is None and self.model is not None and not self._begun:
            self.load(self.model, progress=progress)
        if self.loaded is None:
            raise RenderError("this renderer holds no checkpoint yet: call .load(checkpoint) first")
        return Drawing(self._stage, request.settled([self._defaults]), self.loaded.name, self.device, self._changes)

    def _latents(self, prompts: Sequence[str], seeds: Sequence[int], *, steps: int, guidance: float) -> torch.Tensor:
        """What `images` decodes."""
        with self.lock, torch.inference_mode():
            drawing = self._drawing(Request.of(prompts, seeds, steps=steps, guidance=guidance))
            wanted, size = drawing.request.pictures, drawing.batch_size
            found = [drawing.run(wanted[start : start + size], output="latent") for start in range(0, len(wanted), size)]
        return torch.cat(found).clone()  # inference tensors could not be trained on
