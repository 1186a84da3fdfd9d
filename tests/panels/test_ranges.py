"""Values as people write them: ranges with their ends, lists, names; what is none is named."""

from __future__ import annotations

import pytest

from workbench.errors import InputError
from workbench.panels.ranges import lines, names, numbers, several


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0..1 step 0.1", (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)),
        ("0.2, 0.5", (0.2, 0.5)),
        ("1..0 step 0.5", (1.0, 0.5, 0.0)),
        ("1..0 step -0.5", (1.0, 0.5, 0.0)),
        ("0..1 step 0.4", (0.0, 0.4, 0.8)),
        ("-1..1 step 1; 0.5\n0.5, 1e-3", (-1.0, 0.0, 1.0, 0.5, 0.001)),
        ("0.1..0.3 step 0.1", (0.1, 0.2, 0.3)),
        ("3", (3.0,)),
        (".5..1 step .5", (0.5, 1.0)),
        ("2..2 step 1", (2.0,)),
    ],
)
def test_numbers_are_as_exact_as_they_are_written_with_the_ends_and_each_once(text, values):
    assert numbers("density", text) == values


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "density: has no values"),
        (" , ", "density: has no values"),
        ("0..1", "'0..1' has no step; write 0..1 step 0.1"),
        ("0..1 step 0", "'0..1 step 0' goes nowhere"),
        ("0..x step 1", "'0..x step 1' is no number and no range"),
        ("0.2, a lot", "'a lot' is no number"),
        ("nan", "'nan' is no number"),
        ("0..1 step 0.00000001", "has 100,000,001 values; at most 10,000"),
        ("0..1e999 step 1", "at most 10,000"),
    ],
)
def test_what_is_no_number_is_named(text, said):
    with pytest.raises(InputError, match=said.replace(".", r"\.")):
        numbers("density", text)


def test_whole_numbers_are_whole():
    assert numbers("steps", "4..12 step 4", whole=True) == (4, 8, 12)
    assert all(isinstance(one, int) for one in numbers("steps", "4, 8.0", whole=True))
    with pytest.raises(InputError, match=r"steps: 4\.5 is no whole number"):
        numbers("steps", "4, 4.5", whole=True)


def test_names_are_those_that_are_allowed():
    assert names("base", "heart, moon, heart", ["base", "heart", "moon"]) == ("heart", "moon")
    with pytest.raises(InputError, match=r"base: there is no 'haert'; did you mean 'heart'\? \(there are: heart, moon\)"):
        names("base", "moon, haert", ["heart", "moon"])
    with pytest.raises(InputError, match="base: has no values; write some of heart"):
        names("base", "", ["heart"])


def test_groups_of_models_are_joined_by_a_plus():
    assert several("models", "heart + moon, heart", ["heart", "moon"]) == (("heart", "moon"), ("heart",))
    with pytest.raises(InputError, match="there is no 'sun'"):
        several("models", "heart+sun", ["heart", "moon"])


def test_prompts_are_one_on_a_line_commas_and_all():
    assert lines("prompts", "a heart, red\n\n a moon \na moon") == ("a heart, red", "a moon")
    with pytest.raises(InputError, match="prompts: has no values"):
        lines("prompts", " \n")
