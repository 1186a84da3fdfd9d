"""Methods that go by the angle between tensors: by hand, and where there is none, or none to turn by."""

from __future__ import annotations

import math

import pytest
import torch

from workbench.operators import own

slerp, model_stock = (own()[name].declaration.function for name in ("slerp", "model_stock"))
nuslerp, delta_nuslerp, karcher_mean = (own()[name].function for name in ("nuslerp", "delta_nuslerp", "karcher_mean"))
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


OVER = pytest.mark.parametrize("over", ["tensor", "row", "column"])


@OVER
@pytest.mark.parametrize("factor", [3, -3, 1 / 3, -1 / 3])
def test_between_parallels_and_opposites_of_whatever_kind_the_way_is_straight(over, factor):
    found = nuslerp([FIRST, FIRST * factor], weights=[0.7, 0.3], over=over)
    torch.testing.assert_close(found, torch.lerp(FIRST, FIRST * factor, 0.3))


@OVER
@pytest.mark.parametrize("angle", [1e-4, 1e-3, 0.01, 1, 3])
def test_each_vector_is_turned_by_its_own_angle(over, angle):
    """Of two vectors one is turned, and the other stays where it is."""
    first = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    turned = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    second = first.clone()
    expected = first.clone()
    expected[0] = torch.tensor([math.cos(0.3 * angle), math.sin(0.3 * angle)])
    second[0] = turned
    if over == "column":
        first, second, expected = first.T, second.T, expected.T
    if over == "tensor":
        first, second, expected = first[:1], second[:1], expected[:1]
    found = nuslerp([first.float(), second.float()], weights=[0.7, 0.3], over=over)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=3e-7)


def test_the_way_between_changes_is_added_to_the_base():
    base, first, second = torch.tensor([1.0, 1.0]), torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0])
    half = math.sqrt(0.5)
    torch.testing.assert_close(delta_nuslerp(base, [first, second]), base + torch.tensor([2 * half, half]))


def test_the_mean_of_three_right_angles_is_between_them_and_as_long_as_they_are_on_average():
    axes = torch.eye(3) * torch.tensor([[1.0], [2.0], [3.0]])
    torch.testing.assert_close(karcher_mean([*axes]), torch.full((3,), 2 / math.sqrt(3)))


def test_the_mean_of_two_directions_halves_their_angle_however_small():
    for angle in (1e-3, 0.5, 3.0):
        second = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        found = karcher_mean([torch.tensor([1.0, 0.0]), second.float()], tolerance=1e-9)
        torch.testing.assert_close(found.double(), torch.tensor([math.cos(angle / 2), math.sin(angle / 2)]).double(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("numbers", "mean"),
    [((0.7, -0.1), 0.4), ((0.3, -0.2), 0.25), ((-0.457, 0.123), -0.29), ((0.7, -0.1, 1.4), 2.2 / 3), ((0.2, -0.2), 0.2)],
)
@pytest.mark.parametrize("tolerance", [0, 1e-5])
def test_there_is_no_way_to_an_opposite_so_the_mean_is_the_firsts_or_most_ones_direction(numbers, mean, tolerance):
    """As tensors of one number are, whose signs differ."""
    found = karcher_mean([torch.tensor([number]) for number in numbers], tolerance=tolerance)
    torch.testing.assert_close(found, torch.tensor([mean]))


def test_the_mean_of_opposites_is_no_longer_than_they_are():
    tensor = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    found = karcher_mean([tensor, -1.1 * tensor], weights=[0.7, 0.3])
    torch.testing.assert_close(found, (0.7 + 0.33) * tensor)


@OVER
def test_the_way_between_equals_changes_no_bit_and_one_nan_stays_one(over):
    tensor = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    assert torch.equal(nuslerp([tensor, tensor.clone()], weights=[1, 2], over=over), tensor)
    spoilt = tensor * 1.1
    spoilt[3, 5] = torch.nan
    assert nuslerp([tensor, spoilt], over=over).isnan().sum() == 1


def test_opposite_rows_of_a_million_go_straight():
    rows = torch.rand(2, 1_000_000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(nuslerp([rows, -1.7 * rows], weights=[0.7, 0.3], over="row"), 0.19 * rows, rtol=1e-4, atol=1e-4)


def test_a_direction_that_all_share_is_kept_and_a_zero_shortens_it():
    torch.testing.assert_close(karcher_mean([FIRST, 2 * FIRST, 0 * FIRST]), FIRST)
    assert torch.equal(karcher_mean([0 * FIRST, 0 * FIRST]), 0 * FIRST)
