"""Deltas pruned and combined: numbers by hand, PEFT's numbers, and what holds for any."""

from __future__ import annotations

import math

import pytest
import torch
from held import Held
from hypothesis import given
from hypothesis import strategies as st
from peft.utils import merge_utils

import workbench as wb
from workbench.errors import OptionError
from workbench.merge import Random
from workbench.operators import registry
from workbench.tensors import Calculation, Flat, Scope

ops = wb.operators
BASE = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
FIRST, SECOND = torch.tensor([[4.0, -3.0], [2.0, -1.0]]), torch.tensor([[-1.0, -5.0], [3.0, 2.0]])
NAMED = ["task_arithmetic", "ties", "magnitude_prune", "dare_linear", "dare_ties"]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def models(*shape: int) -> tuple[Held, list[Held]]:
    """A base and two models tuned from it."""
    base = drawn(*shape)
    return Held({"x": base}, "base"), [Held({"x": base + drawn(*shape, seed=i)}, f"m{i}") for i in (1, 2)]


def test_task_arithmetic_by_hand():
    result = ops.task_arithmetic.function(BASE, [FIRST, SECOND], weights=[1.0, 0.5])
    assert torch.equal(result, torch.tensor([[4.5, -3.5], [6.5, 4.0]]))


def test_ties_by_hand():
    """Half of each delta is kept: 4 and -3; -5 and 3. Both changed the second element downwards, and are averaged."""
    result = ops.ties.function(BASE, [FIRST, SECOND], density=0.5)
    assert torch.equal(result, BASE + torch.tensor([[4.0, -4.0], [3.0, 0.0]]))


def test_without_pruning_those_that_lose_the_vote_are_left_out():
    """By sum, plus wins the first element (4 - 1) and the last (2 - 1)."""
    result = ops.delta_merge.function(BASE, [FIRST, SECOND], prune="none")
    assert torch.equal(result, BASE + torch.tensor([[4.0, -4.0], [2.5, 2.0]]))


def test_one_vote_each_can_beat_the_larger_sum_and_a_tie_elects_plus():
    one, other, third = (torch.tensor(values) for values in ([-5.0, -2.0], [1.0, 1.0], [2.0, 0.0]))
    by_count = ops.delta_merge.function(torch.zeros(2), [one, other, third], prune="none", majority_sign="frequency")
    assert torch.equal(by_count, torch.tensor([1.5, 1.0]))
    by_sum = ops.delta_merge.function(torch.zeros(2), [one, other, third], prune="none")
    assert torch.equal(by_sum, torch.tensor([-5.0, -2.0]))


def test_breadcrumbs_by_hand():
    """Half of each delta is kept below its largest element: -3 and 2; 3 and 2. All that is above goes, where density leaves room."""
    result = ops.breadcrumbs.function(BASE, [FIRST, SECOND], density=0.5, gamma=0.25, weights=[1.0, 2.0], strength=0.5)
    assert torch.equal(result, BASE + 0.5 * torch.tensor([[0.0, -3.0], [2.0 + 6.0, 4.0]]))
    everything = ops.breadcrumbs.function(BASE, [FIRST, SECOND], density=1.0, gamma=0.5)
    assert torch.equal(everything, BASE + FIRST + SECOND)
    assert torch.equal(ops.breadcrumbs.function(BASE, [FIRST], density=0.0), BASE)


def test_breadcrumbs_without_loss_keep_an_infinity():
    assert ops.breadcrumbs.function(torch.zeros(2), [torch.tensor([math.inf, 1.0])], density=1.0).tolist() == [math.inf, 1.0]


def test_breadcrumbs_of_equal_magnitudes_are_all_kept():
    delta = torch.tensor([1.0, -1.0, 1.0, -1.0])
    assert torch.equal(ops.breadcrumbs.function(torch.zeros(4), [delta], density=0.5, gamma=0.25), delta)


