"""Trains what makes pictures: the base U-Net with its text encoder, the variants fine-tuned from it, and the LoRA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from training.autoencoder import encode
from training.loop import fit
from training.parts import build_schedule, build_text_encoder, build_unet, tokens_of
from training.pictures import sample
from training.settings import Stage
from workbench.demo.captions import BASE_SHAPES, Subject, subjects

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

_CAPTIONS_DROPPED = 0.1  # so that the pictures without a caption are known too, and guidance works

# What each variant learns besides the base's own subjects.
VARIANTS: dict[str, list[Subject]] = {
    "outline": subjects(BASE_SHAPES, ["outline"]),
    "stripes": subjects(BASE_SHAPES, ["stripes"]),
    "heart": subjects(["heart"]),
    "moon": subjects(["moon"]),
    "pastel": subjects(BASE_SHAPES, ["pastel"]),
}


@dataclass(frozen=True)
class Lessons:
    """Latents [n, 4, 8, 8], the caption of each [n], and the captions' tokens, the empty caption's last."""

    latents: torch.Tensor
    captions: torch.Tensor
    tokens: torch.Tensor


def prepare(wanted: Sequence[Subject], vae: AutoencoderKL, tokenizer: CLIPTokenizer, count: int, seed: int) -> Lessons:
    """Draw and encode the pictures once; training then never touches the autoencoder."""
    import torch

    pictures, which = sample(wanted, count, seed)
    tokens = tokens_of(tokenizer, [subject.caption for subject in wanted] + [""])
    return Lessons(encode(vae, pictures), torch.from_numpy(which), tokens)


def join(first: Lessons, second: Lessons) -> Lessons:
    """Both sets of lessons, with one table of captions."""
    import torch

    tokens = torch.cat([first.tokens[:-1], second.tokens])
    captions = torch.cat([first.captions, second.captions + len(first.tokens) - 1])
    return Lessons(torch.cat([first.latents, second.latents]), captions, tokens)


def denoising_loss(
    unet: UNet2DConditionModel, embed: Callable[[torch.Tensor], torch.Tensor], lessons: Lessons, batch: int
) -> Callable[[torch.Generator], torch.Tensor]:
    """The loss of one step: how well the U-Net names the noise that was added to a batch of latents."""
    import torch
    from torch.nn import functional

    schedule = build_schedule()
    blank = len(lessons.tokens) - 1

    def loss(draws: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(lessons.latents), (batch,), generator=draws)
        clean, captions = lessons.latents[chosen], lessons.captions[chosen]
        captions = captions.masked_fill(torch.rand(batch, generator=draws) < _CAPTIONS_DROPPED, blank)
        noise = torch.randn(clean.shape, generator=draws)
        times = torch.randint(schedule.config.num_train_timesteps, (batch,), generator=draws)
        noisy = schedule.add_noise(clean, noise, times)
        return functional.mse_loss(unet(noisy, times, embed(captions)).sample, noise)

    return loss


def train_base(
    vae: AutoencoderKL, tokenizer: CLIPTokenizer, stage: Stage, state_folder: Path
) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """The U-Net and the text encoder, trained together on the base's subjects."""
    import torch

    lessons = prepare(subjects(BASE_SHAPES), vae, tokenizer, stage.pictures, stage.seed)
    torch.manual_seed(stage.seed)
    unet, text_encoder = build_unet(), build_text_encoder(tokenizer)

    def embed(captions: torch.Tensor) -> torch.Tensor:
        return text_encoder(lessons.tokens[captions]).last_hidden_state

    loss = denoising_loss(unet, embed, lessons, stage.batch)
    parameters = [*unet.parameters(), *text_encoder.parameters()]
    fit(parameters, loss, stage, name="base", state_folder=state_folder, average=True)
    return unet, text_encoder


def train_variant(
    name: str,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    stage: Stage,
    state_folder: Path,
    label: str | None = None,
) -> None:
    """Fine-tune what of the U-Net is trainable, in place: half on the variant's own subjects, half on the base's."""
    import torch

    seed = stage.seed * 100 + list(VARIANTS).index(name)
    new = prepare(VARIANTS[name], vae, tokenizer, stage.pictures, seed)
    old = prepare(subjects(BASE_SHAPES), vae, tokenizer, stage.pictures, seed + 50)
    lessons = join(new, old)
    with torch.no_grad():
        meanings = text_encoder(lessons.tokens).last_hidden_state
    loss = denoising_loss(unet, lambda captions: meanings[captions], lessons, stage.batch)
    trainable = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    fit(trainable, loss, stage, name=label or name, state_folder=state_folder, average=True)
