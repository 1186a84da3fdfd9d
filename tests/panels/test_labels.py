"""Names that are shown can be told apart, however long and alike they are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workbench.panels.labels import labels

name = st.text("ab_-. ", min_size=1, max_size=40)


def test_words_that_all_begin_with_are_dropped():
    names = ["juggernautXL_v9_lightning", "juggernautXL_v9_base"]
    assert list(labels(names).values()) == ["…lightning", "…base"]


def test_a_long_name_is_cut_in_the_middle():
    assert labels(["animagine-xl-with-a-very-long-name-4.0"], 15) == {"animagine-xl-with-a-very-long-name-4.0": "animagi…ame-4.0"}


def test_short_names_stay_as_they_are():
    assert labels(["heart", "moon"]) == {"heart": "heart", "moon": "moon"}
    assert labels(["a_", "a_b"]) == {"a_": "a_", "a_b": "a_b"}
    assert labels([]) == {}


@given(st.lists(name, unique=True), st.integers(5, 30))
def test_different_names_have_different_labels(names, most):
    found = labels(names, most)
    assert list(found) == names
    assert len(set(found.values())) == len(names)
