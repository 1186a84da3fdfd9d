"""Small models with a tensor in every block, which recipes of other programs are tried on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

_UNET = "model.diffusion_model."
_BESIDE = (f"{_UNET}time_embed.0.weight", f"{_UNET}out.2.weight")
_TEXT = {True: "conditioner.embedders.0.transformer.text_model.x.weight", False: "cond_stage_model.transformer.text_model.x.weight"}


def _keys(sdxl: bool) -> list[str]:
    side = range(9 if sdxl else 12)
    blocks = [f"{_UNET}{stack}_blocks.{at}.0.weight" for stack in ("input", "output") for at in side]
    label = [f"{_UNET}label_emb.0.0.weight"] if sdxl else []
    return [*blocks, f"{_UNET}middle_block.0.weight", *_BESIDE, *label, _TEXT[sdxl], "first_stage_model.decoder.conv_in.weight"]


@pytest.fixture
def sd_models(tmp_path: Path) -> Callable[..., Path]:
    """Writes base, a and b, of SD 1.x or SDXL, and returns their folder; `a` takes metadata."""

    def make(sdxl: bool = False) -> Path:
        for seed, name in enumerate(("base", "a", "b")):
            random = torch.Generator().manual_seed(seed)
            tensors = {key: torch.randn(4, 3, generator=random) for key in _keys(sdxl)}
            save_file(tensors, tmp_path / f"{name}.safetensors", {"format": "pt"})
        return tmp_path

    return make
