"""Singular values of matrices, and the number of directions that they come to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def singular(matrices: torch.Tensor) -> np.ndarray:
    """The singular values of matrices in float64, count x rows x columns, largest first; what is only rounding is 0.

    They are the roots of the eigenvalues of the shorter side's Gram matrix.
    """
    import torch

    if matrices.shape[1] > matrices.shape[2]:
        matrices = matrices.mT
    squares = torch.linalg.eigvalsh(matrices @ matrices.mT).flip(1).numpy()
    noise = np.finfo(float).eps * squares.shape[1] * squares[:, :1]
    return np.sqrt(np.where(squares > noise, squares, 0))


def effective_rank(values: np.ndarray) -> float:
    """exp(entropy) of singular values as shares of their sum, from 1 to as many as there are; NaN where all are zero.

    Source: Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality", section 2.
    """
    shares = values[values > 0] / values.sum() if values.any() else np.array([np.nan])
    return float(np.exp(-np.sum(shares * np.log(shares))))
