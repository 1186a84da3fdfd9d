"""`weighted_average`: the numbers by hand, MergeFlux's own numbers, and what holds for any numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from held import Held
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from workbench.errors import OptionError

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "mergeflux"
average = wb.operators.weighted_average


@pytest.fixture(scope="module")
def models() -> list[wb.Checkpoint]:
    return [wb.open(VECTORS / f"{name}.safetensors") for name in ("a", "b_prefixed", "c")]


def assert_equals_vector(merge: wb.Merge, name: str) -> None:
    expected = wb.open(VECTORS / f"expected_{name}.safetensors")
    assert set(merge) == set(expected)
    for key in expected:
        torch.testing.assert_close(merge[key], expected[key], rtol=1e-6, atol=1e-6)


def test_two_by_two_by_hand():
    first, second = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0, -2.0], [0.0, 8.0]])
    result = average.function([first, second], weights=[3.0, 1.0])
    assert torch.equal(result, torch.tensor([[2.0, 1.0], [2.25, 5.0]]))


def test_three_models_average_as_in_mergeflux(models):
    assert_equals_vector(average(models), "average_3")


def test_ratios_are_renormalised_over_the_models_that_hold_a_tensor(models):
    assert_equals_vector(average(models, weights=[0.2, 0.5, 0.3]), "ratios_3")


def test_a_ramp_holds_its_ends_outside_its_blocks(models):
    ramp = {"start": [1, 0], "end": [0, 1], "first": 1, "last": 4, "elsewhere": [0.5, 0.5]}
    assert_equals_vector(average(models[:2], weights={"ramp": ramp}), "blocks_a_to_b")


def test_a_ramp_without_ends_spans_all_blocks(models):
    ramp = {"start": [0.9, 0.1], "end": [0.25, 0.75], "elsewhere": [0.5, 0.5]}
    assert_equals_vector(average(models[:2], weights={"ramp": ramp}), "blocks_default_range")


def test_the_result_has_the_first_models_names_also_for_what_only_a_later_one_holds(models):
    a, b, _ = models
    assert "guidance_in.in_layer.weight" in average([a, b])
    assert all(key.startswith("model.diffusion_model.") for key in average([b, a]))


@given(st.lists(st.floats(-4, 4), min_size=2, max_size=4))
def test_weights_are_relative(weights):
    models = [torch.randn(3, 2, dtype=torch.float64) for _ in weights]
    if abs(sum(weights)) > 1e-3:
        doubled = average.function(models, weights=[2 * weight for weight in weights])
        torch.testing.assert_close(doubled, average.function(models, weights=weights))


@given(st.permutations(range(3)))
def test_the_order_of_the_models_does_not_matter(order):
    models, weights = [torch.full((2,), float(i)) for i in range(3)], [0.2, 0.5, 0.3]
    shuffled = average.function([models[i] for i in order], weights=[weights[i] for i in order])
    torch.testing.assert_close(shuffled, average.function(models, weights=weights))


def test_weights_that_sum_to_zero_are_refused_at_once(models):
    with pytest.raises(OptionError, match=r"weighted_average: weights must not sum to 0.*got \[1, -1\]"):
        average(models[:2], weights=[1, -1])


def test_weights_that_sum_to_zero_over_the_holders_are_an_error_at_preflight():
    a, b = Held({"x": torch.ones(2)}, "a"), Held({"x": torch.ones(2), "y": torch.ones(2)}, "b")
    found = wb.preflight(average([a, b], weights=[1, 0]))
    assert len(found.errors) == 1
    assert "for the 1 of 2 models that hold it (at 'y')" in found.errors[0]
    assert not a.reads
    assert not b.reads
