"""Pictures of a panel as a person judges them: larger and smaller, ticked and compared, by mouse and by keyboard alone, always in sight."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from notebook_page import HEIGHT, NotebookPage, until
from panel_page import SECONDS, drawn, redrawn, result
from playwright.sync_api import Locator, expect

SMALL = """from pathlib import Path
import workbench as wb
panel = wb.MergePanel(gallery="kept")
panel.show(panel.state.with_operator("ties").with_wanted(steps=2, seeds=[0, 1]))
panel"""


@pytest.fixture
def notebook(lab) -> NotebookPage:
    opened = lab([SMALL]).run_all()
    drawn(opened)
    return opened


def cell(notebook: NotebookPage, model: str, number: int) -> Locator:
    """The place of a picture."""
    return notebook.page.locator(f'.wb-gallery .wb-cell[data-model="{model}"][data-number="{number}"]')


def press(notebook: NotebookPage, *keys: str) -> None:
    for key in keys:
        notebook.page.keyboard.press(key)


def in_sight(part: Locator) -> bool:
    """Whether the middle of it is what one sees there."""
    return part.evaluate(
        "part => { const box = part.getBoundingClientRect();"
        "return part.contains(document.elementFromPoint(box.x + box.width / 2, box.y + Math.min(box.height / 2, 20))); }"
    )


def test_two_results_before_and_after_a_change_are_ticked_and_compared(notebook):
    tray = notebook.page.locator(".wb-tray")
    expect(tray.locator("button")).to_have_count(3)
    expect(tray.get_by_role("button", name="Compare")).to_be_hidden()
    cell(notebook, "result", 0).hover()
    cell(notebook, "result", 0).locator(".wb-tick").click()
    expect(cell(notebook, "result", 0).locator(".wb-tick")).to_have_attribute("aria-pressed", "true")
    with redrawn(notebook):
        notebook.page.locator(".wb-left .noUi-handle:visible").first.press("PageUp")
    expect(cell(notebook, "result", 0).locator(".wb-tick")).to_have_attribute("aria-pressed", "false")
    expect(tray.get_by_role("listitem")).to_have_count(1)
    cell(notebook, "result", 0).hover()
    cell(notebook, "result", 0).locator(".wb-tick").click()
    tray.get_by_role("button", name="Compare").click()
    expect(notebook.page.locator(".wb-comparing canvas")).to_be_visible(timeout=SECONDS)
    notebook.screenshots("pictures-compared", notebook.page.locator(".wb-panel"))
    tray.get_by_role("button", name="Side by side").click()
    expect(notebook.page.locator(".wb-abreast img")).to_have_count(2)
    notebook.find("button", "Close the comparison").click()
    expect(notebook.page.locator(".wb-comparing canvas, .wb-abreast")).to_have_count(0)
    tray.get_by_role("button", name="Clear").click()
    expect(tray.get_by_role("listitem")).to_have_count(0)


def test_everything_can_be_done_by_keyboard_and_no_key_reaches_the_notebook(notebook):
    page = notebook.page
    page.locator(".wb-keys summary").focus()
    press(notebook, "Tab")
    expect(cell(notebook, "result", 0).locator("img")).to_be_focused()
    press(notebook, "ArrowDown", "ArrowLeft", "n")
    expect(cell(notebook, "result", 1).locator("img")).to_be_focused()
    for keys, model in (((" ",), "result"), (("p", "t"), "moon")):  # the kernel says what is ticked
        press(notebook, *keys)
        expect(cell(notebook, model, 1).locator(".wb-tick")).to_have_attribute("aria-pressed", "true", timeout=SECONDS)
    press(notebook, "c")
    expect(page.locator(".wb-comparing canvas")).to_be_visible(timeout=SECONDS)
    assert [label.split(" ")[0] for label in notebook.python("list(panel.pictures.ticked.values())")] == ["result", "moon"]
    press(notebook, "s")
    expect(cell(notebook, "moon", 1).locator(".wb-star")).to_have_attribute("aria-pressed", "true")
    press(notebook, "Enter")
    looked = page.locator(".wb-full-size dialog p")
    expect(looked).to_have_text("moon · 64 × 64 pixels")
    press(notebook, "n")
    expect(looked).to_have_text("result · 64 × 64 pixels")
    press(notebook, "s", "Escape")
    expect(cell(notebook, "result", 1).locator(".wb-star")).to_have_attribute("aria-pressed", "true")
    assert notebook.python("sorted(one.model for one in wb.Gallery('kept')._store.find(starred=True))") == ["moon", "result"]
    handle = page.locator(".wb-left .noUi-handle:visible").first
    with redrawn(notebook):
        handle.press("PageUp")
    density = notebook.python("panel.state.options")
    press(notebook, "z")
    until(lambda: notebook.python("panel.state.options") == {}, "nothing was undone")
    press(notebook, "Shift+Z")
    until(lambda: notebook.python("panel.state.options") == density, "nothing was brought back")
    press(notebook, "Control+z")
    until(lambda: notebook.python("panel.state.options") == {}, "nothing was undone")
    press(notebook, "d", "d", "0", "0", "?")
    expect(page.locator(".wb-keys dl")).to_be_visible()
    notebook.screenshots("keys", page.locator(".wb-panel"))
    prompts = page.locator(".wb-wanted textarea")
    prompts.focus()
    press(notebook, "z", "x", "?")
    expect(prompts).to_have_value(re.compile(r"zx\?"))
    expect(page.locator(".jp-Cell")).to_have_count(1)
    expect(page.locator(".jp-Dialog")).to_have_count(0)


def test_the_focus_stays_on_a_picture_that_is_drawn_anew(notebook):
    cell(notebook, "result", 1).locator("img").focus()
    with redrawn(notebook):
        notebook.python("panel.show(panel.state.with_option('density', 0.2))")
    expect(cell(notebook, "result", 1).locator("img")).to_be_focused()


def test_pictures_are_seen_in_any_size_and_order_and_the_result_beside_its_controls(notebook):
    page, panel = notebook.page, notebook.page.locator(".wb-panel")
    views = ((1600, 256, "models"), (900, 128, "models"), (1600, 384, "seeds"), (900, 192, "prompts"), (1600, 512, "models"))
    for width, size, across in views:
        page.set_viewport_size({"width": width, "height": HEIGHT})
        notebook.python(f"panel.show(panel.state.with_view(size={size}, across={across!r}))")
        until(lambda size=size: result(notebook).evaluate("image => image.getBoundingClientRect().width") == size, "another size is shown")
        last = page.locator(".wb-left .wb-drop")
        last.scroll_into_view_if_needed()
        panel.evaluate("panel => panel.scrollIntoView({ block: 'start' })")
        assert in_sight(result(notebook)), f"the result is out of sight at {width} pixels, {size}, {across}"
        assert in_sight(last), "the controls are out of sight"
        page.locator(".wb-gallery").evaluate("gallery => gallery.scrollTo(0, 0)")
    select = page.locator("select", has=page.locator("option", has_text="seeds across"))
    select.select_option("seeds across, by model")
    page.locator(".wb-looking .noUi-handle").press("Home")
    until(lambda: notebook.python("vars(panel.state.view)") == {"size": "automatic", "across": "seeds"}, "the view was not taken")
    notebook.screenshots("pictures-by-model", panel)


def test_a_saved_notebook_holds_the_pictures_which_stand_for_a_panel_that_is_gone(notebook):
    still = notebook.page.locator('.jp-OutputArea-output[data-mime-type="image/png"] > img')
    expect(still).to_have_count(1)
    expect(still).to_be_hidden()
    notebook.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    folder = Path(notebook.python("str(Path.cwd())"))

    def outputs() -> list[list[str]]:
        return [list(output.get("data", ())) for output in json.loads((folder / "made.ipynb").read_text())["cells"][0]["outputs"]]

    until(lambda: any("image/png" in data for data in outputs()), "the saved notebook has no picture")
    notebook.python("panel.close()")
    expect(still).to_be_visible()
