"""`wb.search` as a person calls it, drawing for real: its baselines, its verdict, and that it goes on where it stopped."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import workbench as wb
from workbench.errors import SearchError, UnknownOperatorError
from workbench.searches.trials import SearchTrial

PROMPTS = ["a red heart on a white background"]
SPACE = {"weights": {"low": 0.0, "high": 2.0, "each": "model"}}


def bright(images, prompts):
    return [float(np.asarray(image).mean()) for image in images]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A store that searches of this module share, so that what one drew the others find."""
    return tmp_path_factory.mktemp("searches")


@pytest.fixture(scope="module")
def asked(models, renderer, shared):
    inputs = {"base": models["base"], "models": [models["heart"], models["moon"]]}
    drawing = {"steps": 1, "renderer": renderer, "folder": shared, "progress": False}
    return {"objective": bright, "prompts": PROMPTS, "seeds": (0, 1), "trials": 4, "inputs": inputs} | drawing


@pytest.fixture(scope="module")
def found(asked):
    return wb.search(wb.operators.task_arithmetic, SPACE, **asked)


def test_the_best_of_each_kind_is_drawn_again_with_seeds_that_nothing_was_chosen_with(found):
    assert set(found.chosen) == {"search", "coarse grid", "random", "defaults", "plain average", "plain sum"}
    assert {kind: len(values[0]) for kind, values in found.numbers.items()} == dict.fromkeys(found.chosen, 2)
    assert found.unseen.requests[0].seeds == (2, 3)
    means = [np.asarray(picture).mean() for picture in found.cell.pictures]
    np.testing.assert_allclose(found.numbers["search"][0], means)


def test_as_many_points_are_tried_of_each_kind_and_the_search_begins_at_the_defaults(found):
    frame = found.frame()
    assert frame.groupby("kind").size().to_dict() == {
        "coarse grid": 4,
        "random": 4,
        "search": 4,
        "defaults": 1,
        "plain average": 1,
        "plain sum": 1,
    }
    first = frame[(frame["kind"] == "search") & (frame["number"] == 0)].iloc[0]
    assert (first["weights[heart]"], first["weights[moon]"]) == (1, 1)


def test_the_verdict_follows_from_the_numbers(found):
    gain = found.numbers["search"][0] - found.numbers[found.rival][0]
    assert found.gain(found.rival) == (pytest.approx(gain.mean()), pytest.approx(gain.std(ddof=1)))
    assert found.wins == (gain.mean() > gain.std(ddof=1))
    assert found.headline.startswith("better" if found.wins else "no winner")
    assert "the same prompts with 2 unseen seeds" in found.headline or "nothing that was tried" in found.headline
    compared = found.compared().set_index("kind")
    assert compared.loc[found.rival, "gain of the search"] == pytest.approx(gain.mean())
    with pytest.raises(SearchError, match="no 'grid' to compare with"):
        found.gain("grid")


def test_what_was_found_is_a_recipe(found):
    merge = found.recipe.build()
    assert list(found.best.options["weights"]) == merge.recipe.data.merge.options["weights"]


def test_the_same_call_finds_everything_drawn_and_the_same_points(found, asked):
    again = wb.search(wb.operators.task_arithmetic, SPACE, **asked)
    assert again.frame().equals(found.frame())
    assert again.unseen.drawn == 0


@pytest.fixture(scope="module")
def small(asked):
    """As `found`, with one trial of each kind."""
    return wb.search(wb.operators.task_arithmetic, SPACE, **asked | {"trials": 1})


def test_on_workers_it_is_the_same_to_the_bit(small, asked, tmp_path):
    with ThreadPoolExecutor(2) as threads:
        other = wb.search(wb.operators.task_arithmetic, SPACE, executor=threads, **asked | {"trials": 1, "folder": tmp_path})
    assert other.frame().equals(small.frame())
    assert [one.tobytes() for one in other.cell.pictures] == [one.tobytes() for one in small.cell.pictures]


