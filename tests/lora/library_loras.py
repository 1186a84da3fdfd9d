"""LoRA files made by the libraries themselves, on small models of real names, with what the libraries then compute."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from families.key_lists import VARIANTS
from held import Held
from safetensors.torch import save_file

import workbench as wb

FAMILIES = ("SD 1.x", "SD 2.x", "SDXL", "Flux")
# the layers that are changed: of each sort, in the middle and on both sides
LAYERS = {
    False: r"mid_block\..*|down_blocks\.[01]\.(attentions|resnets|downsamplers)\.0\..*|up_blocks\.1\.attentions\.1\.proj_.*|conv_in",
    True: r"transformer_blocks\.1\..*|single_transformer_blocks\.2\..*|proj_out|x_embedder",
}
_SHALLOW = {
    "block_out_channels": (8, 8),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
}
# as few layers as the family can have
_DEPTH = {"SD 1.x": _SHALLOW, "SD 2.x": _SHALLOW, "SDXL": {"transformer_layers_per_block": [1, 2, 2], "layers_per_block": 1}, "Flux": {}}


def model(family: str) -> torch.nn.Module:
    """A small model with random numbers, the same at every call."""
    import diffusers

    _, name, settings = VARIANTS[family]
    torch.manual_seed(1)
    return getattr(diffusers, name)(**settings | _DEPTH[family]).eval()


def base(family: str, layout: str = "diffusers") -> wb.Checkpoint:
    """Its tensors in a layout: in diffusers' below the component's name, else as the family's own files have them."""
    whole = model(family)
    component = "transformer" if family == "Flux" else "unet"
    held = Held({f"{component}.{name}": tensor.clone() for name, tensor in whole.state_dict().items()}, "base")
    return held if layout == "diffusers" else wb.in_layout(held, layout)


@cache
def given(family: str) -> dict[str, Any]:
    """What the model is asked."""
    torch.manual_seed(2)
    if family == "Flux":
        ids = torch.zeros(4, 3)
        sizes = {"hidden_states": (1, 4, 64), "encoder_hidden_states": (1, 4, 8), "pooled_projections": (1, 8)}
        return {name: torch.randn(size) for name, size in sizes.items()} | {"timestep": torch.tensor([0.5]), "img_ids": ids, "txt_ids": ids}
    told = {"sample": torch.randn(1, 4, 16, 16), "timestep": torch.tensor([7]), "encoder_hidden_states": torch.randn(1, 3, 8)}
    if family == "SDXL":
        told["added_cond_kwargs"] = {"text_embeds": torch.randn(1, 8), "time_ids": torch.randn(1, 6)}
    if family == "SDXL":
        told["encoder_hidden_states"] = torch.randn(1, 3, VARIANTS[family][2]["cross_attention_dim"])
    return told


def answer(family: str, network: torch.nn.Module) -> torch.Tensor:
    """What a model makes of it."""
    with torch.no_grad():
        found: torch.Tensor = network(**given(family), return_dict=False)[0]
    return found


def answer_of(family: str, merge: wb.Checkpoint) -> torch.Tensor:
    """The same of a merge's tensors, in a fresh model."""
    found = wb.in_layout(merge, "diffusers")
    component = "transformer." if family == "Flux" else "unet."
    fresh = model(family)
    fresh.load_state_dict({key.removeprefix(component): found.read(key) for key in found}, strict=True)
    return answer(family, fresh)


def assert_alike(got: torch.Tensor, right: torch.Tensor, untouched: torch.Tensor) -> None:
    """That two answers are equal to 1e-5 of the largest number, and another one than without the LoRA."""
    largest = right.abs().max()
    assert (got - right).abs().max() <= 1e-5 * largest
    assert (right - untouched).abs().max() > 1e-3 * largest


def lycoris_file(family: str, algo: str, path: Path, prefix: str = "lora_unet", **settings: Any) -> torch.Tensor:
    """Write a LoRA that LyCORIS made, with random numbers, for every layer it takes; returns what the model answers with it."""
    from lycoris import LycorisNetwork, create_lycoris

    logging.disable(logging.INFO)
    network = model(family)
    targets = {"target_module": [], "target_name": [LAYERS[family == "Flux"]], "use_fnmatch": False}
    LycorisNetwork.apply_preset(targets | {"enable_conv": True, "lora_prefix": prefix})
    made = create_lycoris(network, 1.0, **{"linear_dim": 2, "linear_alpha": 1, "conv_dim": 2, "conv_alpha": 1} | settings, algo=algo)
    made.apply_to()
    randomised(made)
    made.eval()
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in made.state_dict().items()}, path)
    logging.disable(logging.NOTSET)
    return answer(family, network)


def randomised(network: torch.nn.Module, which: Callable[[str], bool] = lambda name: True, size: float = 0.1) -> None:
    """Moves parameters by a little, in the order of their names."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in sorted(network.named_parameters()):
            if which(name):
                parameter.add_(torch.randn_like(parameter) * size)


def peft_folder(family: str, config: str, folder: Path, **settings: Any) -> torch.Tensor:
    """Write a LoRA that PEFT made, with random numbers, as its `save_pretrained` does; returns what the model answers with it."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = peft.get_peft_model(model(family), getattr(peft, config)(**settings)).eval()
        marks = ("lora_", "hada_", "lokr_", "oft_", "boft_", "ia3_")
        randomised(network, lambda name: any(mark in name for mark in marks), 0.5 if "OFT" in config else 0.1)
        network.save_pretrained(folder)
    return answer(family, network.base_model.model)
