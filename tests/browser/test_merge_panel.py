"""MergePanel as a person has it before them: move, look, paint, undo, export, reopen; in 05_panel and in notebooks of a few cells."""

from __future__ import annotations

import re

import pytest
from notebook_page import NotebookPage, until
from panel_page import SECONDS, drawn, redrawn, result
from playwright.sync_api import Locator, expect

SMALL = """from pathlib import Path
import workbench as wb
Path("panel.yaml").unlink(missing_ok=True)
panel = wb.MergePanel(keep="panel.yaml")
panel.show(panel.state.with_operator("ties").with_wanted(steps=4))
panel"""


@pytest.fixture
def notebook(lab) -> NotebookPage:
    opened = lab([SMALL]).run_all()
    drawn(opened)
    return opened


def slider(notebook: NotebookPage, option: str) -> Locator:
    """The first slider of an option."""
    return of_option(notebook, option, ".noUi-handle").first


def of_option(notebook: NotebookPage, option: str, part: str) -> Locator:
    """A part of an option's control."""
    return notebook.page.locator(f'.wb-option:visible:has(.wb-name span:text-is("{option}")) {part}')


def paint(notebook: NotebookPage, column: Locator, first: tuple[float, float], last: tuple[float, float]) -> None:
    """Drag over bars, from one point to another; points are shares of the column."""
    box = column.bounding_box()
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (first, last)]
    notebook.page.mouse.move(*points[0])
    notebook.page.mouse.down()
    notebook.page.mouse.move(*points[1], steps=12)
    notebook.page.mouse.up()


def test_the_notebook_runs_and_its_panel_follows_a_slider(lab):
    notebook = lab("05_panel.ipynb").run_all()
    drawn(notebook)
    with redrawn(notebook):
        slider(notebook, "weights").press("Home")
    assert notebook.python("panel.merge.options['weights']") == [-2.0, 0.9]
    notebook.page.locator(".wb-panel").scroll_into_view_if_needed()
    notebook.screenshots("merge-panel", notebook.page.locator(".wb-panel"))


def test_undo_takes_a_move_back_and_redo_brings_it_again(notebook):
    before = result(notebook).get_attribute("src")
    with redrawn(notebook):
        slider(notebook, "density").press("PageDown")
    after = result(notebook).get_attribute("src")
    density = notebook.python("panel.merge.options['density']")
    notebook.find("button[title=Undo]").click()
    expect(result(notebook)).to_have_attribute("src", before)
    assert notebook.python("dict(panel.merge.options)") == {}
    expect(slider(notebook, "density")).to_have_attribute("aria-valuetext", "0.5")
    notebook.find("button[title=Redo]").click()
    expect(result(notebook)).to_have_attribute("src", after)
    assert notebook.python("panel.merge.options['density']") == density


def test_bars_are_painted_and_ramps_are_drawn(notebook):
    of_option(notebook, "density", ".wb-switch").click()
    column = of_option(notebook, "density", ".wb-blocks-column")
    with redrawn(notebook):
        paint(notebook, column, (0.9, 0.02), (0.9, 0.5))
    blocks = notebook.python("panel.merge.options['density']['blocks']")
    assert blocks["IN00"] == blocks["IN01"] > 0.8
    assert "OUT03" not in blocks
    assert blocks["default"] == 0.5
    of_option(notebook, "density", ".wb-blocks-tab:text-is('ramp')").click()
    paint(notebook, column, (0.2, 0.02), (0.9, 0.87))
    until(lambda: "ramp" in notebook.python("panel.merge.options['density']"), "no ramp was drawn")
    ramp = notebook.python("panel.merge.options['density']['ramp']")
    assert ramp["first"] == "IN00"
    assert ramp["last"] == "OUT03"
    assert ramp["start"] < 0.3 < 0.8 < ramp["end"]
    of_option(notebook, "density", "select.wb-blocks-presets").select_option("flat")
    until(lambda: notebook.python("dict(panel.merge.options)") == {}, "the preset was not taken")


def test_bars_are_moved_by_keyboard_and_keys_do_not_reach_the_notebook(notebook):
    of_option(notebook, "density", ".wb-switch").click()
    of_option(notebook, "density", "[role=slider][aria-label=IN00]").focus()
    for key in ("ArrowDown", "ArrowRight", "d", "d", "0", "0"):
        notebook.page.keyboard.press(key)
    until(lambda: notebook.python("dict(panel.merge.options)") == {"density": {"blocks": {"IN01": 0.51, "default": 0.5}}}, "no bar moved")
    expect(notebook.page.locator(".jp-Cell")).to_have_count(1)
    expect(notebook.page.locator(".jp-Dialog")).to_have_count(0)


def test_what_is_exported_is_what_was_shown(notebook):
    notebook.python("Path('merged.safetensors').unlink(missing_ok=True)")
    slider(notebook, "density").press("PageUp")
    until(lambda: notebook.python("panel.merge.options.get('density', 0) > 0.5"), "the slider did not move")
    drawn(notebook)
    notebook.find("button", "Export").click()
    expect(notebook.find(".wb-tabs .wb-said")).to_have_text(re.compile(r"merged\.safetensors: [\d.]+ MB in"), timeout=SECONDS)
    same = "(lambda file: all(bool((file[key] == panel.merge[key]).all()) for key in panel.merge))(wb.open('merged.safetensors'))"
    assert notebook.python(same)
    recipes = "str(wb.Recipe.from_file('merged.safetensors').data.merge) == str(panel.recipe.data.merge)"
    assert notebook.python(recipes)
    notebook.page.locator(".wb-tabs .lm-TabBar-tab", has_text="Python").click()
    line = notebook.find(".wb-code pre", "wb.operators").inner_text()
    assert notebook.python(f"{line}.recipe.to_dict() == panel.recipe.to_dict()")


