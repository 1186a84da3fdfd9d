"""`add_difference`: the numbers by hand, and that it undoes itself."""

from __future__ import annotations

import math

import torch
from held import Held
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb

add_difference = wb.operators.add_difference


def test_two_by_two_by_hand():
    base, tuned = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[2.0, 2.0], [0.0, 1.0]])
    original = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    result = add_difference.function(base, tuned, original, strength=0.5)
    assert torch.equal(result, torch.tensor([[1.5, 3.0], [2.5, 4.0]]))


def test_without_a_difference_the_base_comes_back():
    base, tuned = torch.randn(4, 3), torch.randn(4, 3)
    assert torch.equal(add_difference.function(base, tuned, tuned, strength=2.0), base)


@given(st.floats(-2, 2))
def test_adding_and_taking_away_gives_the_base(strength):
    base, tuned, original = torch.randn(3, 5, 2, dtype=torch.float64)
    there = add_difference.function(base, tuned, original, strength=strength)
    torch.testing.assert_close(add_difference.function(there, tuned, original, strength=-strength), base)


def test_add_delta_two_by_two_by_hand():
    base, first, second = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, -1.0]]), torch.full((2, 2), 10.0)
    result = wb.operators.add_delta.function(base, [first, second], strengths=[2.0, 0.5])
    assert result.tolist() == [[8.0, 7.0], [8.0, 7.0]]
    assert base.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_add_delta_of_tuned_models_is_task_arithmetic():
    base, tuned = Held({"x": torch.randn(5)}, "base"), Held({"x": torch.randn(5)}, "tuned")
    added = wb.operators.add_delta(base, [tuned], strengths=0.7)
    torch.testing.assert_close(added.read("x"), wb.operators.task_arithmetic(base, [tuned], weights=0.7).read("x"))


def test_what_is_infinite_is_not_left_out_as_if_nothing_had_been_learned():
    original, base, tuned = torch.tensor([0.25, 0.5]), torch.tensor([0.5, 1.0]), torch.tensor([math.inf, 2.0])
    assert not wb.operators.add_perpendicular.function(base, tuned, original).isfinite().all()
