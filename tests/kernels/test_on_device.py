"""What GPUs draw and count is what the CPU does, to the bit; here on the CPU, whose operations on whole numbers are the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.kernels import on_device

CPU = torch.device("cpu")


@given(st.integers(0, (1 << 128) - 1), st.integers(0, 1 << 40), st.integers(0, 300))
def test_numbers_are_those_of_numpys_philox(key, start, count):
    step, skipped = divmod(start, 8)
    expected = np.random.Generator(np.random.Philox(key=key, counter=step)).random(skipped + count, dtype=np.float32)[skipped:]
    assert on_device.uniform(count, key, start, CPU).numpy().tobytes() == expected.tobytes()


def test_numbers_do_not_depend_on_how_many_are_drawn_at_once(monkeypatch):
    whole = on_device.uniform(5000, 7, 3, CPU)
    monkeypatch.setattr(on_device, "_STEPS", 16)
    assert on_device.uniform(5000, 7, 3, CPU).equal(whole)


@given(st.lists(st.floats(allow_nan=False, width=32), min_size=1, max_size=40), st.data())
def test_order_statistics_are_exact(values, data):
    place = data.draw(st.integers(0, len(values) - 1))
    assert on_device.kth_smallest(torch.tensor(values), place) == sorted(values)[place]


@pytest.mark.parametrize("place", [0, 1, 49_999, 99_998, 99_999])
def test_order_statistics_of_many_are_those_of_sorting(place):
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    values[:1000] = values[1000]
    assert on_device.kth_smallest(values, place) == values.sort().values[place].item()


def test_nan_is_the_largest_as_for_torch():
    values = torch.tensor([1.0, math.nan, math.inf, 0.0])
    assert on_device.kth_smallest(values, 2) == math.inf
    assert math.isnan(on_device.kth_smallest(values, 3))