def test_magnitude_prune_by_hand():
    result = ops.magnitude_prune.function(BASE, [FIRST, SECOND], density=0.25, weights=[1.0, 2.0])
    assert torch.equal(result, BASE + torch.tensor([[4.0, -10.0], [0.0, 0.0]]))


def test_the_mean_counts_a_model_that_lacks_the_tensor():
    base, tuned = Held({"x": torch.zeros(2)}, "base"), Held({"x": torch.tensor([2.0, 4.0])}, "tuned")
    without = Held({"y": torch.zeros(2)}, "without")
    result = ops.delta_merge(base, [tuned, without], prune="none", combine="mean")
    assert torch.equal(result["x"], torch.tensor([1.0, 2.0]))


def test_dare_keeps_what_is_drawn_below_the_density_and_divides_by_it():
    random = Random(seed=3, name="x")
    kept = torch.where(random.uniform(FIRST, 0) < 0.25, FIRST * 4, 0) + torch.where(random.uniform(SECOND, 1) < 0.25, SECOND * 4, 0)
    assert torch.equal(ops.dare_linear.function(BASE, [FIRST, SECOND], density=0.25, random=random), BASE + kept)


@pytest.mark.parametrize(("rescale", "factor"), [(None, 1), (False, 1), (True, 2)])
def test_what_is_largest_is_divided_by_the_density_only_when_asked(rescale, factor):
    result = ops.delta_merge.function(BASE, [FIRST], density=0.5, rescale=rescale)
    assert torch.equal(result, BASE + factor * torch.tensor([[4.0, -3.0], [0.0, 0.0]]))


@pytest.mark.parametrize(("rescale", "factor"), [(None, 2), (False, 1), (True, 2)])
def test_what_is_drawn_is_divided_by_the_density_unless_told_not_to(rescale, factor):
    random = Random()
    kept = torch.where(random.uniform(FIRST) < 0.5, FIRST, 0) * factor
    assert torch.equal(ops.delta_merge.function(BASE, [FIRST], prune="random", rescale=rescale), BASE + kept)


def test_without_pruning_nothing_is_divided():
    assert torch.equal(ops.delta_merge.function(BASE, [FIRST], prune="none", rescale=True), BASE + FIRST)


def test_the_expectation_of_dare_is_task_arithmetic():
    base, deltas = torch.zeros(1), [torch.ones(200_000), torch.full((200_000,), 2.0)]
    mean = ops.dare_linear.function(base.expand(200_000), deltas, density=0.3).mean()
    assert mean == pytest.approx(3.0, abs=0.03)


@pytest.mark.parametrize("name", NAMED)
def test_a_named_method_is_a_composition_of_delta_merge(name):
    composed = {
        "task_arithmetic": {"prune": "none", "combine": "sum"},
        "ties": {},
        "magnitude_prune": {"combine": "sum"},
        "dare_linear": {"prune": "random", "combine": "sum"},
        "dare_ties": {"prune": "random"},
    }
    base, tuned = models(9, 7)
    assert torch.equal(registry()[name](base, tuned, seed=5)["x"], ops.delta_merge(base, tuned, **composed[name], seed=5)["x"])


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("majority_sign", ["total", "frequency"])
def test_ties_agrees_with_peft(density, majority_sign):
    """With one weight for all: PEFT votes before it weights, MergeFlux after."""
    base, deltas = drawn(31, 17), [drawn(31, 17, seed=i) for i in (1, 2, 3)]
    theirs = merge_utils.ties(deltas, torch.full((3,), 0.8), density, majority_sign)
    ours = ops.ties.function(base, deltas, density=density, weights=0.8, majority_sign=majority_sign)
    torch.testing.assert_close(ours, base + theirs)


def test_magnitude_prune_and_task_arithmetic_agree_with_peft():
    base, deltas, weights = drawn(31, 17), [drawn(31, 17, seed=i) for i in (1, 2)], [0.7, -1.2]
    ours = ops.magnitude_prune.function(base, deltas, density=0.3, weights=weights)
    torch.testing.assert_close(ours, base + merge_utils.magnitude_prune(deltas, torch.tensor(weights), 0.3))
    ours = ops.task_arithmetic.function(base, deltas, weights=weights)
    torch.testing.assert_close(ours, base + merge_utils.task_arithmetic(deltas, torch.tensor(weights)))


