"""Trains the autoencoder on every shape and style: first as a whole, then the decoder alone, for crisper edges."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.loop import fit
from training.parts import build_vae
from training.pictures import sample
from training.settings import Stage
from workbench.demo.captions import PLAIN, SHAPES, STYLES, subjects

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL

_KL_WEIGHT = 1e-6
_LATENT_NOISE = 0.03  # of the latents' deviation: a denoiser's latents are never quite those of the encoder


def pixels(pictures: np.ndarray) -> torch.Tensor:
    """uint8 pictures [n, h, w, 3] as floats [n, 3, h, w] in [-1, 1]."""
    import torch

    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def train_vae(stage: Stage, state_folder: Path) -> AutoencoderKL:
    """An autoencoder that reproduces the pictures, its `scaling_factor` such that latents have unit variance."""
    import torch
    from torch.nn import functional

    torch.manual_seed(stage.seed)
    vae = build_vae().to(memory_format=torch.channels_last)
    pictures, _ = sample(subjects(SHAPES, (PLAIN, *STYLES)), stage.pictures, stage.seed)

    def loss(draws: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(pictures), (stage.batch,), generator=draws)
        target = pixels(pictures[chosen.numpy()]).contiguous(memory_format=torch.channels_last)
        posterior = vae.encode(target).latent_dist
        drawn = vae.decode(posterior.sample(draws)).sample
        return functional.l1_loss(drawn, target) + functional.mse_loss(drawn, target) + _KL_WEIGHT * posterior.kl().mean()

    fit(list(vae.parameters()), loss, stage, name="vae", state_folder=state_folder, average=True)
    vae = vae.to(memory_format=torch.contiguous_format)
    vae.register_to_config(scaling_factor=1.0)
    vae.register_to_config(scaling_factor=round(1 / encode(vae, pictures[:2304]).std().item(), 5))
    return vae


def train_decoder(vae: AutoencoderKL, stage: Stage, state_folder: Path) -> None:
    """Go on with the decoder, in place; the latents stay what they are, so a denoiser may be trained meanwhile."""
    import torch
    from torch.nn import functional

    pictures, _ = sample(subjects(SHAPES, (PLAIN, *STYLES)), stage.pictures, stage.seed)
    latents = encode(vae, pictures)
    vae.to(memory_format=torch.channels_last)

    def loss(draws: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(pictures), (stage.batch,), generator=draws)
        target = pixels(pictures[chosen.numpy()]).contiguous(memory_format=torch.channels_last)
        noise = torch.randn(latents[chosen].shape, generator=draws) * _LATENT_NOISE
        drawn = vae.decode((latents[chosen] + noise) / vae.config.scaling_factor).sample
        return functional.l1_loss(drawn, target)

    decoder = [*vae.post_quant_conv.parameters(), *vae.decoder.parameters()]
    fit(decoder, loss, stage, name="decoder", state_folder=state_folder, average=True)
    vae.to(memory_format=torch.contiguous_format)


def encode(vae: AutoencoderKL, pictures: np.ndarray, batch: int = 256) -> torch.Tensor:
    """The latents [n, 4, 8, 8] of the pictures: the posterior's mean, scaled by the config's factor."""
    import torch

    with torch.no_grad():
        means = [vae.encode(pixels(pictures[i : i + batch])).latent_dist.mean for i in range(0, len(pictures), batch)]
    return torch.cat(means) * vae.config.scaling_factor
