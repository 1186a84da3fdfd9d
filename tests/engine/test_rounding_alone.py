"""`only_rounded`: two tensors that can be one set of numbers in two dtypes, and no others."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.engine.rounding import all_only_rounded, only_rounded

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn)
numbers = st.lists(st.floats(-400, 400, width=32), min_size=1, max_size=20).map(torch.tensor)


@given(numbers, st.sampled_from(list(permutations(DTYPES, 2))))
def test_what_was_rounded_to_two_dtypes_differs_by_rounding_alone(values, dtypes):
    one, other = (values.to(dtype).float() for dtype in dtypes)
    assert only_rounded(one, other, dtypes)
    assert all_only_rounded(torch.stack([one, other, one]), [*dtypes, dtypes[0]])


@given(numbers, st.sampled_from(list(permutations(DTYPES, 2))))
def test_a_change_of_more_than_a_step_is_none(values, dtypes):
    one, other = (values.to(dtype).float() for dtype in dtypes)
    step = max(torch.finfo(dtype).eps for dtype in dtypes) * other.abs().max() + 0.1
    assert not only_rounded(one, other + 2 * step, dtypes)


def test_by_hand_half_a_step_is_rounding_and_the_next_number_is_not():
    # between 1 and 2 a step of float16 is 1/1024
    half, single = (torch.float16, torch.float32)
    assert only_rounded(torch.tensor([1.0]), torch.tensor([1 + 0.49 / 1024]), (half, single))
    assert not only_rounded(torch.tensor([1.0]), torch.tensor([1 + 0.51 / 1024]), (half, single))
    assert only_rounded(torch.tensor([1 + 0.49 / 1024]), torch.tensor([1.0]), (single, half))


def test_a_number_between_two_of_bfloat16_is_either_of_them_in_float16():
    # 1 + 1/256 lies between the two; a float32 a little above or below it rounds to it in float16
    middle = torch.tensor([1 + 1 / 256])
    for near in (1.0, 1 + 1 / 128):
        assert only_rounded(middle, torch.tensor([near]), (torch.float16, torch.bfloat16))
    assert not only_rounded(middle, torch.tensor([1 + 2 / 128]), (torch.float16, torch.bfloat16))


@pytest.mark.parametrize("dtype", DTYPES)
def test_in_one_dtype_only_equal_is_equal(dtype):
    one = torch.tensor([1.0])
    assert only_rounded(one, one, (dtype, dtype))
    assert not only_rounded(one, one + torch.finfo(dtype).eps, (dtype, dtype))


def test_whole_numbers_are_not_rounded():
    assert not only_rounded(torch.tensor([1.0]), torch.tensor([1.0001]), (torch.int64, torch.float32))
    assert only_rounded(torch.tensor([1.0]), torch.tensor([1.0]), (torch.int64, torch.float32))


def test_what_was_calculated_is_known_and_never_rounding():
    assert not all_only_rounded(torch.ones(2, 3), [None, torch.float32])


def test_nan_is_never_rounding():
    assert not only_rounded(torch.tensor([float("nan")]), torch.tensor([1.0]), (torch.float16, torch.float32))
