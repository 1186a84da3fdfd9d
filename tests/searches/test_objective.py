"""What a search is to find: one number for each seed, and what is no such number is refused."""

from __future__ import annotations

import numpy as np
import pytest

import workbench as wb
from workbench.errors import SearchError
from workbench.searches.objective import SearchObjective, Skills, objectives_of

BY_SKILL = Skills.of({"heart": ["a red heart", "a blue heart"], "moon": ["a red moon"]})


def worth(images, prompts):
    return [1.0] * len(images)


def numbers(objective: SearchObjective, values: list[float], skills: Skills = BY_SKILL) -> list[float]:
    scores = {"worth": np.array(values)}
    return objective.by_seed(objective.table(scores, skills), skills).tolist()


def test_an_objective_is_the_mean_over_prompts_for_each_seed():
    assert numbers(SearchObjective(worth), [1, 2, 3, 4, 8, 9]) == [4, 5]  # three prompts with two seeds


def test_the_weakest_skill_is_the_worst_mean_of_each_seed():
    assert numbers(SearchObjective(worth, weakest=True), [1, 2, 3, 40, 5, 9]) == [2, 9]  # hearts 2 and 21, moons 5 and 9
    assert numbers(SearchObjective(worth, weakest=True, least=True), [1, 2, 3, 40, 5, 9]) == [5, 21]


def test_a_prompt_in_a_list_is_a_skill_of_its_own():
    assert numbers(SearchObjective(worth, weakest=True), [1, 2, 3, 4], Skills.of(["one", "two"])) == [1, 2]


def test_prompts_that_a_scorer_does_not_score_are_left_out():
    nan = float("nan")
    assert numbers(SearchObjective(worth), [nan, nan, 3, 4, 5, 6]) == [4, 5]
    assert numbers(SearchObjective(worth, weakest=True), [nan, nan, 3, 4, 5, 3]) == [3, 3]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([np.nan] * 6, "NaN for every picture"),
        ([1, np.nan, 3, 4, 5, 6], "NaN or infinity for some pictures of 'a red heart'"),
        ([1, 2, 3, 4, np.inf, 6], "NaN or infinity for some pictures of 'a red moon'"),
        (["good", "bad", "good", "bad", "good", "bad"], "this scorer gives 'good'"),
    ],
)
def test_what_is_no_number_is_no_score(values, told):
    with pytest.raises(SearchError, match=told):
        SearchObjective(worth).table({"worth": np.array(values)}, BY_SKILL)


def test_a_skill_that_nobody_scores_is_said():
    table = np.array([[1.0], [2.0], [np.nan]])
    with pytest.raises(SearchError, match="all prompts of 'moon'"):
        SearchObjective(worth, weakest=True).by_seed(table, BY_SKILL)


def test_columns_are_found_by_what_scorers_say_of_themselves():
    clip = wb.render.ClipScorer("nowhere")
    shapes = wb.render.ClipChoice(clip, "shape", ["heart", "moon"])
    scores = {"clip": np.ones(3), "shape": np.array(["heart"] * 3, object), "shape_right": np.zeros(3), "from_base": np.full(3, 2.0)}
    found = objectives_of([clip, shapes, SearchObjective(wb.render.ParentDistance("base"), least=True, weakest=True)])
    assert [one.name for one in found] == ["clip", "shape_right", "weakest from_base"]
    assert [one.table(scores, BY_SKILL)[0, 0] for one in found] == [1, 0, 2]


def test_a_scorer_of_several_columns_needs_one_to_be_named():
    scores = {"one": np.ones(3), "other": np.ones(3)}
    several = SearchObjective(type("Several", (), {"__call__": worth})())
    with pytest.raises(SearchError, match="gives one, other, not one column"):
        several.table(scores, BY_SKILL)
    with pytest.raises(SearchError, match="no column 'third'; the scorer gives one, other"):
        SearchObjective(worth, column="third").table(scores, BY_SKILL)


@pytest.mark.parametrize("given", [[], 3, "clip", [worth, worth]])
def test_what_is_no_objective_is_refused(given):
    with pytest.raises(SearchError, match="objective"):
        objectives_of(given)


@pytest.mark.parametrize("given", ["a heart", [], ["a heart", "a heart"], [3], {"heart": "a heart"}, {}])
def test_what_are_no_prompts_is_refused(given):
    with pytest.raises(SearchError, match="prompts must be"):
        Skills.of(given)
