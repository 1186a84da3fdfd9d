"""What Hyper-Merge did: one LoRA at a time, a random SVD and new multipliers in turn. For tests and benchmarks to measure against."""

from __future__ import annotations

from collections.abc import Sequence

import torch

_STILL = 1e-3  # a relative change of the loss below which it stops


def published_loop(layers: Sequence[torch.Tensor], ranks: Sequence[int], iterations: int) -> list[float]:
    """The mean squared residual after each LoRA, of layers as models x rows x others in float32, which are overwritten.

    As published: all multipliers begin at 1 (so that the first LoRA is one of rounding), every layer weighs the same in them
    whatever its size, the SVD is random without spare directions, and the largest multiplier is 1 until the last round.
    """
    rest, losses = list(layers), []
    for layer in rest:
        layer -= layer.mean(0)
    for rank in ranks:
        multipliers, before = torch.ones(len(rest[0])), float("inf")
        for turn in range(iterations):
            share = multipliers / multipliers.square().mean() / len(multipliers)
            loras = [_truncated(torch.tensordot(share, layer, 1), rank) for layer in rest]
            multipliers = _fitted(rest, loras)
            if turn < iterations - 1:
                multipliers /= multipliers.abs().max()
            loss = sum(float(_without(layer, lora, multipliers).square().mean()) for layer, lora in zip(rest, loras, strict=True))
            if abs(loss - before) < _STILL * before:
                break
            before = loss
        rest = [_without(layer, lora, multipliers) for layer, lora in zip(rest, loras, strict=True)]
        losses.append(sum(float(layer.double().square().sum()) for layer in rest) / sum(layer.numel() for layer in rest))
    return losses


def _truncated(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    left, values, right = torch.svd_lowrank(matrix, q=min(rank, *matrix.shape))
    return (left * values) @ right.T


def _fitted(rest: Sequence[torch.Tensor], loras: Sequence[torch.Tensor]) -> torch.Tensor:
    along = sum((layer * lora).flatten(1).mean(1) for layer, lora in zip(rest, loras, strict=True))
    return along / sum(lora.square().mean() for lora in loras)


def _without(layer: torch.Tensor, lora: torch.Tensor, multipliers: torch.Tensor) -> torch.Tensor:
    return layer - multipliers[:, None, None] * lora
