"""Loops for GPUs, in torch's own operations on whole numbers: the bits of `philox`, and order statistics without sorting."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PER_STEP = 8  # numbers of one step of Philox's counter
_STEPS = 1 << 20  # that are drawn at once: a dozen tensors of 8 MB
_ROUNDS = 10
_LOWER = 0xFFFFFFFF
_FACTORS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
_KEYS = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
_SCALE = 2.0**-24
_BELOW_SIGN = 0x7FFFFFFF
_HALF = 1 << 16  # values of the upper and of the lower bits of a float32


def uniform(count: int, key: int, start: int, device: torch.device) -> torch.Tensor:
    """So many float32 numbers in [0, 1) on a device, from the one numbered `start` on: those of NumPy's Philox 4x64-10."""
    import torch

    step, skipped = divmod(start, PER_STEP)
    out = torch.empty(skipped + count, device=device)
    for begin in range(0, len(out), _STEPS * PER_STEP):
        piece = out[begin : begin + _STEPS * PER_STEP]
        steps = -(-len(piece) // PER_STEP)
        halves = _drawn(key, step + begin // PER_STEP, steps, device).view(torch.int32).reshape(-1)[: len(piece)]
        torch.mul((halves >> 8) & 0xFFFFFF, _SCALE, out=piece)
    return out[skipped:]


def _drawn(key: int, step: int, steps: int, device: torch.device) -> torch.Tensor:
    """Four words of 64 bits for each step after `step`, as signed numbers with the same bits."""
    import torch

    a = torch.arange(step + 1, step + 1 + steps, dtype=torch.int64, device=device)
    b, c, d = (torch.zeros_like(a) for _ in range(3))
    one, two = key & ((1 << 64) - 1), key >> 64
    for _ in range(_ROUNDS):
        a_high, a_low = _product(_FACTORS[0], a)
        c_high, c_low = _product(_FACTORS[1], c)
        a, b, c, d = c_high ^ b ^ _signed(one), c_low, a_high ^ d ^ _signed(two), a_low
        one, two = one + _KEYS[0], two + _KEYS[1]
    return torch.stack([a, b, c, d], 1)


def _product(factor: int, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The upper and the lower 64 bits of a product of unsigned numbers; torch's products keep the lower 64, whatever the sign."""
    low, high = other & _LOWER, (other >> 32) & _LOWER
    lowest = low * _signed(factor & _LOWER)
    middle = low * (factor >> 32) + ((lowest >> 32) & _LOWER)
    lower = high * (factor & _LOWER) + (middle & _LOWER)
    upper = high * (factor >> 32) + ((middle >> 32) & _LOWER) + ((lower >> 32) & _LOWER)
    return upper, other * _signed(factor)


def _signed(word: int) -> int:
    """The signed number with the same 64 bits."""
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >> 63 else word


def kth_smallest(values: torch.Tensor, place: int) -> float:
    """The value at `place` of float32 numbers in order, NaN the largest.

    Whole numbers in the same order are made of their bits; the upper 16 are counted, and then the lower ones of those that share the upper.
    """
    import torch

    bits = values.reshape(-1).view(torch.int32)
    keys = bits ^ ((bits >> 31) & _BELOW_SIGN)
    uppers = (keys >> 16) + _HALF // 2
    upper, below = _bin(torch.bincount(uppers, minlength=_HALF), place)
    lower, _ = _bin(torch.bincount(keys[uppers == upper] & (_HALF - 1), minlength=_HALF), place - below)
    key = torch.tensor((upper - _HALF // 2) << 16 | lower, dtype=torch.int32)
    return float((key ^ ((key >> 31) & _BELOW_SIGN)).view(torch.float32))


def _bin(counts: torch.Tensor, place: int) -> tuple[int, int]:
    """The value that the number at `place` has, and how many have smaller ones."""
    import torch

    until = counts.cumsum(0)
    value = torch.searchsorted(until, place, right=True)
    found, upto, held = torch.stack([value, until[value], counts[value]]).tolist()
    return int(found), int(upto - held)
