"""Where a search looks next: the same for the same seed, near what was good, and first where nothing is varied."""

from __future__ import annotations

import sys

import pytest

import workbench as wb
from workbench.errors import SearchError
from workbench.searches.sampling import Suggestions, at_random
from workbench.searches.space import space_of

TIES = wb.operators.ties
BOTH = ["heart", "moon"]
PLANE = space_of({"x": (-2.0, 2.0), "y": (-2.0, 2.0)}, None)
MIXED = space_of({"density": (0.1, 0.9), "majority_sign": ["total", "frequency"], "weights": {"each": "model"}}, TIES, BOTH)


def hill(point):
    return -((point["x"] - 1.2) ** 2) - (point["y"] + 0.7) ** 2


def found(sampler, seed=0, rounds=10):
    suggested = Suggestions(PLANE, sampler, seed, [False])
    points = []
    for _ in range(rounds):
        asked = suggested.ask(4)
        suggested.tell([[hill(point)] for point in asked])
        points += asked
    return points


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_the_same_seed_and_values_give_the_same_points(sampler):
    assert found(sampler) == found(sampler)
    assert found(sampler) != found(sampler, seed=1)


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_later_points_are_better_than_points_at_random(sampler):
    late = found(sampler)[-12:]
    anywhere = at_random(PLANE, 200, 0)
    assert sum(map(hill, late)) / 12 > sum(map(hill, anywhere)) / 200 / 2  # both below zero: twice as near


def test_the_first_point_is_where_it_is_to_start():
    start = {"density": 0.5, "majority_sign": "total", "weights[heart]": 1.0, "weights[moon]": 1.0}
    assert MIXED.default == start
    first, second = Suggestions(MIXED, "tpe", 0, [False], [start]).ask(2)
    assert first == start
    assert second != first


def test_points_that_failed_are_told_and_left_out():
    suggested = Suggestions(PLANE, "tpe", 0, [False, True])
    suggested.ask(2)
    suggested.tell([(), (1.0, 2.0)])
    assert len(suggested.ask(1)) == 1


def test_points_at_random_lie_in_the_space():
    for point in at_random(MIXED, 50, 3):
        assert all(one.holds(point[one.name]) for one in MIXED.dimensions)


@pytest.mark.parametrize(
    ("sampler", "space", "least", "told"),
    [
        ("grid", PLANE, [False], "sampler must be one of 'tpe', 'cmaes', got 'grid'"),
        ("cmaes", MIXED, [False], "no choices"),
        ("cmaes", PLANE, [False, False], "one objective"),
        ("cmaes", space_of({"x": (0.0, 1.0)}, None), [False], "two or more numbers"),
    ],
)
def test_a_sampler_that_does_not_fit_is_refused(sampler, space, least, told):
    with pytest.raises(SearchError, match=told):
        Suggestions(space, sampler, 0, least, [])


def test_without_optuna_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SearchError, match=r"pip install 'workbench\[search\]'"):
        Suggestions(PLANE, "tpe", 0, [False])