def test_a_file_that_is_there_is_not_replaced_and_the_panel_says_so(lab):
    notebook = lab([SMALL, 'Path("merged.safetensors").write_bytes(b"x")']).run_all()
    drawn(notebook)
    notebook.find("button", "Export").click()
    expect(notebook.find(".wb-tabs .wb-said")).to_contain_text("merged.safetensors: is there already", timeout=SECONDS)
    expect(notebook.find("button", "Export")).to_be_enabled()
    assert notebook.python('Path("merged.safetensors").read_bytes()') == b"x"
    notebook.find(".wb-tabs input[type=checkbox]").check()
    notebook.find("button", "Export").click()
    expect(notebook.find(".wb-tabs .wb-said")).to_have_text(re.compile(r"merged\.safetensors: [\d.]+ MB in"), timeout=SECONDS)


def test_a_long_export_shows_how_far_it_is(lab):
    slow = """import time
Path("merged.safetensors").unlink(missing_ok=True)
from workbench.engine import streaming
at_once = streaming._bytes
streaming._bytes = lambda tensor: time.sleep(0.03) or at_once(tensor)"""
    notebook = lab([SMALL, slow]).run_all()
    drawn(notebook)
    notebook.find("button", "Export").click()
    bar = notebook.page.locator(".wb-tabs .jupyter-widget-hprogress, .wb-tabs .widget-hprogress").first
    expect(bar).to_be_visible(timeout=SECONDS)
    expect(notebook.find("button", "Export")).to_be_disabled()
    bar.screenshot(path=notebook.shots / "export-progress.png")
    widths = set()
    until(lambda: widths.add(filled(notebook)) or len(widths) > 2, "the bar stands still", 60)
    expect(notebook.find(".wb-tabs .wb-said")).to_have_text(re.compile(r"merged\.safetensors: [\d.]+ MB in"), timeout=SECONDS)


def filled(notebook: NotebookPage) -> str:
    """How much of the bar of progress is filled, as the page has it."""
    inner = notebook.page.locator(".wb-tabs .progress-bar")
    return inner.first.get_attribute("style") if inner.count() else ""


def test_a_reopened_notebook_goes_on_where_it_was(notebook, lab):
    slider(notebook, "density").press("PageUp")
    until(lambda: notebook.python("bool(panel.state.options)"), "the slider did not move")
    kept = notebook.python("dict(panel.state.options)")
    notebook.find("input[placeholder='name this state']").fill("dense")
    notebook.find("button[title^='Keep this state']").click()
    until(lambda: notebook.python("list(panel._timeline.snapshots)") == ["dense"], "nothing was kept")
    notebook.close()
    again = lab(["import workbench as wb\npanel = wb.MergePanel(keep='panel.yaml')\npanel"]).run_all()
    drawn(again)
    assert again.python("dict(panel.state.options)") == kept
    expect(slider(again, "density")).to_have_attribute("aria-valuetext", f"{kept['density']:g}")
    expect(again.page.locator(".wb-history select option", has_text="dense")).to_have_count(1)


def test_an_incompatible_pair_leaves_the_controls_and_turns_export_off(lab):
    other = """import torch
from safetensors.torch import save_file
save_file({"double_blocks.0.img_mod.lin.weight": torch.zeros(3, 2)}, "flux.safetensors")
panel.add("flux.safetensors")"""
    notebook = lab([SMALL, other]).run_all()
    drawn(notebook)
    of_option(notebook, "models", "select").select_option("flux")
    expect(notebook.find(".wb-words .wb-error")).to_have_text(re.compile("only models of one architecture can be merged"))
    expect(notebook.find("button", "Export")).to_be_disabled()
    expect(slider(notebook, "density")).to_be_visible()
    notebook.find("button[title=Undo]").click()
    expect(notebook.find("button", "Export")).to_be_enabled()


def test_a_model_is_taken_off_the_shelf_and_chosen_again_in_a_folder_of_folders(notebook):
    notebook.find(".wb-shelf .jupyter-widget-Collapse-header").click()
    rows = notebook.page.locator(".wb-files tbody tr")
    rows.filter(has_text="lora/").dblclick()
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("stripes")
    rows.press("Backspace")
    notebook.page.locator(".wb-shelf .jupyter-widget-tag", has_text="pastel").locator(".jupyter-widget-tag-close").click()
    until(lambda: "pastel" not in notebook.python("panel.state.models"), "the model stays on the shelf")
    rows.filter(has_text="pastel").click()
    notebook.find(".wb-shelf button", "Only onto the shelf").click()
    until(lambda: notebook.python("panel.state.models[-1]") == "pastel", "the model was not added")


def test_models_change_places_by_dragging(notebook):
    assert notebook.python("panel.state.inputs['models']") == ("heart", "moon")
    heart, moon = (of_option(notebook, "models", ".jupyter-widget-tag").filter(has_text=name) for name in ("heart", "moon"))
    moon.drag_to(heart, target_position={"x": 3, "y": 5})
    until(lambda: notebook.python("panel.state.inputs['models']") == ("moon", "heart"), "nothing was dragged")


def test_two_panels_in_one_notebook_are_two(lab):
    notebook = lab(["import workbench as wb\none, panel = wb.MergePanel(), wb.MergePanel()", "one", "panel"]).run_all()
    until(lambda: notebook.python("one.wait(0) and panel.wait(0)"), "pictures are still being drawn", 120)
    second = notebook.page.locator(".wb-panel").nth(1)
    second.locator(".wb-left .noUi-handle:visible").first.press("PageDown")
    until(lambda: notebook.python("bool(panel.state.options)"), "the slider did not move")
    assert notebook.python("dict(one.state.options)") == {}
