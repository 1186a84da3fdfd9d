"""Writes synthetic checkpoints of real size: the tensors of SD 1.5 or of Flux by name and shape, filled with seeded noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

import workbench as wb
from workbench.checkpoint.files.writing import replacing, safetensors_header, write_at
from workbench.checkpoint.views.in_memory import InMemory
from workbench.engine.folder_plan import FolderPlan
from workbench.tensors import TensorInfo

_NOISE = 1 << 24  # numbers of noise
_WIDTHS = (320, 640, 1280, 1280)


def sd15_tensors() -> dict[str, TensorInfo]:
    """Name, shape and dtype (fp16) of every tensor of an SD 1.5 single file, from the libraries' own models."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(block_out_channels=_WIDTHS, cross_attention_dim=768, attention_head_dim=8, norm_num_groups=32)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            layers_per_block=2,
            latent_channels=4,
        )
        text = CLIPTextModel(
            CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768)
        )
    parts = {"unet": unet, "vae": vae, "text_encoder": text}
    pipeline = {f"{part}.{key}": tensor for part, module in parts.items() for key, tensor in module.state_dict().items()}
    single = wb.in_layout(InMemory(pipeline, "sd15"), "LDM")
    infos = {name: TensorInfo(single.info(name).shape, "F16") for name in single}
    return infos | {"cond_stage_model.transformer.text_model.embeddings.position_ids": TensorInfo((1, 77), "I64")}


def flux_tensors(doubles: int, singles: int, guidance: bool) -> dict[str, TensorInfo]:
    """Name, shape and dtype (bf16) of every tensor of a Flux transformer with so many blocks, in diffusers' layout."""
    with torch.device("meta"):
        model = FluxTransformer2DModel(num_layers=doubles, num_single_layers=singles, guidance_embeds=guidance)
    return {name: TensorInfo(tuple(tensor.shape), "BF16") for name, tensor in model.state_dict().items()}


def write_sharded(folder: Path, infos: dict[str, TensorInfo], seed: int, limit: int) -> None:
    """A folder of shards of at most `limit` bytes, with an index, filled as `write_noise` does."""
    plan = FolderPlan()
    plan.add_shards(folder, "diffusion_pytorch_model", {name: name for name in infos}, infos, limit)
    folder.mkdir(parents=True)
    for number, file in enumerate(plan.files):
        write_noise(file.place, {name: infos[name] for name in file.names}, seed + number)
    for place, text in plan.texts.items():
        place.write_text(text)


def write_tuned(paths: Sequence[Path], infos: dict[str, TensorInfo]) -> None:
    """A base, as `write_noise` makes it, and models tuned from it: a tenth of the way to other noise. Files that are there stay."""
    base, *tuned = paths
    if not base.exists():
        write_noise(base, infos, 0)
    for seed, path in enumerate(tuned, 100):
        if not path.exists():
            noise = path.with_name("noise.safetensors")
            write_noise(noise, infos, seed)
            wb.export(wb.operators.weighted_average([wb.open(base), wb.open(noise)], weights=[0.9, 0.1]), path)
            noise.unlink()


def write_noise(path: Path, infos: dict[str, TensorInfo], seed: int) -> None:
    """A safetensors file of these tensors, all floats of one dtype, filled with normal noise of a trained layer's size (0.02)."""
    header, begins = safetensors_header(infos, {"format": "pt"})
    generator = torch.Generator().manual_seed(seed)
    dtype = next(info.dtype for info in infos.values() if info.is_float)
    noise = (0.02 * torch.randn(_NOISE, generator=generator)).to(dtype)
    with replacing(path) as temporary, temporary.open("r+b", buffering=0) as file:
        write_at(file.fileno(), memoryview(header), 0)
        for name, info in infos.items():
            if info.code == "I64":
                write_at(file.fileno(), _bytes(torch.arange(info.numel)), begins[name])
                continue
            # the noise over and over, from a place of the tensor's own
            start, done = int(torch.randint(_NOISE, (1,), generator=generator)), 0
            while done < info.numel:
                piece = noise[start : start + info.numel - done]
                write_at(file.fileno(), _bytes(piece), begins[name] + done * info.itemsize)
                start, done = 0, done + piece.numel()


def _bytes(tensor: torch.Tensor) -> memoryview:
    return memoryview(tensor.view(torch.uint8).numpy())
