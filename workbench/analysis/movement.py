"""What the tensors of a merge are beside those of its parents: sums of one, numbers of many. Judging them is `warning_signs`' business."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workbench.analysis.metrics import over
from workbench.analysis.ranks import effective_rank, singular
from workbench.engine.reading import Tensors
from workbench.tensors import rounded

if TYPE_CHECKING:
    import torch

COPIES = 2.5  # of every model's tensor in float64: as read, one's Fourier transform, one's change and its squares
# columns of `Explanation.frame`
QUANTITIES = (
    *("cosine", "distance", "norm_ratio", "change_rank", "high_frequencies", "parent_high_frequencies"),
    *("nearest", "tied", "equal"),
)
_PIECE = 1 << 15  # elements of all models that stay in the cache together


@dataclass(frozen=True)
class Movement:
    """Sums over one tensor or many, each a number for every parent; NaN where a parent lacks the tensor.

    `differing` is parents x parents: in how many elements two of them differ, once rounded as the result is. `saturated`
    counts elements of the result at the largest value of their dtype.
    """

    sums: Mapping[str, np.ndarray]
    differing: np.ndarray
    saturated: int

    @classmethod
    def total(cls, parts: Sequence[Movement]) -> Movement:
        """The sums over all of them, of the tensors that each parent has."""
        sums = {name: np.nansum([part.sums[name] for part in parts], axis=0) for name in parts[0].sums}
        differing = np.nansum([part.differing for part in parts], axis=0)
        return cls(sums, differing, sum(part.saturated for part in parts))

    def values(self) -> dict[str, np.ndarray]:
        """The quantities, each a number for every parent; NaN where one is undefined."""
        sums = self.sums
        values = (
            np.clip(over(sums["inner"], np.sqrt(sums["result"] * sums["parent"])), -1, 1),
            np.sqrt(over(sums["apart"], sums["parent"])),
            np.sqrt(over(sums["result"], sums["parent"])),
            over(sums["rank"], sums["ranked"]),
            over(sums["high"], sums["energy"]),
            over(sums["parent_high"], sums["parent_energy"]),
            *(over(sums[name], sums["elements"]) for name in ("nearest", "tied", "equal")),
        )
        return dict(zip(QUANTITIES, values, strict=True))

    @property
    def norm_spread(self) -> np.ndarray:
        """How much the gains of normalisation layers differ from channel to channel, over how much each parent's do.

        The root of the sum of squares about each layer's mean: what weights alone show of the variance collapse that
        Jordan et al. 2022 (REPAIR, arXiv:2211.08403) measure in activations, which a gain scales channel by channel.
        """
        found: np.ndarray = np.sqrt(over(self.sums["spread"], self.sums["parent_spread"]))
        return found


def movement(tensors: Tensors, index: Mapping[str, int]) -> Movement:
    """The sums of one tensor; the first of `tensors` is the result, and `index` has the number of every parent.

    Raises NonFinite where NaN or infinity is read.
    """
    import torch

    dtype = tensors.models[tensors.names[0]].info(tensors.key).dtype
    matrices = tensors.matrices()
    flat = matrices.flatten(1)
    sums, differing = _elementwise(flat, dtype)
    count = len(tensors.names) - 1
    shares = [_rank(matrices[0] - parent) if len(tensors.shape) > 1 else math.nan for parent in matrices[1:]]
    sums["rank"] = np.array(shares) * flat.shape[1]
    sums["ranked"] = np.where(np.isnan(shares), np.nan, flat.shape[1])
    high, *others = (_high(model, tensors.shape) for model in flat)
    sums["high"], sums["energy"] = np.repeat(np.array([high]).T, count, 1)
    sums["parent_high"], sums["parent_energy"] = np.array(others).T
    is_norm = len(tensors.shape) == 1 and tensors.key.endswith(("weight", "scale"))  # matrices and kernels have more dimensions
    spreads = [((model - model.mean()).square().sum().item() if is_norm else math.nan) for model in flat]
    sums["spread"], sums["parent_spread"] = np.full(count, spreads[0]), np.array(spreads[1:])
    there = np.array([index[name] for name in tensors.names[1:]])
    saturated = int((flat[0].abs() == torch.finfo(dtype).max).sum())
    spread = {name: _among(values, there, (len(index),)) for name, values in sums.items()}
    return Movement(spread, _among(differing, (there[:, None], there), (len(index),) * 2), saturated)


def _elementwise(flat: torch.Tensor, dtype: torch.dtype) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What can be summed element by element, for each parent; and in how many elements two of them differ."""
    import torch

    count = len(flat) - 1
    names = ("result", "parent", "inner", "apart", "equal", "nearest", "tied")
    sums = dict(zip(names, torch.zeros(len(names), count, dtype=torch.float64), strict=True))
    differing = torch.zeros(count, count, dtype=torch.float64)
    for piece in torch.split(flat, _PIECE, dim=1):
        result, parents = piece[0], piece[1:]
        gaps = (parents - result).abs()
        closest = gaps == gaps.min(0).values
        alone = closest.sum(0) == 1
        written = rounded(parents, dtype).double()
        found = (result @ result, parents.square().sum(1), parents @ result, gaps.square().sum(1), (written == result).sum(1))
        for total, value in zip(sums.values(), (*found, (closest & alone).sum(1), (closest & ~alone).sum(1)), strict=True):
            total += value
        differing += torch.stack([(written != one).sum(1) for one in written])
    return {name: total.numpy() for name, total in sums.items()} | {"elements": np.full(count, float(flat.shape[1]))}, differing.numpy()


def _rank(change: torch.Tensor) -> float:
    """The effective rank of a matrix over the full one; NaN for a row or column, or for zeros."""
    side = min(change.shape)
    return effective_rank(singular(change[None])[0]) / side if side > 1 else math.nan


def _high(tensor: torch.Tensor, shape: Sequence[int]) -> tuple[float, float]:
    """The energy beyond half the highest frequency along the last dimension, and all of it; NaN where there is but one."""
    import torch

    length = shape[-1] if shape else 1
    if length < 2:
        return math.nan, math.nan
    energy = torch.fft.rfft(tensor.reshape(-1, length)).abs().square_().sum(0)
    energy[1 : (length + 1) // 2] *= 2  # their mirror images beyond the highest
    high = torch.arange(len(energy)) * 4 > length
    return energy[high].sum().item(), energy.sum().item()


def _among(values: np.ndarray, there: np.ndarray | tuple[np.ndarray, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of the parents that have a tensor, among all parents; NaN for the others."""
    out = np.full(shape, np.nan)
    out[there] = values
    return out