@given(st.integers(0, 400), st.floats(0, 1), st.integers(0, 2**32))
def test_exactly_the_truncated_share_survives_when_no_values_tie(count, density, seed):
    delta = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).float() + 1
    result = ops.magnitude_prune.function(torch.zeros(count), [delta], density=density)
    assert int(result.count_nonzero()) == int(density * count)
    assert result.sum() == delta.sort().values[count - int(density * count) :].sum()


def test_where_values_tie_at_the_threshold_all_of_them_are_kept():
    delta = torch.tensor([1.0, -1.0, 1.0, 0.5, 3.0])
    assert torch.equal(ops.magnitude_prune.function(torch.zeros(5), [delta], density=0.4), torch.tensor([1.0, -1.0, 1.0, 0.0, 3.0]))


def test_what_no_model_changed_stays_bit_for_bit_in_ties():
    base = torch.tensor([-0.0, 1.5, float("inf"), float("nan")])
    found = ops.ties.function(base, [torch.zeros(4), torch.zeros(4)], density=0.5, weights=[-1.0, 2.0])
    assert found.view(torch.int32).equal(base.view(torch.int32))
    assert found.data_ptr() != base.data_ptr()


@pytest.mark.parametrize("name", [*NAMED, "delta_merge"])
def test_a_model_that_is_its_base_changes_nothing(name):
    base, (tuned, _) = models(5, 4)
    same = Held({"x": base["x"]}, "same")
    assert torch.equal(registry()[name](base, [same, same])["x"], base["x"])
    with_zeros = ops.delta_merge(base, [tuned, same], prune="none")["x"]
    torch.testing.assert_close(with_zeros, base["x"] + (tuned["x"] - base["x"]), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["delta_merge", "ties", "dare_linear", "dare_ties", "magnitude_prune"])
@pytest.mark.parametrize("density", [-0.01, 1.01, float("nan"), float("inf"), "half", True, None])
def test_a_density_that_is_no_share_is_refused(name, density):
    base, tuned = models(2, 2)
    with pytest.raises(OptionError, match=rf"^{name}: density must be (a number )?in \[0, 1\], got"):
        registry()[name](base, tuned, density=density)


@pytest.mark.parametrize("density", [0, 1])
@pytest.mark.parametrize("prune", ["magnitude", "random"])
def test_a_density_of_nothing_is_the_base_and_of_everything_is_no_pruning(density, prune):
    base, tuned = models(6, 5)
    result = ops.delta_merge(base, tuned, prune=prune, combine="sum", density=density)["x"]
    expected = base["x"] if density == 0 else ops.task_arithmetic(base, tuned)["x"]
    assert torch.equal(result, expected)


@pytest.mark.parametrize(("prune", "part"), [("magnitude", None), ("random", Flat(3, 9)), ("none", Flat(3, 9))])
def test_only_the_largest_need_the_whole_tensor(prune, part):
    base, tuned = models(6, 4)
    merge = ops.delta_merge(base, tuned, prune=prune)
    piece = merge.read("x", Flat(3, 9))
    assert base.reads == [("x", part)]
    assert torch.equal(piece, merge["x"].reshape(-1)[3:9])


def test_every_seed_tensor_and_model_draws_its_own():
    base = Held({"x": torch.zeros(1000), "y": torch.zeros(1000)}, "base")
    ones = Held({"x": torch.ones(1000), "y": torch.ones(1000)}, "ones")
    merge = ops.dare_linear(base, [ones])
    assert torch.equal(merge["x"], ops.dare_linear(base, [ones], seed=0)["x"])
    assert not torch.equal(merge["x"], merge["y"])
    assert not torch.equal(merge["x"], ops.dare_linear(base, [ones], seed=1)["x"])
    assert set(ops.dare_linear(base, [ones, ones])["x"].tolist()) == {0.0, 2.0, 4.0}


