"""Questions about real merges: what is asked next, what is left out, what is resumed, and a space that proposes new ones."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest

import workbench as wb
from workbench.errors import PreferenceError, RenderError, SearchError, SweepError
from workbench.preferences.choices import ChoiceStore
from workbench.preferences.elicitation import Elicitation
from workbench.preferences.starting import elicitation

PROMPTS = ["a red heart on a white background", "a yellow moon on a black background"]
PLANE = {"weights": {"low": 0.0, "high": 1.5, "each": "model"}}


@pytest.fixture
def begin(models, renderer, tmp_path):
    """Begins, or goes on with, an elicitation about the three models unless told otherwise."""

    def begun(candidates=models, space=None, **given) -> Elicitation:
        usual = {"prompts": PROMPTS, "seeds": [0, 1], "steps": 1, "inputs": None, "name": "mine", "folder": tmp_path, "seed": 0}
        return elicitation(candidates, space, renderer=renderer, **usual | given)

    return begun


@pytest.fixture
def search(begin, models):
    inputs = {"base": models["base"], "models": [models["heart"], models["moon"]]}
    return partial(begin, wb.operators.task_arithmetic, PLANE, inputs=inputs, prompts=PROMPTS[:1], seeds=[0])


def answered(asking: Elicitation, *answers: str) -> Elicitation:
    for answer in answers:
        asking.answer(asking.ask(), answer)
    return asking


def test_both_pictures_are_of_the_same_prompt_and_seed_and_are_the_renderers(begin, renderer, models):
    question = begin().ask()
    assert question.left.name != question.right.name
    assert question.shown == [(prompt, seed) for prompt in PROMPTS for seed in (0, 1)][question.picture]
    for side in (question.left, question.right):
        renderer.load(models[side.name])
        expected = renderer.images(PROMPTS, [0, 1], steps=1)
        assert side.picture(question.picture).tobytes() == expected[question.picture].tobytes()


def test_the_same_choices_lead_to_the_same_question_and_another_start_goes_on_where_it_was(begin):
    first = answered(begin(), "left", "tie", "neither")
    question = first.ask()
    again = begin()
    assert [one.answer for one in again.choices] == ["left", "tie", "neither"]
    assert again.ask() == question
    assert begin(name="other").choices == []


def test_sides_are_shuffled(begin):
    asking = begin()
    first = {asking.ask().left.name}
    for seed in range(12):
        first.add(begin(seed=seed).ask().left.name)
    assert len(first) > 1


def test_a_pair_is_shown_by_all_its_pictures_before_one_comes_again_and_that_is_said(begin, models):
    two = {name: models[name] for name in ("heart", "moon")}
    asking, shown = begin(two), []
    for _ in range(4):
        question = asking.ask()
        assert not question.again
        shown.append(question.shown)
        asking.answer(question, "tie")
    assert sorted(shown) == sorted((prompt, seed) for prompt in PROMPTS for seed in (0, 1))
    assert asking.ask().again


def test_an_undone_choice_is_asked_about_again(begin):
    asking = answered(begin(), "left")
    question = asking.ask()
    asking.answer(question, "right")
    assert asking.undo().answer == "right"
    assert asking.ask() == question
    asking.undo()
    with pytest.raises(PreferenceError, match="no choice to take back"):
        asking.undo()


def test_two_at_once_count_each_others_choices_and_take_back_their_own(begin):
    one, other = begin(), begin()
    answered(one, "left")
    answered(other, "right")
    one.ask()
    assert len(one.choices) == len(other.choices) == 2
    assert one.undo().answer == "left"
    assert [choice.answer for choice in begin().choices] == ["right"]
    assert one.undo().answer == "right"
    with pytest.raises(PreferenceError, match="no choice to take back"):
        other.undo()


def test_more_prompts_leave_choices_as_they_are_and_other_settings_do_not(begin):
    answered(begin(prompts=PROMPTS[:1]), "left")
    assert len(begin(prompts=PROMPTS).choices) == 1
    drawn_otherwise = begin(steps=2)
    assert (drawn_otherwise.choices, drawn_otherwise.others) == ([], 1)


def test_what_cannot_be_drawn_is_left_out_and_said_and_so_is_a_twin(begin, models, tmp_path):
    gone = tmp_path / "gone.safetensors"
    shutil.copy(models["heart"].path, gone)
    other = wb.operators.task_arithmetic(models["base"], [wb.open(gone)], weights=0.5)
    asking = begin({"gone": other, "heart": models["heart"], "twin": models["heart"], "moon": models["moon"]})
    gone.unlink()
    answered(asking, "left", "left", "left")
    assert asking.problems["twin"] == "is the same as heart"
    assert "gone.safetensors" in asking.problems["gone"]
    assert [one.name for one in asking.ranking.candidates] == ["heart", "moon"]


def test_a_merge_that_fails_while_it_is_drawn_is_left_out(begin, models, renderer, monkeypatch):
    loading = renderer.load

    def load(checkpoint, **given):
        if checkpoint.name == "heart":
            raise MemoryError("too large")
        return loading(checkpoint, **given)

    monkeypatch.setattr(renderer, "load", load)
    asking = answered(begin(), "left", "left")
    assert asking.problems == {"heart": "MemoryError: too large"}
    assert {one.name for one in asking.ranking.candidates} == {"base", "moon"}


def test_with_one_that_can_be_drawn_there_is_nothing_to_ask(begin, models):
    with pytest.raises(PreferenceError, match="two candidates are needed, and 1 of 2 can be drawn"):
        begin({"a": models["heart"], "b": models["heart"]}).ask()


def test_the_candidates_of_a_sweep_are_its_cells_and_are_not_drawn_again(begin, models, renderer, tmp_path):
    inputs = {"base": models["base"], "models": [models["heart"]]}
    asked = {"prompts": PROMPTS[:1], "steps": 1, "score": [], "folder": tmp_path / "sweeps", "renderer": renderer, "progress": False}
    swept = wb.sweep(wb.operators.task_arithmetic, {"weights": [0.2, 0.9]}, inputs=inputs, **asked)
    drawn = {path: path.stat().st_mtime_ns for path in swept.folder.rglob("*.png")}
    asking = elicitation(swept, None, prompts=None, seeds=0, inputs=None, name="mine", folder=tmp_path, renderer=None, seed=0)
    answered(asking, "left")
    assert {path: path.stat().st_mtime_ns for path in swept.folder.rglob("*.png")} == drawn
    assert asking.ranking.best.recipe.data.merge.options in ({"weights": 0.2}, {"weights": 0.9})
    with pytest.raises(PreferenceError, match="a sweep's pictures are drawn already"):
        begin(swept)


def test_a_space_proposes_merges_that_were_not_tried_and_ends_in_a_recipe(search, tmp_path):
    asking, seen = search(), []
    for number in range(4):
        question = asking.ask()
        seen += [one.key for one in (question.left, question.right)]
        asking.answer(question, "left")
        assert len(set(seen)) == number + 2  # the best so far, and one that is new
    ranking = asking.ranking
    assert len(ranking.candidates) == 5
    assert ranking.best.recipe.data.merge.options == {"weights": pytest.approx(list(ranking.best.point.values()))}
    assert "the best there may be would win about" in asking.progress
    again = search()
    assert again.ask() == asking.ask()
    assert again.ranking.frame().equals(ranking.frame())


def test_what_comes_next_is_drawn_ahead(search):
    asking = search()
    question = asking.ask()
    asking.draw_ahead(question, lambda: False)
    pictures = asking.store.folder / "pictures"
    drawn = sorted(path.name for path in pictures.iterdir())
    asking.answer(question, "right")
    asking.ask()
    assert sorted(path.name for path in pictures.iterdir()) == drawn


def test_points_where_no_merge_can_be_made_are_left_out(begin, models):
    def make(weight):
        if weight > 0.5:
            raise ValueError("too much")
        return wb.operators.task_arithmetic(models["base"], [models["heart"]], weights=weight)

    asking = answered(begin(make, {"weight": (0.0, 1.0)}, seeds=[0]), "left", "right", "left")
    assert set(asking.problems.values()) <= {"ValueError: too much"}
    assert all(one.point["weight"] <= 0.5 for one in asking.ranking.candidates)


def test_a_space_where_nothing_can_be_made_is_said(begin):
    def make(weight):
        raise ValueError("never")

    with pytest.raises(PreferenceError, match="no two merges of the space can be made and drawn; the last one says: ValueError: never"):
        begin(make, {"weight": (0.0, 1.0)}).ask()


def test_a_space_of_a_few_merges_goes_on_between_those(begin, models):
    def make(model):
        return wb.operators.task_arithmetic(models["base"], [models[model]], weights=0.5)

    asking = answered(begin(make, {"model": ["heart", "moon"]}, seeds=[0]), "left", "left")
    assert asking.ranking.best.name in ("model heart", "model moon")


def test_choices_of_another_space_are_kept_and_not_counted(search, begin, models):
    answered(search(), "left", "left")
    inputs = {"base": models["base"], "models": [models["heart"], models["moon"]]}
    other = begin(wb.operators.task_arithmetic, {"weights": (0.0, 1.0)}, inputs=inputs)
    assert (other.choices, other.others) == ([], 2)
    answered(other, "left")
    assert len(ChoiceStore(other.store.folder).read()) == 3


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"candidates": {}}, PreferenceError, r"two candidates are needed, got 0 \(none\); give checkpoints by name"),
        ({"candidates": "heart"}, PreferenceError, "candidates must be checkpoints by name.*got 'heart'"),
        ({"candidates": {"a": Path("a.safetensors"), "b": 1}}, PreferenceError, r"candidate 'a' must be a checkpoint, as wb.open\(path\)"),
        ({"prompts": None}, PreferenceError, "prompts= are needed"),
        ({"prompts": []}, PreferenceError, "prompts= are needed"),
        ({"space": {"weights": (0, 1)}}, PreferenceError, "space= and inputs= are for an operator or a function"),
        ({"name": ".."}, PreferenceError, "name must be the name of a folder"),
        ({"name": "a/b"}, PreferenceError, "name must be the name of a folder, without a path, got 'a/b'"),
        ({"seed": -1}, PreferenceError, "seed must be a whole number from 0, got -1"),
        ({"stepps": 3}, PreferenceError, "steps, stepps: not all of these are settings of pictures"),
        ({"seeds": [-1]}, RenderError, "seeds must be one or more whole numbers from 0"),
        ({"candidates": lambda weight: None}, SearchError, "a function of options tells nothing of them: give space="),
        ({"candidates": lambda weight: None, "space": {"density": (0, 1)}}, SweepError, r"make takes \(weight\), and over gives density"),
    ],
)
def test_what_cannot_be_asked_about_is_refused_at_once(begin, given, kind, words):
    with pytest.raises(kind, match=words):
        begin(**given)


def test_two_checkpoints_of_one_name_are_refused(begin, models):
    with pytest.raises(PreferenceError, match="two candidates are called 'heart': give them names"):
        begin([models["heart"], models["moon"], models["heart"]])
