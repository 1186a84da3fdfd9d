"""How names stand in messages."""

from __future__ import annotations

import pytest

from workbench.wording import enumerated, few, listed, shortened


@pytest.mark.parametrize(
    ("count", "plain", "quoted", "sentence"),
    [
        (1, "a", "'a'", "a"),
        (2, "a, b", "'a', 'b'", "a and b"),
        (3, "a, b, c", "'a', 'b', 'c'", "a, b and c"),
        (5, "a, b, c and 2 more", "'a', 'b', 'c' and 2 more", "a, b, c and 2 more"),
    ],
)
def test_a_message_names_the_first_few_and_counts_the_others(count, plain, quoted, sentence):
    names = list("abcde")[:count]
    assert (few(names), listed(names), enumerated(names)) == (plain, quoted, sentence)
    assert listed(dict.fromkeys(names), 1) == ("'a'" if count == 1 else f"'a' and {count - 1} more")


def test_a_long_text_is_quoted_by_its_beginning():
    assert shortened("a" * 60) == "a" * 60
    assert shortened("a" * 61) == "a" * 59 + "…"
