"""SpectrumPanel as a person has it before them: drag a point of the curve, see the spectrum and the picture follow, undo."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from notebook_page import NotebookPage, until
from panel_page import drawn, redrawn, result
from playwright.sync_api import Locator, expect

CELL = """import workbench as wb
from workbench.places import DATA
heart, moon = (DATA / "shapes-sd" / f"{name}.safetensors" for name in ("heart", "moon"))
panel = wb.SpectrumPanel(heart, moon)
panel.show(panel.state.with_wanted(steps=4))
panel"""


@pytest.fixture
def notebook(lab) -> NotebookPage:
    opened = lab([CELL]).run_all()
    drawn(opened)
    expect(measured(opened)).to_have_count(1)
    return opened


def measured(notebook: NotebookPage) -> Locator:
    """The line of the share that was measured, as it is drawn."""
    return notebook.page.locator(".wb-curve-charts path", has=notebook.page.locator("title:text-is('as measured')"))


def point(notebook: NotebookPage, number: int) -> Locator:
    return notebook.page.locator(".wb-curve .point").nth(number)


def curve(notebook: NotebookPage) -> list[list[float]]:
    return notebook.python("[list(point) for point in panel.merge.options['coefficients']['curve']]")


def drag(notebook: NotebookPage, number: int, across: float, up: float) -> None:
    """Drag a point by so many pixels."""
    point(notebook, number).scroll_into_view_if_needed()
    box = point(notebook, number).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    notebook.page.mouse.move(x, y)
    notebook.page.mouse.down()
    notebook.page.mouse.move(x + across, y - up, steps=8)
    notebook.page.mouse.up()


@contextmanager
def followed(notebook: NotebookPage) -> Iterator[None]:
    """What happens inside leads to another picture of the merge, and to another spectrum."""
    line = measured(notebook).get_attribute("d")
    with redrawn(notebook):
        yield
    expect(measured(notebook)).not_to_have_attribute("d", line)


def test_spectrum_and_picture_follow_a_dragged_point_and_undo_brings_them_back(notebook):
    before = {"picture": result(notebook).get_attribute("src"), "line": measured(notebook).get_attribute("d"), "curve": curve(notebook)}
    at_first = notebook.python("float(panel.spectrum.curves().query(\"block == 'all'\")['taken'].iloc[-1])")
    with followed(notebook):
        drag(notebook, 4, -5, 60)
    (*others, (frequency, value)) = curve(notebook)
    assert others == before["curve"][:-1]
    assert 0.9 < frequency < 1
    assert value > 0.5
    assert notebook.python("float(panel.spectrum.curves().query(\"block == 'all'\")['taken'].iloc[-1])") > at_first + 0.2
    after = result(notebook).get_attribute("src")
    notebook.find("button[title=Undo]").click()
    expect(result(notebook)).to_have_attribute("src", before["picture"])
    expect(measured(notebook)).to_have_attribute("d", before["line"])
    expect(point(notebook, 4)).to_have_attribute("aria-valuenow", "0")
    assert curve(notebook) == before["curve"]
    notebook.find("button[title=Redo]").click()
    expect(result(notebook)).to_have_attribute("src", after)
    assert curve(notebook)[4] == [frequency, value]


def test_the_recipe_and_the_line_of_python_follow_the_curve(notebook):
    with followed(notebook):
        drag(notebook, 0, 0, 50)
    notebook.page.locator(".wb-tabs .lm-TabBar-tab", has_text="Python").click()
    line = notebook.find(".wb-code pre", "wb.operators.fft_blend").inner_text()
    assert notebook.python(f"{line}.recipe.to_dict() == panel.recipe.to_dict()")


def test_points_are_added_and_taken_away(notebook):
    edit = notebook.page.locator(".wb-curve-edit svg")
    box = edit.bounding_box()
    with followed(notebook):
        notebook.page.mouse.click(box["x"] + 46 + 0.6 * (box["width"] - 56), box["y"] + 30)
    expect(notebook.page.locator(".wb-curve .point")).to_have_count(6)
    frequency, value = curve(notebook)[3]
    assert 0.55 < frequency < 0.65
    assert value > 0.8
    with followed(notebook):
        point(notebook, 3).dblclick()
    expect(notebook.page.locator(".wb-curve .point")).to_have_count(5)
    assert [frequency for frequency, _ in curve(notebook)] == [0, 0.25, 0.5, 0.75, 1]


def test_drawing_anew_leaves_the_keyboard_where_it_is(notebook):
    window = notebook.page.viewport_size

    def drawn_as() -> str:
        return notebook.page.locator(".wb-curve-edit svg").get_attribute("viewBox")

    def resized(width: int) -> None:
        before = drawn_as()
        notebook.page.set_viewport_size(window | {"width": width})
        until(lambda: drawn_as() != before, "the curve is not drawn anew")

    point(notebook, 2).focus()
    resized(window["width"] - 150)
    expect(point(notebook, 2)).to_be_focused()
    seeds = notebook.page.locator(".wb-panel input[type=text]").first
    seeds.focus()
    resized(window["width"])
    expect(seeds).to_be_focused()


def test_points_are_moved_by_keyboard_and_keys_do_not_reach_the_notebook(notebook):
    point(notebook, 2).focus()
    for key in ("ArrowUp", "ArrowUp", "ArrowRight", "d", "d"):
        notebook.page.keyboard.press(key)
    until(lambda: curve(notebook)[2] == [0.51, 0.1], "the point does not follow")
    notebook.page.keyboard.press("Delete")
    until(lambda: len(curve(notebook)) == 4, "the point was not taken away")
    expect(notebook.page.locator(".jp-Cell")).to_have_count(1)
    drawn(notebook)


def test_the_spectrum_of_one_block_is_shown_and_another_transform_is_measured(notebook):
    line = measured(notebook).get_attribute("d")
    notebook.page.locator(".wb-right .widget-dropdown select").filter(has_text="MID").select_option("MID")
    expect(measured(notebook)).not_to_have_attribute("d", line)
    with followed(notebook):
        notebook.page.locator('.wb-option:visible:has(.wb-name span:text-is("over")) select').select_option("row")
    assert notebook.python("panel.merge.options['over']") == "row"


def test_it_has_room_light_and_dark_narrow_and_wide(notebook):
    with followed(notebook):
        drag(notebook, 0, 0, 50)
    with followed(notebook):
        drag(notebook, 4, 0, -50)
    notebook.page.locator(".wb-panel").scroll_into_view_if_needed()
    notebook.screenshots("spectrum-panel", notebook.page.locator(".wb-panel"))
