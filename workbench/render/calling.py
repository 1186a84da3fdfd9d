"""How a diffusers pipeline is asked for pictures, told by the signature of its call. What is asked is a `Request`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from workbench.errors import RenderError, warn
from workbench.families import Pictures
from workbench.render.request import Defaults, Request
from workbench.render.silence import quiet
from workbench.wording import shortened

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

OnStep = Callable[[int, "torch.Tensor"], None]  # the step that was taken, from 0, and the latents after it

_DOUBLINGS = 6  # of the edge of a patch, to find one that a pipeline accepts: Stable Diffusion's are multiples of 8, Sana's of 32
_USUAL = Pictures(1024, 28, 4.0)  # of a family that says nothing
_WITHOUT_GUIDANCE = 1.0  # a scale of classifier-free guidance up to which it does nothing


class Manner:
    """How one pipeline is called: the names that its settings have there, and what it cannot be asked for."""

    def __init__(self, pipeline: DiffusionPipeline, denoiser: str) -> None:
        self._pipeline, self._denoiser = pipeline, denoiser
        self._arguments = inspect.signature(type(pipeline).__call__).parameters

    @property
    def guidance(self) -> str:
        """What the scale of guidance is called: Qwen-Image's `guidance_scale` is for models that there are not yet."""
        scale = self._arguments.get("guidance_scale")
        return "guidance_scale" if scale is not None and scale.default is not None else "true_cfg_scale"

    @property
    def takes_negative(self) -> bool:
        """Whether a negative prompt changes its pictures: FluxPipeline takes one that needs a second scale."""
        second = self._arguments.get("true_cfg_scale")
        unused = self.guidance != "true_cfg_scale" and second is not None and second.default <= _WITHOUT_GUIDANCE
        return "negative_prompt" in self._arguments and not unused

    @property
    def needs_negative(self) -> bool:
        """Whether there is no guidance without a negative prompt."""
        return self.takes_negative and self.guidance == "true_cfg_scale"

    @property
    def multiple(self) -> int:
        """What width and height must be divisible by, in pixels: what a latent, or a patch of latents, covers, or more if asked for."""
        patch = getattr(self._module.config, "patch_size", None) if self._denoiser == "transformer" else 1
        packs = any(hasattr(self._pipeline, name) for name in ("_pack_latents", "_patchify_latents"))
        patches = patch if isinstance(patch, int) and patch > 1 else 2 if packs or patch is None else 1
        least = self._scale * patches
        return next((edge for edge in (least << i for i in range(_DOUBLINGS)) if self._accepts(edge)), least)

    def defaults(self, pictures: Pictures | None) -> Defaults:
        """The settings of pictures unless told otherwise; `pictures` are the family's."""
        usual = pictures or _USUAL
        width, height = self._size(usual)
        return Defaults(usual.steps, usual.guidance, width, height)

    def check(self, request: Request) -> None:
        """Raises RenderError for a request that this pipeline cannot draw."""
        name = type(self._pipeline).__name__
        if request.negative and not self.takes_negative:
            raise RenderError(f"negative: {name} is guided without a negative prompt; leave {request.negative!r} out")
        if request.clip_skip is not None and "clip_skip" not in self._arguments:
            raise RenderError(f"clip_skip: {name} has no such setting; leave {request.clip_skip!r} out")
        for edge in ("width", "height"):
            value, multiple = getattr(request, edge), self.multiple
            if value is not None and value % multiple:
                lower = value // multiple * multiple
                either = f"{lower} or {lower + multiple}" if lower else str(multiple)
                raise RenderError(f"{edge} must be divisible by {multiple} for {name}, got {value}: take {either}")

    def warn(self, request: Request) -> None:
        """Warns of a setting that does nothing here, and of a prompt whose end is not read."""
        if self.needs_negative and request.negative is None and (request.guidance or 0) > _WITHOUT_GUIDANCE:
            warn(
                f"guidance {request.guidance:g} does nothing without a negative prompt: {type(self._pipeline).__name__} guides away from "
                "one; a single space is enough",
                UserWarning,
            )
        tokenizer, limit = self.tokenizer, self.longest
        if tokenizer is None or limit is None:
            return
        with quiet():
            long = [prompt for prompt in (*request.prompts, request.negative or "") if len(tokenizer(prompt).input_ids) > limit]
        if long:
            warn(f"{shortened(long[0])!r} has more than the {limit} tokens a model reads: its end is ignored", UserWarning)

    def arguments(self, request: Request, pictures: int, on_step: OnStep) -> dict[str, Any]:
        """What the pipeline is told beside prompts and generators, for a batch of so many pictures."""
        told: dict[str, Any] = {
            "num_inference_steps": request.steps,
            self.guidance: request.guidance,
            "width": request.width,
            "height": request.height,
            **self._callback(on_step),
        }
        if request.negative is not None and self.takes_negative:
            told["negative_prompt"] = [request.negative] * pictures
        if request.clip_skip is not None:
            told["clip_skip"] = request.clip_skip
        own = self._arguments.get("max_sequence_length")
        if own is not None and (limit := self.longest) is not None and own.default != limit and "CLIP" not in type(self.tokenizer).__name__:
            told["max_sequence_length"] = limit
        return told

    @property
    def tokenizer(self) -> Any:
        """The tokenizer that reads all of a prompt: the last one, since of a long prompt CLIP reads the beginning and T5 all."""
        names = ("tokenizer_3", "tokenizer_2", "tokenizer")
        found = next((one for name in names if (one := self._pipeline.components.get(name)) is not None), None)
        return getattr(found, "tokenizer", found)  # a processor, for pictures and texts, has one

    @property
    def longest(self) -> int | None:
        """How many tokens of a prompt are read; None where that is not known."""
        limit = getattr(self.tokenizer, "model_max_length", None)
        own = self._arguments.get("max_sequence_length")
        if own is None or not isinstance(own.default, int) or "CLIP" in type(self.tokenizer).__name__:  # CLIP's length is not asked for
            return limit
        return own.default if limit is None else min(limit, own.default)

    def _accepts(self, edge: int) -> bool:
        """Whether the pipeline has nothing against pictures of this size."""
        check = getattr(self._pipeline, "check_inputs", None)
        if check is None:
            return True
        told = {"prompt": "", "width": edge, "height": edge, "guidance_scale": 1.0, "callback_steps": 1}
        arguments = inspect.signature(check).parameters.values()
        try:
            check(**{one.name: told.get(one.name) for one in arguments if one.name in told or one.default is one.empty})
        except ValueError as error:
            return "divisible" not in str(error)
        except (TypeError, AttributeError):  # it asks about more than these
            return True
        return True

    @property
    def _module(self) -> Any:
        return self._pipeline.components[self._denoiser]

    @property
    def _scale(self) -> int:
        """Pixels along the edge of a latent; 1 for a pipeline that works on pixels."""
        scale: int = getattr(self._pipeline, "vae_scale_factor", None) or getattr(self._pipeline, "vae_scale_factor_spatial", None) or 1
        return scale

    def _size(self, usual: Pictures) -> tuple[int, int]:
        """Width and height that the model was made for, in pixels, as the pipeline's call, its configs, or its family say."""
        named = [self._arguments[edge].default for edge in ("width", "height") if edge in self._arguments]
        if len(named) == 2 and all(isinstance(edge, int) for edge in named):
            return named[0], named[1]
        vae = self._pipeline.components.get("vae")
        latents = getattr(self._module.config, "sample_size", None)
        pixels = getattr(vae.config, "sample_size", None) if vae is not None else None
        if latents:
            height, width = (latents, latents) if isinstance(latents, int) else latents
            return width * self._scale, height * self._scale
        edge = pixels if isinstance(pixels, int) else usual.size
        return edge, edge

    def _callback(self, on_step: OnStep) -> Mapping[str, Any]:
        """A callback after each step, in the way the pipeline has it."""
        if "callback_on_step_end" in self._arguments:

            def after(pipeline: object, step: int, time: object, values: dict[str, Any]) -> dict[str, Any]:
                on_step(step, values["latents"])
                return values

            return {"callback_on_step_end": after}
        return {"callback": lambda step, time, latents: on_step(step, latents), "callback_steps": 1}
