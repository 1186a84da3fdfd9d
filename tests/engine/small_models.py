"""The tensors of small models with real names."""

from __future__ import annotations

import torch

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."
SHAPES = {
    f"{UNET}time_embed.0.weight": (5, 7),
    f"{UNET}input_blocks.1.1.proj_in.weight": (4, 6, 1, 1),
    f"{UNET}input_blocks.4.0.in_layers.2.weight": (33, 3, 3, 3),
    f"{UNET}middle_block.1.norm.weight": (19,),
    f"{UNET}output_blocks.3.0.skip_connection.bias": (),
    f"{UNET}out.2.weight": (2, 0, 3),
    f"{VAE}decoder.conv_in.weight": (3, 5),
    f"{TEXT}final_layer_norm.bias": (8,),
}
MARKERS = {
    f"{TEXT}embeddings.position_ids": torch.arange(7)[None],
    "v_pred": torch.tensor([]),
    "edm_vpred.sigma_min": torch.tensor(0.002),
    "flags": torch.tensor([True, False, True]),
}


def tensors(seed: int, dtype: torch.dtype = torch.float16) -> dict[str, torch.Tensor]:
    """An SD 1.x model of a few tensors: several blocks, every component, 0-d and empty tensors, markers."""
    made = torch.Generator().manual_seed(seed)
    return {key: torch.randn(shape, generator=made).to(dtype) for key, shape in SHAPES.items()} | MARKERS
