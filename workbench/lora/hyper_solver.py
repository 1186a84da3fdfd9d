"""Finds low-rank changes and multipliers for small matrices: one change at a time, or all together. No model is read here.

With changes C_j of all layers, the sum over j of |C_j - sum_k multipliers[j, k] * L_k|^2 is made small, where L_k has a rank limit in
every layer: a block term decomposition, solved by alternating least squares (De Lathauwer and Nion 2008, "Decompositions of a
higher-order tensor in block terms, part III", section 3). Given the multipliers, layers know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from workbench.checkpoint.files.stopping import held_back
from workbench.engine.pool import results, usual_threads

if TYPE_CHECKING:
    import torch

Made = TypeVar("Made")
Factors = tuple["torch.Tensor", "torch.Tensor"]  # p x rank, and orthonormal rank x q: their product is a change; None is no change yet

_NOTHING = 1e-12  # of the largest square: what is below is rounding


@dataclass(frozen=True, eq=False)
class MultiplierFit:
    """Multipliers (changes x LoRAs) and the sums that tell how well they fit.

    `squares` has the products of the changes with each other, `along` (changes x LoRAs) those with LoRAs, and `inner` those of LoRAs
    with each other, each summed over all elements.
    """

    multipliers: np.ndarray
    squares: np.ndarray
    along: np.ndarray
    inner: np.ndarray

    def left(self, count: int | None = None) -> np.ndarray:
        """The products of what is left of the changes after the first `count` LoRAs (or all), with each other."""
        multipliers, along = self.multipliers[:, :count], self.along[:, :count]
        across = along @ multipliers.T
        left: np.ndarray = self.squares - across - across.T + multipliers @ self.inner[:count, :count] @ multipliers.T
        return left

    @property
    def loss(self) -> float:
        """The sum of squares that is left."""
        return float(np.trace(self.left()))


@dataclass(frozen=True, eq=False)
class Solution:
    """The low-rank changes of every layer, LoRA by LoRA, and the fit after the first of them was found, the second, ... all."""

    loras: list[tuple[Factors | None, ...]]
    fits: tuple[MultiplierFit, ...]

    @property
    def fit(self) -> MultiplierFit:
        return self.fits[-1]


class Solver:
    """The matrices of all layers (each changes x p x q), and the `squares` of the changes, with what lies beyond the matrices."""

    def __init__(self, cores: Sequence[torch.Tensor], squares: np.ndarray, ranks: Sequence[int]) -> None:
        self.cores, self.squares, self.ranks = cores, squares, ranks

    def one_by_one(self, iterations: int) -> Solution:
        """Each LoRA for what the ones before it leave, from its strongest direction; those before stay as they are."""
        found = self._nothing()
        for k in range(len(self.ranks)):
            found = self._with_another(found)
            for turn in range(iterations):
                found = self._improved(found, k, last=turn == iterations - 1)
                rest = found.fit.along[:, k] - found.fit.multipliers[:, :k] @ found.fit.inner[:k, k]
                found.fit.multipliers[:, k] = rest / found.fit.inner[k, k] if found.fit.inner[k, k] > 0 else 0
        return found

    def together(self, iterations: int) -> Solution:
        """One LoRA more at a time, and then all so far once more, in sweeps; or all at once from the changes' own directions.

        Of the two ways to all LoRAs, the one that leaves less; after that directions change places, while that helps.
        """
        found = self._nothing()
        for _ in self.ranks:
            found = self._swept(self._with_another(found), iterations)
        found = _better(found, self._swept(self._along_changes(), iterations))
        while (order := self._order(found)) != sorted(order):
            other = self._swept(_reordered(found, order), iterations)
            if other.fit.loss >= found.fit.loss:
                break
            found = _better(found, other)
        return found

    def _nothing(self) -> Solution:
        count = len(self.squares)
        fit = MultiplierFit(np.zeros((count, 0)), self.squares, np.zeros((count, 0)), np.zeros((0, 0)))
        return Solution([() for _ in self.cores], (fit,))

    def _with_another(self, found: Solution) -> Solution:
        """One LoRA more, which is zero yet, along the strongest direction of what is left."""
        return _joined(found, np.linalg.eigh(found.fit.left())[1][:, -1:], found.fits)

    def _along_changes(self) -> Solution:
        """All LoRAs, which are zero yet, along the changes; more LoRAs than these begin with the first ones again."""
        directions = np.eye(len(self.squares))[:, np.arange(len(self.ranks)) % len(self.squares)]
        return _joined(self._nothing(), directions, ())

    def _swept(self, found: Solution, iterations: int) -> Solution:
        """Every LoRA improved in turn, and all multipliers after each."""
        for turn in range(iterations):
            for k in range(found.fit.multipliers.shape[1]):
                found = self._improved(found, k, last=turn == iterations - 1)
                fit = found.fit
                there = fit.inner.diagonal() > 0
                inverse = np.linalg.pinv(fit.inner[np.ix_(there, there)], _NOTHING, hermitian=True)
                fit.multipliers[:, there] = fit.along[:, there] @ inverse
        return found

    def _order(self, found: Solution) -> list[int]:
        """Which LoRA's direction each rank would serve best: the one that it would hold most of, all in all."""
        from scipy.optimize import linear_sum_assignment

        multipliers = found.fit.multipliers
        products = multipliers.T @ multipliers

        def held(at: int) -> np.ndarray:
            targets = [_target(self.cores[at], found.loras[at], k, multipliers[:, k], products[k]) for k in range(len(products))]
            return np.stack([_squares(target)[[min(rank, *target.shape) - 1 for rank in self.ranks]] for target in targets])

        held_by_rank = sum(on_threads(held, len(self.cores))) * products.diagonal()[:, None]
        assigned: list[int] = linear_sum_assignment(-held_by_rank.T)[1].tolist()
        return assigned

    def _improved(self, found: Solution, which: int, *, last: bool) -> Solution:
        """One LoRA made better for the multipliers and the other LoRAs, in every layer; the `last` time, made best."""
        multipliers, rank = found.fit.multipliers, self.ranks[which]
        products = multipliers.T @ multipliers

        def improved(at: int) -> tuple[Factors, np.ndarray, np.ndarray]:
            core, loras = self.cores[at], found.loras[at]
            target = _target(core, loras, which, multipliers[:, which], products[which])
            factors = nearest(target, rank) if last else _nearer(target, rank, loras[which])
            return factors, *_products(core, [*loras[:which], factors, *loras[which + 1 :]], which)

        layers = on_threads(improved, len(self.cores))
        along, inner = found.fit.along.copy(), found.fit.inner.copy()
        along[:, which] = sum(layer[1] for layer in layers)
        inner[:, which] = inner[which] = sum(layer[2] for layer in layers)
        loras = [(*old[:which], new[0], *old[which + 1 :]) for old, new in zip(found.loras, layers, strict=True)]
        return Solution(loras, (*found.fits[:-1], MultiplierFit(multipliers.copy(), self.squares, along, inner)))


