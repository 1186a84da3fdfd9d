"""Trials: few seeds first, more for what is worth it, and what goes wrong is said."""

from __future__ import annotations

import math

import numpy as np
import pytest
from search_drawing import Drawing, worth

from workbench.errors import SearchError
from workbench.searches.objective import SearchObjective, Skills
from workbench.searches.trials import Trials, best

PROMPTS = ["one", "two"]


def trials(value, seeds=(0, 1, 2), objectives=None):
    drawing = Drawing(PROMPTS, value)
    return Trials(dict, objectives or [SearchObjective(worth)], drawing, Skills.of(PROMPTS), seeds), drawing


def test_what_is_worse_than_the_median_with_the_first_seeds_gets_no_more():
    work, drawing = trials(lambda options, prompt, seed: options["x"] + seed)
    work.run("search", [{"x": 1}, {"x": 3}])
    good, bad = work.run("search", [{"x": 2}, {"x": 0}])
    assert (good.whole, good.values) == (True, (3.0,))
    assert (bad.pruned, bad.values) == (True, (0.0,))
    assert [seeds for options, seeds in drawing.asked if options["x"] == 0] == [(0,)]
    assert [seeds for options, seeds in drawing.asked if options["x"] == 2] == [(0,), (1, 2)]


def test_the_least_is_wanted_where_less_is_better():
    work, _ = trials(lambda options, prompt, seed: options["x"], objectives=[SearchObjective(worth, least=True)])
    work.run("search", [{"x": 1}, {"x": 3}])
    assert not work.run("search", [{"x": 4}])[0].whole
    assert best(work.done, SearchObjective(worth, least=True)).point == {"x": 1}


def test_kinds_are_given_up_by_their_own_median():
    work, _ = trials(lambda options, prompt, seed: options["x"])
    work.run("search", [{"x": 9}, {"x": 8}])
    assert all(one.whole for one in work.run("random", [{"x": 1}, {"x": 2}]))


def test_what_is_good_at_one_of_two_objectives_is_not_given_up():
    drawing = Drawing(PROMPTS, lambda options, prompt, seed: options["x"])
    both = [SearchObjective(worth), SearchObjective(worth, least=True, weakest=True)]
    work = Trials(dict, both, drawing, Skills.of(PROMPTS), (0, 1, 2))
    work.run("search", [{"x": 5}, {"x": 6}])
    assert all(one.whole for one in work.run("search", [{"x": 1}, {"x": 9}]))


def test_a_point_that_comes_twice_is_drawn_once():
    work, drawing = trials(lambda options, prompt, seed: 1.0, seeds=(0,))
    first, second = work.run("search", [{"x": 1}, {"x": 1}])
    assert (first.number, second.number) == (0, 1)
    assert len(drawing.asked) == 1


def test_a_merge_that_fails_is_said_and_the_others_go_on():
    work, _ = trials(lambda options, prompt, seed: 1 / options["x"])
    failed, fine = work.run("search", [{"x": 0}, {"x": 2}])
    assert failed.problem == "division by zero"
    assert not failed.whole
    assert fine.values == (0.5,)
    assert best(work.done, SearchObjective(worth)) is fine


def test_a_merge_that_fails_with_later_seeds_has_no_half_of_a_score():
    work, _ = trials(lambda options, prompt, seed: 1 / (2 - seed))
    (failed,) = work.run("search", [{"x": 1}])
    assert failed.by_seed == ()
    assert failed.problem == "division by zero"


def test_where_all_fail_the_first_reason_is_told():
    work, _ = trials(lambda options, prompt, seed: 1 / 0)
    work.run("search", [{"x": 1}, {"x": 2}])
    with pytest.raises(SearchError, match="none of the 2 trials has a score; the first says: division by zero"):
        best(work.done, SearchObjective(worth))


def test_a_scorer_that_skips_a_prompt_of_some_merges_only_is_found_out():
    work, _ = trials(lambda options, prompt, seed: math.nan if options["x"] and prompt == "two" else 1.0)
    fine, skipped = work.run("search", [{"x": 0}, {"x": 1}])
    assert fine.whole
    assert "NaN for 'two' for some merges and not for others" in skipped.problem


def test_numbers_are_kept_by_seed():
    work, _ = trials(lambda options, prompt, seed: seed + (prompt == "two"))
    (one,) = work.run("search", [{"x": 1}])
    np.testing.assert_array_equal(one.by_seed[0], [0.5, 1.5, 2.5])
