"""The commonest merges in a browser: two models on one slider, pasted block weights, a typo in rules, seeds that are none."""

from __future__ import annotations

import pytest
from notebook_page import NotebookPage, until
from panel_page import SECONDS, drawn, redrawn
from playwright.sync_api import expect

TWO = """import workbench as wb
folder = "../data/shapes-sd/"
panel = wb.MergePanel([folder + "heart.safetensors", folder + "moon.safetensors"])
panel.show(panel.state.with_wanted(prompts=["a red heart on a white background"], steps=4))
panel"""


@pytest.fixture
def notebook(lab) -> NotebookPage:
    opened = lab([TWO]).run_all()
    drawn(opened)
    return opened


def test_two_models_are_one_slider_and_block_weights_are_pasted(notebook):
    page = notebook.page
    with redrawn(notebook):
        page.locator(".wb-option:visible:has(.wb-ends) .noUi-handle").press("Home")
    assert notebook.python("panel.merge.options['weights']") == [1, 0]
    page.locator(".wb-switch").first.click()
    text = page.locator(".wb-blocks-text")
    with redrawn(notebook):
        text.fill("0.5, 1,0.9,0.8,0.7, 0.1, 0,0,0.2,0.3")
        text.press("Enter")
    weights = notebook.python("panel.merge.options['weights']['blocks']")
    assert (weights["IN00"], weights["MID"], weights["default"]) == ([0, 1], [0.9, 0.1], [0.5, 0.5])
    expect(text).to_have_value("0.5, 1, 0.9, 0.8, 0.7, 0.1, 0, 0, 0.2, 0.3")
    text.fill("1, 2, 3")
    text.press("Enter")
    expect(page.locator(".wb-words .wb-error")).to_contain_text("3 numbers are no weights of these 9 blocks", timeout=SECONDS)
    page.locator(".wb-panel").scroll_into_view_if_needed()
    notebook.screenshots("two-models", page.locator(".wb-panel"))


def test_what_cannot_be_read_is_said_and_the_panel_goes_on(notebook):
    page = notebook.page
    rules = page.locator(".wb-option:visible:has(.wb-name span:text-is('rules')) textarea")
    rules.fill("vae base")
    rules.blur()
    expect(page.locator(".wb-words .wb-error")).to_contain_text("'vae base' is no rule", timeout=SECONDS)
    seeds = page.locator(".wb-row:has(> .wb-name span:text-is('seeds')) input")
    seeds.fill("-5")
    seeds.press("Enter")
    expect(page.locator(".wb-status", has_text="'-5' is none")).to_be_visible(timeout=SECONDS)
    seeds.fill("0-100000")
    seeds.press("Enter")
    expect(page.locator(".wb-hint", has_text="pictures of each model")).to_be_visible(timeout=SECONDS)
    page.get_by_role("button", name="Go back").click()
    expect(seeds).to_have_value("0")
    with redrawn(notebook):
        page.locator(".wb-option:visible:has(.wb-ends) .noUi-handle").press("Home")
    until(lambda: notebook.python("panel.merge.options['weights'] == [1, 0]"), "the slider does nothing any more")
    expect(page.locator(".wb-words .wb-error")).to_have_count(0)
