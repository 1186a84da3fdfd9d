"""The surrogate and what it proposes: strengths by hand, a known optimum, choices and logarithms, and points that are not to be tried."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.preferences.bradley_terry import bradley_terry
from workbench.preferences.duels import Duel
from workbench.preferences.proposing import Cube, proposal, still_to_win
from workbench.preferences.surrogate import fit_surrogate
from workbench.searches.space import space_of

PLANE = Cube(space_of({"x": (0.0, 1.0), "y": (0.0, 1.0)}, None))
MIXED = Cube(
    space_of({"kind": ["a", "b", "c"], "rate": {"low": 0.001, "high": 1.0, "log": True}, "n": {"low": 0, "high": 4, "step": 1}}, None)
)


def test_points_that_say_nothing_of_each_other_have_bradley_and_terrys_strengths(monkeypatch):
    points = 1000.0 * np.arange(3)[:, None]
    duels = [Duel(0, 1, 1.0), Duel(0, 1, 1.0), Duel(1, 2, 0.5), Duel(3, 2, 1.0)]  # 3 is the bar
    surrogate = fit_surrogate(points, duels)
    monkeypatch.setattr("workbench.preferences.bradley_terry.PRIOR_DEVIATION", surrogate.deviation)
    for found, expected in zip(surrogate(points), bradley_terry(3, duels), strict=True):
        assert found == pytest.approx(expected, abs=1e-3)


def test_near_points_share_what_is_known_of_one():
    points = np.array([[0.5, 0.5], [0.0, 0.0]])
    surrogate = fit_surrogate(points, [Duel(0, 1, 1.0)] * 6)
    mean, covariance = surrogate(np.array([[0.5, 0.5], [0.51, 0.5], [1.0, 0.0]]))
    assert mean[1] == pytest.approx(mean[0], rel=0.05)
    assert covariance[1, 1] < covariance[2, 2]


def test_gains_are_the_differences_of_the_joint_posterior():
    points = np.random.default_rng(0).random((5, 2))
    surrogate = fit_surrogate(points, [Duel(0, 1, 1.0), Duel(2, 3, 0.0), Duel(0, 4, 0.5), Duel(5, 3, 1.0)])
    others = np.random.default_rng(1).random((4, 2))
    mean, covariance = surrogate(np.vstack([points[:1], others]))
    gain, deviation = surrogate.gains(others, points[0])
    assert gain == pytest.approx(mean[1:] - mean[0], abs=1e-3)
    expected = covariance.diagonal()[1:] + covariance[0, 0] - 2 * covariance[0, 1:]
    assert deviation**2 == pytest.approx(expected, abs=1e-3)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=30))
def test_contradictory_choices_stay_finite(given_duels):
    points = np.random.default_rng(0).random((5, 2))
    surrogate = fit_surrogate(points, [Duel(*one) for one in given_duels if one[0] != one[1]] or [Duel(0, 1, 1.0)])
    mean, covariance = surrogate(points)
    assert np.isfinite(mean).all()
    assert np.isfinite(covariance).all()


def test_a_point_that_is_far_away_may_be_better_and_one_that_is_known_to_be_worse_is_not_proposed():
    points = [{"x": 0.5, "y": 0.5}, {"x": 0.1, "y": 0.1}, {"x": 0.2, "y": 0.1}]
    surrogate = fit_surrogate(np.stack([PLANE.row(one) for one in points]), [Duel(0, 1, 1.0), Duel(0, 2, 1.0)] * 3)
    found = proposal(surrogate, PLANE, points[0], points, 0)
    assert np.hypot(found["x"] - 0.15, found["y"] - 0.1) > 0.3
    assert found == proposal(surrogate, PLANE, points[0], points, 0)
    assert 0.5 < still_to_win(surrogate, PLANE, points[0], 0) < 1


def test_what_was_tried_or_failed_is_not_proposed_until_nothing_is_left():
    few = Cube(space_of({"kind": ["a", "b", "c"]}, None))
    points = [{"kind": number} for number in range(3)]
    surrogate = fit_surrogate(np.stack([few.row(one) for one in points[:2]]), [Duel(0, 1, 1.0)])
    assert proposal(surrogate, few, points[0], points[:2], 0) == points[2]
    assert proposal(surrogate, few, points[0], points, 0) is None


def test_points_are_as_the_space_has_them():
    for point in MIXED.pool({"kind": 1, "rate": 0.03, "n": 2.0}, 0):
        assert MIXED.holds(point)
        assert point["n"] in range(5)
        assert MIXED.options(point)["kind"] in "abc"
    assert MIXED.options({"kind": 2, "rate": 0.5, "n": 3.0}) == {"kind": "c", "rate": 0.5, "n": 3.0}


def test_a_row_has_logarithms_and_choices_that_are_one_apart():
    row = MIXED.row({"kind": 0, "rate": 0.001 * 1000**0.5, "n": 4})
    assert row[3:] == pytest.approx([0.5, 1.0])
    other = MIXED.row({"kind": 2, "rate": 0.001 * 1000**0.5, "n": 4})
    assert np.linalg.norm(row - other) == pytest.approx(1)


@pytest.mark.parametrize("point", [{"x": 0.5}, {"x": 0.5, "y": 2.0}, {"x": 0.5, "y": "a"}, {"x": 0.5, "y": 0.5, "z": 0}])
def test_a_point_of_another_space_is_known_as_such(point):
    assert not PLANE.holds(point)


def test_a_known_optimum_is_found_in_thirty_choices_without_noise():
    def strength(point):
        return np.exp(-((point["x"] - 0.7) ** 2 + (point["y"] - 0.3) ** 2) / 0.25)

    points = PLANE.spread(3)[:2]
    pair, duels = (0, 1), []
    for count in range(30):
        duels.append(Duel(*pair, float(strength(points[pair[0]]) > strength(points[pair[1]]))))
        surrogate = fit_surrogate(np.stack([PLANE.row(one) for one in points]), duels)
        best = int(surrogate(surrogate.points)[0].argmax())
        points.append(proposal(surrogate, PLANE, points[best], points, count))
        pair = best, len(points) - 1
    assert strength(points[best]) > 0.98
