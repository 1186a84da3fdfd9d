"""What a weight of 0 multiplies is not in the result, NaN and infinity included."""

from __future__ import annotations

import math

import pytest
import torch
from held import Held

import workbench as wb

operators = wb.operators
GOOD, BAD = torch.ones(2, 3), torch.tensor([[math.nan, math.inf, 1.0], [1.0, 2.0, 3.0]])
CASES = {
    "weighted_average": lambda a, bad: operators.weighted_average([bad, a], weights=[0, 1]),
    "task_arithmetic": lambda a, bad: operators.task_arithmetic(a, [a, bad], weights=[1, 0]),
    "ties": lambda a, bad: operators.ties(a, [a, bad], weights=[1, 0]),
    "ties, one vote each": lambda a, bad: operators.ties(a, [a, bad], weights=[1, 0], majority_sign="frequency"),
    "magnitude_prune": lambda a, bad: operators.magnitude_prune(a, [a, bad], weights=[1, 0]),
    "breadcrumbs": lambda a, bad: operators.breadcrumbs(a, [a, bad], weights=[1, 0]),
    "dare_linear": lambda a, bad: operators.dare_linear(a, [a, bad], weights=[1, 0]),
    "dare_ties": lambda a, bad: operators.dare_ties(a, [a, bad], weights=[1, 0]),
    "delta_merge": lambda a, bad: operators.delta_merge(a, [a, bad], weights=[1, 0], combine="mean", prune="none"),
    "add_difference": lambda a, bad: operators.add_difference(a, bad, a, strength=0),
    "add_delta": lambda a, bad: operators.add_delta(a, [bad], strengths=0),
    "slerp": lambda a, bad: operators.slerp(a, bad, t=0),
    "nuslerp": lambda a, bad: operators.nuslerp([bad, a], weights=[0, 1]),
    "delta_nuslerp": lambda a, bad: operators.delta_nuslerp(a, [a, bad], weights=[1, 0]),
    "karcher_mean": lambda a, bad: operators.karcher_mean([bad, a], weights=[0, 1]),
    "della": lambda a, bad: operators.della(a, [a, bad], weights=[1, 0]),
    "della_linear": lambda a, bad: operators.della_linear(a, [a, bad], weights=[1, 0]),
    "breadcrumbs_ties": lambda a, bad: operators.breadcrumbs_ties(a, [a, bad], weights=[1, 0]),
    "consensus": lambda a, bad: operators.consensus(a, [a, bad], strength=0),
    "train_difference": lambda a, bad: operators.train_difference(a, bad, a, strength=0),
    "add_opposite": lambda a, bad: operators.add_opposite(a, bad, a, strength=0),
    "add_strict_opposite": lambda a, bad: operators.add_strict_opposite(a, bad, a, strength=0),
    "add_perpendicular": lambda a, bad: operators.add_perpendicular(a, bad, a, strength=0),
    "add_dissimilarity": lambda a, bad: operators.add_dissimilarity(a, bad, a, strength=0),
    "weighted_similarity": lambda a, bad: operators.weighted_similarity(bad, a, share=1),
}


@pytest.mark.parametrize(
    ("method", "shape"),
    [
        (method, shape) for method in CASES for shape in ((6,), (2, 3)) if method != "weighted_similarity" or shape == (6,)
    ],  # a column with NaN is like nothing
)
def test_a_nan_times_weight_0_is_not_in_the_result(method, shape):
    a, bad = (Held({"x": tensor.reshape(shape)}, name) for tensor, name in ((GOOD, "a"), (BAD, "bad")))
    assert torch.equal(CASES[method](a, bad)["x"], GOOD.reshape(shape))


def test_a_weight_0_in_one_block_is_0_there():
    names = [f"model.diffusion_model.{place}.weight" for place in ("input_blocks.1.0", "middle_block.0")]
    a, bad = (Held(dict.fromkeys(names, tensor), name) for tensor, name in ((GOOD, "a"), (BAD, "bad")))
    merge = operators.weighted_average([a, bad], weights={"blocks": {"MID": [1, 0], "default": [1, 1]}})
    assert torch.equal(merge[names[1]], GOOD)
    assert merge[names[0]].isnan().any()
