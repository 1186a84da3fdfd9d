"""TIES and DARE-TIES with `peft.utils.merge_utils`, applied tensor by tensor, for PEFT merges adapters and not models."""

from __future__ import annotations

import sys

import torch
from peft.utils import merge_utils
from safetensors import safe_open
from safetensors.torch import save_file


def main(operation: str, out: str, base_path: str, *paths: str) -> None:
    method = {"ties": merge_utils.ties, "dare_ties": merge_utils.dare_ties}[operation]
    torch.manual_seed(0)
    with safe_open(base_path, "pt") as base, torch.no_grad():
        models = [safe_open(path, "pt") for path in paths]
        merged = {}
        for key in base.keys():  # noqa: SIM118
            tensor = base.get_tensor(key)
            if tensor.is_floating_point():
                deltas = [model.get_tensor(key).float() - tensor.float() for model in models]
                tensor = (tensor.float() + method(deltas, torch.ones(len(models)), density=0.5)).to(tensor.dtype)
            merged[key] = tensor
    save_file(merged, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