def _joined(found: Solution, directions: np.ndarray, before: tuple[MultiplierFit, ...]) -> Solution:
    """More LoRAs, which are nothing yet, with multipliers of their own."""
    fit, more = found.fit, directions.shape[1]
    loras = [layer + (None,) * more for layer in found.loras]
    along, inner = np.pad(fit.along, ((0, 0), (0, more))), np.pad(fit.inner, (0, more))
    return Solution(loras, (*before, MultiplierFit(np.hstack([fit.multipliers, directions]), fit.squares, along, inner)))


def _better(found: Solution, other: Solution) -> Solution:
    """The solution that leaves less, with the history of the first."""
    return found if found.fit.loss <= other.fit.loss else replace(other, fits=(*found.fits[:-1], other.fit))


def _reordered(found: Solution, order: Sequence[int]) -> Solution:
    """The same LoRAs in other places, where they have other ranks to fit."""
    fit = found.fit
    fit = MultiplierFit(fit.multipliers[:, order], fit.squares, fit.along[:, order], fit.inner[np.ix_(order, order)])
    return Solution([tuple(layer[k] for k in order) for layer in found.loras], (*found.fits[:-1], fit))


def _target(core: torch.Tensor, loras: Sequence[Factors | None], which: int, multipliers: np.ndarray, products: np.ndarray) -> torch.Tensor:
    """What a LoRA would be without a rank limit, beside the others; zero where its multipliers are.

    `multipliers` are those of the LoRA, and `products` those of its multipliers with all LoRAs'.
    """
    import torch

    if not products[which] > 0:
        return torch.zeros_like(core[0])
    target: torch.Tensor = torch.tensordot(torch.from_numpy(multipliers / products[which]).to(core), core, 1)
    for k, factors in enumerate(loras):
        if k != which and factors is not None:
            target.addmm_(*factors, alpha=-float(products[k] / products[which]))
    return target


def _products(core: torch.Tensor, loras: Sequence[Factors | None], which: int) -> tuple[np.ndarray, np.ndarray]:
    """The products of one LoRA with the changes, and with all LoRAs, in one layer."""
    import torch

    up, down = loras[which]  # type: ignore[misc]
    along = [float(torch.sum((change @ down.T).double() * up)) for change in core]
    inner = [0.0 if other is None else float(torch.sum((up.T.double() @ other[0].double()) * (down @ other[1].T))) for other in loras]
    return np.array(along), np.array(inner)


def _squares(matrix: torch.Tensor) -> np.ndarray:
    """The sums of the largest 1, 2, ... squared singular values."""
    import torch

    wide = (matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T).double()
    sums: np.ndarray = torch.linalg.eigvalsh(wide @ wide.T).flip(0).cumsum(0).cpu().numpy()
    return sums


def _nearer(matrix: torch.Tensor, rank: int, before: Factors | None) -> Factors:
    """Factors of a rank that come nearer to a matrix than those before: by a step of subspace iteration; or the nearest there are."""
    import torch

    if before is None or len(before[1]) != min(rank, *matrix.shape):
        return nearest(matrix, rank)
    left = torch.linalg.qr(matrix @ before[1].T)[0]
    right = torch.linalg.qr(matrix.T @ left)[0]
    return matrix @ right, right.T


def nearest(matrix: torch.Tensor, rank: int) -> Factors:
    """The factors of a rank whose product is nearest to a matrix."""
    import torch

    rows, others = matrix.shape
    wide = matrix.double()
    squares = wide @ wide.T if rows < others else wide.T @ wide
    directions = torch.linalg.eigh(squares)[1].flip(1)[:, :rank].to(matrix.dtype)
    right = torch.linalg.qr(matrix.T @ directions)[0] if rows < others else directions
    return matrix @ right, right.T


def on_threads(work: Callable[[int], Made], count: int) -> list[Made]:
    """What `work` makes of 0, 1, ..., in order; each on one thread, so that any number of threads gives the same bits."""
    import torch

    intra = torch.get_num_threads()
    try:
        with (
            held_back() as deliver,
            ThreadPoolExecutor(usual_threads(), initializer=torch.set_num_threads, initargs=(1,)) as pool,
        ):
            return results([pool.submit(work, number) for number in range(count)], deliver)
    finally:
        torch.set_num_threads(intra)
