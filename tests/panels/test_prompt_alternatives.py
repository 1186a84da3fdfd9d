"""Alternatives in prompts, and prompts from files: by hand."""

from __future__ import annotations

import pytest

from workbench.errors import InputError, RenderError
from workbench.panels.prompts import count, expanded, literal, prompts_in, prompts_of


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("a star", ["a star"]),
        ("a {red|blue} star", ["a red star", "a blue star"]),
        ("{a|b} {1|2}", ["a 1", "a 2", "b 1", "b 2"]),
        ("a cat{|, oil}", ["a cat", "a cat, oil"]),
        ("{one}", ["one"]),
        (r"\{a|b\}", ["{a|b}"]),
        (r"{a\|b|c\}}", ["a|b", "c}"]),
        (r"a|b \(c\) \\", [r"a|b \(c\) \\"]),
        ("", [""]),
    ],
)
def test_alternatives_are_all_combinations_in_order(prompt, found):
    assert expanded([prompt]) == tuple(found)
    assert count([prompt]) == len(found)


@pytest.mark.parametrize(
    ("prompt", "told"),
    [("a {red", "has a { without its }"), ("red} a", "has a } without its {"), ("{a|{b|c}}", "alternatives within alternatives")],
)
def test_a_brace_without_its_partner_is_told(prompt, told):
    with pytest.raises(RenderError, match=told):
        expanded(["fine", prompt])


def test_a_prompt_that_would_be_more_than_anyone_draws_is_counted_not_made():
    bomb = "{a|b}" * 60
    assert count([bomb]) == 2**60
    with pytest.raises(RenderError, match="at most 10,000"):
        expanded([bomb])


@pytest.mark.parametrize("prompt", ["{a|b}", r"\{", r"\\{|}", "}{", r"a \| b", "plain"])
def test_what_is_literal_stands_for_itself(prompt):
    assert expanded([literal(prompt)]) == (prompt,)


def test_a_list_of_prompts_has_one_on_each_line_and_comments(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes(b"\xef\xbb\xbf# stars\r\na red star\r\n\r\n  a {blue|green} star  \n #end\n")
    assert prompts_in(file) == ("a red star", "a {blue|green} star")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "has no prompts"),
        (b"# only this\n", "has no prompts"),
        (b"\xff\xfe\0", "no text in UTF-8"),
        (b"a\0b", "is no text"),
        (b"x" * (2**20 + 1), "bytes"),
    ],
)
def test_a_file_that_is_no_list_of_prompts_is_told_by_name(content, told):
    with pytest.raises(InputError, match=rf"^notes\.txt: .*{told}"):
        prompts_of(content, "notes.txt")


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(InputError, match=r"none\.txt: cannot be read: No such file"):
        prompts_in(tmp_path / "none.txt")
