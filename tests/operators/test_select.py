"""`nearest`, `farthest` and `weighted_similarity`: numbers by hand, the original's way, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from held import Held
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from workbench.errors import MergeError, OptionError
from workbench.operators import registry

ops = wb.operators
ANCHOR = torch.tensor([[0.2, -0.02], [1.0, 0.0]])
FIRST = torch.tensor([[0.25, -0.06], [2.0, 1.0]])
SECOND = torch.tensor([[0.3, -0.03], [0.5, -1.0]])
VAE, UNET = "first_stage_model.decoder.x", "model.diffusion_model.out.2.weight"
floats = st.floats(-8, 8, width=16)


def three(**tensors: list[torch.Tensor | None]) -> list[Held]:
    """Three models from what each holds of every tensor."""
    names = ["anchor", "first", "second"]
    return [Held({key: held[i] for key, held in tensors.items() if held[i] is not None}, name) for i, name in enumerate(names)]


def test_nearest_by_hand():
    """The README's own example is the first row. On a tie, first is taken."""
    assert torch.equal(ops.nearest.function(ANCHOR, FIRST, SECOND), torch.tensor([[0.25, -0.03], [0.5, 1.0]]))


def test_farthest_by_hand():
    """On a tie, second is taken."""
    assert torch.equal(ops.farthest.function(ANCHOR, FIRST, SECOND), torch.tensor([[0.3, -0.06], [2.0, -1.0]]))


def test_scales_change_the_distance_and_not_the_value():
    result = ops.nearest.function(torch.ones(2), torch.tensor([2.0, 1.0]), torch.tensor([1.5, 4.0]), alpha=0.5, beta=0.25)
    assert result.tolist() == [2.0, 4.0]


@given(st.lists(st.tuples(floats, floats, floats), min_size=1, max_size=20))
def test_nearest_and_farthest_share_out_the_two_models_between_them(rows):
    anchor, first, second = torch.tensor(rows).T
    near, far = ops.nearest.function(anchor, first, second), ops.farthest.function(anchor, first, second)
    assert torch.equal(near + far, first + second)
    assert bool(((near - anchor).abs() <= (far - anchor).abs()).all())


@pytest.mark.parametrize("name", ["nearest", "farthest"])
def test_a_tensor_that_not_all_hold_comes_from_the_first_candidate_that_does(name):
    zero, one, two = (torch.full((2,), float(i)) for i in range(3))
    holders = {"ab": [zero, one, None], "ac": [zero, None, two], "bc": [None, one, two], "a": [zero, None, None], "c": [None, None, two]}
    merge = registry()[name](*three(x=[zero, one, two], **holders))
    assert {key: merge[key][0].item() for key in holders} == {"ab": 1, "ac": 2, "bc": 1, "a": 0, "c": 2}
    notes = wb.preflight(merge).notes
    assert any("'c' is not in every model and comes untouched from second" in note for note in notes)


@pytest.mark.parametrize("name", ["nearest", "farthest"])
def test_the_anchors_vae_stays_by_a_default_rule_that_the_recipe_shows(name, tmp_path):
    paths = []
    for i, model in enumerate(three(**{VAE: [ANCHOR, FIRST, SECOND], UNET: [ANCHOR, FIRST, SECOND]})):
        paths.append(wb.export(model, tmp_path / f"m{i}.safetensors", progress=False).path)
    models = [wb.open(path) for path in paths]
    merge, without = registry()[name](*models), registry()[name](*models, rules=[])
    assert torch.equal(merge[VAE], ANCHOR)
    assert torch.equal(without[VAE], without[UNET])
    assert merge.recipe.to_dict()["merge"]["rules"] == [{"component": "vae", "take": "anchor"}]
    assert without.recipe.data.merge.rules == []


def test_default_rules_for_parts_that_are_not_there_are_not_complained_of():
    models = three(**{UNET: [ANCHOR, FIRST, SECOND]})
    assert wb.preflight(ops.nearest(*models)).findings == ()
    assert wb.preflight(ops.weighted_similarity(*models[:2])).findings == ()


@pytest.mark.parametrize("option", ["alpha", "beta"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_scale_must_be_above_zero_and_finite(option, value):
    with pytest.raises(OptionError, match=rf"^nearest: {option} must be in \[0.01, 10\], got"):
        ops.nearest(*three(x=[ANCHOR, FIRST, SECOND]), **{option: value})


def original_weighted_similarity(a: torch.Tensor, b: torch.Tensor, share: float) -> torch.Tensor:
    """What the author's script computes of a matrix, in his steps."""
    similarity = torch.nn.CosineSimilarity(dim=0)(a, b)
    left = similarity.numpy().ravel()
    left = left[left >= np.percentile(left, 1, method="midpoint")]
    left = left[left <= np.percentile(left, 99, method="midpoint")]
    k = ((similarity - left.min()) / (left.max() - left.min()) - share).clip(0, 1)
    return a * k + b * (1 - k)


@given(st.integers(2, 9), st.integers(4, 250), st.floats(0, 1), st.integers(0, 99))
def test_on_matrices_weighted_similarity_is_the_originals(rows, columns, share, seed):
    a, b = torch.randn(2, rows, columns, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(ops.weighted_similarity.function(a, b, share=share), original_weighted_similarity(a, b, share))


def test_weighted_similarity_by_hand():
    """Four columns with cosines -1, 0.6, 0.8 and 1; the scale goes from 0.6 to 0.8, and `a` gives way by 0.25."""
    a = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    b = torch.tensor([[-1.0, 0.6, 0.8, 1.0], [0.0, 0.8, 0.6, 0.0]])
    weight = torch.tensor([0.0, 0.0, 0.75, 1.0])
    torch.testing.assert_close(ops.weighted_similarity.function(a, b, share=0.25), a * weight + b * (1 - weight))


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 1), (3, 3), (0, 4), (4, 0)])
def test_where_columns_cannot_be_told_apart_a_gives_way_evenly(shape):
    a, b = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ops.weighted_similarity.function(a, b, share=0.25), 0.75 * a + 0.25 * b)


def test_when_a_gives_way_altogether_only_the_columns_most_alike_keep_any_of_it():
    a, b = torch.randn(2, 5, 400, generator=torch.Generator().manual_seed(0))
    result = ops.weighted_similarity.function(a, b, share=1.0)
    assert int((result != b).any(0).sum()) == 4


def test_only_the_denoiser_is_changed_by_weighted_similarity():
    a, b = three(**{VAE: [ANCHOR, FIRST, None], UNET: [ANCHOR, FIRST, None]})[:2]
    assert torch.equal(ops.weighted_similarity(a, b)[VAE], ANCHOR)


def test_a_tensor_that_b_lacks_needs_a_rule():
    a, b = Held({"x": ANCHOR, "y": ANCHOR}, "a"), Held({"x": FIRST}, "b")
    with pytest.raises(MergeError, match=r"'y' is only in a, not in b.*add the rule \{match: 'y', take: 'a'\}"):
        wb.preflight(ops.weighted_similarity(a, b)).raise_errors()