def test_two_searches_over_one_store_find_the_same(small, asked, tmp_path):
    given = asked | {"trials": 1, "folder": tmp_path}
    with ThreadPoolExecutor(2) as both:
        calls = [both.submit(wb.search, wb.operators.task_arithmetic, SPACE, **given) for _ in range(2)]
    for call in calls:
        assert call.result().frame().equals(small.frame())


def test_unseen_prompts_are_by_skill_as_the_prompts_are(asked):
    prompts = {"heart": PROMPTS, "moon": ["a red moon on a white background"]}
    unseen = {"heart": ["a blue heart on a white background"], "moon": ["a blue moon on a white background"]}
    weakest = wb.SearchObjective(bright, weakest=True)
    given = {"objective": weakest, "prompts": prompts, "unseen_prompts": unseen, "trials": 1}
    found = wb.search(wb.operators.task_arithmetic, SPACE, **asked | given)
    table = found.cell.scores["bright"].reshape(2, 2)
    np.testing.assert_allclose(found.numbers["search"][0], table.min(axis=0))
    assert "2 unseen prompts with 2 unseen seeds" in found.told


def test_a_method_that_is_chosen_gets_the_options_that_it_has(asked):
    space = {"method": ["ties", "slerp"], "density": (0.2, 0.8)}
    found = wb.search(space=space, **asked)
    options = [one.options for one in found.trials if one.kind in ("search", "random", "coarse grid")]
    assert {frozenset(one) for one in options} == {frozenset({"method", "density"}), frozenset({"method"})}
    assert "defaults" not in found.chosen
    first, second = (one.options for one in found.trials if one.kind == "search" and one.number < 2)
    assert (first, second) == ({"method": "ties", "density": 0.5}, {"method": "slerp"})  # each with nothing varied
    assert not any(found.frame()["problem"])


def test_a_trial_is_named_by_the_part_of_its_point_that_its_merge_takes():
    point = {"method": "slerp", "density": 0.3, "weights[heart]": 1.0, "t.in": 0.5}
    assert SearchTrial("search", 0, point, {"method": "slerp", "t": {"blocks": {"IN00": 0.5}}}).name == "method slerp · t.in 0.5"
    assert SearchTrial("defaults", 0, {}, {}).name == "nothing varied"


def test_a_function_of_options_is_searched(models, asked):
    def make(strength, model="heart"):
        return wb.operators.task_arithmetic(models["base"], [models[model]], weights=strength)

    given = {name: value for name, value in asked.items() if name != "inputs"}
    found = wb.search(make, {"strength": (0.0, 1.0), "model": ["heart", "moon"]}, **given | {"trials": 2})
    assert set(found.chosen) == {"search", "coarse grid", "random"}
    assert found.recipe.build()


def test_strengths_of_loras_are_searched(models, asked, tmp_path):
    paths = [tmp_path / f"{name}.safetensors" for name in ("heart", "moon")]
    for path in paths:
        wb.lora.export(wb.lora.extract(models[path.stem], models["base"], rank=2), path)
    loras = [wb.open(path) for path in paths]
    given = {"inputs": {"base": models["base"], "deltas": loras}, "trials": 1, "folder": tmp_path}
    found = wb.search(wb.operators.add_delta, {"strengths": {"each": "model", "low": 0.0, "high": 1.5}}, **asked | given)
    assert list(found.frame().filter(like="strengths[")) == ["strengths[heart]", "strengths[moon]"]
    assert set(found.chosen) == {"search", "coarse grid", "random", "defaults"}  # an average of LoRAs alone is no model


