"""The order in which the SDXL family is trained, on the finished Stable Diffusion base; the training itself is in `sdxl`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.denoiser import VARIANTS, join, prepare
from training.files import Folder, as_stored, read_pipeline
from training.sdxl_files import V_MARKERS, build_pipeline, read_sdxl, write_config, write_unet, write_whole
from training.settings import Settings, Stage
from training.words import known_distances, set_apart
from workbench.demo.captions import BASE_SHAPES, subjects

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionXLPipeline

    from training.denoiser import Lessons

NAMES = ("sdxl", "sdxl-heart", "sdxl-v")


def run(name: str, folder: Folder, settings: Settings) -> None:
    """Train one part of the family and write its files."""
    {"sdxl": _base, "sdxl-heart": _heart, "sdxl-v": _v}[name](folder, settings)


def _base(folder: Folder, settings: Settings) -> None:
    """The Stable Diffusion base lends its autoencoder, its tokenizer and its text encoder, which learns nothing more."""
    import torch

    from training.sdxl import train
    from training.sdxl_parts import build_sdxl_unet, build_text_encoder_2

    stage, lender = settings.sdxl, read_pipeline(folder)
    tokenizer = lender.tokenizer
    torch.manual_seed(stage.seed)
    unet, text_encoder_2 = build_sdxl_unet(), build_text_encoder_2(tokenizer)
    lessons = prepare(subjects(BASE_SHAPES), lender.vae, tokenizer, stage.pictures, stage.seed)
    train(unet, text_encoder_2, lender.text_encoder, lessons, stage, name="sdxl", state_folder=folder.state)
    known = known_distances(as_stored(text_encoder_2), tokenizer, what_is_read)
    set_apart(text_encoder_2, tokenizer, what_is_read, known)
    pipeline = build_pipeline(unet, text_encoder_2, lender)
    write_config(folder, pipeline)
    write_whole(folder.sdxl("base.safetensors"), pipeline)


def what_is_read(said: Any, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the second encoder's captions: all that the U-Net is told of them."""
    return said.hidden_states[-2].flatten(1), said.text_embeds


def _heart(folder: Folder, settings: Settings) -> None:
    """A new shape, half of the pictures; the other half are the base's."""
    stage, base = settings.sdxl_shape, read_sdxl(folder)
    new = prepare(VARIANTS["heart"], base.vae, base.tokenizer, stage.pictures, stage.seed)
    _go_on(base, join(new, _known(base, stage)), stage, folder, "sdxl-heart")
    write_unet(folder.sdxl("heart.safetensors"), base.unet)


def _v(folder: Folder, settings: Settings) -> None:
    """The base's pictures once more: what changes is what the U-Net predicts, and how far pictures are noised."""
    stage, base = settings.sdxl_v, read_sdxl(folder)
    _go_on(base, _known(base, stage), stage, folder, "sdxl-v", v_prediction=True)
    write_unet(folder.sdxl("base-v.safetensors"), base.unet, V_MARKERS)


def _known(base: StableDiffusionXLPipeline, stage: Stage) -> Lessons:
    return prepare(subjects(BASE_SHAPES), base.vae, base.tokenizer, stage.pictures, stage.seed + 50)


def _go_on(
    base: StableDiffusionXLPipeline, lessons: Lessons, stage: Stage, folder: Folder, name: str, *, v_prediction: bool = False
) -> None:
    """Go on with the base's U-Net, in place; the text encoders stay what they are."""
    from training.sdxl import train

    encoder_2 = base.text_encoder_2.requires_grad_(False)
    train(base.unet, encoder_2, base.text_encoder, lessons, stage, name=name, state_folder=folder.state, v_prediction=v_prediction)
