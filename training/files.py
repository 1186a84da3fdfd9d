"""The files of the family: single-file checkpoints, the kohya LoRA, the diffusers-side `config/`; no training."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from training.parts import MAX_TOKENS, build_schedule
from workbench.checkpoint import in_layout
from workbench.checkpoint.views.in_memory import InMemory

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer


@dataclass(frozen=True)
class Folder:
    """Where everything lies below the folder the family is trained into."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "shapes-sd" / "config"

    @property
    def tokenizer(self) -> Path:
        return self.config / "tokenizer"

    @property
    def clip(self) -> Path:
        return self.root / "shapes-clip"

    @property
    def vae(self) -> Path:
        """The autoencoder alone: what training needs before there is a checkpoint; not published."""
        return self.root / "parts" / "vae"

    @property
    def state(self) -> Path:
        """Where interrupted training resumes; not published."""
        return self.root / "parts" / "state"

    def sdxl(self, name: str) -> Path:
        return self.root / "shapes-sdxl" / name

    def flux(self, name: str) -> Path:
        return self.root / "shapes-flux" / name

    def flux_part(self, name: str) -> Path:
        """What the Flux pair is made from; not published."""
        return self.root / "parts" / "flux" / name

    @property
    def z_image(self) -> Path:
        return self.root / "shapes-z-image"

    def z_image_part(self, name: str) -> Path:
        """What the small Z-Image is made from; not published."""
        return self.root / "parts" / "z-image" / name

    def checkpoint(self, name: str) -> Path:
        return self.root / "shapes-sd" / f"{name}.safetensors"

    def lora(self, name: str) -> Path:
        return self.root / "shapes-sd" / "lora" / f"{name}.safetensors"


def write_config(
    folder: Folder,
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
) -> None:
    """The diffusers side of the checkpoints: every configuration and the tokenizer, no weights."""
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    sampler = DPMSolverMultistepScheduler.from_config(build_schedule().config, use_karras_sigmas=True)
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=sampler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder.config)
    for weights in folder.config.rglob("*.safetensors"):
        weights.unlink()
    forget_folders(folder.config)


def forget_folders(pipeline: Path) -> None:
    """Take out of a pipeline folder's configurations where they came from: that is nobody's business."""
    for path in pipeline.rglob("config.json"):
        settings = json.loads(path.read_text(encoding="utf-8"))
        settings.pop("_name_or_path", None)
        path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_checkpoint(path: Path, unet: UNet2DConditionModel, vae: AutoencoderKL, text_encoder: CLIPTextModel) -> None:
    """One fp16 file in the layout and under the names of SD 1.5."""
    import torch
    from safetensors.torch import save_file

    parts = {"unet": unet, "vae": vae, "text_encoder": text_encoder}
    pipeline = {f"{component}.{key}": tensor.half() for component, part in parts.items() for key, tensor in part.state_dict().items()}
    tensors = dict(in_layout(InMemory(pipeline, path.stem), "LDM"))
    # SD 1.5 files carry this buffer, as integers; today's transformers no longer saves it.
    tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(MAX_TOKENS)[None]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"format": "pt"})


def write_lora(path: Path, unet: UNet2DConditionModel, rank: int, base_version: str = "sd_v1") -> None:
    """The U-Net's adapter in kohya's format, fp16."""
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    tensors = {}
    for key, tensor in get_peft_model_state_dict(unet).items():
        module, side = re.fullmatch(r"(.+)\.lora_(A|B)\.weight", key).groups()
        name = "lora_unet_" + module.replace(".", "_")
        tensors[f"{name}.lora_{'down' if side == 'A' else 'up'}.weight"] = tensor.half().contiguous()
        tensors[f"{name}.alpha"] = torch.tensor(float(rank), dtype=torch.float16)
    metadata = {
        "format": "pt",
        "ss_base_model_version": base_version,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(float(rank)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata=metadata)


def read_pipeline(folder: Folder, name: str = "base") -> StableDiffusionPipeline:
    """The pipeline of one of the family's checkpoints, in fp32."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_single_file(str(folder.checkpoint(name)), config=str(folder.config), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def as_stored(model: torch.nn.Module, dtype: torch.dtype | None = None) -> torch.nn.Module:
    """The model with its weights rounded to what its file holds (fp16, unless given), so that training on it fits that file."""
    return (model.to(dtype) if dtype else model.half()).float()
