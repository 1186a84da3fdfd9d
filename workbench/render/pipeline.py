"""`Renderer`: one diffusers pipeline that any checkpoint, written or not, is swapped into and drawn with."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm.auto import tqdm

import workbench
from workbench.checkpoint.architecture import Architecture
from workbench.checkpoint.base import Checkpoint
from workbench.errors import NonFiniteWarning, RenderError
from workbench.render.assembly import PIPELINES, WEIGHTED, build_pipeline, has_weights, quiet, read_index
from workbench.render.keymap import Origin, origins
from workbench.render.samplers import DEFAULT_SAMPLER, check_sampler, make_sampler

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import nn

STEPS = 20
GUIDANCE = 5.0
_PATIENCE = 2.0  # seconds of work before a progress bar appears
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

    `config` is a local diffusers folder (`model_index.json`, component configs, tokenizer, scheduler; weights are not needed).
    `device` is `"cpu"`, `"cuda"` or another of torch's; `dtype` defaults to float32 on the CPU and float16 elsewhere.
    `fallback` lends components that a checkpoint lacks (a U-Net-only file has no VAE); by default the config folder does, if
    it holds weights, and else the checkpoint loaded before.

    Raises RenderError when the folder describes no pipeline that can be held here.
    """

    def __init__(
        self, config: str | Path, *, device: str = "cpu", dtype: str | None = None, fallback: Checkpoint | None = None
    ) -> None:
        self.config = Path(config)
        self.device = torch.device(device)
        self.dtype = getattr(torch, dtype or ("float32" if self.device.type == "cpu" else "float16"))
        self._architectures = PIPELINES[read_index(self.config)["_class_name"]]
        self._pipeline = build_pipeline(self.config)
        self._schedule = dict(self._pipeline.scheduler.config)
        self._overrides: dict[str, object] = {}
        self._given_fallback = fallback
        self._owners: dict[str, str] = {}
        self._plans: dict[object, dict[str, Origin]] = {}
        self.loaded: Loaded | None = None

    def __repr__(self) -> str:
        width, height = self.size
        holds = self.loaded.note if self.loaded else "nothing yet"
        return f"<Renderer of {width}x{height} pictures on {self.device}, holds {holds}>"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a picture in pixels."""
        sample = self._pipeline.unet.config.sample_size
        height, width = (sample, sample) if isinstance(sample, int) else sample
        return width * self._pipeline.vae_scale_factor, height * self._pipeline.vae_scale_factor

    def check(self, checkpoint: Checkpoint) -> None:
        """Raises RenderError when the checkpoint does not fit this pipeline; reads no tensor."""
        self._plan(checkpoint)

    def load(self, checkpoint: Checkpoint, *, progress: bool = True) -> Loaded:
        """Put a checkpoint (a file or a merge, in LDM or diffusers layout) into the pipeline, reading it tensor by tensor.

        What is assigned is a copy in the renderer's dtype, of what `checkpoint.read` gives, so a merge draws as its exported
        file would. Components that it lacks come from the fallback, or stay; the result's `note` says so.

        Raises RenderError for another architecture, a missing, extra or misshapen tensor (before anything is read), or a
        component that nobody supplies.
        """
        plan = self._plan(checkpoint)
        lent = self._lent(checkpoint, [part for part in WEIGHTED if part not in plan])
        self.loaded = None
        for part, owner, origin in [*((part, checkpoint, plan[part]) for part in plan), *lent]:
            self._owners.pop(part, None)
            self._assign(owner, part, origin, progress)
            self._owners[part] = owner.name
        if "unet" in plan:
            self._overrides = _prediction(checkpoint)
        used = {found.key for origin in plan.values() for found in origin.values()}
        components = {part: self._owners[part] for part in WEIGHTED}
        self.loaded = Loaded(checkpoint.name, components, tuple(key for key in checkpoint if key not in used))
        return self.loaded

    def images(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int = STEPS,
        guidance: float = GUIDANCE,
        sampler: str = DEFAULT_SAMPLER,
        negative: str = "",
        batch_size: int | None = None,
        progress: bool = True,
    ) -> list[Image]:
        """One RGB picture per prompt and seed, in prompt-major order.

        A seed gives the same noise for every model, prompt and batch size. `guidance` is the scale of classifier-free
        guidance (1 is none); `batch_size` defaults to what the device holds comfortably.

        Raises RenderError when nothing is loaded, or for an argument out of range.
        """
        if self.loaded is None:
            raise RenderError("this renderer holds no checkpoint yet: call .load(checkpoint) first")
        prompts, seeds = check_request(prompts, seeds, steps=steps, guidance=guidance, sampler=sampler)
        self._check_lengths([*prompts, negative])
        wanted = [(prompt, seed) for prompt in prompts for seed in seeds]
        size = batch_size or self._batch_size
        batches = [wanted[start : start + size] for start in range(0, len(wanted), size)]
        pictures: list[Image] = []
        bar = tqdm(
            total=len(wanted), desc=self.loaded.name, unit="picture", delay=_PATIENCE, leave=False, disable=not progress
        )
        with bar, torch.inference_mode(), quiet():
            for batch in batches:
                pictures += self._draw(batch, steps, guidance, sampler, negative)
                bar.update(len(batch))
        return pictures

    def noise(self, seed: int) -> torch.Tensor:
        """The noise a picture starts from: [1, channels, height, width] of the latents, float32 on the CPU."""
        return self._noise(torch.Generator().manual_seed(seed))

    # ---- what `load` is made of

    def _plan(self, checkpoint: Checkpoint) -> dict[str, dict[str, Origin]]:
        """Component -> where each of its tensors comes from; all of them are checked, nothing is read."""
        if not isinstance(checkpoint, Checkpoint):
            raise RenderError(
                f"a renderer draws checkpoints; got {type(checkpoint).__name__}: open a file with workbench.open(path)"
            )
        if (
            checkpoint.structure.architecture is not Architecture.GENERIC
            and checkpoint.architecture not in self._architectures
        ):
            kinds = " or ".join(self._architectures)
            raise RenderError(
                f"{checkpoint.name!r} is {checkpoint.architecture}; the pipeline of {self.config} draws {kinds}: "
                "make a Renderer from a config folder of that architecture"
            )
        parts = [part for part in WEIGHTED if part in checkpoint.components]
        if not parts:
            raise RenderError(
                f"{checkpoint.name!r} holds none of {', '.join(WEIGHTED)}, only {', '.join(checkpoint.components)}: nothing to draw with"
            )
        return {part: self._part_plan(checkpoint, part) for part in parts}

    def _part_plan(self, checkpoint: Checkpoint, part: str) -> dict[str, Origin]:
        structure = checkpoint.structure
        key = (part, tuple((key, checkpoint.info(key).shape) for key in checkpoint if structure.component(key) == part))
        if key not in self._plans:
            module = getattr(self._pipeline, part)
            found = origins(checkpoint, part, module)
            wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
            _check_fit(checkpoint.name, part, found, wanted)
            self._plans[key] = {name: found[name] for name in wanted}
        return self._plans[key]

    def _lent(self, checkpoint: Checkpoint, missing: list[str]) -> list[tuple[str, Checkpoint, dict[str, Origin]]]:
        """Components that the fallback supplies. Raises RenderError for one that neither it nor an earlier load has."""
        if not missing:
            return []
        fallback = self._fallback
        lent = [] if fallback is None else [part for part in missing if part in fallback.components]
        if nobody := [part for part in missing if part not in lent and part not in self._owners]:
            raise RenderError(
                f"{checkpoint.name!r} has no {' and no '.join(nobody)} (only {', '.join(checkpoint.components)}): load a checkpoint that has it "
                "first, or give Renderer(config, fallback=checkpoint) one to borrow from"
            )
        return [(part, fallback, self._part_plan(fallback, part)) for part in lent]

    @cached_property
    def _fallback(self) -> Checkpoint | None:
        if self._given_fallback is None and has_weights(self.config):
            from workbench.checkpoint import open as open_checkpoint

            return open_checkpoint(self.config)
        return self._given_fallback

    def _assign(self, checkpoint: Checkpoint, part: str, plan: Mapping[str, Origin], progress: bool) -> None:
        """Read one component and hand it to its module; a copy, so nobody else's tensor is aliased."""
        module: nn.Module = getattr(self._pipeline, part)
        bar = tqdm(
            plan.items(),
            desc=f"{checkpoint.name}: {part}",
            unit="tensor",
            delay=_PATIENCE,
            leave=False,
            disable=not progress,
        )
        state = {}
        for name, origin in bar:
            value = checkpoint.read(origin.key, origin.part)
            state[name] = value.detach().reshape(origin.shape).to(self.device, self.dtype, copy=True)
        module.load_state_dict(state, assign=True)
        module.to(self.device)  # its buffers; the parameters are there already

    # ---- what `images` is made of

    @property
    def _batch_size(self) -> int:
        width, height = self.size
        return max(1, _BATCH_PIXELS.get(self.device.type, _BATCH_PIXELS_GPU) // (width * height))

    def _noise(self, generator: torch.Generator) -> torch.Tensor:
        width, height = (edge // self._pipeline.vae_scale_factor for edge in self.size)
        return torch.randn((1, self._pipeline.unet.config.in_channels, height, width), generator=generator)

    def _draw(
        self, batch: list[tuple[str, int]], steps: int, guidance: float, sampler: str, negative: str
    ) -> list[Image]:
        generators = [torch.Generator().manual_seed(seed) for _, seed in batch]
        self._pipeline.scheduler = make_sampler(sampler, self._schedule, **self._overrides)
        drawn = self._pipeline(
            [prompt for prompt, _ in batch],
            negative_prompt=[negative] * len(batch),
            num_inference_steps=steps,
            guidance_scale=guidance,
            latents=torch.cat([self._noise(generator) for generator in generators]).to(self.dtype),
            generator=generators,  # samplers that add noise go on drawing from each picture's own
            output_type="np",
        ).images
        return self._pipeline.image_processor.numpy_to_pil(self._finite(drawn))

    def _finite(self, pixels: np.ndarray) -> np.ndarray:
        if np.isfinite(pixels).all():
            return pixels
        warnings.warn(
            f"{self.loaded.name}: some pictures are not a number, drawn black; look for NaN or too large weights",
            NonFiniteWarning,
            stacklevel=4,
        )
        return np.nan_to_num(pixels, nan=0.0, posinf=1.0, neginf=0.0)

    def _check_lengths(self, prompts: Sequence[str]) -> None:
        tokenizer = self._pipeline.tokenizer
        with quiet():
            counts = [len(tokenizer(prompt).input_ids) for prompt in prompts]
        if over := [
            prompt for prompt, count in zip(prompts, counts, strict=True) if count > tokenizer.model_max_length
        ]:
            warnings.warn(
                f"{over[0]!r} is longer than the {tokenizer.model_max_length} tokens this pipeline reads; its end is ignored",
                stacklevel=3,
            )


def check_request(
    prompts: Sequence[str], seeds: Sequence[int], *, steps: int, guidance: float, sampler: str
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Prompts and seeds as tuples (one alone may stand for a list). Raises RenderError for what cannot be drawn."""
    prompts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    seeds = (seeds,) if isinstance(seeds, int) else tuple(seeds)
    if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise RenderError(f"prompts must be one or more strings, got {prompts!r}")
    if not seeds or not all(isinstance(seed, (int, np.integer)) and 0 <= seed < 1 << 63 for seed in seeds):
        raise RenderError(f"seeds must be one or more whole numbers from 0, got {seeds!r}")
    if not isinstance(steps, int) or not 1 <= steps <= 1000:
        raise RenderError(f"steps must be a whole number in [1, 1000], got {steps!r}")
    if not np.isfinite(guidance):
        raise RenderError(f"guidance must be a finite number, got {guidance!r}")
    check_sampler(sampler)
    return prompts, tuple(int(seed) for seed in seeds)


def default_config(checkpoints: Sequence[Checkpoint] = ()) -> Path:
    """The pipeline folder that checkpoints come from, or else that of the family this project ships (`data/shapes-sd/config`).

    Raises RenderError when there is neither.
    """
    for folder in _folders(checkpoints):
        if (folder / "model_index.json").is_file():
            return folder
    embedded = Path(workbench.__file__).resolve().parent.parent / "data" / "shapes-sd" / "config"
    if not (embedded / "model_index.json").is_file():
        raise RenderError(
            "no pipeline config beside the checkpoints or in data/shapes-sd/config: pass renderer=workbench.Renderer(folder)"
        )
    return embedded


def _folders(checkpoints: Sequence[Checkpoint]) -> Iterator[Path]:
    for checkpoint in checkpoints:
        for path in checkpoint.sources():
            yield from (path.parent, path.parent.parent)


def _prediction(checkpoint: Checkpoint) -> dict[str, object]:
    """What a checkpoint's markers change about the noise schedule."""
    names = {checkpoint.structure.name(key).rest for key in checkpoint}
    overrides: dict[str, object] = {"prediction_type": "v_prediction"} if checkpoint.structure.prediction == "v" else {}
    if "ztsnr" in names:
        overrides |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return overrides


def _check_fit(name: str, part: str, found: Mapping[str, Origin], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Raises RenderError that names the checkpoint, the first tensor that does not fit, and both shapes."""
    if missing := [key for key in wanted if key not in found]:
        first = f"first {missing[0]} {list(wanted[missing[0]])}"
        raise RenderError(
            f"{name!r} lacks {len(missing)} of the {len(wanted)} tensors that the {part} needs, {first}: "
            "load a whole checkpoint, or take the rest from one with a merge"
        )
    for key, shape in wanted.items():
        if found[key].shape != shape:
            raise RenderError(
                f"{name!r}: {found[key].key} is {list(found[key].shape)}, but the pipeline's {part} needs {list(shape)} ({key}): "
                "it is a model of another size or kind; make a Renderer from its own config folder"
            )
    extra = [origin.key for key, origin in found.items() if key not in wanted]
    if extra and part == "unet":
        raise RenderError(
            f"{name!r}: the pipeline's unet has no place for {len(extra)} of its tensors, first {extra[0]}: it is a larger or other model"
        )
