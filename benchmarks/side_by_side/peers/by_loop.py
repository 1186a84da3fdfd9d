"""What forty lines of a script do: load both files, average them in float32, save. Or `torch.svd_lowrank` of every layer's change."""

from __future__ import annotations

import sys

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file


def average(out: str, first: str, second: str) -> None:
    one, other = load_file(first), load_file(second)
    merged = {}
    for key, tensor in one.items():
        if tensor.is_floating_point():
            tensor = torch.lerp(tensor.float(), other[key].float(), 0.7).to(tensor.dtype)
        merged[key] = tensor
    save_file(merged, out)


def extract(out: str, tuned: str, base: str) -> None:
    factors = {}
    with safe_open(tuned, "pt") as changed, safe_open(base, "pt") as original:
        for key in original.keys():  # noqa: SIM118
            held = key.endswith(".weight") and not key.startswith("first_stage_model.") and "_embedding." not in key
            if held and len(original.get_slice(key).get_shape()) in (2, 4):
                change = (changed.get_tensor(key).float() - original.get_tensor(key).float()).flatten(1)
                left, values, right = torch.svd_lowrank(change, q=min(64, *change.shape), niter=2)
                factors[f"{key}.up"] = (left * values.sqrt()).half()
                factors[f"{key}.down"] = (right.T * values.sqrt()[:, None]).contiguous().half()
    save_file(factors, out)


if __name__ == "__main__":
    {"average": average, "extract": extract}[sys.argv[1]](*sys.argv[2:])
