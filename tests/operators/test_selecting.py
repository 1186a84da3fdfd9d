"""SCE by hand: which elements are selected, what the models weigh, and whose sign counts."""

from __future__ import annotations

import math

import pytest
import torch

from workbench.operators import own

sce = own()["sce"].declaration.function
BASE = torch.tensor([1.0, 1.0, 1.0, 1.0])
FIRST, SECOND = torch.tensor([4.0, 0.0, 1.0, 2.0]), torch.tensor([0.0, 0.0, -1.0, 2.5])  # variances 4, 0, 1, 1/16


def test_of_the_elements_that_differ_the_most_varied_are_kept_and_the_minority_has_no_say():
    # 2 of 3; the models weigh 17 and 1 of 18, but each element is one model's alone: at the second the sum is 0, which counts as plus
    torch.testing.assert_close(sce(BASE, [FIRST, SECOND], density=0.7), torch.tensor([5.0, 1.0, 2.0, 1.0]))


def test_where_both_agree_they_are_averaged_by_their_weights():
    weights = 21, 0 + 1 + 6.25  # sums of squares, of all elements
    last = (weights[0] * 2 + weights[1] * 2.5) / sum(weights)
    torch.testing.assert_close(sce(BASE, [FIRST, SECOND], density=1.0), torch.tensor([5.0, 1.0, 2.0, 1 + last]))


def test_what_ties_with_the_least_that_is_kept_is_kept():
    deltas = [torch.tensor([1.0, 1.0, 1.0, 3.0]), torch.zeros(4)]
    torch.testing.assert_close(sce(BASE, deltas, density=0.5), BASE + deltas[0])
    torch.testing.assert_close(sce(BASE, deltas, density=0.25), torch.tensor([1.0, 1.0, 1.0, 4.0]))


@pytest.mark.parametrize("density", [0.0, 0.3])
def test_nothing_is_selected_of_too_few_and_the_base_stays(density):
    assert torch.equal(sce(BASE, [FIRST, SECOND], density=density), BASE)


def test_nan_is_not_taken_for_a_small_difference():
    assert math.isnan(sce(BASE, [FIRST, torch.tensor([0.0, math.nan, -1.0, 2.5])], density=0.5)[1])


def test_in_float64_nothing_is_rounded_to_float32():
    base, first, second = BASE.double(), FIRST.double() / 3, SECOND.double() / 7
    size = float(first.square().sum()), float(second.square().sum())
    expected = 1 + (size[0] * 2 / 3 + size[1] * 2.5 / 7) / sum(size)
    assert sce(base, [first, second]).tolist()[3] == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_variances_are_torchs(count):
    from workbench.operators.agreement import _variance

    deltas = [0.01 * torch.randn(10_000, generator=torch.Generator().manual_seed(seed)) for seed in range(count)]
    assert torch.equal(_variance(deltas), torch.stack(deltas).var(0, unbiased=False))
