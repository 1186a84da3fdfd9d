"""Which elements of a delta are kept. Pure functions; the methods that use them are in `combine`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import hardshrink

from workbench import kernels
from workbench.kernels import on_device

if TYPE_CHECKING:
    from workbench.merge.preparing import ReadingPart

NO_WEIGHT = 1e-8  # weights that sum to less do not divide, as in mergekit
_FINEST = 2**-24  # the smallest share that random numbers of 24 bits can keep: of a smaller density they keep so many, or none
_PLACE_BITS = 32  # of a number that holds a magnitude above, and where it lies
_LOW = 16  # bits of a float32 that are counted apart from the upper ones

# a piece of a delta laid flat, where it lies, and a scale -> what is kept of it, times that
Keep = Callable[[torch.Tensor, slice, float], torch.Tensor]


def rescaling(prune: str, density: float, rescale: bool | None) -> float:
    """What kept elements are multiplied by, so that those that are dropped are made up for; None: where it is by chance."""
    rescaled = prune != "none" and density > 0 and (prune == "random" if rescale is None else rescale)
    return 1 / max(density, _FINEST) if rescaled else 1.0


def everything(piece: torch.Tensor, place: slice, scale: float) -> torch.Tensor:
    """Every element."""
    return times(scale, piece)


def nothing(piece: torch.Tensor, place: slice, scale: float) -> torch.Tensor:
    """No element."""
    return times(scale, torch.zeros_like(piece))


def times(number: float, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor's multiple; itself where that changes nothing."""
    return tensor if number == 1 else tensor * number


def largest(delta: torch.Tensor, density: float) -> Keep:
    """The k = int(density * numel) elements of largest magnitude, and those that tie with the smallest of them."""
    count = int(density * delta.numel())
    if count in (0, delta.numel()):
        return everything if count else nothing
    return from_magnitude(kth_largest(delta.abs(), count), delta.dtype)


def thresholds(passes: Callable[[], Iterable[ReadingPart]], density: float) -> list[float]:
    """For each of several models, whose base and deltas `passes()` reads part by part, the smallest magnitude that is kept of all of them.

    The k = int(density * numel) largest, and what ties with the smallest of them, as `largest` has it for one tensor; infinity for none,
    and where all are 0.
    """
    return [math.inf if zeros else value for (value,), zeros in _order_statistics(passes, lambda total: (int(density * total),))]


def bands(passes: Callable[[], Iterable[ReadingPart]], density: float, gamma: float) -> list[tuple[float, float]]:
    """For each of several models the smallest and the largest magnitude that `middle` keeps of one tensor, which is read part by part."""
    return [(bottom, top) for (bottom, top), _ in _order_statistics(passes, lambda total: _of_middle(total, density, gamma))]


def _order_statistics(
    passes: Callable[[], Iterable[ReadingPart]], wanted: Callable[[int], tuple[int, ...]]
) -> Iterator[tuple[list[float], bool]]:
    """Of each model's n magnitudes the k-th largest for each k of `wanted(n)`, infinity for 0, 0 for -1; and whether all are 0.

    Counted by the bits of float32, which order magnitudes, in a pass for the upper ones and one for each k: nothing is held but the counts.
    """
    high = _counts(passes, None)
    kept = [wanted(int(one.sum())) for one in high]
    found: list[list[float]] = [[] for _ in high]
    zeros = [False for _ in high]
    for keep in zip(*kept, strict=True):
        tops = [_place(one, k) for one, k in zip(high, keep, strict=True)]
        low = _counts(passes, [top for top, _ in tops]) if any(k > 0 for k in keep) else high
        for number, (k, (top, left)) in enumerate(zip(keep, tops, strict=True)):
            bits = (top << _LOW) + _place(low[number], left)[0]
            value = torch.tensor(bits, dtype=torch.int32).view(torch.float32).item() if k > 0 else _bound(k)
            found[number].append(value)
            zeros[number] = _zeros(high[number], low[number])
    return zip(found, zeros, strict=True)


def _bound(k: int) -> float:
    """What no magnitude is beyond (0), and what none is below (-1)."""
    return math.inf if k == 0 else 0.0


def _zeros(high: torch.Tensor, low: torch.Tensor) -> bool:
    """Whether everything that was counted is 0."""
    return int(high[0]) == int(high.sum()) and int(low[0]) == int(low.sum())


def _counts(passes: Callable[[], Iterable[ReadingPart]], tops: Sequence[int] | None) -> list[torch.Tensor]:
    """How many magnitudes of each model have each value of their upper bits; or of their lower ones, of those with these upper ones."""
    found: torch.Tensor | None = None
    for part in passes():
        if (stored := part.stored()) is not None:
            from workbench.kernels import counting

            found = _no_counts(len(stored[1])) if found is None else found
            if counting.deltas(stored[0], stored[1], tops, found):
                continue
        _, deltas = part()
        found = _no_counts(len(deltas)) if found is None else found
        for number, delta in enumerate(deltas):
            _count(delta.reshape(-1), None if tops is None else tops[number], found[number])
    return [] if found is None else [*found]


def _no_counts(models: int) -> torch.Tensor:
    return torch.zeros((models, 1 << _LOW), dtype=torch.int64)


