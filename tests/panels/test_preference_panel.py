"""PreferencePanel as Python has it: what it shows and hides, and what comes of answers. In a browser: tests/browser."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from PIL import Image

import workbench as wb
from workbench.errors import PreferenceError
from workbench.places import DATA

PROMPTS = ["a red heart on a white background"]


@pytest.fixture(scope="module")
def checkpoints():
    return {f"secret {name}": wb.open(DATA / "shapes-sd" / f"{name}.safetensors") for name in ("base", "heart", "moon")}


@pytest.fixture
def panel(checkpoints, renderer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = wb.PreferencePanel(checkpoints, prompts=PROMPTS, steps=1, renderer=renderer)
    assert made.wait(60)
    yield made
    made.close()


def hears(panel, **content):
    """As the browser says it."""
    panel._handle_custom_msg(content, [])
    assert panel.wait(60)


def all_shown(panel) -> str:
    return repr({name: getattr(panel, name) for name in ("asked", "progress", "said", "rows", "outcome")})


def test_two_pictures_are_shown_without_names(panel):
    assert panel.question == 1
    assert [Image.open(io.BytesIO(content)).size for content in panel.pictures] == [(64, 64)] * 2
    assert panel.asked in (f"{PROMPTS[0]} · seed 0", f"{PROMPTS[0]} · seed 1")
    assert panel.progress.startswith("0 choices: about")
    assert "secret" not in all_shown(panel)


def test_an_answer_is_kept_and_the_next_question_shown(panel):
    panel.choose("left")
    assert panel.wait(60)
    assert panel.question == 2
    assert panel.progress.startswith("1 choice: about")
    assert [one.answer for one in panel.choices] == ["left"]
    assert "secret" not in all_shown(panel)
    panel.undo()
    assert panel.wait(60)
    assert panel.choices == []


def test_what_the_browser_sends_is_done_once_for_each_question(panel):
    hears(panel, do="choose", question=1, answer="right")
    hears(panel, do="choose", question=1, answer="right")  # a key that was held, or two windows
    assert [one.answer for one in panel.choices] == ["right"]
    hears(panel, do="undo")
    hears(panel, do="undo")
    assert panel.said == "there is no choice to take back"
    assert panel.choices == []


def test_names_are_shown_when_they_are_asked_for_and_follow_the_choices(panel):
    panel.names = True
    assert (panel.rows, panel.outcome) == ([], "nothing was chosen yet")
    with pytest.raises(PreferenceError, match="nothing was chosen yet"):
        panel.best  # noqa: B018
    panel.choose("left")
    assert panel.wait(60)
    winner = panel.choices[0].left.name
    assert panel.rows[0]["name"] == winner == panel.best.name
    assert panel.outcome.startswith(winner)
    assert panel.recipe is None  # a plain file
    panel.names = False
    assert (panel.rows, panel.outcome) == ([], "")


def test_the_best_merge_is_a_recipe_and_its_checkpoint_opens(checkpoints, renderer, tmp_path):
    base, heart, _ = checkpoints.values()
    merges = [wb.operators.task_arithmetic(base, [heart], weights=weight) for weight in (0.3, 0.9)]
    panel = wb.PreferencePanel(dict(zip("ab", merges, strict=True)), prompts=PROMPTS, steps=1, renderer=renderer, folder=tmp_path)
    assert panel.wait(60)
    panel.choose("right")
    assert panel.wait(60)
    best = {"a": 0.3, "b": 0.9}[panel.best.name]
    assert panel.recipe.data.merge.options == {"weights": best}
    expected = merges[[0.3, 0.9].index(best)]
    assert all(panel.best.open()[key].equal(expected[key]) for key in list(expected)[::100])
    panel.close()


def test_the_ranking_is_a_frame_and_a_figure_and_choices_a_table(panel, tmp_path):
    for _ in range(3):
        panel.choose("left")
        assert panel.wait(60)
    frame = panel.frame()
    assert list(frame.columns) == ["name", "strength", "deviation", "best", "won", "lost", "tied", "neither"]
    assert frame["best"].sum() == pytest.approx(1)
    assert frame["strength"].is_monotonic_decreasing
    assert frame["won"].sum() == frame["lost"].sum() == 3
    assert list(panel.plot().layout.yaxis.ticktext) == list(frame["name"])
    hears(panel, do="export")
    assert panel.said.replace("\\", "/") == "written: out/preferences/preferences/choices.csv"
    assert list(pd.read_csv("out/preferences/preferences/choices.csv")["answer"]) == ["left"] * 3
    assert len(pd.read_csv(panel.to_csv(tmp_path / "mine.csv"))) == 3


def test_another_panel_goes_on_where_this_one_was(panel, checkpoints, renderer):
    panel.choose("tie")
    assert panel.wait(60)
    again = wb.PreferencePanel(checkpoints, prompts=PROMPTS, steps=1, renderer=renderer)
    assert again.wait(60)
    assert (again.progress, again.pictures, again.asked) == (panel.progress, panel.pictures, panel.asked)
    again.close()


def test_what_cannot_be_drawn_is_said_and_nothing_hangs(checkpoints, renderer, tmp_path, monkeypatch):
    def load(checkpoint, **given):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(renderer, "load", load)
    panel = wb.PreferencePanel(checkpoints, prompts=PROMPTS, steps=1, renderer=renderer, folder=tmp_path)
    assert panel.wait(60)
    assert panel.question == 0
    assert "two candidates are needed" in panel.said
    assert "left out: secret heart: RuntimeError: out of memory" in panel.said
    with pytest.raises(PreferenceError, match="no question is shown: two candidates are needed"):
        panel.choose("left")
    panel.close()


def test_an_answer_that_is_none_and_a_store_that_cannot_be_read_are_refused(panel, checkpoints, renderer):
    with pytest.raises(PreferenceError, match="answer must be one of 'left', 'right', 'tie', 'neither', got '1'"):
        panel.choose("1")
    path = panel._elicitation.store.path
    path.write_text('{"version": 9}')
    with pytest.raises(PreferenceError, match="holds choices of version 9"):
        wb.PreferencePanel(checkpoints, prompts=PROMPTS, steps=1, renderer=renderer)
    hears(panel, do="choose", question=1, answer="left")
    assert "holds choices of version 9" in panel.said
    path.unlink()
    assert panel.question == 2  # the page takes 1 as answered
    hears(panel, do="choose", question=2, answer="left")
    assert [one.answer for one in panel.choices] == ["left"]


def test_a_panel_that_is_closed_asks_no_more(panel):
    panel.close()
    assert panel.pictures == []
    with pytest.raises(PreferenceError, match="no question is shown"):
        panel.choose("left")
