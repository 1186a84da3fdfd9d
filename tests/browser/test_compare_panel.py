"""ComparePanel as a person has it before them: curtain, flicker, difference and zoom, told by the pixels."""

from __future__ import annotations

import numpy as np
import pytest
from notebook_page import NotebookPage, changed, move, pixels, until
from playwright.sync_api import Locator, expect

# red and green of every pixel tell where it lies; blue tells the pictures apart; `speck` is `cold` but for one pixel
PICTURES = [
    """import numpy as np
import workbench as wb
from PIL import Image
where = np.mgrid[0:64, 0:64][::-1] * 4
cold, warm = (Image.fromarray(np.dstack([*where, np.full((64, 64), blue)]).astype("uint8")) for blue in (200, 0))
speck = cold.copy()
speck.putpixel((16, 48), (67, 192, 200))""",
    """panel = wb.ComparePanel({"cold": cold, "warm": warm, "speck": speck})
panel""",
]
MODELS = [
    """import workbench as wb
from workbench.places import DATA
names = ["base", "heart", "moon"]
base, heart, moon = (wb.open(DATA / "shapes-sd" / f"{name}.safetensors") for name in names)
both = wb.operators.task_arithmetic(base, [heart, moon], weights=[1.0, 0.9])
models = {"base": base, "heart": heart, "a merge of heart and moon on top of base": both}
prompts = ["a red heart on a white background", "a yellow moon on a black background"]""",
    """grid = wb.ab_grid(models, prompts=prompts, seeds=[0, 1], steps=8, progress=False)
panel = wb.ComparePanel(grid)
panel""",
]
SIDE = 512  # CSS pixels of the canvas in a wide page: eight for each of the picture's


@pytest.fixture
def notebook(lab) -> NotebookPage:
    return lab(PICTURES).run_all()


@pytest.fixture
def canvas(notebook) -> Locator:
    found = notebook.find(".wb-compare canvas")
    expect(found).to_have_css("width", f"{SIDE}px")
    return found


def choose(notebook: NotebookPage, view: str) -> None:
    """By keyboard: from the chosen view to the one wanted."""
    views = ["curtain", "side by side", "flicker", "difference"]
    notebook.page.locator(".views input:checked").focus()
    for _ in range(views.index(view)):
        notebook.page.keyboard.press("ArrowRight")
    expect(notebook.page.locator(".views input:checked + span")).to_have_text(view)


