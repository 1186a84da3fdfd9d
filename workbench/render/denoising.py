"""`Denoiser`: single steps of a renderer's pipeline, with the weights of any checkpoint. Whole pictures are drawn in `pipeline`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from workbench.checkpoint.base import Checkpoint
from workbench.render.keymap import as_in_module
from workbench.render.silence import quiet

if TYPE_CHECKING:
    from workbench.render.stage import Stage


class Denoiser:
    """What the training of a merge needs of a pipeline: latents, noise, and the U-Net's answer, which carries gradients."""

    def __init__(self, stage: Stage, draw_latents: Callable[..., torch.Tensor], like: torch.Tensor) -> None:
        from diffusers import DDPMScheduler

        self._pipeline: Any = stage.pipeline
        self._fitting = stage.fitting
        self._like = like  # has the device and the dtype to calculate on and in
        self.latents = draw_latents  # (prompts, seeds, steps=, guidance=), by the loaded model: [pictures, channels, height, width]
        self._schedule = DDPMScheduler.from_config(stage.own_scheduler.config)

    @property
    def times(self) -> int:
        """How many noise levels there are."""
        levels: int = self._schedule.config.num_train_timesteps
        return levels

    def noised(self, clean: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """Latents [n, ...] with as much noise as belongs to each time [n]."""
        noisy: torch.Tensor = self._schedule.add_noise(clean, noise, times)
        return noisy

    @torch.no_grad()
    def embeddings(self, prompts: Sequence[str]) -> torch.Tensor:
        """What the U-Net reads of each prompt, by the loaded text encoder: [prompts, tokens, width]."""
        with quiet():
            read: torch.Tensor = self._pipeline.encode_prompt(list(prompts), self._pipeline.device, 1, False)[0]
            return read

    def predict(self, checkpoint: Checkpoint, noisy: torch.Tensor, times: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """What the checkpoint's U-Net takes for noise in each of these latents, [n, channels, height, width].

        The checkpoint is not put into the pipeline; gradients reach whatever its `read` computes its tensors from.
        """
        unet = as_in_module(checkpoint, self._fitting.plan(checkpoint, "unet").entries)
        noisy = noisy.to(self._like)
        weights = {name: unet.read(name).to(noisy) for name in unet}
        arguments = (noisy, times.to(noisy.device), embeddings.to(noisy))
        told: torch.Tensor = torch.func.functional_call(self._pipeline.unet, weights, arguments, {"return_dict": False})[0]
        return told
