"""The block editor in a browser: numbers are typed into bars by keyboard alone, presets chosen by name, a block map colours the bars."""

from __future__ import annotations

from notebook_page import until
from panel_page import SECONDS
from playwright.sync_api import expect

OWN = """import math, shutil
from types import SimpleNamespace
import workbench as wb
from workbench.sweeps.block_map_result import BlockMap, Effect
long = "a-merge-of-many-models-with-a-long-name_<b>bold-\\"quoted\\"_" * 3
models = {f"{long}v1": wb.open("../data/shapes-sd/heart.safetensors"), f"{long}v2": wb.open("../data/shapes-sd/moon.safetensors")}
models["base"] = wb.open("../data/shapes-sd/base.safetensors")
panel = wb.MergePanel(models)
panel.show(panel.state.with_wanted(prompts=[]))
measured = {"every block": (0.5, 0), "IN00": (0.05, 0.01), "IN01": (0.3, 0.02), "MID": (-0.1, 0.02), "OUT00": (math.nan, math.nan)}
effects = [Effect(block, "alone", *numbers, math.nan, "" if numbers[0] == numbers[0] else "memory") for block, numbers in measured.items()]
found = BlockMap(("base", f"{long}v2"), tuple(effects), ("OUT01",), SimpleNamespace(scores={}))
panel"""


def test_bars_take_typed_numbers_presets_and_the_colours_of_a_block_map(lab):
    notebook = lab([OWN]).run_all()
    page = notebook.page
    page.locator(".wb-switch").first.click()
    bar = page.get_by_role("slider", name="IN01", exact=True)
    bar.focus()
    page.keyboard.type("0.35")
    expect(page.get_by_label("IN01: a number")).to_have_value("0.35")
    page.keyboard.press("Enter")
    weights = "panel.state.value('weights')['blocks']"
    until(lambda: notebook.python("'blocks' in (panel.state.options.get('weights') or {})"), "the number was not taken")
    assert notebook.python(f"{weights}['IN01']") == [0.35, 1, 1]
    expect(bar).to_have_attribute("aria-valuenow", "0.35")
    expect(bar).to_be_focused()
    page.keyboard.press("ArrowRight")
    until(lambda: notebook.python(f"{weights}['IN01'][0]") == 0.4, "an arrow is no step")
    page.keyboard.type("0,5")
    page.keyboard.press("Tab")
    expect(page.get_by_label("IN02: a number")).to_be_focused()
    page.keyboard.type("0.25")
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    until(
        lambda: notebook.python(f"{weights}['IN01'][0], {weights}.get('IN02', [1])[0]") == (0.5, 0.25), "Tab does not go on to the next bar"
    )
    page.keyboard.type("9999")
    page.keyboard.press("Enter")
    expect(page.locator(".wb-words .wb-error")).to_contain_text("must be in", timeout=SECONDS)
    page.get_by_role("slider", name="MID", exact=True).locator(".wb-block-value").dblclick()
    page.keyboard.type("0.125")
    page.keyboard.press("Enter")
    until(lambda: notebook.python(f"{weights}.get('MID')") == [0.125, 1, 1], "a double click opens no field")
    expect(page.locator(".wb-panel .jp-Cell")).to_have_count(0)
    tabs = page.locator(".wb-blocks > .wb-blocks-tabs button")
    expect(tabs).to_have_count(3)
    assert len({name for name in tabs.all_inner_texts() if name.endswith(("v1", "v2"))}) == 2
    tabs.nth(1).click()
    page.locator("select.wb-blocks-presets").select_option("RING08_5")
    until(lambda: notebook.python(f"{weights}.get('IN00', [1, 1])[1]") == 0, "the preset was not taken")
    assert "OUT02" not in notebook.python(weights), "1, as by default"
    notebook.python("panel.use_block_map(found)")
    bar = page.get_by_role("slider", name="IN01", exact=True)
    expect(bar.locator(".wb-block-effect")).to_have_text("0.3", timeout=SECONDS)
    assert "0.3 ± 0.02" in bar.get_attribute("title")
    assert "alone 0.3" in bar.get_attribute("aria-valuetext")
    expect(page.locator(".wb-blocks-column .wb-unknown")).not_to_have_count(0)
    expect(page.locator(".wb-blocks-legend")).to_contain_text("not measured")
    expect(page.locator(".wb-panel b", has_text="bold")).to_have_count(0)
    notebook.screenshots("block-map", page.locator(".wb-panel"))
    tabs.nth(0).click()
    expect(page.locator(".wb-mapped")).to_have_count(0)
    notebook.python("panel.use_block_map(None)")
    tabs.nth(1).click()
    expect(page.locator(".wb-mapped")).to_have_count(0)
