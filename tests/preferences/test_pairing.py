"""The next pair and how many more: what is told apart, how much the answer is worth, and that the same choices give the same pair."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.preferences.bradley_terry import bradley_terry
from workbench.preferences.duels import Duel
from workbench.preferences.pairing import MOST_LEFT, chances, choices_left, next_pair


def test_of_two_equals_each_is_the_best_half_of_the_time():
    assert chances(np.zeros(2), np.eye(2)) == pytest.approx([0.5, 0.5], abs=0.03)


def test_the_chance_to_be_the_best_is_that_of_a_normal_difference():
    # P(N(1, 1 + 1) > 0) = Phi(1 / sqrt(2)) = 0.7602
    assert chances(np.array([1.0, 0.0]), np.eye(2))[0] == pytest.approx(0.7602, abs=0.02)


def test_the_pair_is_of_those_that_may_be_the_best():
    mean = np.array([3.0, 0.0, 2.9, -3.0])
    for seed in range(5):
        assert set(next_pair(mean, 0.3 * np.eye(4), seed)) == {0, 2}


def test_a_pair_that_is_decided_is_not_asked_about_again_while_another_is_open():
    duels = [Duel(0, 1, 1.0)] * 12 + [Duel(1, 2, 1.0)] * 12
    mean, covariance = bradley_terry(4, duels)
    assert set(next_pair(mean, covariance, 0)) == {0, 3}


def test_the_same_strengths_and_seed_give_the_same_pair_and_seeds_vary_it():
    mean, covariance = bradley_terry(8, [])
    pairs = [next_pair(mean, covariance, seed) for seed in range(12)]
    assert pairs == [next_pair(mean, covariance, seed) for seed in range(12)]
    assert len(set(pairs)) > 3


def test_fewer_choices_are_left_the_more_the_best_stands_out():
    counts = [choices_left(*bradley_terry(4, [Duel(0, other, 1.0) for other in (1, 2, 3)] * wins)) for wins in (0, 2, 4, 12)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 10
    assert counts[-1] == 0


def test_what_is_sure_needs_no_more_and_what_cannot_be_told_apart_needs_the_most():
    assert choices_left(np.array([4.0, 0.0]), 0.1 * np.eye(2)) == 0
    alike = [Duel(0, 1, 0.5)] * 400
    assert choices_left(*bradley_terry(2, alike)) == MOST_LEFT


def test_many_candidates_are_paired_without_looking_at_all_pairs_at_once():
    mean = np.linspace(-3, 3, 300)
    assert 299 in next_pair(mean, 0.2 * np.eye(300), 0)
