"""A LoRA from two models with LyCORIS' own decomposition of each layer's change, in the layers that `by_loop` takes."""

from __future__ import annotations

import sys

import torch
from lycoris.utils import extract_conv, extract_linear
from safetensors import safe_open
from safetensors.torch import save_file


def main(operation: str, out: str, tuned: str, base: str) -> None:
    factors = {}
    with safe_open(tuned, "pt") as changed, safe_open(base, "pt") as original, torch.no_grad():
        for key in original.keys():  # noqa: SIM118
            held = key.endswith(".weight") and not key.startswith("first_stage_model.") and "_embedding." not in key
            dimensions = len(original.get_slice(key).get_shape())
            if held and dimensions in (2, 4):
                change = changed.get_tensor(key).float() - original.get_tensor(key).float()
                take = extract_linear if dimensions == 2 else extract_conv
                (down, up, *_), _ = take(change, "fixed", 64)
                factors[f"{key}.up"], factors[f"{key}.down"] = up.contiguous().half(), down.contiguous().half()
    save_file(factors, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