def test_a_file_given_as_base_and_as_model_is_noticed(tmp_path):
    path = wb.export(Held({"x": torch.ones(2)}), tmp_path / "base.safetensors", progress=False).path
    (note,) = wb.preflight(ops.ties(wb.open(path), [wb.open(path)])).notes
    assert note == "ties: base-2 is the same file as base, and so changes nothing"


def test_an_integer_tensor_is_the_bases_and_preflight_says_so_once():
    ids = torch.arange(77).reshape(1, 77)
    base = Held({"x": torch.zeros(2), "position_ids": ids}, "base")
    merge = ops.ties(base, [Held({"x": torch.ones(2), "position_ids": ids + 1}, "m")])
    assert torch.equal(merge["position_ids"], ids)
    (note,) = wb.preflight(merge).notes
    assert note == "ties: 'position_ids' holds no weights (integers, a marker, a buffer, or empty) and comes untouched from base"


def test_a_model_without_a_tensor_did_not_change_it():
    base = Held({"x": torch.ones(2), "y": torch.ones(2)}, "base")
    merge = ops.task_arithmetic(base, [Held({"x": torch.zeros(2)}, "tuned")])
    assert torch.equal(merge["y"], torch.ones(2))
    (note,) = wb.preflight(merge).notes
    assert note.startswith("task_arithmetic: 'y' is not in tuned and counts as unchanged there; ")


def test_ties_divides_by_the_weights_that_agree_as_mergekit_or_by_nothing():
    """Deltas 1 and 3 of weights 2 and 1 agree: 2 + 3 = 5, over 2 models, over the weights 3, or over nothing; -4 is alone."""
    base = torch.zeros(2)
    deltas = [torch.tensor([1.0, 1.0]), torch.tensor([3.0, -4.0])]
    found = {
        by: wb.operators.ties.function(base, deltas, density=1, weights=[2, 1], normalize=by).tolist()
        for by in ("number", "weights", "none")
    }
    assert found == {"number": [2.5, -4.0], "weights": [pytest.approx(5 / 3), -4.0], "none": [5.0, -4.0]}
    halved = wb.operators.ties.function(base, deltas, density=1, weights=[2, 1], strength=0.5)
    assert halved.tolist() == [1.25, -2.0]


def test_a_vote_of_two_by_frequency_is_plus_unless_ties_are_left_to_the_total():
    deltas = [torch.tensor([1.0, -3.0]), torch.tensor([-2.0, 1.0])]
    base = torch.zeros(2)
    plus = wb.operators.ties.function(base, deltas, density=1, majority_sign="frequency")
    total = wb.operators.ties.function(base, deltas, density=1, majority_sign="frequency, then total")
    assert plus.tolist() == [1.0, 1.0]
    assert total.tolist() == [-2.0, -3.0]
    three = [*deltas, torch.tensor([0.5, 0.5])]  # two of three are plus: no tie
    assert wb.operators.ties.function(base, three, density=1, majority_sign="frequency, then total").tolist() == [0.75, 0.75]


def test_over_the_whole_model_large_tensors_are_merged_in_parts_by_one_threshold():
    generator = torch.Generator().manual_seed(0)
    shapes = {"x.weight": (600, 700), "y.weight": (50, 3)}
    base = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    tuned = {key: one + (1 + (key == "y.weight")) * torch.randn(one.shape, generator=generator) for key, one in base.items()}
    merge = ops.ties(Held(base, "base"), [Held(tuned, "tuned")], density=0.3, over="model", rules=[])
    assert merge.grain(Calculation()) is Scope.ELEMENT
    magnitudes = torch.cat([(tuned[key] - base[key]).abs().reshape(-1) for key in shapes]).sort(descending=True).values
    smallest = magnitudes[int(0.3 * len(magnitudes)) - 1]
    for key in shapes:
        delta = tuned[key] - base[key]
        assert torch.equal(merge.read(key), base[key] + delta * (delta.abs() >= smallest))
