"""LoraPanel as a person has it before them: move the rank, see error and picture follow, undo, export."""

from __future__ import annotations

import re

import pytest
from notebook_page import NotebookPage, until
from panel_page import SECONDS, drawn, redrawn
from playwright.sync_api import expect

CELL = """import workbench as wb
from workbench.places import DATA
stripes, base = (DATA / "shapes-sd" / f"{name}.safetensors" for name in ("stripes", "base"))
panel = wb.LoraPanel(stripes, base)
panel.show(panel.state.with_wanted(prompts=["a red star on a white background, stripes"], steps=6))
panel"""


@pytest.fixture
def notebook(lab) -> NotebookPage:
    opened = lab([CELL]).run_all()
    drawn(opened)
    return opened


def test_the_rank_is_moved_and_error_and_picture_follow(notebook):
    handle = notebook.page.locator(".wb-left .noUi-handle:visible").first
    chosen = notebook.page.locator(".wb-error .wb-chosen")
    before = chosen.get_attribute("cx")
    with redrawn(notebook):
        handle.press("End")
    assert notebook.python("panel.cut.rank") == 80  # more than that no layer has
    expect(chosen).not_to_have_attribute("cx", before)
    expect(notebook.page.locator(".wb-left .wb-said").first).to_have_text(re.compile(r"rank 80: misses 0\.\d% of the change; [\d.]+ MB"))
    notebook.find("button[title=Undo]").click()
    until(lambda: notebook.python("panel.cut.rank") == 8, "nothing was undone")
    expect(chosen).to_have_attribute("cx", before)


def test_the_lora_is_exported_and_the_panel_is_looked_at(notebook):
    notebook.find("button", "Export").click()
    expect(notebook.find(".wb-tabs .wb-said")).to_have_text(re.compile(r"lora\.safetensors: 0\.\d+ MB"), timeout=SECONDS)
    assert notebook.python("len(wb.open('lora.safetensors')) == len(panel.lora)")
    notebook.screenshots("lora-panel", notebook.page.locator(".wb-panel"))
