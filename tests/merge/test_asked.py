"""Random numbers addressed by element, and the tensor's name: what operators get because they ask."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import pytest
import torch
from held import Held
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import OptionError
from workbench.merge import Flag, Random, TensorName, operator
from workbench.tensors import Flat, Rows, Scope, Weight


@operator(scope=Scope.ELEMENT, keys="base", source="a test")
def noise(
    base: Weight, *, named: Annotated[bool, Flag("zeros where the name has no x")] = False, name: TensorName, random: Random
) -> Weight:
    """Random numbers in place of the base."""
    return random.uniform(base) * (not named or "x" in name)


@given(st.integers(0, 200), st.integers(0, 100), st.integers(0, 2**64 - 1), st.text(max_size=5), st.integers(0, 9))
def test_any_part_has_the_numbers_that_the_whole_has_there(start, count, seed, name, model):
    whole = Random(seed, name).uniform(torch.empty(300), model)
    assert torch.equal(Random(seed, name, start).uniform(torch.empty(count), model), whole[start : start + count])


def test_numbers_are_uniform_from_0_to_1():
    numbers = Random(1, "x").uniform(torch.empty(400, 250))
    assert float(numbers.min()) >= 0
    assert float(numbers.max()) < 1
    shares = np.histogram(numbers, bins=10, range=(0, 1))[0] / numbers.numel()
    np.testing.assert_allclose(shares, 0.1, atol=0.004)


def test_seed_name_and_model_each_give_other_numbers():
    cases = [(Random(0, "x"), 0), (Random(1, "x"), 0), (Random(0, "y"), 0), (Random(0, "x"), 1)]
    assert len({tuple(random.uniform(torch.empty(8), model).tolist()) for random, model in cases}) == 4


def test_the_numbers_are_those_they_always_were():
    """Recipes are for years: these must never change."""
    pinned = [0.9891800284385681, 0.8862466216087341, 0.2903795838356018]
    assert Random(7, "model.x").uniform(torch.empty(3), 1).tolist() == pinned


def test_a_merge_supplies_seed_name_and_place():
    base = Held({"x": torch.zeros(6, 4), "y": torch.zeros(2)})
    merge = noise(base, seed=9)
    assert torch.equal(merge["x"], Random(9, "x").uniform(torch.empty(6, 4)))
    assert torch.equal(merge.read("x", Flat(5, 9)), merge["x"].reshape(-1)[5:9])
    assert torch.equal(merge.read("x", Rows(2, 4)), merge["x"][2:4])
    assert not noise(base, named=True)["y"].any()


@pytest.mark.parametrize("name", ["random", "name"])
def test_what_is_asked_for_is_no_option(name):
    with pytest.raises(OptionError, match=rf"noise: there is no option '{name}'"):
        noise(Held({"x": torch.zeros(2)}), **{name: 1})
    assert name not in noise.__signature__.parameters


@pytest.mark.parametrize("value", [1, "yes", None])
def test_a_flag_is_true_or_false(value):
    with pytest.raises(OptionError, match="noise: named must be true or false, got"):
        noise(Held({"x": torch.zeros(2)}), named=value)
