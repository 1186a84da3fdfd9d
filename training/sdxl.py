"""Trains the SDXL family: the U-Net with its second text encoder, a new shape, and v-prediction; its order is in `sdxl_stages`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from training.denoiser import Lessons
from training.loop import fit
from training.sdxl_parts import TIME_IDS, build_noising

if TYPE_CHECKING:
    import torch
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    from training.settings import Stage

_CAPTIONS_DROPPED = 0.1  # so that the pictures without a caption are known too, and guidance works

# Of captions, by their numbers [n]: what the U-Net reads of the words [n, tokens, width], and the pooled vectors [n, width].
Read = Callable[["torch.Tensor"], "tuple[torch.Tensor, torch.Tensor]"]


def penultimate(text_encoder: CLIPTextModel, tokens: torch.Tensor) -> torch.Tensor:
    """What SDXL takes of its first encoder: the last layer but one, as it leaves that layer, without the final norm."""
    return text_encoder(tokens, output_hidden_states=True).hidden_states[-2]


def said_by(text_encoder_2: CLIPTextModelWithProjection, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What SDXL takes of its second encoder: the same, and the projected vector of the whole caption."""
    said = text_encoder_2(tokens, output_hidden_states=True)
    return said.hidden_states[-2], said.text_embeds


def reader(text_encoder: CLIPTextModel, text_encoder_2: CLIPTextModelWithProjection, tokens: torch.Tensor) -> Read:
    """Reads captions with the first encoder as it is, and with the second as it is at each step."""
    import torch

    with torch.no_grad():
        first = penultimate(text_encoder, tokens)

    def read(captions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        second, pooled = said_by(text_encoder_2, tokens[captions])
        return torch.cat([first[captions], second], dim=-1), pooled

    return read


def frozen(read: Read, count: int) -> Read:
    """The same once and for all, for encoders that learn nothing more."""
    import torch

    with torch.no_grad():
        words, pooled = read(torch.arange(count))
    return lambda captions: (words[captions], pooled[captions])


def denoising_loss(
    unet: UNet2DConditionModel, read: Read, lessons: Lessons, batch: int, *, v_prediction: bool
) -> Callable[[torch.Generator], torch.Tensor]:
    """The loss of one step: how well the U-Net names the noise in a batch of latents, or the velocity (Salimans & Ho 2022).

    Without a caption there are zeros in place of words and pooled vector, as SDXL's pipeline has them where no negative prompt is given.
    """
    import torch
    from torch.nn import functional

    schedule = build_noising(v_prediction=v_prediction)
    sizes = torch.tensor([TIME_IDS], dtype=torch.float32).expand(batch, -1)

    def loss(draws: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(lessons.latents), (batch,), generator=draws)
        clean, captions = lessons.latents[chosen], lessons.captions[chosen]
        told = (torch.rand(batch, generator=draws) >= _CAPTIONS_DROPPED).float()
        words, pooled = read(captions)
        noise = torch.randn(clean.shape, generator=draws)
        times = torch.randint(schedule.config.num_train_timesteps, (batch,), generator=draws)
        noisy = schedule.add_noise(clean, noise, times)
        beside = {"text_embeds": pooled * told[:, None], "time_ids": sizes}
        predicted = unet(noisy, times, words * told[:, None, None], added_cond_kwargs=beside).sample
        target = schedule.get_velocity(clean, noise, times) if v_prediction else noise
        return functional.mse_loss(predicted, target)

    return loss


def train(
    unet: UNet2DConditionModel,
    text_encoder_2: CLIPTextModelWithProjection,
    text_encoder: CLIPTextModel,
    lessons: Lessons,
    stage: Stage,
    *,
    name: str,
    state_folder: Path,
    v_prediction: bool = False,
) -> None:
    """Train the U-Net in place, together with what of the second encoder is trainable."""
    read = reader(text_encoder, text_encoder_2, lessons.tokens)
    encoder = [parameter for parameter in text_encoder_2.parameters() if parameter.requires_grad]
    if not encoder:
        read = frozen(read, len(lessons.tokens))
    loss = denoising_loss(unet, read, lessons, stage.batch, v_prediction=v_prediction)
    fit([*unet.parameters(), *encoder], loss, stage, name=name, state_folder=state_folder, average=True)
