"""The files of the SDXL family: a whole single file, U-Nets alone with their markers, the diffusers-side `config/`; no training."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.files import Folder, forget_folders
from training.parts import MAX_TOKENS
from training.sdxl_parts import build_sampler
from workbench.checkpoint import in_layout
from workbench.checkpoint.views.in_memory import InMemory

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModelWithProjection

# What files of v-prediction models with zero terminal SNR carry, so that programs know: NoobAI's, for instance. Empty tensors.
V_MARKERS = ("v_pred", "ztsnr")
_COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2")


def build_pipeline(
    unet: UNet2DConditionModel, text_encoder_2: CLIPTextModelWithProjection, lender: StableDiffusionPipeline
) -> StableDiffusionXLPipeline:
    """The parts as diffusers puts them together; autoencoder, tokenizer and first encoder are the lender's."""
    from diffusers import StableDiffusionXLPipeline

    return StableDiffusionXLPipeline(
        vae=lender.vae,
        text_encoder=lender.text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=lender.tokenizer,
        tokenizer_2=lender.tokenizer,
        unet=unet,
        scheduler=build_sampler(),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def write_config(folder: Folder, pipeline: StableDiffusionXLPipeline) -> None:
    """The diffusers side of the checkpoints: every configuration and both tokenizers, no weights.

    The tokenizers' own folder is copied: one that has been used writes down how.
    """
    config = folder.sdxl("config")
    shutil.rmtree(config, ignore_errors=True)
    pipeline.save_pretrained(config)
    for weights in config.rglob("*.safetensors"):
        weights.unlink()
    forget_folders(config)
    for name in ("tokenizer", "tokenizer_2"):
        shutil.rmtree(config / name)
        shutil.copytree(folder.tokenizer, config / name)


def _in_half(**modules: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The modules' weights under SDXL's own names, in fp16."""
    tensors = {f"{component}.{key}": tensor.half() for component, part in modules.items() for key, tensor in part.state_dict().items()}
    return {key: tensor.contiguous() for key, tensor in in_layout(InMemory(tensors, "shapes-sdxl"), "LDM").items()}


def _save(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"format": "pt"})


def write_whole(path: Path, pipeline: StableDiffusionXLPipeline) -> None:
    """All of a model in one file, in the layout and under the names of SDXL."""
    import torch

    tensors = _in_half(**{name: getattr(pipeline, name) for name in _COMPONENTS})
    # SDXL's file carries this buffer, as integers; today's transformers no longer saves it.
    tensors["conditioner.embedders.0.transformer.text_model.embeddings.position_ids"] = torch.arange(MAX_TOKENS)[None]
    _save(path, tensors)


def write_unet(path: Path, unet: UNet2DConditionModel, markers: Sequence[str] = ()) -> None:
    """The U-Net alone, under the names that it has in a whole file, and empty tensors beside it that say what it is."""
    import torch

    _save(path, _in_half(unet=unet) | {marker: torch.tensor([]) for marker in markers})


def read_sdxl(folder: Folder, name: str = "base") -> StableDiffusionXLPipeline:
    """The pipeline of one of the family's models, in fp32: a U-Net that lies alone takes everything else from the base."""
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

    base, config = folder.sdxl("base.safetensors"), folder.sdxl("config")
    pipeline = StableDiffusionXLPipeline.from_single_file(str(base), config=str(config), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    if name != "base":
        path = folder.sdxl(f"{name}.safetensors")
        pipeline.unet = UNet2DConditionModel.from_single_file(str(path), config=str(config), subfolder="unet", local_files_only=True)
        pipeline.scheduler = build_sampler(v_prediction=_has_markers(path))
    return pipeline


def _has_markers(path: Path) -> bool:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return set(V_MARKERS) <= set(file.keys())
