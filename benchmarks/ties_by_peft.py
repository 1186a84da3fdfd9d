"""TIES with `peft.utils.merge_utils`, applied tensor by tensor: what `benchmarks.ties` compares with.

python -m benchmarks.ties_by_peft BASE MODEL... OUT
"""

from __future__ import annotations

import sys

import torch
from peft.utils.merge_utils import ties
from safetensors import safe_open
from safetensors.torch import save_file


def main(base_path: str, *paths: str) -> None:
    *model_paths, out = paths
    with safe_open(base_path, "pt") as base, torch.no_grad():
        models = [safe_open(path, "pt") for path in model_paths]
        merged = {}
        for key in base.keys():  # noqa: SIM118
            tensor = base.get_tensor(key)
            if tensor.is_floating_point():
                deltas = [model.get_tensor(key).float() - tensor.float() for model in models]
                tensor = (tensor.float() + ties(deltas, torch.ones(len(models)), density=0.5)).to(tensor.dtype)
            merged[key] = tensor
    save_file(merged, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
