"""The chooser of models in a browser: filter, several at once, one action into the merge, a dropped model; 3,000 files; rename and undo."""

from __future__ import annotations

import base64
import re

import pytest
from notebook_page import NotebookPage, until
from panel_page import SECONDS
from playwright.sync_api import Locator, expect

MANY = """import shutil
from pathlib import Path
import workbench as wb
folder = Path("chooser").absolute()
shutil.rmtree(folder, ignore_errors=True)
(folder / "older").mkdir(parents=True)
for name in ("base", "heart", "moon", "pastel", "outline"):
    shutil.copy(f"../data/shapes-sd/{name}.safetensors", folder / f"<b>shapes {name}.safetensors")
shutil.copy("../data/shapes-sd/lora/stripes.safetensors", folder)
shutil.copy("../data/shapes-sd/stripes.safetensors", folder / "older" / "lines.safetensors")
for i in range(3000):
    (folder / f"a model of many, with a name that is far too long for its column, version {i:04}.safetensors").touch()
panel = wb.MergePanel([folder / "<b>shapes base.safetensors"])
panel"""


@pytest.fixture
def notebook(lab) -> NotebookPage:
    opened = lab([MANY]).run_all()
    opened.find(".wb-shelf .jupyter-widget-Collapse-header").click()
    return opened


def rows(notebook: NotebookPage, text: str = "") -> Locator:
    return notebook.page.locator(".wb-files tbody tr", has_text=text)


def merged(notebook: NotebookPage) -> list[str]:
    return [name.removeprefix("<b>shapes ") for name in notebook.python("panel.state.inputs['models']")]


def test_of_3_000_files_several_are_found_and_merged_in_one_action(notebook):
    page = notebook.page
    files = page.locator(".wb-files")
    expect(files.locator(".wb-files-pages output")).to_have_text("1 to 100 of 3,007")
    expect(rows(notebook)).to_have_count(100)
    expect(rows(notebook, "version 0001").locator(".wb-family")).to_have_text("broken", timeout=SECONDS)
    words = files.get_by_label("words of the name")
    words.fill("SHAPES")
    expect(rows(notebook)).to_have_count(5)
    expect(rows(notebook, "moon").locator(".wb-family")).to_have_text("SD 1.x", timeout=SECONDS)
    expect(files.locator(".wb-filename b")).to_have_count(0)
    notebook.screenshots("chooser", page.locator(".wb-panel"))
    rows(notebook, "heart").click()
    rows(notebook, "outline").click(modifiers=["Shift"])
    rows(notebook, "outline").click(modifiers=["Control"])
    expect(files.locator("tr[aria-selected=true]")).to_have_count(2)
    page.get_by_role("button", name="Into the merge (2)").click()
    until(lambda: merged(notebook) == ["base", "heart", "moon"], "two models are not merged by one action")
    rows(notebook, "pastel").dblclick()
    until(lambda: merged(notebook) == ["base", "heart", "moon", "pastel"], "a double click merges nothing")
    words.fill("shapes outl")
    expect(rows(notebook)).to_have_count(1)
    rows(notebook, "outline").press("Enter")
    until(lambda: merged(notebook)[-1] == "outline", "Enter merges nothing")
    notebook.find("button[title=Undo]").click()
    until(lambda: merged(notebook)[-1] == "pastel", "it is not undone")
    words.fill("stripes")
    rows(notebook, "stripes").get_by_role("button").click()
    until(lambda: notebook.python("panel.state.loras") == ("stripes",), "the LoRA is not on the result")
    words.fill("lines")
    expect(files.locator(".wb-files-none")).to_have_text("No name has these words.")
    files.get_by_label("subfolders").check()
    rows(notebook, "older/lines").click()
    page.get_by_role("button", name="Only onto the shelf").click()
    until(lambda: "lines" in notebook.python("panel.state.models"), "it is not on the shelf")
    assert merged(notebook)[-1] == "pastel"
    words.fill("")
    files.get_by_label("folder", exact=True).fill("/nowhere")
    files.get_by_label("folder", exact=True).press("Enter")
    expect(files.page.locator(".wb-shelf .wb-said")).to_contain_text("/nowhere: is not there", timeout=SECONDS)
    recent = files.get_by_label("recent folders")
    recent.select_option(notebook.python("str(folder)"))
    expect(rows(notebook)).to_have_count(100, timeout=SECONDS)


def test_a_dropped_model_is_found_and_a_name_is_given_and_taken_back(notebook):
    page = notebook.page
    expect(rows(notebook)).to_have_count(100)
    content = notebook.python("(folder / '<b>shapes moon.safetensors').read_bytes()")
    drop(page.locator(".wb-files-list"), "renamed since.safetensors", content)
    until(lambda: merged(notebook) == ["base", "moon"], "what was dropped is not merged")
    expect(page.locator(".wb-shelf .wb-said")).to_contain_text("renamed since.safetensors was found at")
    drop(page.locator(".wb-drop"), "unknown.safetensors", content[: len(content) // 2] + bytes(len(content) // 2))
    expect(page.locator(".wb-words .wb-error")).to_contain_text("unknown.safetensors", timeout=SECONDS)
    renaming = page.locator(".wb-shelf .wb-row:has(button:text-is('Rename'))")
    renaming.locator("select").select_option(index=2)
    renaming.locator("input").fill("night <i>sky")
    page.get_by_role("button", name="Rename").click()
    until(lambda: merged(notebook) == ["base", "night <i>sky"], "the model has its old name")
    expect(page.locator(".wb-shelf .jupyter-widget-tag", has_text="night <i>sky")).to_have_count(1)
    notebook.find("button[title=Undo]").click()
    until(lambda: merged(notebook) == ["base", "moon"], "the old name does not come back")
    expect(page.locator(".wb-shelf .jupyter-widget-tag", has_text="night")).to_have_count(0)
    notebook.find("button[title=Redo]").click()
    until(lambda: merged(notebook)[-1] == "night <i>sky", "the new name does not come back")
    expect(page.locator(".wb-panel i", has_text=re.compile("^sky$"))).to_have_count(0)


def drop(onto: Locator, name: str, content: bytes) -> None:
    """Drop a file of the computer onto a part of the page."""
    made = onto.page.evaluate_handle(
        """([name, content]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0))], name));
          return transfer;
        }""",
        [name, base64.b64encode(content).decode()],
    )
    for kind in ("dragover", "drop"):
        onto.dispatch_event(kind, {"dataTransfer": made})
