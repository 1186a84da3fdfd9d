"""The order in which the Flux pair is trained, on the finished Stable Diffusion base; the training itself is in `flow`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from training.files import Folder
from training.flux_files import write_pipeline, write_transformer
from training.flux_shared import read_shared
from training.settings import Settings

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

NAMES = ("flux", "flux-style", "krea", "schnell")
STYLE = "pastel"  # krea's look
# Of a file: the two transformers are cut at different tensors, and no other component is cut.
SHARDS = {"schnell": "1200KB", "krea": "1600KB"}


def run(name: str, folder: Folder, settings: Settings) -> None:
    """Train one part of the pair and write its files."""
    {"flux": _base, "flux-style": _style, "krea": _krea, "schnell": _schnell}[name](folder, settings)


def _tokenizers(folder: Folder) -> dict[str, Path]:
    return {"tokenizer": folder.tokenizer, "tokenizer_2": folder.flux_part("tokenizer_2")}


def _read_transformer(folder: Folder, name: str) -> FluxTransformer2DModel:
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel.from_pretrained(folder.flux_part(name), local_files_only=True)


def _base(folder: Folder, settings: Settings) -> None:
    import torch

    from training.flow import train_flow
    from training.flux_parts import build_flux, build_t5, build_t5_tokenizer
    from workbench.demo.captions import PLAIN

    stage = settings.flux
    torch.manual_seed(stage.seed)
    flux, t5 = build_flux(guidance=False), build_t5(build_t5_tokenizer(folder.flux_part("tokenizer_2")))
    shared = read_shared(folder, t5)
    lessons = shared.lessons(stage.pictures, stage.seed, PLAIN)
    train_flow(flux, t5.requires_grad_(), shared.texts, lessons, stage, name="flux", state_folder=folder.state)
    t5.save_pretrained(folder.flux_part("t5"))
    flux.save_pretrained(folder.flux_part("flux"))


def _style(folder: Folder, settings: Settings) -> None:
    from training.flow import train_flow

    stage, shared, flux = settings.flux_style, read_shared(folder), _read_transformer(folder, "flux")
    lessons = shared.lessons(stage.pictures, stage.seed, STYLE)
    train_flow(flux, shared.t5, shared.texts, lessons, stage, name="flux-style", state_folder=folder.state)
    flux.save_pretrained(folder.flux_part("flux-style"))


def _krea(folder: Folder, settings: Settings) -> None:
    from training.flow import distil_guidance
    from training.flux_parts import with_guidance

    stage, shared = settings.krea, read_shared(folder)
    teacher = _read_transformer(folder, "flux-style").requires_grad_(False)
    student = with_guidance(teacher)
    lessons = shared.lessons(stage.pictures, stage.seed, STYLE)
    distil_guidance(teacher, student, shared.t5, shared.texts, lessons, stage, name="krea", state_folder=folder.state)
    write_pipeline(folder.flux("krea"), student, shared, _tokenizers(folder), shard=SHARDS["krea"])
    write_transformer(folder.flux("krea.safetensors"), folder.flux("krea"))


def _schnell(folder: Folder, settings: Settings) -> None:
    from training.flow import straight_pairs, straighten

    stage, shared, flux = settings.schnell, read_shared(folder), _read_transformer(folder, "flux")
    pairs = straight_pairs(flux, shared.t5, shared.texts, stage.pictures, stage.seed)
    straighten(flux, shared.t5, shared.texts, pairs, stage, name="schnell", state_folder=folder.state)
    write_pipeline(folder.flux("schnell"), flux, shared, _tokenizers(folder), shard=SHARDS["schnell"])
