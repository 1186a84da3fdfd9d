"""How much of each candidate is in a checkpoint: least squares from sums over elements, and how far it can be trusted.

Only sums are seen here, never a tensor. With the checkpoint y, the candidates c and the ratios r, |y - sum(r * c)| is least.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# What is left of a number by an operation in float32, which merges are calculated in, or a few of them; relative.
_CALCULATED = 1e-6
# Of a value m * 2^e with m evenly spread in its logarithm, the mean of 1 / m^2: rounding leaves ulp^2 / 12, and ulp is 2^e * eps.
_MANTISSA = 0.541
_STEADY = 1e-13  # eigenvalues of a sum in float64 below this share of the largest are noise
_CANCELLED = 4 * np.finfo(np.float64).eps  # a sum that is less, of its terms' absolute values, is what rounding leaves of zero
_BLURRED = 4  # squared differences up to so many times what rounding leaves are not told from it
_ROUGH = 100  # up to so many times, rounding still pulls the checkpoint to one of the candidates: ratios are off by some hundredths
_TOUCHED = 1e-3  # of the largest part in a direction that cannot be seen: less does not move a ratio
_ROUNDED = 2.5**2  # times what rounding leaves on average, squared: that is its most, at half an ulp everywhere
_NEARLY = 0.99  # of the squared distance from the nearest candidate


@dataclass(frozen=True)
class Sums:
    """Of some elements of a checkpoint (first) and its candidates. Sums of other elements add to them.

    `inner` and `apart` are the products and the squared distances of each pair, `rounding` is what rounding to its file's
    dtype leaves of each, squared, and `numel` counts the elements.
    """

    inner: np.ndarray
    apart: np.ndarray
    rounding: np.ndarray
    numel: int

    def __add__(self, other: Sums) -> Sums:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Sums(*(one + another for one, another in pairs))

    def of(self, which: list[int]) -> Sums:
        """The sums of some of the models."""
        return Sums(self.inner[np.ix_(which, which)], self.apart[np.ix_(which, which)], self.rounding[which], self.numel)


@dataclass(frozen=True)
class Remainder:
    """What a fit leaves, as squares summed over elements; those of other elements add to it.

    Of the checkpoint itself, of checkpoint - fit, of what rounding to the files' dtypes leaves (about), and of the distance from
    the nearest candidate.
    """

    square: float
    left: float
    rounding: float
    far: float

    def __add__(self, other: Remainder) -> Remainder:
        return Remainder(*(one + another for one, another in zip(vars(self).values(), vars(other).values(), strict=True)))

    def relative(self, square: str) -> float:
        """The root of one of the squares over the checkpoint's norm; NaN where that is zero."""
        return float(np.sqrt(getattr(self, square) / self.square)) if self.square else np.nan

    @property
    def explained(self) -> float:
        """The share of the squared distance from the nearest candidate that the fit explains; NaN where there is none."""
        return 1 - self.left / self.far if self.far else np.nan

    @property
    def exact(self) -> bool:
        """Whether what is left is no more than rounding."""
        return self.left <= _ROUNDED * self.rounding

    @property
    def fits(self) -> bool:
        """Whether that is so, or nearly all is explained that sets the checkpoint apart from its nearest candidate."""
        return self.exact or self.left <= (1 - _NEARLY) * self.far


@dataclass(frozen=True)
class LeastSquaresFit:
    """The least squares over some elements, and how far it can be trusted."""

    ratios: np.ndarray  # of each candidate; of those that are sums of each other the ones of least norm
    errors: np.ndarray  # standard errors of the ratios, if what is left is noise; NaN without spare elements to tell it from
    known: np.ndarray  # whether a ratio means something: its candidate is no sum of the others
    rest: Remainder
    rough: bool  # whether rounding moved the ratios more than their errors tell
    nearest: int  # the candidate that is least far from the checkpoint
    spare: int  # elements beyond those that any numbers would fit


def rounding_left(square: float, numel: int, eps: float, least: float) -> float:
    """What rounding of numbers with this sum of squares leaves, squared: `eps` and the `least` number above zero are the dtype's."""
    return square * max(_MANTISSA * eps**2 / 12, _CALCULATED**2) + numel * least**2 / 12


def least_squares(sums: Sums) -> LeastSquaresFit:
    """The ratios of the candidates (Gauss's normal equations), and what can be said of them.

    The equations are solved for what has to be added to the candidates' mean, from differences, so that models close to each other
    lose no digits; and in units of each candidate's rounding, in which a direction shorter than one cannot be seen.
    """
    count = len(sums.rounding) - 1
    square, far = float(sums.inner[0, 0]), sums.apart[0, 1:]
    along = sums.inner[0, 1:] - square  # y * d, where d = c - y
    between = (far[:, None] + far - sums.apart[1:, 1:]) / 2  # d * d
    start = np.full(count, 1 / count)
    pull = -(along @ start + between @ start)  # c * (y - mean of c)
    unit = 1 / np.sqrt(np.where(sums.rounding[1:] > 0, sums.rounding[1:], 1))
    lengths, directions = np.linalg.eigh(sums.inner[1:, 1:] * unit * unit[:, None])
    directions = unit[:, None] * directions
    seen = (lengths > 0) & (lengths > _STEADY * lengths[-1])
    steps = directions[:, seen] / lengths[seen]
    change = steps @ (directions[:, seen].T @ pull)
    ratios, missing = start + change, -change.sum()  # y - sum(r * c) = missing * y - sum(r * d)
    terms = np.array([missing**2 * square, -2 * missing * (ratios @ along), *(ratios[:, None] * between * ratios).flat])
    left = float(terms.sum()) if terms.sum() > _CANCELLED * np.abs(terms).sum() else 0.0
    spare = sums.numel - int(seen.sum())
    variances = (steps * directions[:, seen]).sum(1) * (left / spare if spare > 0 else np.nan)
    rounding = float(sums.rounding[0] + ratios**2 @ sums.rounding[1:])
    return LeastSquaresFit(
        ratios=ratios,
        errors=np.sqrt(variances),
        known=_known(directions[:, ~seen | (lengths <= _BLURRED)]),
        rest=Remainder(square, left, rounding, float(far.min())),
        rough=bool((lengths[lengths > _BLURRED] < _ROUGH).any()),
        nearest=int(far.argmin()),
        spare=spare,
    )


def alike(sums: Sums, which: list[int]) -> str:
    """What is the matter with candidates whose ratios cannot be told."""
    apart = sums.apart[np.ix_(which, which)]
    noise = sums.rounding[which]
    if len(which) == 1:
        return "is all zero"
    if not apart.any():
        return "are equal"
    if (apart <= _BLURRED * (noise[:, None] + noise)).all():
        return "are equal to within rounding"
    return "are sums of each other to within rounding"


def _known(blurred: np.ndarray) -> np.ndarray:
    """The candidates that no direction (a column) in which nothing can be seen has a part of."""
    parts = np.abs(blurred)
    known: np.ndarray = ~(parts > _TOUCHED * parts.max(0, initial=0)).any(1)
    return known
