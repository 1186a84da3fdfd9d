"""The order of training: which part is made from which, and into which file; the training is in other modules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from training import flux_stages, sdxl_stages, z_image_stages
from training.denoiser import VARIANTS, train_base, train_variant
from training.files import Folder, as_stored, read_pipeline, write_checkpoint, write_config, write_lora
from training.settings import Settings
from training.words import set_apart
from workbench.demo.captions import NEW_SHAPES

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

NAMES = (
    "vae", "clip", "base", *VARIANTS, "lora", *flux_stages.NAMES, *sdxl_stages.NAMES, *z_image_stages.NAMES,
)  # fmt: skip


def run(name: str, out: Path, settings: Settings) -> None:
    """Train one part and write its files."""
    folder = Folder(Path(out))
    if name in VARIANTS:
        _variant(name, folder, settings)
    elif name in flux_stages.NAMES:
        flux_stages.run(name, folder, settings)
    elif name in sdxl_stages.NAMES:
        sdxl_stages.run(name, folder, settings)
    elif name in z_image_stages.NAMES:
        z_image_stages.run(name, folder, settings)
    else:
        {"vae": _vae, "clip": _clip, "base": _base, "lora": _lora}[name](folder, settings)


def _vae(folder: Folder, settings: Settings) -> None:
    from training.autoencoder import train_decoder, train_vae

    vae = as_stored(train_vae(settings.vae, folder.state))
    vae.save_pretrained(folder.vae)  # the base may start on its latents while the decoder goes on
    train_decoder(vae, settings.decoder, folder.state)
    as_stored(vae).save_pretrained(folder.vae)


def _clip(folder: Folder, settings: Settings) -> None:
    from training.scorer import train_clip

    train_clip(settings.clip, folder.clip, folder.state)


def _read_vae(folder: Folder) -> AutoencoderKL:
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(folder.vae, local_files_only=True)


def _base(folder: Folder, settings: Settings) -> None:
    from training.parts import build_tokenizer

    vae, tokenizer = _read_vae(folder), build_tokenizer(folder.tokenizer)
    unet, text_encoder = train_base(vae, tokenizer, settings.base, folder.state)
    set_apart(as_stored(text_encoder), tokenizer)
    vae = _read_vae(folder)  # again: its decoder may have been finished meanwhile, beside this training
    write_config(folder, unet, vae, text_encoder, tokenizer)
    write_checkpoint(folder.checkpoint("base"), unet, vae, text_encoder)


def _variant(name: str, folder: Folder, settings: Settings) -> None:
    base = read_pipeline(folder)
    base.text_encoder.requires_grad_(False)
    stage = settings.shape if name in NEW_SHAPES else settings.style
    train_variant(name, base.unet, base.text_encoder, base.vae, base.tokenizer, stage, folder.state)
    write_checkpoint(folder.checkpoint(name), base.unet, base.vae, base.text_encoder)


def _lora(folder: Folder, settings: Settings) -> None:
    import torch
    from peft import LoraConfig

    base = read_pipeline(folder)
    base.unet.requires_grad_(False)
    torch.manual_seed(settings.lora.seed)
    attention = ["to_q", "to_k", "to_v", "to_out.0"]
    base.unet.add_adapter(LoraConfig(r=settings.lora_rank, lora_alpha=settings.lora_rank, target_modules=attention))
    train_variant("stripes", base.unet, base.text_encoder, base.vae, base.tokenizer, settings.lora, folder.state, label="lora")
    write_lora(folder.lora("stripes"), base.unet, settings.lora_rank)
