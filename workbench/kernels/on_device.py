"""What GPUs do in torch's own operations: random numbers with the bits of `philox`, and order statistics without sorting everything."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PER_STEP = 8  # numbers of one step of Philox's counter
_STEPS = 1 << 22  # that are drawn at once: tensors of 128 MB
_SCALE = 2.0**-24
_SORTED = 1 << 17  # so many values are sorted in less time than it takes to look for the few that are near
_SAMPLE = 1 << 16
_NEAR = 700  # places of the sample to either side: its place is off by less than 130 in two of three

# Philox 4x64-10 (Salmon et al. 2011): four words of 64 bits for a number of the counter. torch has it compiled for the GPU at hand.
PHILOX = """
template <typename T> void philox(T step, T key, T key_above, T& a, T& b, T& c, T& d) {
    unsigned long long x = step, y = 0, z = 0, w = 0, one = key, two = key_above;
    for (int round = 0; round < 10; ++round) {
        unsigned long long x_high = __umul64hi(0xD2E7470EE14C6C93ULL, x), z_high = __umul64hi(0xCA5A826395121157ULL, z);
        unsigned long long x_low = 0xD2E7470EE14C6C93ULL * x, z_low = 0xCA5A826395121157ULL * z;
        x = z_high ^ y ^ one;
        z = x_high ^ w ^ two;
        y = z_low;
        w = x_low;
        one += 0x9E3779B97F4A7C15ULL;
        two += 0xBB67AE8584CAA73BULL;
    }
    a = x;
    b = y;
    c = z;
    d = w;
}
"""


def uniform(count: int, key: int, start: int, device: torch.device) -> torch.Tensor:
    """So many float32 numbers in [0, 1) on a GPU, from the one numbered `start` on: those of NumPy's Philox 4x64-10."""
    import torch

    step, skipped = divmod(start, PER_STEP)
    out = torch.empty(skipped + count, device=device)
    for begin in range(0, len(out), _STEPS * PER_STEP):
        piece = out[begin : begin + _STEPS * PER_STEP]
        first = step + 1 + begin // PER_STEP
        steps = torch.arange(first, first - (-len(piece) // PER_STEP), device=device)
        numbers(torch.stack([*_words(steps, key)], 1), piece)
    return out[skipped:]


def numbers(words: torch.Tensor, out: torch.Tensor) -> None:
    """Fill `out` with what words of 64 bits, in the order of their lower and upper halves, come to: 24 bits each."""
    import torch

    halves = words.view(torch.int32).reshape(-1)[: len(out)]
    torch.mul((halves >> 8) & 0xFFFFFF, _SCALE, out=out)


def _words(steps: torch.Tensor, key: int) -> Sequence[torch.Tensor]:
    """Four words of 64 bits for each number of the counter."""
    import torch

    with torch.cuda.device(steps.device):  # on which what is compiled runs
        found: Sequence[torch.Tensor] = _philox()(steps, key=_signed(key), key_above=_signed(key >> 64))
        return found


@functools.cache
def _philox() -> Callable[..., Any]:
    from torch.cuda import jiterator

    made: Callable[..., Any] = jiterator._create_multi_output_jit_fn(PHILOX, 4, key=0, key_above=0)
    return made


def _signed(word: int) -> int:
    """The signed number with the same lowest 64 bits."""
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >> 63 else word


def kth_smallest(values: torch.Tensor, place: int) -> float:
    """The value at `place` of numbers in order, NaN the largest.

    Of many, those are sorted that lie between two of a sample, where the place should be; all of them where it is not.
    """
    values = values.reshape(-1)
    if values.numel() > _SORTED:
        sample = values[:: values.numel() // _SAMPLE].sort().values
        at = place * len(sample) // values.numel()
        low, high = (sample[min(max(one, 0), len(sample) - 1)] for one in (at - _NEAR, at + _NEAR))
        below, near = int((values < low).sum()), values[(values >= low) & (values <= high)]
        if below <= place < below + len(near):
            values, place = near, place - below
    return float(values.sort().values[place])
