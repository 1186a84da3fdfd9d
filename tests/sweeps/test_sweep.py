from __future__ import annotations

import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
import torch
from held import Held

import workbench as wb
from workbench.errors import RecipeError, RenderError, SweepError
from workbench.merge import operator
from workbench.places import DATA
from workbench.render import ParentDistance
from workbench.tensors import Scope, Weight

PROMPTS = ["a red heart on a white background", "a yellow moon on a black background"]


def test_a_function_of_options_is_swept_over_their_product(make, short):
    sweep = wb.sweep(lambda weights, seed_: make(weights=weights), {"weights": [0.5, [1, 0.5]], "seed_": [0, 1]}, **short)
    assert [cell.options for cell in sweep] == [{"weights": w, "seed_": s} for w in (0.5, [1, 0.5]) for s in (0, 1)]
    assert sweep[2].recipe.data.merge.options == {"weights": [1, 0.5]}
    assert sweep[0].seconds > 0
    assert not sweep.problems


def test_an_operator_is_swept_with_its_inputs(models, short):
    inputs = {"base": models["base"], "models": [models["heart"]]}
    sweep = wb.sweep(wb.operators.task_arithmetic, [{"weights": 1.0}, {}], inputs=inputs, **short)
    assert [cell.name for cell in sweep] == ["weights 1", "no options"]
    assert sweep.drawn == 2


def test_pictures_are_the_renderers_and_scores_are_theirs(make, short, renderer):
    sweep = wb.sweep(make, {"weights": [0.5]}, **short | {"prompts": PROMPTS, "seeds": [0, 3], "steps": [1, 2]})
    renderer.load(make(weights=0.5))
    asked = [renderer.images(PROMPTS, [0, 3], steps=steps) for steps in (1, 2)]
    pictures = [image for images in asked for image in images]
    assert [one.tobytes() for one in sweep[0].pictures] == [one.tobytes() for one in pictures]
    assert list(sweep[0].scores["bright"]) == [np.asarray(one).mean() for one in pictures]


def test_checkpoints_may_be_swept_over_by_name(models, short):
    sweep = wb.sweep(lambda model: model, {"model": [models["heart"], models["moon"]]}, **short)
    assert list(sweep.frame()["model"]) == ["heart", "moon"]
    assert list(sweep.grid().frame()["model"]) == ["heart", "moon"]
    assert sweep[0].recipe is None


def test_an_executor_gives_the_same_pictures(make, short):
    here = wb.sweep(make, {"weights": [0.2, 0.8]}, name="here", **short)
    with ThreadPoolExecutor(2) as threads:
        threaded = wb.sweep(make, {"weights": [0.2, 0.8]}, name="threads", executor=threads, **short)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
        processed = wb.sweep(make, {"weights": [0.2, 0.8]}, name="processes", executor=processes, **short)
    for other in (threaded, processed):
        assert not other.problems
        assert other.drawn == 2
        for one, two in zip(here, other, strict=True):
            assert one.pictures[0].tobytes() == two.pictures[0].tobytes()


def test_what_is_exported_is_what_was_shown(make, short, tmp_path, renderer):
    sweep = wb.sweep(make, {"weights": [0.3, 0.9]}, **short)
    written = sweep.export(sweep.best("bright"), tmp_path / "best.safetensors").open()
    shown = sweep.best("bright").recipe.build()
    assert all(written[key].equal(shown[key]) for key in shown)
    renderer.load(written)
    assert renderer.images(PROMPTS[:1], steps=1)[0].tobytes() == sweep.best("bright").pictures[0].tobytes()
    assert wb.Recipe.from_file(written.path).data.merge == sweep.best("bright").recipe.data.merge


@pytest.mark.usefixtures("forgotten")
def test_an_operator_of_ones_own_that_is_defined_anew_is_drawn_anew(models, short):
    def drawn(function) -> int:
        function.__name__ = "mine"
        mine = operator(scope=Scope.ELEMENT, keys="base", source="a test")(function)
        return wb.sweep(lambda at: mine(models["base"]), {"at": [0]}, **short).drawn

    def half(base: Weight) -> Weight:
        """Half of it."""
        return base * 0.5

    def quarter(base: Weight) -> Weight:
        """A quarter of it."""
        return base * 0.25

    assert [drawn(one) for one in (half, half, quarter, quarter, half)] == [1, 0, 1, 0, 0]


