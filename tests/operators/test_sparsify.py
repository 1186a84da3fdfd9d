"""Which elements of a delta are kept, found without sorting, on any device."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.merge import Random
from workbench.operators import own, sparsify


def kept(keep: sparsify.Keep, delta: torch.Tensor) -> torch.Tensor:
    return keep(delta.reshape(-1), slice(0, delta.numel()), 1)


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=60), st.data())
def test_the_kth_largest_is_what_sorting_would_find(values, data):
    magnitudes = torch.tensor(values).abs()
    k = data.draw(st.integers(1, len(values)))
    assert sparsify.kth_largest(magnitudes.clone(), k) == magnitudes.sort(descending=True).values[k - 1]


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=60), st.data())
def test_what_is_asked_of_a_gpu_finds_the_same(values, data):
    """There torch's kthvalue is asked for place numel - k + 1 from below."""
    magnitudes = torch.tensor(values).abs()
    k = data.draw(st.integers(1, len(values)))
    by_torch = magnitudes.kthvalue(magnitudes.numel() - k + 1).values.item()
    assert sparsify.kth_largest(magnitudes.clone(), k) == by_torch


def test_the_delta_itself_stays_in_its_order():
    delta = torch.tensor([3.0, -1.0, 2.0, -5.0])
    sparsify.largest(delta, 0.5)
    assert delta.tolist() == [3.0, -1.0, 2.0, -5.0]


def test_more_elements_than_a_quantile_can_take():
    delta = torch.arange(1.0, (1 << 24) + 3)
    with pytest.raises(RuntimeError, match="too large"):
        delta.quantile(0.5)
    assert int(kept(sparsify.largest(delta, 0.25), delta).count_nonzero()) == int(0.25 * delta.numel())


def test_a_share_at_random_is_about_that_share():
    by_chance = sparsify.random(lambda piece, place, scale: Random(0, "x").kept(piece, 0.3, scale), 0.3)
    assert int(kept(by_chance, torch.ones(100_000)).count_nonzero()) == pytest.approx(30_000, abs=600)


def test_numbers_are_drawn_only_where_they_decide():
    def never(piece: torch.Tensor, place: slice, scale: float) -> torch.Tensor:
        raise AssertionError("nothing is to be drawn")

    ones = torch.ones(3)
    assert torch.equal(kept(sparsify.random(never, 1), ones), ones)
    assert torch.equal(kept(sparsify.random(never, 0), ones), torch.zeros(3))


@pytest.mark.parametrize("density", [5e-324, 2.2250738585072014e-308, 1e-39, 1e-12])
@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_a_share_too_small_to_be_drawn_keeps_finite_numbers(method, density):
    base, tuned = torch.zeros(64), torch.ones(64)
    found = own()[method].declaration.function(base, [tuned], density=density, weights=[2.0], random=Random(0, "x"))
    assert bool(((found == 0) | (found == 2.0**25)).all())
    assert sparsify.rescaling("random", 2**-23, None) == 2**23
