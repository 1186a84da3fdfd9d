"""ComparePanel as Python has it: what it takes, what may be chosen, what it refuses. In a browser: tests/browser."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import traitlets
from PIL import Image

import workbench as wb
from workbench.errors import InputError, OptionError
from workbench.render.grid import Drawn, Grid
from workbench.render.request import requests


def plain(colour: str, size: tuple[int, int] = (4, 4)) -> Image.Image:
    return Image.new("RGB", size, colour)


def shown(panel: wb.ComparePanel) -> list[tuple[int, ...]]:
    """The colours of the two pictures that the browser has."""
    return [Image.open(io.BytesIO(content)).getpixel((0, 0)) for content in panel.pictures]


@pytest.fixture
def grid() -> Grid:
    """Three models, two numbers of steps, two prompts: red tells the model, green the steps, blue the prompt."""
    models = tuple(Drawn(name) for name in ("base", "heart", "moon"))
    colours = [(model, steps, prompt) for model in range(3) for steps in (3, 9) for prompt in range(2)]
    asked = requests(["a star", "a moon"], 7, steps=[3, 9], guidance=5)
    return Grid(asked, models, tuple(Image.new("RGB", (4, 4), colour) for colour in colours))


def test_it_starts_with_the_first_two():
    panel = wb.ComparePanel({"a": plain("red"), "b": plain("lime"), "c": plain("blue")})
    assert (panel.left, panel.right, panel.view) == ("a", "b", "curtain")
    assert shown(panel) == [(255, 0, 0), (0, 255, 0)]


def test_another_choice_sends_another_picture():
    panel = wb.ComparePanel({"a": plain("red"), "b": plain("lime"), "c": plain("blue")})
    panel.right = "c"
    assert shown(panel) == [(255, 0, 0), (0, 0, 255)]


def test_lists_of_pictures_are_chosen_from_by_number():
    panel = wb.ComparePanel({"a": [plain("red"), plain("black")], "b": (plain("lime"), plain("white"))})
    assert panel.axes == [("picture", ["1", "2"])]
    panel.place = [1]
    assert shown(panel) == [(0, 0, 0), (255, 255, 255)]


def test_a_grid_is_chosen_from_by_model_and_by_what_was_asked(grid):
    panel = wb.ComparePanel(grid)
    assert panel.names == ["base", "heart", "moon"]
    assert panel.axes == [("steps", ["3", "9"]), ("prompt", ["a star", "a moon"]), ("seed", ["7"])]
    panel.left, panel.place = "moon", [1, 0, 0]
    assert shown(panel) == [(2, 9, 0), (1, 9, 0)]


def test_a_model_that_could_not_draw_is_not_offered(grid):
    failed = replace(grid.models[1], problem="out of memory")
    images = (*grid.images[:4], *[None] * 4, *grid.images[8:])
    panel = wb.ComparePanel(Grid(grid.requests, (grid.models[0], failed, grid.models[2]), images))
    assert panel.names == ["base", "moon"]
    assert shown(panel) == [(0, 3, 0), (2, 3, 0)]


def test_grids_under_names_are_compared_as_sheets(grid):
    panel = wb.ComparePanel({"before": grid, "after": grid})
    with Image.open(io.BytesIO(panel.pictures[0])) as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(grid.plot()))


def test_pictures_with_transparency_or_palettes_are_sent_as_they_look():
    panel = wb.ComparePanel({"a": plain("red").convert("P"), "b": plain("white").convert("L")})
    assert shown(panel) == [(255, 0, 0), (255, 255, 255)]


def test_the_same_shape_may_have_other_sizes():
    panel = wb.ComparePanel({"small": plain("red", (64, 43)), "large": plain("lime", (1024, 683))})
    assert [Image.open(io.BytesIO(content)).width for content in panel.pictures] == [64, 1024]


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ({}, r"two results are needed, got 0 \(none\); give a grid, or a mapping"),
        ({"a": plain("red")}, r"two results are needed, got 1 \(a\)"),
        ([plain("red"), plain("blue")], "results must be a grid, or a mapping .*; got list"),
        ({"a": plain("red"), "b": "picture.png"}, "'b' must be a Pillow picture, a list of them, or a grid; got 'picture.png'"),
        ({"a": plain("red"), "b": []}, r"'b' must be a Pillow picture, a list of them, or a grid; got \[\]"),
        ({"a": [plain("red")] * 2, "b": plain("red")}, "'a' has 2 pictures and 'b' has 1; give each name as many"),
        ({"a": plain("red", (64, 64)), "b": plain("red", (64, 96))}, "'a' is 64 x 64 pixels and 'b' is 64 x 96; .* crop one"),
    ],
)
def test_what_cannot_be_compared_is_refused(results, words):
    with pytest.raises(InputError, match=f"ComparePanel: {words}"):
        wb.ComparePanel(results)


def test_a_grid_of_one_model_is_refused(grid):
    with pytest.raises(InputError, match=r"two results are needed, got 1 \(base\)"):
        wb.ComparePanel(Grid(grid.requests, grid.models[:1], grid.images[:4]))


def test_a_choice_that_is_not_there_is_refused_and_changes_nothing(grid):
    panel = wb.ComparePanel(grid)
    before = panel.pictures
    with pytest.raises(OptionError, match=r"left must be one of \['base', 'heart', 'moon'\], got 'sun'"):
        panel.left = "sun"
    with pytest.raises(OptionError, match=r"place must be 3 whole numbers, each from 0 and below \[2, 2, 1\], got \[0, 2, 0\]"):
        panel.place = [0, 2, 0]
    with pytest.raises(traitlets.TraitError, match="flicker"):
        panel.view = "overlay"
    assert panel.pictures == before