def test_a_parent_that_changed_since_is_not_exported(short, tmp_path):
    for name in ("base", "heart"):
        shutil.copy(DATA / "shapes-sd" / f"{name}.safetensors", tmp_path / f"{name}.safetensors")
    base, heart = (wb.open(tmp_path / f"{name}.safetensors") for name in ("base", "heart"))
    sweep = wb.sweep(lambda weights: wb.operators.task_arithmetic(base, [heart], weights=weights), {"weights": [1]}, **short)
    shutil.copy(DATA / "shapes-sd" / "moon.safetensors", tmp_path / "heart.safetensors")
    with pytest.raises(RecipeError, match=r"heart.safetensors is not the file the recipe was made with"):
        sweep.export(0, tmp_path / "x.safetensors")


def test_the_grid_has_options_as_axes_and_reads_pictures_when_shown(make, short, tmp_path):
    sweep = wb.sweep(lambda a, b: make(weights=[a, b]), {"a": [0, 1], "b": [0, 0.5]}, **short | {"prompts": PROMPTS, "seeds": [0, 1]})
    grid = sweep.grid()
    assert (grid.axes.x, grid.axes.y) == ("a", "b")
    assert sweep.grid(x="seed", z="b").axes.y == "a"
    assert [picture["b"] for picture in grid.pictures[::4]] == [0, 0.5, 0, 0.5]
    assert grid.images[13].tobytes() == sweep[3].pictures[1].tobytes()
    opened = wb.open_grid(grid.save(tmp_path / "grid.png"))
    assert opened.options["a 1 · b 0.5"] == {"a": 1, "b": 0.5}
    assert opened.recipes["a 1 · b 0.5"].build().options == {"weights": [1, 0.5]}
    with pytest.raises(RenderError, match="no axis 'c'; these pictures have model, a, b, prompt, seed"):
        sweep.grid(x="c")


def test_frame_and_plot_tell_means_and_their_deviation_between_seeds(make, short):
    sweep = wb.sweep(make, {"weights": [1.0, 0.0]}, **short | {"seeds": [0, 1, 2]})
    frame = sweep.frame()
    values = sweep[1].scores["bright"]
    assert list(frame) == ["weights", "bright", "bright_sd", "seconds", "problem"]
    assert frame.loc[1, "bright"] == pytest.approx(values.mean())
    assert frame.loc[1, "bright_sd"] == pytest.approx(values.std(ddof=1))
    (line,) = sweep.plot("weights", "bright").data
    assert list(line.x) == [0, 1]
    assert line.error_y.array[0] == pytest.approx(values.std(ddof=1))
    assert "bright_sd" in sweep._repr_html_()


def test_best_is_the_highest_mean_or_the_lowest(make, short):
    sweep = wb.sweep(make, {"weights": [0.0, 1.0]}, **short)
    means = [cell.scores["bright"].mean() for cell in sweep]
    assert sweep.best("bright") is sweep[int(np.argmax(means))]
    assert sweep.best("bright", lowest=True) is sweep[int(np.argmin(means))]
    with pytest.raises(SweepError, match="no score 'clip'; the scores that are numbers are bright"):
        sweep.best("clip")
    with pytest.raises(SweepError, match="no axis 'density' to plot over; there are model, weights, prompt, seed"):
        sweep.plot("density", "bright")


def test_distance_is_taken_to_a_model_that_the_merge_is_made_of(make, short):
    sweep = wb.sweep(make, {"weights": [0, [1, 0]]}, **short | {"score": [ParentDistance("base"), ParentDistance("sun")]})
    assert sweep[0].scores["from_base"] == [0]
    assert sweep[1].scores["from_base"] > 0
    assert "'sun' is none of the models that this merge is made of: base, heart, moon" in sweep[0].problem


def test_a_scorer_that_raises_is_said_in_its_cell_and_the_sweep_goes_on(make, short):
    calls = []

    def moody(images, prompts):
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError("no light")
        return [0.5] * len(images)

    sweep = wb.sweep(make, {"weights": [0, 1]}, **short | {"score": [moody, lambda images, prompts: [2.0] * len(images)]})
    assert sweep.problems == {"weights 0": "ZeroDivisionError: no light"}
    assert list(sweep.frame()["moody"])[1] == 0.5
    assert list(sweep.frame()["score"]) == [2, 2]
    assert sweep.grid().images[0] is not None


