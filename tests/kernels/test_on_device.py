"""What GPUs draw and count is what the CPU does, to the bit: their loop compiled for the processor here, the rest as it is."""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.kernels import on_device

# what GPUs have of themselves, and a loop over the counter
FOR_THE_PROCESSOR = """
#include <cstdint>
static unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return ((unsigned __int128)a * b) >> 64; }
%s
extern "C" void draw(int64_t step, int64_t steps, int64_t key, int64_t key_above, int64_t* out) {
    for (int64_t i = 0; i < steps; ++i, out += 4) philox<int64_t>(step + 1 + i, key, key_above, out[0], out[1], out[2], out[3]);
}
"""


@pytest.fixture(scope="module")
def draw(tmp_path_factory):
    if not (compiler := shutil.which("c++")):
        pytest.skip("there is no C++ compiler here")
    folder = tmp_path_factory.mktemp("philox")
    (folder / "draw.cpp").write_text(FOR_THE_PROCESSOR % on_device.PHILOX)
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(folder / "draw.so"), str(folder / "draw.cpp")], check=True)
    found = ctypes.CDLL(str(folder / "draw.so")).draw
    found.argtypes = [ctypes.c_int64] * 4 + [ctypes.c_void_p]
    return found


@given(key=st.integers(0, (1 << 128) - 1), step=st.integers(0, 1 << 40), count=st.integers(0, 300))
def test_numbers_are_those_of_numpys_philox(draw, key, step, count):
    words = torch.empty((-(-count // on_device.PER_STEP), 4), dtype=torch.int64)
    draw(step, len(words), on_device._signed(key), on_device._signed(key >> 64), words.data_ptr())
    out = torch.empty(count)
    on_device.numbers(words, out)
    expected = np.random.Generator(np.random.Philox(key=key, counter=step)).random(count, dtype=np.float32)
    assert out.numpy().tobytes() == expected.tobytes()


def test_any_part_has_its_own_numbers_however_many_are_drawn_at_once(draw, monkeypatch):
    def drawn(steps, key):
        words = torch.empty((len(steps), 4), dtype=torch.int64)
        draw(int(steps[0]) - 1, len(steps), on_device._signed(key), on_device._signed(key >> 64), words.data_ptr())
        return words.unbind(1)

    monkeypatch.setattr(on_device, "_words", drawn)
    monkeypatch.setattr(on_device, "_STEPS", 16)
    expected = np.random.Generator(np.random.Philox(key=(3 << 100) + 7, counter=5)).random(5003, dtype=np.float32)[3:]
    assert on_device.uniform(5000, (3 << 100) + 7, 43, torch.device("cpu")).numpy().tobytes() == expected.tobytes()


def test_torch_can_read_what_it_is_to_compile():
    from torch.cuda.jiterator import _CodeParser

    assert _CodeParser(on_device.PHILOX).function_name == "philox"


@given(st.lists(st.floats(allow_nan=False, width=32), min_size=1, max_size=40), st.data())
def test_order_statistics_are_exact(values, data):
    place = data.draw(st.integers(0, len(values) - 1))
    assert on_device.kth_smallest(torch.tensor(values), place) == sorted(values)[place]


def _many(kind: str) -> torch.Tensor:
    numbers = torch.randn(300_000, generator=torch.Generator().manual_seed(0)).abs()
    return {
        "all different": numbers,
        "few values": (numbers * 4).round(),  # as deltas of float16 have
        "one value": torch.full_like(numbers, 0.5),
        "most of them zero": numbers.where(numbers > 2, 0),
        "in order": numbers.sort().values,
        "the sample's place is wrong": numbers.index_fill(0, torch.arange(0, len(numbers), len(numbers) // on_device._SAMPLE), 9.0),
        "some are no numbers": numbers.where(numbers < 2.5, math.nan),
    }[kind]


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.9, 0.999, 1])
@pytest.mark.parametrize(
    "kind",
    ["all different", "few values", "one value", "most of them zero", "in order", "the sample's place is wrong", "some are no numbers"],
)
def test_order_statistics_of_many_are_those_of_sorting(kind, share):
    values = _many(kind)
    place = int(share * (len(values) - 1))
    found, expected = on_device.kth_smallest(values, place), values.sort().values[place].item()
    assert found == expected or (math.isnan(found) and math.isnan(expected))


def test_of_many_only_those_near_the_place_are_sorted(monkeypatch):
    values, sizes = _many("all different"), []
    whole = torch.Tensor.sort
    monkeypatch.setattr(torch.Tensor, "sort", lambda values: sizes.append(len(values)) or whole(values))
    on_device.kth_smallest(values, 150_000)
    assert len(sizes) == 2
    assert max(sizes) <= 300_000 / 3


def test_nan_is_the_largest_as_for_torch():
    values = torch.tensor([1.0, math.nan, math.inf, 0.0])
    assert on_device.kth_smallest(values, 2) == math.inf
    assert math.isnan(on_device.kth_smallest(values, 3))
