"""The gallery and what is dropped onto the panel, as a person has them before them."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from notebook_page import NotebookPage, until
from panel_page import drawn
from playwright.sync_api import expect

CELLS = [
    """import workbench as wb
from workbench.places import DATA
names = ["base", "heart", "moon"]
panel = wb.MergePanel([DATA / "shapes-sd" / f"{name}.safetensors" for name in names])
panel.show(panel.state.with_wanted(prompts=["a red heart on a white background"], steps=4))
panel.wait(60)
before = panel.state
panel.show(before.with_option("weights", [0.2, 0.2, 0.6]))
panel.wait(60)
panel""",
    """gallery = wb.Gallery(panel=panel)
gallery""",
    """panel.recipe.save("after.yaml")
asked = {"prompts": ["a yellow moon on a black background"], "seeds": [3], "steps": 4}
grid = wb.ab_grid({"mine": panel.merge}, **asked, progress=False).save("grid.png")""",
]
DROP = """([selector, name, content]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], name));
  document.querySelector(selector).dispatchEvent(new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true }));
}"""


@pytest.fixture
def notebook(lab) -> NotebookPage:
    notebook = lab(CELLS).run_all()
    drawn(notebook)
    return notebook


def drop(notebook: NotebookPage, name: str, content: bytes) -> None:
    notebook.page.evaluate(DROP, [".wb-panel .wb-left", name, base64.b64encode(content).decode()])


def test_pictures_are_starred_enlarged_and_given_back_to_the_panel(notebook):
    gallery = notebook.find(".wb-pictures-kept")
    gallery.locator("input[type=search]").nth(1).fill("result")
    until(lambda: notebook.python("gallery.total") == notebook.python("len(gallery.page)") > 1, "the filter does nothing", 20)
    expect(gallery.locator("figure")).to_have_count(notebook.python("gallery.total"))
    notebook.screenshots("gallery", gallery)
    gallery.locator("figure .star").first.click()
    expect(gallery.locator("figure .star").first).to_have_attribute("aria-pressed", "true")
    gallery.get_by_title("full size", exact=True).first.click()
    shown = gallery.locator("dialog img")
    expect(shown).to_be_visible()
    assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
    notebook.page.keyboard.press("Escape")
    expect(gallery.locator("dialog")).to_be_hidden()
    gallery.locator("figure .open").nth(1).click()
    until(lambda: notebook.python("panel.state == before"), "the panel did not take the state", 20)


def test_a_picture_a_recipe_or_a_grid_that_is_dropped_onto_the_panel_brings_its_state_back(notebook):
    path = notebook.python("str(gallery._store.find(model='result')[1].path.resolve())")
    drop(notebook, "picture.png", Path(path).read_bytes())
    until(lambda: notebook.python("panel.state == before"), "the panel did not take the state", 20)
    notebook.screenshots("reopened", notebook.find(".wb-panel"))
    weights = 'panel.state.options.get("weights")'
    drop(notebook, "after.yaml", notebook.python('open("after.yaml", "rb").read()'))
    until(lambda: notebook.python(f"{weights} == [0.2, 0.2, 0.6]"), "the recipe was not taken", 20)
    notebook.python('panel.show(panel.state.with_option("weights", [1.0, 0.0, 0.0]))')
    drop(notebook, "grid.png", notebook.python('open("grid.png", "rb").read()'))
    until(lambda: notebook.python(f"{weights} == [0.2, 0.2, 0.6]"), "the grid was not taken", 20)
    assert notebook.python("(panel.state.wanted.prompts, panel.state.wanted.seeds)") == (("a yellow moon on a black background",), (3,))
    drop(notebook, "notes.txt", b"hello")
    expect(notebook.find(".wb-panel")).to_contain_text("notes.txt: nothing that a panel can reopen")


def test_a_picture_that_is_clicked_is_shown_in_full_size_and_arrows_go_on(notebook):
    notebook.find(".wb-result img").click()
    shown = notebook.page.locator(".wb-full-size dialog")
    expect(shown.locator("p")).to_have_text("result · 64 × 64 pixels")
    notebook.page.keyboard.press("ArrowLeft")
    expect(shown.locator("p")).to_have_text("moon · 64 × 64 pixels")
    shown.locator("img").click()
    assert shown.locator("img").evaluate("image => image.getBoundingClientRect().width * devicePixelRatio") == 64
    notebook.page.keyboard.press("Escape")
    expect(shown).to_be_hidden()