def test_a_make_that_raises_is_said_in_its_cell_and_on_the_sheet(make, short):
    sweep = wb.sweep(make, {"weights": [1, 3]}, **short)
    assert "weights must be in [-2, 2], got 3" in sweep.problems["weights 3"]
    grid = sweep.grid()
    assert grid.images[1] is None
    assert grid.note([1]) == sweep[1].problem
    assert grid.plot().width
    with pytest.raises(SweepError, match=r"weights 3: there is nothing to export: .* must be in"):
        sweep.export(1, "x.safetensors")


def test_merges_that_cannot_be_drawn_say_so_in_their_cells(short):
    other = Held({"double_blocks.0.w": torch.zeros(1)}, "flux")
    sweep = wb.sweep(lambda model: model if model != 1 else 5, {"model": [other, 1]}, **short)
    assert "lies in no file" in sweep[0].problem or "has no" in sweep[0].problem
    assert sweep[1].problem == "make must return a merge or another checkpoint, got 5"
    assert sweep.frame()["problem"].ne("").all()
    with pytest.raises(SweepError, match="no score 'bright'"):
        sweep.best("bright")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"over": {}}, "over is empty"),
        ({"over": {"weights": []}}, r"over\['weights'\] must be a list of one or more values"),
        ({"over": {"weights": "all"}}, r"over\['weights'\] must be a list"),
        ({"over": 3}, "over must be a mapping of lists"),
        ({"over": {"weights": [1, 1.0]}}, "cells 0 and 1 are the same"),
        ({"over": {"seed": [1, 2]}}, "'seed' is asked of the renderer"),
        ({"over": {"weihgts": [1]}}, r"make takes \(weights\), and over gives weihgts: .*inputs go into inputs="),
        ({"name": "a/b"}, "name must be the name of a folder"),
        ({"make": "ties"}, "make must be a function of options"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_is_drawn(make, short, renderer, tmp_path, change, message):
    given = {"make": lambda weights: make(weights=weights), "over": {"weights": [1]}} | short | change
    with pytest.raises(SweepError, match=message):
        wb.sweep(given.pop("make"), given.pop("over"), **given)
    assert renderer.loads == 0
    assert not list(tmp_path.iterdir())


def test_an_operators_undeclared_option_is_refused_with_those_it_has(models, short):
    inputs = {"base": models["base"], "models": [models["heart"]]}
    with pytest.raises(SweepError, match=r"make takes \(.*weights.*\), and over gives densty"):
        wb.sweep(wb.operators.task_arithmetic, {"densty": [1]}, inputs=inputs, **short)


def test_empty_prompts_are_refused(make, short):
    with pytest.raises(RenderError, match="prompts must be one or more strings"):
        wb.sweep(make, {"weights": [1]}, **short | {"prompts": []})


def test_a_large_sweep_asks_first_with_an_estimate_from_one_cell(make, short, renderer):
    over = {"weights": np.linspace(0, 1, 10_000)}
    with pytest.raises(SweepError, match=r"a sweep of 10,000 cells: 10,000 pictures, about .* hours .* GB.*cells=10000"):
        wb.sweep(make, over, **short)
    assert renderer.loads == 1
    assert wb.sweep(make, {"weights": [0.0, 0.5]}, cells=2, **short).drawn == 1


def test_a_cell_shows_its_pictures_and_a_failed_one_says_why(make, short):
    cell, failed = wb.sweep(make, {"weights": [1, 3]}, **short)
    assert repr(cell) == "<Cell weights 1>"
    assert cell._repr_png_().startswith(b"\x89PNG")
    assert repr(failed).startswith("<Cell weights 3: task_arithmetic: weights must be in")
    assert failed._repr_png_() is None


def test_each_cell_is_told_as_it_is_done_with_what_came_of_it(make, short):
    heard = []
    wb.sweep(make, {"weights": [0.5, "x"]}, on_cell=lambda *told: heard.append(told), **short)
    assert [(number, count) for number, count, _ in heard] == [(1, 2), (0, 2)], "first what cannot be made"
    assert "weights must be a number" in heard[0][2].problem
    assert list(heard[1][2].scores) == ["bright"]
