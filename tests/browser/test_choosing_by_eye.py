"""PreferencePanel as a person has it before them: keys, clicks, no names until they are asked for."""

from __future__ import annotations

import pytest
from notebook_page import NotebookPage, pixels, until
from playwright.sync_api import Locator, expect

CELLS = [
    """import workbench as wb
from workbench.places import DATA
names = ["base", "heart", "moon"]
base, heart, moon = (wb.open(DATA / "shapes-sd" / f"{name}.safetensors") for name in names)
prompts = ["a red heart on a white background", "a yellow moon on a black background"]
models = {"secret heart": heart, "secret moon": moon, "secret base": base}
panel = wb.PreferencePanel(models, prompts=prompts, seeds=[0, 1], steps=8, name=f"by-eye-{id(models)}")
panel""",
]


@pytest.fixture
def notebook(lab) -> NotebookPage:
    return lab(CELLS).run_all()


@pytest.fixture
def panel(notebook) -> Locator:
    found = notebook.find(".wb-prefer")
    asked(notebook, 0)
    return found


def asked(notebook: NotebookPage, choices: int) -> None:
    """Wait until there are so many choices, and the page, which takes no answer until then, shows the question after them."""
    until(lambda: notebook.python("len(panel.choices) if panel.question else -1") == choices, f"there are not {choices} choices", 180)
    expect(notebook.page.locator(".wb-prefer .pair")).to_have_attribute("aria-busy", "false")


def answers(notebook: NotebookPage) -> list[str]:
    return notebook.python("[one.answer for one in panel.choices]")


def test_it_goes_by_keyboard_alone_once_it_was_clicked(notebook, panel):
    panel.locator(".asked").click()
    for number, key in enumerate(["1", "2", "Space", "s"], 1):
        notebook.page.keyboard.press(key)
        asked(notebook, number)
    assert answers(notebook) == ["left", "right", "tie", "neither"]
    before = panel.locator("img").first.get_attribute("src")
    notebook.page.keyboard.press("u")
    asked(notebook, 3)
    expect(panel.locator("img").first).not_to_have_attribute("src", before)
    assert answers(notebook) == ["left", "right", "tie"]
    for key in "dd00":
        notebook.page.keyboard.press(key)
    expect(notebook.page.locator(".jp-Cell")).to_have_count(len(CELLS))
    expect(notebook.page.locator(".jp-Dialog")).to_have_count(0)


def test_what_was_answered_takes_no_second_answer_while_the_kernel_has_not_heard_of_the_first(notebook, panel):
    press = "part => ['1', '2'].map((key) => part.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true })))"
    busy = panel.evaluate(f"part => {{ ({press})(part); return part.querySelector('.pair').getAttribute('aria-busy'); }}")
    assert busy == "true"
    asked(notebook, 1)
    assert answers(notebook) == ["left"]


def test_a_click_on_a_picture_or_a_button_chooses_and_the_space_bar_presses_no_button_after_it(notebook, panel):
    panel.locator("img").last.click()
    asked(notebook, 1)
    panel.locator("button", has_text="left is better").click()
    asked(notebook, 2)
    notebook.page.keyboard.press("Space")
    asked(notebook, 3)
    assert answers(notebook) == ["right", "left", "tie"]
    panel.locator("button", has_text="undo").click()
    asked(notebook, 2)


def test_names_are_in_the_page_only_when_they_are_asked_for_and_the_choices_become_a_table(notebook, panel):
    one, other = (pixels(image) for image in panel.locator("img").all())
    assert one.shape == other.shape
    assert min(one.shape[:2]) > 256  # large enough to judge
    panel.locator(".asked").click()
    notebook.page.keyboard.press("1")
    asked(notebook, 1)
    assert "secret" not in panel.evaluate("part => part.outerHTML")
    expect(panel.locator(".far")).to_contain_text("1 choice: about")
    notebook.screenshots("by-eye", panel)
    panel.locator("button", has_text="Show names").click()
    expect(panel.locator("tr")).to_have_count(4)
    notebook.page.keyboard.press("2")
    asked(notebook, 2)
    notebook.screenshots("by-eye-names", panel)
    panel.locator("button", has_text="Save as CSV").click()
    expect(panel.locator(".said")).to_contain_text("choices.csv")
    assert notebook.python("len(open(panel.said.removeprefix('written: ')).readlines())") == 3
    panel.locator("button", has_text="Hide names").click()
    expect(panel.locator(".ranking")).to_be_hidden()
    assert "secret" not in panel.evaluate("part => part.outerHTML")