def test_several_objectives_have_a_front_of_what_none_beats(asked):
    def dark(images, prompts):
        return [-value for value in bright(images, prompts)]

    found = wb.search(wb.operators.task_arithmetic, SPACE, **asked | {"objective": [bright, dark]})
    assert set(found.front) == {one for one in found.trials if one.whole}  # what one objective gains, the other loses
    figure = found.plot()
    assert figure.layout.xaxis.title.text == "bright"
    panel = wb.FrontPanel(found)
    assert panel.shown is found.best
    other = next(one for one in found.shown if one is not found.best)
    panel.show(other)
    assert panel.shown is other
    assert bytes(panel._sheet.value).startswith(b"\x89PNG")


def test_one_objective_has_no_front_to_show(found):
    with pytest.raises(SearchError, match="two objectives or more"):
        wb.FrontPanel(found)


def test_a_result_shows_its_verdict_and_a_row_for_each_kind(found):
    page = found._repr_mimebundle_()["text/html"]
    assert page.count("<tr") == 1 + len(found.chosen)
    assert found.grid().frame()["model"].nunique() == len(found.chosen)
    assert {line.name for line in found.plot().data} == {"search", "coarse grid", "random"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"trials": 0}, "trials must be a whole number above 0"),
        ({"seeds": []}, "seeds must be a list"),
        ({"prompts": "a heart"}, "prompts must be"),
        ({"unseen_seeds": [1, 2]}, "unseen_seeds: 1 is among the seeds"),
        ({"unseen_seeds": []}, "unseen_seeds is empty"),
        ({"unseen_prompts": PROMPTS}, "unseen_prompts: 'a red heart on a white background' is among"),
        ({"steps": [1, 2]}, "steps takes one value"),
        ({"step": 1}, "search takes no 'step'"),
        ({"objective": "clip"}, "objective must be"),
        ({"sampler": "grid"}, "sampler must be one of"),
    ],
)
def test_bad_input_is_refused_before_anything_is_drawn(asked, tmp_path, given, told):
    with pytest.raises(SearchError, match=told):
        wb.search(wb.operators.task_arithmetic, SPACE, **asked | {"folder": tmp_path} | given)
    assert not any(tmp_path.iterdir())


def test_some_trials_that_fail_are_told_and_the_others_decide(models, asked):
    def make(x):
        if x < 0.5:
            raise ValueError("too small")
        return wb.operators.task_arithmetic(models["base"], [models["heart"]], weights=x)

    found = wb.search(make, {"x": (0.0, 1.0)}, **asked | {"inputs": None, "trials": 2})
    assert found.problems["coarse grid 0"] == "ValueError: too small"
    assert f"{len(found.problems)} of 6 trials failed; coarse grid 0 says: ValueError: too small" in found._repr_mimebundle_()["text/html"]
    assert found.best.options["x"] >= 0.5


def test_a_method_that_is_none_is_said_before_anything_is_drawn(asked):
    with pytest.raises(UnknownOperatorError, match="tiez"):
        wb.search(space={"method": ["tiez", "slerp"]}, **asked)


def test_without_make_a_choice_of_methods_is_needed(asked):
    with pytest.raises(SearchError, match="a choice of methods"):
        wb.search(space={"density": (0.1, 0.9)}, **asked)


@pytest.mark.parametrize(("given", "told"), [(float("nan"), "NaN for every picture"), ("nice", "this scorer gives 'nice'")])
def test_where_the_scorer_gives_no_numbers_the_reason_is_told(asked, given, told):
    def broken(images, prompts):
        return [given] * len(images)

    with pytest.raises(SearchError, match=f"none of the 4 trials has a score; the first says: .*{told}"):
        wb.search(wb.operators.task_arithmetic, SPACE, **asked | {"objective": broken})


def test_where_no_merge_can_be_made_the_first_reason_is_told(asked):
    def make(x):
        raise ValueError(f"no {x}")

    given = asked | {"renderer": None, "inputs": None}
    with pytest.raises(SearchError, match="no merge of this space can be made; the first says: ValueError: no 0"):
        wb.search(make, {"x": (0.0, 1.0)}, **given)
