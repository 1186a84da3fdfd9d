"""Writes synthetic checkpoints of real size: the tensors of SD 1.5, SDXL, Flux or Z-Image by name and shape, filled with seeded noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel, ZImageTransformer2DModel

import workbench as wb
from workbench.checkpoint.files.writing import replacing, safetensors_header, write_at
from workbench.checkpoint.views.in_memory import InMemory
from workbench.engine.folder_plan import FolderPlan
from workbench.render.assembly import build_pipeline, read_blueprint
from workbench.render.vocabulary import SHIPPED
from workbench.tensors import TensorInfo

_NOISE = 1 << 24  # numbers of noise


def sd15_tensors() -> dict[str, TensorInfo]:
    """Name, shape and dtype (fp16) of every tensor of an SD 1.5 single file, from the libraries' own models."""
    return _single_file("sd1") | {"cond_stage_model.transformer.text_model.embeddings.position_ids": TensorInfo((1, 77), "I64")}


def sdxl_tensors() -> dict[str, TensorInfo]:
    """The same of an SDXL single file."""
    return _single_file("sdxl")


def _single_file(kind: str) -> dict[str, TensorInfo]:
    blueprint = read_blueprint(SHIPPED / kind)
    components = build_pipeline(blueprint).components
    weights = {f"{part}.{key}": tensor for part in blueprint.weighted for key, tensor in components[part].state_dict().items()}
    single = wb.in_layout(InMemory(weights, kind), "LDM")
    return {name: TensorInfo(single.info(name).shape, "F16") for name in single}


def z_image_tensors() -> dict[str, TensorInfo]:
    """Name, shape and dtype (bf16) of every tensor of Z-Image's transformer, in diffusers' layout."""
    with torch.device("meta"):
        return {name: TensorInfo(tuple(tensor.shape), "BF16") for name, tensor in ZImageTransformer2DModel().state_dict().items()}


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
