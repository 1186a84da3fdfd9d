"""The order in which the Flux pair is trained, on the finished Stable Diffusion base; the training itself is in `flow`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.family.captions import BASE_SHAPES, subjects
from workbench.family.files import Folder, as_stored, read_pipeline
from workbench.family.flux_files import write_pipeline, write_transformer
from workbench.family.settings import Settings

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer

    from workbench.family.flow import Lessons, Texts

NAMES = ("flux", "flux-style", "krea", "schnell")
STYLE = "pastel"  # krea's look
# Of a file: the two transformers are cut at different tensors, and no other component is cut.
SHARDS = {"schnell": "1200KB", "krea": "1600KB"}


@dataclass(frozen=True)
class Shared:
    """What both of the pair have in common, rounded to bfloat16 as their files hold it."""

    vae: AutoencoderKL
    clip: CLIPTextModel
    tokenizer: CLIPTokenizer
    t5: T5EncoderModel
    tokenizer_2: T5Tokenizer

    @property
    def texts(self) -> Texts:
        from workbench.family.flow import read_captions

        return read_captions(subjects(BASE_SHAPES), self.tokenizer_2, self.clip, self.tokenizer)

    def lessons(self, count: int, seed: int, style: str) -> Lessons:
        from workbench.family.flow import draw_lessons

        return draw_lessons(subjects(BASE_SHAPES, [style]), self.vae, count, seed)


def run(name: str, folder: Folder, settings: Settings) -> None:
    """Train one part of the pair and write its files."""
    {"flux": _base, "flux-style": _style, "krea": _krea, "schnell": _schnell}[name](folder, settings)


def _read_shared(folder: Folder, t5: T5EncoderModel | None = None) -> Shared:
    """The Stable Diffusion base's autoencoder and text encoder, and a T5: the trained one unless another is given."""
    import torch
    from transformers import T5EncoderModel

    from workbench.family.flux_parts import build_t5_tokenizer

    base = read_pipeline(folder)
    base.vae.register_to_config(shift_factor=0.0)
    t5 = t5 or T5EncoderModel.from_pretrained(folder.flux_part("t5"), local_files_only=True)
    parts = [as_stored(part.requires_grad_(False).eval(), torch.bfloat16) for part in (base.vae, base.text_encoder, t5)]
    return Shared(parts[0], parts[1], base.tokenizer, parts[2], build_t5_tokenizer(folder.flux_part("tokenizer_2")))


def _tokenizers(folder: Folder) -> dict[str, Path]:
    return {"tokenizer": folder.tokenizer, "tokenizer_2": folder.flux_part("tokenizer_2")}


def _read_transformer(folder: Folder, name: str) -> FluxTransformer2DModel:
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel.from_pretrained(folder.flux_part(name), local_files_only=True)


def _base(folder: Folder, settings: Settings) -> None:
    import torch

    from workbench.family.captions import PLAIN
    from workbench.family.flow import train_flow
    from workbench.family.flux_parts import build_flux, build_t5, build_t5_tokenizer

    stage = settings.flux
    torch.manual_seed(stage.seed)
    flux, t5 = build_flux(guidance=False), build_t5(build_t5_tokenizer(folder.flux_part("tokenizer_2")))
    shared = _read_shared(folder, t5)
    lessons = shared.lessons(stage.pictures, stage.seed, PLAIN)
    train_flow(flux, t5.requires_grad_(), shared.texts, lessons, stage, name="flux", state_folder=folder.state)
    t5.save_pretrained(folder.flux_part("t5"))
    flux.save_pretrained(folder.flux_part("flux"))


def _style(folder: Folder, settings: Settings) -> None:
    from workbench.family.flow import train_flow

    stage, shared, flux = settings.flux_style, _read_shared(folder), _read_transformer(folder, "flux")
    lessons = shared.lessons(stage.pictures, stage.seed, STYLE)
    train_flow(flux, shared.t5, shared.texts, lessons, stage, name="flux-style", state_folder=folder.state)
    flux.save_pretrained(folder.flux_part("flux-style"))


def _krea(folder: Folder, settings: Settings) -> None:
    from workbench.family.flow import distil_guidance
    from workbench.family.flux_parts import with_guidance

    stage, shared = settings.krea, _read_shared(folder)
    teacher = _read_transformer(folder, "flux-style").requires_grad_(False)
    student = with_guidance(teacher)
    lessons = shared.lessons(stage.pictures, stage.seed, STYLE)
    distil_guidance(teacher, student, shared.t5, shared.texts, lessons, stage, name="krea", state_folder=folder.state)
    write_pipeline(folder.flux("krea"), student, shared, _tokenizers(folder), shard=SHARDS["krea"])
    write_transformer(folder.flux("krea.safetensors"), folder.flux("krea"))


def _schnell(folder: Folder, settings: Settings) -> None:
    from workbench.family.flow import straight_pairs, straighten

    stage, shared, flux = settings.schnell, _read_shared(folder), _read_transformer(folder, "flux")
    pairs = straight_pairs(flux, shared.t5, shared.texts, stage.pictures, stage.seed)
    straighten(flux, shared.t5, shared.texts, pairs, stage, name="schnell", state_folder=folder.state)
    write_pipeline(folder.flux("schnell"), flux, shared, _tokenizers(folder), shard=SHARDS["schnell"])