def _count(delta: torch.Tensor, top: int | None, found: torch.Tensor) -> None:
    if kernels.fit(delta):
        from workbench.kernels import counting

        counting.upper(delta, found) if top is None else counting.lower(delta, top, found)
        return
    bits = delta.float().abs().cpu().view(torch.int32)
    upper = bits >> _LOW
    chosen = upper if top is None else (bits & ((1 << _LOW) - 1))[upper == top]
    found += torch.bincount(chosen, minlength=1 << _LOW)


def _place(counts: torch.Tensor, keep: int) -> tuple[int, int]:
    """The value that the `keep`-th largest has, and how many are to be kept of those that have it."""
    above = counts.flip(0).cumsum(0)
    at = int((above < max(keep, 1)).sum())
    place = len(counts) - 1 - at
    return place, keep - (int(above[at - 1]) if at else 0)


def middle(delta: torch.Tensor, density: float, gamma: float) -> Keep:
    """The int(density * numel) largest below the int(gamma * numel) largest, which are left out; those that tie with them stay.

    There are always as many: where density and gamma are more than all, fewer of the largest are left out.
    """
    bottom, top = (kth_largest(delta.abs(), k) if k > 0 else _bound(k) for k in _of_middle(delta.numel(), density, gamma))
    return between(bottom, top, delta.dtype)


def _of_middle(total: int, density: float, gamma: float) -> tuple[int, int]:
    """Which of the largest are the smallest and the largest that `middle` keeps.

    The first is 0 where it keeps none, and -1 where it leaves none out because they are small; the second 0 where none is too large.
    """
    count = int(density * total)
    beyond = min(int(gamma * total), total - count) if count else 0
    return -1 if count and beyond + count == total else beyond + count, beyond + 1 if beyond else 0


def between(bottom: float, top: float, dtype: torch.dtype) -> Keep:
    """The elements whose magnitude is not below `bottom`, and not above `top`."""
    kept = from_magnitude(bottom, dtype)
    if math.isinf(top):
        return kept
    return lambda piece, place, scale: times(scale, kept(piece, place, 1).masked_fill(piece.abs() > top, 0))


def from_magnitude(smallest: float, dtype: torch.dtype) -> Keep:
    """The elements whose magnitude is not below `smallest`."""
    if smallest == 0:
        return everything
    if math.isinf(smallest):
        return nothing
    below = just_below(smallest, dtype)

    def beyond(piece: torch.Tensor, place: slice, scale: float) -> torch.Tensor:
        if kernels.fit(piece):
            from workbench.kernels import deltas

            return deltas.trimmed(piece, below, scale)
        return times(scale, hardshrink(piece, below))  # in one pass: what is beyond `below` stays, all else is 0

    return beyond


def from_single(smallest: float, dtype: torch.dtype) -> Keep:
    """The elements whose magnitude, rounded to float32, is not below `smallest`, which was found among such."""
    if dtype is torch.float32 or smallest == 0 or math.isinf(smallest):
        return from_magnitude(smallest, dtype)
    return lambda piece, place, scale: times(scale, torch.where(piece.abs().float() >= smallest, piece, 0))


def just_below(number: float, dtype: torch.dtype) -> float:
    """The next smaller number of a dtype."""
    return torch.tensor(number, dtype=dtype).nextafter(torch.zeros((), dtype=dtype)).item()


def random(kept: Keep, density: float) -> Keep:
    """Each element with probability `density`, as `kept` draws it."""
    if density in (0, 1):
        return everything if density else nothing
    return kept


def by_rank(delta: torch.Tensor, uniform: torch.Tensor, density: float, epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
    """What is kept by chance, larger changes of a row likelier, and each element's probability.

    Of a row (what follows dimension 0; all of a vector) of n elements that of rank r by magnitude, the smallest 0, has the probability
    density - epsilon + 2 epsilon r / (n - 1); of equal ones the first has the smaller rank.
    """
    rows = delta.reshape(1, -1) if delta.dim() < 2 else delta.reshape(delta.shape[0], delta.shape[1:].numel())
    last = max(rows.shape[1] - 1, 1)
    places = torch.arange(rows.shape[1], dtype=torch.float64) / last if rows.shape[1] > 1 else torch.tensor([0.5])
    likely = (density - epsilon + 2 * epsilon * places).to(rows)
    probability = torch.empty_like(rows).scatter_(1, _ascending(rows), likely.expand_as(rows)).reshape(delta.shape)
    return torch.where(uniform < probability, delta, 0), probability


def _ascending(rows: torch.Tensor) -> torch.Tensor:
    """Where in each row its magnitudes lie, the smallest first, and of equal ones the first."""
    if rows.dtype != torch.float32 or rows.device.type != "cpu":
        return rows.abs().argsort(dim=1, stable=True)
    # numbers that hold magnitude and place have no equals, and NumPy sorts such in a sixth of the time
    keys = rows.abs().view(torch.int32).long().bitwise_left_shift_(_PLACE_BITS)
    keys |= torch.arange(rows.shape[1])
    keys.numpy().sort(axis=1)
    return keys.bitwise_and_((1 << _PLACE_BITS) - 1)


def kth_largest(magnitudes: torch.Tensor, k: int) -> float:
    """The k-th largest of magnitudes, found without sorting them all; on the CPU their order is lost."""
    place = magnitudes.numel() - k
    if magnitudes.device.type != "cpu":
        return on_device.kth_smallest(magnitudes, place)
    values = magnitudes.reshape(-1).numpy()
    values.partition(place)
    return float(values[place])
