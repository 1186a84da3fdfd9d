"""The files of the Flux pair: sharded pipeline folders, and a transformer in one file under Black Forest Labs' names."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from training.files import forget_folders
from training.flux_parts import build_flow_schedule
from workbench.checkpoint import in_layout
from workbench.checkpoint import open as open_checkpoint

if TYPE_CHECKING:
    from diffusers import FluxPipeline, FluxTransformer2DModel

    from training.flux_shared import Shared


def build_pipeline(flux: FluxTransformer2DModel, shared: Shared) -> FluxPipeline:
    """The parts as diffusers puts them together, the schedule that of the transformer's kind."""
    from diffusers import FluxPipeline

    return FluxPipeline(
        scheduler=build_flow_schedule(guidance=flux.config.guidance_embeds),
        vae=shared.vae,
        text_encoder=shared.clip,
        tokenizer=shared.tokenizer,
        text_encoder_2=shared.t5,
        tokenizer_2=shared.tokenizer_2,
        transformer=flux,
    )


def write_pipeline(folder: Path, flux: FluxTransformer2DModel, shared: Shared, tokenizers: Mapping[str, Path], *, shard: str) -> None:
    """A whole pipeline folder in bfloat16; a component larger than `shard` lies in several files beside their index.

    The tokenizers' own folders are copied: one that has been used writes down how.
    """
    import torch

    shutil.rmtree(folder, ignore_errors=True)  # an earlier run's shards may have other names
    build_pipeline(flux, shared).to(torch.bfloat16).save_pretrained(folder, max_shard_size=shard)
    forget_folders(folder)
    for name, source in tokenizers.items():
        shutil.rmtree(folder / name)
        shutil.copytree(source, folder / name)


def write_transformer(path: Path, folder: Path) -> None:
    """The transformer of a pipeline folder alone in one file, as Black Forest Labs publish theirs."""
    from safetensors.torch import save_file

    transformer = in_layout(open_checkpoint(folder / "transformer"), "BFL")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: transformer.read(key).contiguous() for key in transformer}, path, metadata={"format": "pt"})
