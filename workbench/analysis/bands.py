"""One tensor's Fourier transform, summed in bands of frequency. Which tensors, and what the sums say, is in spectra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workbench.tensors import PIECE

if TYPE_CHECKING:
    import torch

    from workbench.engine.reading import Tensors
    from workbench.operators.spectral import Over

_ROUNDING = 1e-13  # of a row's norm: what a transform in float64 may leave where there is nothing
SUMS = COUNT, ENERGY, APART, IN_PHASE, PHASES, MOVED, BETWEEN = tuple(range(7))  # the sums of each model and band


@dataclass(frozen=True)
class Transform:
    """What is transformed (`over` and `dim` as in `fft_blend`), and the edges of the bands, from 0 to 1."""

    over: Over
    dim: int
    edges: np.ndarray

    def sums(self, tensors: Tensors) -> np.ndarray:
        """Seven sums, of every model the tensor has, in every band: 7 x models x bands.

        How many coefficients there are, and their energy |X|^2; |X - F|^2, where F is the first model's; the cosine of the
        phase between X and F, and how many have one; Re((X - S) (F - S)*), where S is the second model's, and |F - S|^2. The
        transform is orthonormal and both its halves count: energies add up to the sum of squares of the tensor.
        """
        import torch

        rows, frequency = self._rows(tensors.matrices(), tensors.shape)
        names, count, *lengths = rows.shape
        sums = torch.zeros(len(SUMS), names, frequency.size, dtype=torch.float64)
        step = max(1, PIECE // int(np.prod(lengths)))
        for start in range(0, count, step):
            coefficients = torch.fft.rfftn(rows[:, start : start + step], dim=tuple(range(2, rows.ndim)), norm="ortho")
            _add(sums, coefficients.flatten(2))
        return self.in_bands(sums.numpy() * _halves(frequency, lengths[-1]), frequency)

    def in_bands(self, values: np.ndarray, frequency: np.ndarray) -> np.ndarray:
        """Sums of the last dimension, which goes over frequencies, in every band; a band begins at its lower edge."""
        count = len(self.edges) - 1
        begins = self.edges - 1e-9  # what rounding leaves below an edge lies at the edge
        index = np.clip(np.searchsorted(begins, frequency.ravel(), side="right") - 1, 0, count - 1)
        flat = [np.bincount(index, row, count) for row in values.reshape(-1, frequency.size)]
        return np.reshape(flat, (*values.shape[:-1], count))

    def frequencies(self, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """The frequencies of a tensor of this shape, and how often each counts in the two halves and the rows."""
        from workbench.operators.spectral import axes, frequencies

        shape, dims = axes(shape, self.over, self.dim)
        frequency = frequencies(shape, dims)
        rows = int(np.prod(shape)) // int(np.prod([shape[dim] for dim in dims]))
        return frequency, rows * _halves(frequency, shape[dims[-1]])

    def _rows(self, matrices: torch.Tensor, shape: Sequence[int]) -> tuple[torch.Tensor, np.ndarray]:
        """Models x rows x what is transformed."""
        from workbench.operators.spectral import axes, frequencies

        shape, dims = axes(shape, self.over, self.dim)
        last = tuple(range(-len(dims), 0))
        moved = matrices.reshape(-1, *shape).movedim(tuple(dim + 1 for dim in dims), last)
        return moved.reshape(len(matrices), -1, *moved.shape[-len(dims) :]), frequencies(shape, dims)


def _add(sums: torch.Tensor, coefficients: torch.Tensor) -> None:
    """Add models x rows x frequencies to the sums, each models x frequencies."""
    import torch

    magnitudes = coefficients.abs()
    floors = _ROUNDING * magnitudes.norm(dim=2, keepdim=True)
    first, there = coefficients[0], magnitudes > floors
    second = coefficients[min(1, len(coefficients) - 1)]
    between = _no_noise(first - second, floors[0])
    for i, (own, magnitude) in enumerate(zip(coefficients, magnitudes, strict=True)):
        both = there[0] & there[i]
        cosines = (own * first.conj()).real / (magnitude * magnitudes[0])
        sums[COUNT, i] += len(own)
        sums[ENERGY, i] += magnitude.square().sum(0)
        sums[APART, i] += _energy(_no_noise(own - first, floors[0]))
        sums[IN_PHASE, i] += torch.where(both, cosines, 0).sum(0)
        sums[PHASES, i] += both.sum(0)
        sums[MOVED, i] += ((own - second) * between.conj()).real.sum(0)
        sums[BETWEEN, i] += _energy(between)


def _no_noise(differences: torch.Tensor, floors: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.where(differences.abs() > floors, differences, 0)


def _energy(coefficients: torch.Tensor) -> torch.Tensor:
    return (coefficients.real.square() + coefficients.imag.square()).sum(0)


def _halves(frequency: np.ndarray, length: int) -> np.ndarray:
    """How often each coefficient of a real transform stands in the whole one, by the last dimension's length."""
    times = np.full(frequency.shape, 2)
    times[..., 0] = 1
    if length % 2 == 0:
        times[..., -1] = 1
    return times.ravel()
