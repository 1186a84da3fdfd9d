"""The files of the Flux pair: sharded pipeline folders, and a transformer in one file under Black Forest Labs' names."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.family.files import forget_folders
from workbench.family.flux_parts import build_flow_schedule

if TYPE_CHECKING:
    import torch
    from diffusers import FluxPipeline, FluxTransformer2DModel

    from workbench.family.flux_stages import Shared

# Black Forest Labs' module <- diffusers' modules, whose rows lie there one after the other; "#" is the block's number.
_FUSED: dict[str, tuple[str, ...]] = {
    "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
    "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
    "guidance_in.in_layer": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_text_embed.guidance_embedder.linear_2",),
    "txt_in": ("context_embedder",),
    "img_in": ("x_embedder",),
    "double_blocks.#.img_mod.lin": ("transformer_blocks.#.norm1.linear",),
    "double_blocks.#.txt_mod.lin": ("transformer_blocks.#.norm1_context.linear",),
    "double_blocks.#.img_attn.qkv": tuple(f"transformer_blocks.#.attn.to_{part}" for part in "qkv"),
    "double_blocks.#.txt_attn.qkv": tuple(f"transformer_blocks.#.attn.add_{part}_proj" for part in "qkv"),
    "double_blocks.#.img_attn.norm.query_norm": ("transformer_blocks.#.attn.norm_q",),
    "double_blocks.#.img_attn.norm.key_norm": ("transformer_blocks.#.attn.norm_k",),
    "double_blocks.#.txt_attn.norm.query_norm": ("transformer_blocks.#.attn.norm_added_q",),
    "double_blocks.#.txt_attn.norm.key_norm": ("transformer_blocks.#.attn.norm_added_k",),
    "double_blocks.#.img_mlp.0": ("transformer_blocks.#.ff.net.0.proj",),
    "double_blocks.#.img_mlp.2": ("transformer_blocks.#.ff.net.2",),
    "double_blocks.#.txt_mlp.0": ("transformer_blocks.#.ff_context.net.0.proj",),
    "double_blocks.#.txt_mlp.2": ("transformer_blocks.#.ff_context.net.2",),
    "double_blocks.#.img_attn.proj": ("transformer_blocks.#.attn.to_out.0",),
    "double_blocks.#.txt_attn.proj": ("transformer_blocks.#.attn.to_add_out",),
    "single_blocks.#.modulation.lin": ("single_transformer_blocks.#.norm.linear",),
    "single_blocks.#.linear1": (*(f"single_transformer_blocks.#.attn.to_{part}" for part in "qkv"), "single_transformer_blocks.#.proj_mlp"),
    "single_blocks.#.norm.query_norm": ("single_transformer_blocks.#.attn.norm_q",),
    "single_blocks.#.norm.key_norm": ("single_transformer_blocks.#.attn.norm_k",),
    "single_blocks.#.linear2": ("single_transformer_blocks.#.proj_out",),
    "final_layer.linear": ("proj_out",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
}


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


def write_transformer(path: Path, flux: FluxTransformer2DModel) -> None:
    """The transformer alone in one bfloat16 file, as Black Forest Labs publish theirs."""
    import torch
    from safetensors.torch import save_file

    tensors = {key: tensor.to(torch.bfloat16).contiguous() for key, tensor in to_bfl(flux.state_dict()).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"format": "pt"})


def to_bfl(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A transformer's tensors under Black Forest Labs' names; the reverse of diffusers' `convert_flux_transformer_checkpoint_to_diffusers`.

    Raises ValueError naming tensors that have no place there.
    """
    import torch

    written, used = {}, set()
    blocks = {int(found[1]) for key in state if (found := re.match(r"(?:single_)?transformer_blocks\.(\d+)\.", key))}
    for name, sources in _FUSED.items():
        for block in sorted(blocks) if "#" in name else [0]:
            for kind in ("weight", "bias"):
                keys = [f"{source}.{kind}".replace("#", str(block)) for source in sources]
                if not all(key in state for key in keys):
                    continue
                used.update(keys)
                target = f"{name}.{'scale' if name.endswith('_norm') else kind}".replace("#", str(block))
                written[target] = torch.cat([state[key] for key in keys])
    for key in [key for key in written if key.startswith("final_layer.adaLN_modulation.")]:
        scale, shift = written[key].chunk(2)  # diffusers has them in this order, Black Forest Labs in the other
        written[key] = torch.cat([shift, scale])
    if left := sorted(set(state) - used):
        raise ValueError(f"no Black Forest Labs name for {', '.join(left)}")
    return written
