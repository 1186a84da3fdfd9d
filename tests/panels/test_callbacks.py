"""What goes wrong in a callback is a sentence in the panel; the state stays what it was."""

from __future__ import annotations

import ast
from pathlib import Path

import ipywidgets as widgets
import pytest

from workbench.errors import InputError
from workbench.panels.callbacks import in_words, on_change, on_click, tells
from workbench.panels.wanted_view import whole_numbers

ROOT = Path(__file__).parents[2]


def failing(*_: object) -> None:
    raise InputError("no such thing")


def test_an_error_is_told_to_the_panel_that_shows_the_widget():
    button, field, told, others = widgets.Button(), widgets.Text(), [], []
    on_click(button, failing)
    on_change(field, failing)
    panel = widgets.VBox([widgets.HBox([button, field])])
    tells(panel, told.append)
    tells(widgets.VBox([widgets.Button()]), others.append)
    button.click()
    field.value = "typed"
    assert told == ["no such thing"] * 2
    assert others == []


def test_an_error_that_no_panel_could_tell_is_raised():
    field = widgets.Text()
    on_change(field, failing)
    with pytest.raises(InputError):
        field.value = "typed"


def test_a_fault_of_our_own_is_told_as_one():
    assert in_words(KeyError("x")) == "This did not work, and nothing was changed: KeyError: 'x'"
    assert in_words(PermissionError(13, "Permission denied", "a.yaml")) == "a.yaml: Permission denied"


@pytest.mark.parametrize(
    "typed", ["vae base", "- a", "3", "{match: 3, take: base}", "{component: vae}", "{component: vae, take: base", "2020-01-01"]
)
def test_a_typo_in_rules_is_told_and_the_panel_goes_on(make, typed):
    panel = make()
    before = panel.state
    panel._merging._rules.value = typed
    assert "wb-error" in panel._merging._words.value
    assert panel.state == before
    panel._merging._method.value = "ties"
    assert panel.wait(60)
    assert panel.state.operator == "ties"
    assert "wb-error" not in panel._merging._words.value


def test_a_state_that_cannot_be_shown_is_not_gone_to(make, monkeypatch):
    panel = make()
    before = panel.state
    real = panel._pictures.show

    def broken(*given):
        if panel.state != before:
            raise ZeroDivisionError("division by zero")
        real(*given)

    monkeypatch.setattr(panel._pictures, "show", broken)
    panel._merging._method.value = "ties"
    assert "ZeroDivisionError" in panel._merging._words.value
    assert panel.state == before
    assert panel._merging._method.value == "weighted_average"


def test_what_fails_while_drawing_is_told(make, monkeypatch):
    panel = make()
    monkeypatch.setattr(panel._pictures, "_measure", lambda cancelled: 1 / 0)
    panel.show(panel.state.with_operator("ties"))
    assert panel.wait(60)
    assert "ZeroDivisionError" in panel._pictures.status.value


@pytest.mark.parametrize(
    ("text", "seeds"), [("0, 3, 5-7", (0, 3, 5, 6, 7)), ("5 - 7", (5, 6, 7)), ("1 1;2", (1, 2)), ("", ()), (str(2**63 - 1), (2**63 - 1,))]
)
def test_seeds_are_read_as_people_write_them(text, seeds):
    assert whole_numbers(text) == seeds


@pytest.mark.parametrize("text", ["-5", "1.5", "7-5", "3 -5", "a", "0-", str(2**63)])
def test_what_is_no_seed_is_named(make, text):
    panel = make()
    panel._wanted._seeds.value = text
    assert f"{text.split()[-1]}&#x27; is none" in panel._pictures.status.value
    assert panel.state.wanted.seeds == (0,)
    panel._wanted._seeds.value = "7"
    assert panel.state.wanted.seeds == (7,)


def test_many_pictures_are_asked_about_first(make):
    panel = make()
    wanted = panel._wanted
    wanted._seeds.value = "0-100000"
    assert "100,001 pictures of each model" in wanted._question.value
    assert panel.state.wanted.seeds == (0,)
    _, yes, no = wanted._asking.children
    no.click()
    assert wanted._seeds.value == "0"
    assert wanted._asking.layout.display == "none"
    wanted._seeds.value = "0-99"
    panel._pictures.studio.draw = lambda *_: []
    yes.click()
    assert len(panel.state.wanted.seeds) == 100
    assert wanted._asking.layout.display == "none"


def test_every_callback_of_every_panel_goes_through_one_place():
    for path in sorted((ROOT / "workbench" / "panels").glob("*.py")):
        if path.name == "callbacks.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            direct = (
                isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("observe", "on_click", "on_msg")
            )
            if direct and ast.unparse(node.func) != "traitlets.observe":
                pytest.fail(f"{path.name}:{node.lineno}: use workbench.panels.callbacks")
