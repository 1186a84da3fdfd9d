"""A sweep from the panel and its queue, as a person has them: typed, run, filled, clicked; and gone on with when the page is closed."""

from __future__ import annotations

import pytest
from notebook_page import NotebookPage, until
from panel_page import SECONDS, drawn
from playwright.sync_api import expect

CELLS = """import shutil
from pathlib import Path
import workbench as wb
from workbench.places import DATA
shutil.rmtree("out/queue", ignore_errors=True)
panel = wb.MergePanel([DATA / "shapes-sd" / f"{name}.safetensors" for name in ("base", "heart", "moon")])
panel.show(panel.state.with_operator("ties").with_wanted(prompts=["a red heart on a white background"], steps=4))
panel"""


@pytest.fixture
def notebook(lab) -> NotebookPage:
    opened = lab([CELLS]).run_all()
    drawn(opened)
    return opened


def test_a_sweep_is_typed_run_and_goes_on_while_the_page_is_closed_and_a_cell_becomes_the_state(notebook):
    page = notebook.page
    page.get_by_text("sweep this").click()
    rows = page.locator(".wb-row:has(> .widget-dropdown):has(option:text-is('option …'))")
    rows.nth(0).locator("select").select_option("density")
    values = rows.nth(0).locator("input")
    values.fill("0..1 step x")
    values.press("Enter")
    expect(page.locator(".wb-wrong", has_text="'0..1 step x' is no number and no range")).to_be_visible(timeout=SECONDS)
    values.fill("0.2..1 step 0.4")
    values.press("Enter")
    rows.nth(1).locator("select").select_option("seeds")
    rows.nth(1).locator("input").fill("0-1")
    rows.nth(1).locator("input").press("Enter")
    expect(page.locator(".wb-sweep-row")).to_contain_text("3 x 2 = 6 cells; about", timeout=SECONDS)
    notebook.screenshots("sweep-typed", page.locator(".wb-panel"))
    page.locator(".wb-sweep-row").get_by_role("button", name="Run").click()
    expect(page.locator(".wb-job")).to_contain_text("sweep of density and seed: 6 cells", timeout=SECONDS)
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    address = page.url
    page.goto("about:blank")
    until(lambda: notebook.python("panel.queue.jobs[0].state == 'done'"), "the sweep does not go on without the page", 120)
    page.goto(address)
    grid = page.locator(".wb-sweep")
    expect(grid.locator(".cell img")).to_have_count(6, timeout=SECONDS)
    expect(page.locator(".wb-far", has_text="done")).to_be_visible(timeout=SECONDS)
    grid.locator("select").select_option("clip")
    expect(grid.locator(".number")).to_have_count(6)
    notebook.screenshots("sweep-grid", page.locator(".wb-panel"))
    grid.locator(".cell").nth(5).click()
    until(
        lambda: notebook.python("(panel.state.value('density'), panel.state.wanted.seeds)") == (1.0, (1,)),
        "the panel did not take the cell",
    )
    notebook.find("button[title=Undo]").click()
    until(lambda: notebook.python("(panel.state.value('density'), panel.state.wanted.seeds)") == (0.5, (0,)), "it cannot be undone")
    drawn(notebook)
