"""Bradley and Terry's strengths: an example by hand, laws they obey, and answers that contradict each other."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_choices import chosen

from workbench.errors import PreferenceError
from workbench.preferences.bradley_terry import PRIOR_DEVIATION, bradley_terry
from workbench.preferences.choices import ANSWERS
from workbench.preferences.duels import Duel, Tally, duels_of, tallies_of

NUMBERS = {"a": 0, "b": 1, "c": 2, "d": 3}
a_choice = st.builds(chosen, st.sampled_from("ab"), st.sampled_from("cd"), st.sampled_from(ANSWERS))


def fitted(choices, numbers=NUMBERS):
    return bradley_terry(len(numbers), duels_of(choices, numbers))


def test_wins_losses_and_ties_of_two_come_to_the_strength_worked_by_hand():
    wins, losses, ties = 5, 1, 2
    choices = [chosen("a", "b", "left")] * wins + [chosen("a", "b", "right")] * losses + [chosen("a", "b", "tie")] * ties
    (first, second), covariance = fitted(choices, {"a": 0, "b": 1})
    # The slope of the posterior is nothing where what was won is what was to be expected, but for the pull of the prior:
    # wins + ties / 2 = games * logistic(d) + d / (2 deviation^2), for the prior of d = a - b has twice the variance of each
    gap = first - second
    expected = 8 / (1 + np.exp(-gap)) + gap / (2 * PRIOR_DEVIATION**2)
    assert wins + ties / 2 == pytest.approx(expected, abs=1e-4)
    assert gap == pytest.approx(0.96093, abs=1e-4)
    assert first == pytest.approx(-second, abs=1e-6)
    odds = 1 / (1 + np.exp(-gap))
    precision = 8 * odds * (1 - odds) + 1 / (2 * PRIOR_DEVIATION**2)
    assert covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1] == pytest.approx(1 / precision, rel=1e-4)


def test_before_anything_is_chosen_it_is_the_prior():
    mean, covariance = fitted([])
    assert np.allclose(mean, 0)
    assert np.allclose(covariance, PRIOR_DEVIATION**2 * np.eye(4))


@given(st.lists(a_choice, max_size=12), st.permutations(range(4)))
def test_other_numbers_for_the_candidates_and_another_order_of_choices_change_nothing(choices, order):
    mean, covariance = fitted(choices)
    others = {key: order[number] for key, number in NUMBERS.items()}
    again, its_covariance = fitted(choices[::-1], others)
    assert np.allclose(again[order], mean, atol=1e-4)
    assert np.allclose(its_covariance[np.ix_(order, order)], covariance, atol=1e-4)


def test_sides_do_not_matter():
    one = fitted([chosen("a", "b", "left"), chosen("c", "a", "tie"), chosen("b", "d", "neither")])
    two = fitted([chosen("b", "a", "right"), chosen("a", "c", "tie"), chosen("d", "b", "neither")])
    assert np.allclose(one[0], two[0], atol=1e-5)
    assert np.allclose(one[1], two[1], atol=1e-5)


@pytest.mark.parametrize(
    "choices",
    [
        [chosen("a", "b", "left"), chosen("b", "c", "left"), chosen("c", "a", "left")] * 50,
        [chosen("a", "b", "left")] * 1000,
        [chosen("a", "b", "left"), chosen("a", "b", "right")] * 100,
        [chosen("a", "b", "neither")] * 500,
    ],
    ids=["in a circle", "always the same", "for and against", "never good enough"],
)
def test_contradictory_and_one_sided_choices_stay_finite(choices):
    mean, covariance = fitted(choices)
    assert np.isfinite(mean).all()
    assert np.abs(mean).max() < 10
    assert np.linalg.eigvalsh(covariance).min() > 0


def test_neither_puts_both_below_those_that_were_not_turned_down_and_says_nothing_between_them():
    mean, _ = fitted([chosen("a", "b", "neither")] * 3)
    assert mean[0] == pytest.approx(mean[1], abs=1e-6)
    assert mean[0] < mean[2] - 0.5
    assert mean[2] == pytest.approx(0, abs=1e-4)


def test_choices_of_others_are_not_counted():
    assert duels_of([chosen("a", "x", "left"), chosen("a", "b", "tie")], NUMBERS) == [Duel(0, 1, 0.5)]


def test_a_tally_counts_what_each_choice_was_to_a_candidate():
    choices = [
        chosen("a", "b", "left"),
        chosen("b", "a", "left"),
        chosen("a", "b", "tie"),
        chosen("b", "a", "neither"),
        chosen("a", "x", "left"),
    ]
    assert tallies_of(choices, ["a", "b", "c"]) == (Tally(1, 1, 1, 1), Tally(1, 1, 1, 1), Tally())


def test_without_choix_it_says_what_to_install(monkeypatch):
    importing = builtins.__import__

    def missing(name, *given, **named):
        if name.startswith("choix"):
            raise ImportError(name)
        return importing(name, *given, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(PreferenceError, match=r"need choix: pip install 'workbench\[search\]'"):
        bradley_terry(2, [])
