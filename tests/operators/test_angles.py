"""Methods that go by the angle between tensors: by hand, and where there is none, or none to turn by."""

from __future__ import annotations

import math

import pytest
import torch

from workbench.operators import own

slerp, model_stock = (own()[name].declaration.function for name in ("slerp", "model_stock"))
FIRST = torch.tensor([[1.0, 2.0], [-3.0, 0.5]])


def test_a_third_of_a_right_angle_is_turned_and_lengths_are_kept_or_not():
    first, second = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0])
    long, short = math.cos(math.pi / 6), math.sin(math.pi / 6)
    torch.testing.assert_close(slerp(first, second, t=1 / 3), torch.tensor([2 * long, short]))
    between = 2 * 2 / 3 + 1 / 3
    torch.testing.assert_close(slerp(first, second, t=1 / 3, renormalise=True), torch.tensor([between * long, between * short]))


@pytest.mark.parametrize("off", [0, 1e-7, 1e-6])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("renormalise", [False, True])
def test_between_parallel_and_between_opposite_tensors_the_way_is_straight(sign, off, renormalise):
    second = FIRST * (sign * 3) + torch.tensor([[off, 0], [0, 0]])
    torch.testing.assert_close(slerp(FIRST, second, t=0.3, renormalise=renormalise), torch.lerp(FIRST, second, 0.3), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("angle", [1e-4, 1e-3, 0.01])
def test_a_small_angle_is_turned_as_far_as_one_of_float64(angle):
    first = torch.tensor([1.0, 0.0], dtype=torch.float64)
    second = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    expected = torch.tensor([math.cos(0.3 * angle), math.sin(0.3 * angle)], dtype=torch.float64)
    found = slerp(first.float(), second.float(), t=0.3, renormalise=True)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("first", "second"), [(0.0, 0.4), (0.5, -0.3), (0.5, 0.3)])
@pytest.mark.parametrize("renormalise", [False, True])
def test_single_numbers_keep_shape_and_dtype(first, second, renormalise):
    found = slerp(torch.tensor(first), torch.tensor(second), t=0.3, renormalise=renormalise)
    assert (found.shape, found.dtype) == (torch.Size(), torch.float32)
    if first:  # a zero stands at a right angle
        assert found.item() == pytest.approx(0.7 * first + 0.3 * second)


def test_models_go_as_far_as_their_changes_agree():
    base = torch.tensor([1.0, 1.0])
    found = model_stock(base, [torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])])
    cosine = math.sqrt(0.5)
    torch.testing.assert_close(found, base + 2 * cosine / (1 + cosine) * torch.tensor([1.0, 0.5]))


def test_opposite_changes_of_models_move_nothing():
    base = torch.tensor([1.0, 1.0])
    assert torch.equal(model_stock(base, [torch.tensor([1.0, 1.0]), torch.tensor([-2.0, -2.0])]), base)
