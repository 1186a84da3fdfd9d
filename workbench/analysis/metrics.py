"""What can be said of a pair of models: each metric is a few sums over a tensor, and a number that follows from them.

Sums add up over the tensors of a block, so that a block's number is that of all its elements, never a mean of numbers,
unless the metric's own description says so. A new metric is one more entry of `METRICS`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from workbench.engine.reading import CHUNK
from workbench.kernels import fit_stored
from workbench.tensors import PIECE

if TYPE_CHECKING:
    import torch

    from workbench.engine.reading import Tensors

RANK = 8  # leading directions whose overlap is measured
COPIES = 3  # of every model's tensor in float64 that are in memory at once for a measure of whole tensors

# sums of one tensor: quantities x models x models; models that lack the tensor are NaN
Sums = np.ndarray


class Measure(Protocol):
    """Adds up the pieces of one tensor, models x elements; with a base, it is the first row, and changes are counted from it."""

    def __init__(self, count: int, base: bool) -> None:
        """Nothing yet, of `count` rows."""

    def add(self, chunk: torch.Tensor) -> None:
        """One more piece, which stays as it is."""

    def add_stored(self, parts: Sequence[torch.Tensor]) -> bool:
        """One more piece of each model as it is stored, if that is faster than `add`; False where nothing was added."""

    def sums(self) -> Sums:
        """What it came to."""


Whole = Callable[["torch.Tensor"], Sums]  # the same at once, of the matrices of every model, or of their changes


@dataclass(frozen=True)
class Metric:
    """A number for each pair of models, from the sums of its measure. `unit` is what a colour bar says of it."""

    measure: type[Measure] | Whole
    value: Callable[..., np.ndarray]
    unit: str
    undefined: str  # why it is NaN where the sums are there
    apart: Callable[[np.ndarray], np.ndarray] = lambda values: 1 - values  # how far from alike, 0 for a model and itself


def tensor_sums(tensors: Tensors, measures: Sequence[type[Measure] | Whole], base: bool) -> list[Sums]:
    """The sums of one tensor for all pairs of its models, of every measure; the files are read once."""
    import torch

    whole = [measure for measure in measures if not isinstance(measure, type)]
    matrices = tensors.matrices() if whole else torch.empty(0)
    running = [measure(len(tensors.names), base) for measure in measures if isinstance(measure, type)]
    if whole:
        for chunk in torch.split(matrices.flatten(1), CHUNK, dim=1) if running else ():
            for measure in running:
                measure.add(chunk)
    else:
        for parts in tensors.parts():
            left = [measure for measure in running if not measure.add_stored(parts)]
            for chunk in tensors.wide(parts) if left else ():
                for measure in left:
                    measure.add(chunk)
    if whole and base:
        matrices = matrices[1:] - matrices[0]
    added = iter(running)
    return [next(added).sums() if isinstance(measure, type) else measure(matrices.clone()) for measure in measures]


class Gram:
    """|a|^2, |b|^2, a * b and |a - b|^2 of each pair.

    Products are taken of the first model and of what the others differ from it by, so that models close to each other
    lose no digits in their difference; what two models share cancels to the last bit.
    """

    def __init__(self, count: int, base: bool) -> None:
        import torch

        made = np.eye(count)  # each model from the first and the differences
        if not base:
            made[:, 0] = 1
        self._made = made[int(base) :]
        self._products = torch.zeros(count, count, dtype=torch.float64)
        self._pairs = torch.zeros(count * (count + 1) // 2, dtype=torch.float64)  # the same of each two, (0, 0), (0, 1), ...
        self._large = False

    def add(self, chunk: torch.Tensor) -> None:
        values = chunk - chunk[0]
        values[0] = chunk[0]
        self._products += values @ values.T

    def add_stored(self, parts: Sequence[torch.Tensor]) -> bool:
        self._large |= len(parts[0]) >= PIECE  # for small models numba's import takes longer
        if not self._large or not fit_stored(*parts):
            return False
        from workbench.kernels import products

        found = products.of_differences(parts)
        if found is None:
            return False
        self._pairs += found
        return True

    def sums(self) -> Sums:
        upper = np.zeros(self._products.shape)
        upper[_triangle(len(upper))] = self._pairs
        products = self._products.numpy() + upper + np.triu(upper, 1).T
        apart = self._made[:, None] - self._made
        found = np.empty((4, *apart.shape[:2]))
        found[2] = self._made @ products @ self._made.T
        found[0], found[1] = found[2].diagonal()[:, None], found[2].diagonal()
        found[3] = np.einsum("ija,ijb,ab->ij", apart, apart, products).clip(0)
        return found


@functools.cache
def _triangle(count: int) -> tuple[np.ndarray, ...]:
    return np.triu_indices(count)


class Signs:
    """How many elements have the same sign in both, and how many are zero in neither."""

    def __init__(self, count: int, base: bool) -> None:
        import torch

        self._base = base
        self._same, self._both = torch.zeros(2, count - base, count - base, dtype=torch.float64)

    def add(self, chunk: torch.Tensor) -> None:
        signs = (chunk[1:] - chunk[0] if self._base else chunk).sign().float()  # counts within a chunk are exact in float32
        there = signs.square()
        product, counted = signs @ signs.T, there @ there.T
        self._same += (product + counted) / 2
        self._both += counted

    def add_stored(self, parts: Sequence[torch.Tensor]) -> bool:
        return False

    def sums(self) -> Sums:
        return np.stack([self._same.numpy(), self._both.numpy()])


def alignment(matrices: torch.Tensor) -> Sums:
    """Linear CKA of two matrices whose rows are taken as examples, times the elements; and the elements."""
    import torch

    sizes = matrices.flatten(1).norm(dim=1)
    matrices -= matrices.mean(1, keepdim=True)
    matrices[matrices.flatten(1).norm(dim=1) <= 1e-12 * sizes] = 0  # equal rows, but for rounding
    _, rows, columns = matrices.shape
    if rows <= columns:
        kernels = matrices @ matrices.mT
        shared = torch.einsum("iab,jab->ij", kernels, kernels)
    else:
        shared = torch.stack([torch.stack([(a.mT @ b).square().sum() for b in matrices]) for a in matrices])
    norms = shared.diagonal().sqrt()
    return _weighted(shared / (norms[:, None] * norms), rows * columns)


def overlap(matrices: torch.Tensor) -> Sums:
    """The share of the leading singular directions of one that lies in those of the other, times the elements; and these.

    The directions are those of the shorter side, at most RANK and half as many as there are; a tensor with a side of one
    has none to compare.
    """
    import torch

    count, rows, columns = matrices.shape
    if rows > columns:
        matrices = matrices.mT
    rank = min(RANK, min(rows, columns) // 2)
    if not rank:
        return np.full((2, count, count), np.nan)
    values, vectors = torch.linalg.eigh(matrices @ matrices.mT)
    leading = vectors[..., -rank:]
    shared = torch.einsum("iar,jas->ijrs", leading, leading).square().sum((2, 3)) / rank
    enough = values[:, -rank] > values[:, -1] * 1e-12  # fewer directions than that are noise
    shared[~enough] = torch.nan
    shared[:, ~enough] = torch.nan
    return _weighted(shared, rows * columns)


def _weighted(values: torch.Tensor, numel: int) -> Sums:
    import torch

    return torch.stack([values * numel, torch.where(values.isnan(), torch.nan, float(numel))]).numpy()


def over(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient, NaN where the denominator is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found: np.ndarray = np.where(denominator == 0, np.nan, numerator / denominator)
        return found


def _off_one(ratios: np.ndarray) -> np.ndarray:
    off: np.ndarray = np.abs(1 - ratios)
    return off


_A_ZERO, _B_ZERO, _ZERO = "the first is all zero", "the second is all zero", "one of the two is all zero"

METRICS = {
    # rounding must not leave the range
    "cosine": Metric(Gram, lambda a, b, ab, d: np.clip(over(ab, np.sqrt(a * b)), -1, 1), "cosine", _ZERO),
    "distance": Metric(Gram, lambda a, b, ab, d: np.sqrt(over(d, a)), "distance over the first's norm", _A_ZERO, apart=np.asarray),
    "norm_ratio": Metric(Gram, lambda a, b, ab, d: np.sqrt(over(b, a)), "norm over the first's", _A_ZERO, apart=_off_one),
    "scale": Metric(Gram, lambda a, b, ab, d: over(ab, b), "factor of least distance", _B_ZERO, apart=_off_one),
    "sign_agreement": Metric(Signs, over, "share of equal signs", "no element is zero in neither"),
    "cka": Metric(alignment, over, "linear CKA", "all rows are equal in one of the two"),
    "subspace_overlap": Metric(overlap, over, "overlap of leading directions", "too few directions to compare"),
}
