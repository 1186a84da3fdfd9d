"""MergePanel on a folder of SDXL files, in a browser: prompts, a size, a slider; and what takes long can be stopped."""

from __future__ import annotations

import pytest
from notebook_page import NotebookPage, until
from panel_page import SECONDS, drawn, redrawn, result
from playwright.sync_api import expect

OWN = """import workbench as wb
from workbench.places import DATA
panel = wb.MergePanel(DATA / "shapes-sdxl")
panel.show(panel.state.with_input("models", ["base", "heart"]).with_wanted(steps=4, prompts=[]))
panel"""


@pytest.fixture
def notebook(lab) -> NotebookPage:
    return lab([OWN]).run_all()


def test_sdxl_is_drawn_after_a_prompt_and_follows_prompts_sliders_and_sizes(notebook):
    expect(notebook.find(".wb-status", "Write a prompt")).to_be_visible(timeout=SECONDS)
    prompt = notebook.page.locator("textarea[placeholder='one prompt per line']")
    prompt.fill("a red heart on a white background")
    prompt.blur()
    expect(result(notebook)).to_be_visible(timeout=SECONDS)
    drawn(notebook)
    notebook.page.locator(".wb-more .jupyter-widget-Collapse-header").click()
    for change in ("weights", "prompt", "negative", "size"):
        with redrawn(notebook):
            if change == "weights":
                notebook.page.locator('.wb-option:visible:has(.wb-name span:text-is("weights")) .noUi-handle').first.press("PageDown")
            elif change == "prompt":
                prompt.fill("a blue star on a gray background")
                prompt.blur()
            elif change == "negative":
                field = notebook.page.locator("input[placeholder='what should not be there']")
                field.fill("a red star")
                field.press("Enter")
            else:
                field = notebook.page.locator("input[placeholder='own']")
                field.fill("96 x 64")
                field.press("Enter")
    assert notebook.python("panel.images['result'][0].size") == (96, 64)
    assert notebook.python("panel.state.wanted.negative") == "a red star"
    notebook.screenshots("own-models", notebook.page.locator(".wb-panel"))


def test_what_takes_long_says_how_far_it_is_and_stops(notebook):
    notebook.python("panel.show(panel.state.with_wanted(prompts=['a red heart'], steps=150, seeds=list(range(40))))")
    stop = notebook.find("button", "Stop")
    expect(stop).to_be_visible(timeout=SECONDS)
    expect(notebook.find(".wb-status", "of 150")).to_be_visible(timeout=SECONDS)
    notebook.page.locator(".wb-panel").screenshot(path=notebook.shots / "drawing.png")
    stop.click()
    until(lambda: notebook.python("panel.wait(0)"), "drawing goes on", 30)
    expect(notebook.page.locator(".wb-panel button:visible", has_text="Draw").first).to_be_visible(timeout=SECONDS)
    notebook.python("panel.show(panel.state.with_wanted(steps=2, seeds=[0]))")
    drawn(notebook)
