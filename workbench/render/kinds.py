"""What a renderer must know of each class of diffusers pipeline: its parts, its noise, how it is called. Drawing is in `pipeline`."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from workbench.checkpoint.base import Checkpoint
from workbench.errors import RenderError
from workbench.families import registry
from workbench.render.request import Defaults, Request
from workbench.render.samplers import DEFAULT_SAMPLER, FLOW_SAMPLERS, SAMPLERS, Samplers, check_sampler

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

_GUIDANCE = ("guidance_in.", "time_text_embed.guidance_embedder.")  # of a denoiser's names, in either layout


class Kind(abc.ABC):
    """One class of pipeline; `weighted` are the components that have weights, the `denoiser` first."""

    pipeline: ClassVar[str]  # the class that `model_index.json` names, and families
    weighted: ClassVar[tuple[str, ...]]
    unweighted: ClassVar[tuple[str, ...]]
    without: ClassVar[Mapping[str, Any]]  # what its pipelines are built without
    reader: ClassVar[str]  # the tokenizer that says how long a prompt may be
    samplers: ClassVar[Samplers]
    half: ClassVar[str]  # the dtype to calculate in on a GPU

    @property
    def architectures(self) -> tuple[str, ...]:
        """The families that it draws."""
        return tuple(name for name, family in registry().items() if family.pipeline == self.pipeline)

    @property
    def denoiser(self) -> str:
        return self.weighted[0]

    @abc.abstractmethod
    def defaults(self, guided: bool) -> Defaults:
        """The settings of pictures unless told otherwise, of a model with or without a guidance embedder."""

    @abc.abstractmethod
    def size(self, pipeline: DiffusionPipeline) -> tuple[int, int]:
        """Width and height of a picture in pixels."""

    @abc.abstractmethod
    def noise(self, pipeline: DiffusionPipeline, generator: torch.Generator) -> torch.Tensor:
        """What one picture starts from, float32 on the CPU, in the shape the pipeline takes."""

    @abc.abstractmethod
    def asked(self, pipeline: DiffusionPipeline, request: Request, pictures: int) -> dict[str, Any]:
        """What of a request is told to the pipeline in words of its own."""

    def check(self, request: Request) -> None:
        """Raises RenderError for a request that no pipeline of this kind can draw."""
        if request.sampler is not None:
            check_sampler(request.sampler, self.samplers)


class StableDiffusion(Kind):
    pipeline = "StableDiffusionPipeline"
    weighted = ("unet", "vae", "text_encoder")
    unweighted = ("tokenizer", "scheduler")
    without: ClassVar = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    reader = "tokenizer"
    samplers = SAMPLERS
    half = "float16"

    def defaults(self, guided: bool) -> Defaults:
        return Defaults(steps=20, guidance=5.0, sampler=DEFAULT_SAMPLER)

    def size(self, pipeline: DiffusionPipeline) -> tuple[int, int]:
        sample, scale = pipeline.unet.config.sample_size, pipeline.vae_scale_factor
        height, width = (sample, sample) if isinstance(sample, int) else sample
        return width * scale, height * scale

    def noise(self, pipeline: DiffusionPipeline, generator: torch.Generator) -> torch.Tensor:
        import torch

        width, height = (edge // pipeline.vae_scale_factor for edge in self.size(pipeline))
        return torch.randn((1, pipeline.unet.config.in_channels, height, width), generator=generator)

    def asked(self, pipeline: DiffusionPipeline, request: Request, pictures: int) -> dict[str, Any]:
        return {"negative_prompt": [request.negative] * pictures}


class Flux(Kind):
    """Guidance is told to the model's guidance embedder; a model without one (schnell) is drawn the same at every scale."""

    pipeline = "FluxPipeline"
    weighted = ("transformer", "vae", "text_encoder", "text_encoder_2")
    unweighted = ("tokenizer", "tokenizer_2", "scheduler")
    without: ClassVar = {"image_encoder": None, "feature_extractor": None}
    reader = "tokenizer_2"  # of a long prompt CLIP reads the beginning, T5 all
    samplers = FLOW_SAMPLERS
    half = "bfloat16"  # its activations leave float16's range

    def defaults(self, guided: bool) -> Defaults:
        return Defaults(steps=20 if guided else 4, guidance=3.5, sampler="Euler")

    def size(self, pipeline: DiffusionPipeline) -> tuple[int, int]:
        edge = pipeline.vae.config.sample_size
        return edge, edge

    def noise(self, pipeline: DiffusionPipeline, generator: torch.Generator) -> torch.Tensor:
        import torch

        width, height = (edge // pipeline.vae_scale_factor for edge in self.size(pipeline))
        channels = pipeline.transformer.config.in_channels // 4
        latents = torch.randn((1, channels, height, width), generator=generator)
        packed: torch.Tensor = pipeline._pack_latents(latents, 1, channels, height, width)
        return packed

    def asked(self, pipeline: DiffusionPipeline, request: Request, pictures: int) -> dict[str, Any]:
        width, height = self.size(pipeline)
        return {"width": width, "height": height, "max_sequence_length": min(512, pipeline.tokenizer_2.model_max_length)}

    def check(self, request: Request) -> None:
        super().check(request)
        if request.negative:
            raise RenderError(f"negative: a Flux model is guided without a negative prompt; leave {request.negative!r} out")


KINDS: dict[str, Kind] = {kind.pipeline: kind for kind in (StableDiffusion(), Flux())}  # every pipeline that is held here


def has_guidance(checkpoint: Checkpoint) -> bool:
    """Whether a Flux checkpoint has a guidance embedder, or a part of one."""
    structure = checkpoint.structure
    return any(structure.name(key).rest.startswith(_GUIDANCE) for key in checkpoint if structure.component(key) == "transformer")
