from __future__ import annotations

import pytest

from workbench.errors import RenderError
from workbench.render.axes import Axes, arrange, label, words
from workbench.render.request import requests
from workbench.render.scorers import in_words, score, spread


def pictures(**axes):
    """Every combination, the last axis fastest."""
    found = [{}]
    for name, values in axes.items():
        found = [one | {name: value} for one in found for value in values]
    return found


def test_a_models_options_make_its_name_no_axis_of_its_own():
    all_pictures = [{"model": f"m{d}{w}", "density": d, "weights": w, "prompt": "p", "seed": 0} for d in (1, 2) for w in (3, 4)]
    (facet,) = arrange(all_pictures, Axes("density", "weights"))
    assert facet.title == ""
    assert (facet.columns, facet.rows) == (("density 1", "density 2"), ("weights 3", "weights 4"))
    assert facet.cells == (((0,), (2,)), ((1,), (3,)))


def test_z_and_what_else_differs_make_panels_in_order():
    facets = arrange(pictures(model="ab", steps=(4, 8), prompt=("p", "q"), seed=(0, 1)), Axes("model", "prompt", "steps"))
    assert [facet.title for facet in facets] == ["4 steps", "8 steps"]
    assert facets[1].cells[0] == ((4, 5), (12, 13))
    facets = arrange(pictures(model="ab", steps=(4, 8), prompt=("p", "q"), seed=(0, 1)), Axes("model", "steps"))
    assert [facet.title for facet in facets] == ["p", "q"]


def test_a_combination_that_there_is_not_leaves_its_place_empty():
    some = [{"model": "a", "density": 1, "k": 1, "prompt": "p", "seed": 0}, {"model": "b", "density": 2, "k": 2, "prompt": "p", "seed": 0}]
    (facet,) = arrange(some, Axes("density", "k"))
    assert facet.cells == (((0,), (None,)), ((None,), (1,)))


def test_values_are_labelled_without_the_noise_of_their_last_digits():
    assert label("density", 0.1 + 0.2) == "density 0.3"
    assert label("steps", 8) == "8 steps"
    assert words([1.0, 0.5]) == "[1, 0.5]"
    assert words({"ramp": {"start": 0, "end": 1}}) == "ramp start 0, end 1"


def test_spread_is_between_seeds_and_not_between_prompts():
    assert spread([1, 3, 11, 13], [0, 1, 0, 1]) == pytest.approx((7, 2**0.5))
    mean, deviation = spread([1, 5], [0, 0])
    assert mean == 3
    assert deviation != deviation
    assert in_words("shape_right", 0.5, 0.25) == "shape\xa050%\xa0±\xa025%"


def test_a_scorer_may_give_bare_numbers():
    def sharp(images, prompts):
        return [1.0, 2.0]

    assert list(score([sharp, lambda images, prompts: [3, 4]], "ab", "pq")) == ["sharp", "score"]
    with pytest.raises(RenderError, match="column 'score' has 1 values for 2 pictures"):
        score(lambda images, prompts: [1], "ab", "pq")
    with pytest.raises(RenderError, match="no list of values"):
        score(lambda images, prompts: 1.0, "ab", "pq")


def test_requests_are_made_of_lists_of_steps_and_guidance():
    found = requests("p", 0, steps=[2, 3], guidance=4)
    assert [(one.steps, one.guidance) for one in found] == [(2, 4), (3, 4)]
    with pytest.raises(RenderError, match="steps must be one value, or one or more different ones"):
        requests("p", 0, steps=[], guidance=1)
    with pytest.raises(RenderError, match="guidance must be one value, or one or more different"):
        requests("p", 0, steps=1, guidance=[2, 2])