def test_the_curtain_follows_slider_and_pointer(notebook, canvas):
    with changed(canvas):
        move(notebook.slider("curtain"), 0.25)
    row = pixels(canvas)[SIDE // 2]
    assert row[SIDE // 4 - 20, 2] == 200
    assert row[SIDE // 4 + 20, 2] == 0
    with changed(canvas):
        canvas.click(position={"x": 0.75 * SIDE, "y": 100})
    assert pixels(canvas)[SIDE // 2, SIDE // 2, 2] == 200
    assert notebook.python("panel.position") == pytest.approx(0.75, abs=0.01)


def test_small_pictures_show_their_pixels(canvas):
    seen = pixels(canvas)[SIDE // 2, : SIDE // 2 - 20]
    assert np.array_equal(seen[:, 0], np.arange(len(seen)) // 8 * 4)


def test_flicker_shows_one_then_the_other(notebook, canvas):
    choose(notebook, "flicker")
    seen = []
    until(lambda: seen.append(pixels(canvas)[SIDE // 2, SIDE // 2, 2]) or len(set(seen)) > 1, "it stays as it is")
    until(lambda: pixels(canvas)[SIDE // 2, SIDE // 2, 2] == seen[0], "it does not turn back")
    assert set(seen) == {0, 200}
    notebook.page.locator(".views input").first.check()
    still = pixels(canvas)
    notebook.page.wait_for_timeout(700)
    assert np.array_equal(pixels(canvas), still)


def test_the_difference_of_one_pixel_shows(notebook, canvas):
    notebook.menu("right").select_option("speck")
    choose(notebook, "difference")
    expect(notebook.find(".told")).to_have_text("0.0 % of the pixels differ (1 of 4096); by 0.00 of 255 in the mean, 3 at most")
    shown = pixels(canvas)
    rows, columns, channels = np.nonzero(shown)
    assert (rows.min(), rows.max()) == (48 * 8, 49 * 8 - 1)
    assert (columns.min(), columns.max()) == (16 * 8, 17 * 8 - 1)
    assert set(channels) == {0}
    assert shown.max() == 3 * 8
    with changed(canvas):
        move(notebook.slider("times"), 20)
    assert pixels(canvas).max() == 3 * 20


def test_zoom_and_pan_are_the_same_for_both(notebook, canvas):
    choose(notebook, "side by side")
    expect(canvas).not_to_have_css("width", f"{SIDE}px")
    canvas.focus()
    with changed(canvas):
        for key in ("+", "+", "+", "ArrowRight", "ArrowUp"):
            canvas.press(key)
    expect(notebook.find(".zoom output")).to_have_text("338 %")
    across, down = notebook.python("panel.centre")
    assert across > 0.5 > down
    seen = pixels(canvas)
    left, right = seen[:, :SIDE], seen[:, -SIDE:]
    assert np.array_equal(left[..., :2], right[..., :2])
    assert set(left[..., 2].flat) == {200}
    assert set(right[..., 2].flat) == {0}
    assert left[SIDE // 2, SIDE // 2, 0] == pytest.approx(across * 256, abs=4)


def test_the_pointer_zooms_where_it_is_and_pans(notebook, canvas):
    box = canvas.bounding_box()
    mouse = notebook.page.mouse
    mouse.move(box["x"] + 100, box["y"] + 400)
    before = pixels(canvas)[400, 100]
    canvas.focus()
    with changed(canvas):
        mouse.wheel(0, -600)
    until(lambda: notebook.python("panel.zoom") == 4, "the wheel does not zoom")
    assert np.abs(pixels(canvas)[400, 100] - before).max() <= 4
    centre = notebook.python("panel.centre")
    with changed(canvas):
        mouse.down()
        mouse.move(box["x"] + 50, box["y"] + 350)
        mouse.up()
    until(lambda: notebook.python("panel.centre") != centre, "the picture is not dragged")
    assert np.abs(pixels(canvas)[350, 50] - before).max() <= 4
    assert notebook.python("panel.position") == 0.5
    canvas.dblclick(position={"x": 100, "y": 100})
    until(lambda: notebook.python("panel.zoom") == 1, "a double click does not show the whole")


def test_keys_do_not_reach_the_notebook(notebook, canvas):
    for part in (canvas, notebook.slider("curtain"), notebook.menu("left"), notebook.find("button", "fit")):
        part.focus()
        for key in "dd00":
            notebook.page.keyboard.press(key)
    expect(notebook.page.locator(".jp-Cell")).to_have_count(len(PICTURES))
    expect(notebook.page.locator(".jp-Dialog")).to_have_count(0)


def test_a_grid_is_chosen_from_in_menus(lab):
    notebook = lab(MODELS).run_all()
    canvas = notebook.find(".wb-compare canvas")
    page, panel = notebook.page, notebook.find(".wb-compare")
    with changed(canvas):
        notebook.menu("prompt").select_option("a yellow moon on a black background")
    with changed(canvas):
        notebook.menu("right").select_option("a merge of heart and moon on top of base")
    with changed(canvas):
        notebook.menu("seed").select_option("1")
    assert notebook.python("panel.place") == [1, 1]
    for view in ("curtain", "side by side", "flicker", "difference"):
        page.locator(".views label", has_text=view).click()
        notebook.screenshots(f"compare-{view.replace(' ', '-')}", panel)
