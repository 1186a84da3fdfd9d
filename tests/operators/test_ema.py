"""`post_hoc_ema`: the averages that training would have kept, from checkpoints of another length, and from plain ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from held import Held

import workbench as wb
from workbench.errors import InputError
from workbench.operators.ema import _exponent


def trained(length, steps):
    """A random walk, and its power-function average of a length after each step (arXiv:2312.02696, equation 2)."""
    weights = np.cumsum(np.random.default_rng(0).normal(size=(steps, 8)), axis=0)
    averages, mean, exponent = [], np.zeros(8), _exponent(length) if length else None
    for step, now in enumerate(weights, 1):
        keep = (1 - 1 / step) ** (exponent + 1) if exponent is not None else 0.0
        mean = keep * mean + (1 - keep) * now
        averages.append(mean)
    return averages


def checkpoints(averages, at):
    return [Held({"x": torch.tensor(averages[step - 1], dtype=torch.float32)}, f"step{step}") for step in at]


def test_an_average_of_another_length_comes_out_as_training_would_have_kept_it():
    at = [*range(250, 4001, 250)]
    kept = [*checkpoints(trained(0.05, 4000), at), *checkpoints(trained(0.10, 4000), at)]
    lengths = [0.05] * len(at) + [0.10] * len(at)
    merge = wb.post_hoc_ema(kept, at * 2, sigma_rel=0.15, kept_with=lengths)
    truth = trained(0.15, 4000)[-1]
    error = np.linalg.norm(merge["x"].numpy() - truth) / np.linalg.norm(truth)
    assert error < 0.01
    assert np.linalg.norm(kept[-1]["x"].numpy() - truth) / np.linalg.norm(truth) > 3 * error


def test_one_of_the_kept_lengths_is_that_checkpoint():
    at = [100, 200, 300]
    kept = checkpoints(trained(0.1, 300), at)
    merge = wb.post_hoc_ema(kept, at, sigma_rel=0.1, kept_with=0.1)
    torch.testing.assert_close(merge["x"], kept[-1]["x"], rtol=1e-4, atol=1e-4)


def test_plain_checkpoints_get_the_share_of_the_profile_around_them():
    """Exponent 6.94 at 0.1: of two checkpoints at 1 and 2 the first stands for steps up to 1.5 of 2."""
    merge = wb.post_hoc_ema(checkpoints(trained(None, 2), [1, 2]), [1, 2], sigma_rel=0.1)
    first, second = merge.options["weights"]
    assert first == pytest.approx(0.75 ** (_exponent(0.1) + 1))
    assert first + second == pytest.approx(1)
    assert _exponent(0.1) == pytest.approx(6.94, abs=0.01)  # the paper's table


def test_it_is_a_weighted_average_with_a_recipe_like_any_other():
    merge = wb.post_hoc_ema(checkpoints(trained(None, 3), [3, 1, 2]), [3, 1, 2], sigma_rel=0.2, at=2)
    assert merge.name == "weighted_average"
    assert merge.options["weights"][0] == 0  # after the step that is wanted


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"steps": [1], "sigma_rel": 0.1}, "one number above 0 for each of the 2 checkpoints"),
        ({"steps": [0, 1], "sigma_rel": 0.1}, "above 0"),
        ({"steps": [1, 2], "sigma_rel": 0.5}, "below 0.289, got 0.5"),
        ({"steps": [1, 2], "sigma_rel": 0.1, "at": 3}, "no later than the last checkpoint, 2, got 3"),
        ({"steps": [1, 2], "sigma_rel": 0.1, "kept_with": [0.1]}, "one length or 2, got 1"),
    ],
)
def test_steps_and_lengths_that_are_none_are_told(given, told):
    with pytest.raises(InputError, match=told):
        wb.post_hoc_ema(checkpoints(trained(None, 2), [1, 2]), **given)
