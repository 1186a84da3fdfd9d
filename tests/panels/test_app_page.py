"""`App`: the panel and its gallery on a page, what it keeps, what it says when that fails; and others' widgets beside a panel."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from workbench.errors import InputError
from workbench.panels.app import App

DOCUMENT = Path(__file__).parents[2] / "docs" / "panel.md"


@pytest.fixture
def page(renderer, models):
    def make() -> App:
        app = App(models, renderer, folder=models.parent / "out")
        if not app.panel.state.wanted.prompts:
            app.panel.show(app.panel.state.with_wanted(prompts=["a red heart"], steps=2))
        assert app.panel.wait(60)
        return app

    return make


def words(app: App) -> str:
    return app.panel._merging._words.value


def test_the_gallery_gives_its_states_to_the_panel_which_is_shown(page):
    app = page()
    before = app.panel.state
    app.panel.show(before.with_option("weights", [0.1, 0.2, 0.7]))
    assert app.panel.wait(60)
    app._tabs.selected_index = 1
    newest, *_, oldest = [one for one in app.gallery.pictures if one.model == "result"]
    assert newest.id != oldest.id, "the gallery shows what was drawn since"
    app.gallery._asked({"do": "take", "with": [oldest.id]}, ())
    assert app.panel.state == before
    assert app._tabs.selected_index == 0


def test_a_page_that_is_opened_again_is_as_it_was_and_the_hint_stays_away(page):
    app = page()
    app.panel.show(app.panel.state.with_operator("ties"))
    hint = app.widget.children[2]
    assert hint.layout.display != "none"
    hint.children[1].click()
    assert hint.layout.display == "none"
    app.close()
    again = page()
    assert again.panel.state.operator == "ties"
    assert again.widget.children[2].layout.display == "none"


@pytest.mark.parametrize("text", ["panel: 2", "panel: [", "", "\0", "panel: 1\nmodels: 3"])
def test_a_state_that_cannot_be_read_is_put_aside_and_said(renderer, models, text):
    out = models.parent / "out"
    out.mkdir()
    (out / "app.yaml").write_text(text)
    app = App(models, renderer, folder=out)
    assert (out / "app.unread-1.yaml").read_text() == text
    assert "This state is a fresh one" in words(app)
    assert "app.unread-1.yaml" in words(app)
    app.close()


def test_a_gallery_that_cannot_be_used_is_said_in_its_tab_and_the_panel_works(page, models):
    index = models.parent / "out" / "gallery" / "index.sqlite"
    index.parent.mkdir(parents=True)
    index.write_bytes(b"no database" * 100)
    app = page()
    assert "The gallery cannot be shown" in app._tabs.children[1].value
    assert app.panel.images["result"]
    app._tabs.selected_index = 1


def test_a_folder_that_cannot_be_made_is_told(models):
    (models.parent / "out").write_text("a file")
    with pytest.raises(InputError, match="cannot be the app's folder"):
        App(models, folder=models.parent / "out" / "deeper")


def test_a_widget_of_somebody_else_stands_beside_the_panel_and_follows_its_state(make):
    panel, heard = make(), []
    panel.on_change(lambda state: 1 / 0)
    panel.on_change(heard.append)
    documented = re.findall(r"```python\n(import anywidget.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    names = {"panel": panel}
    exec(documented[0], names)
    other = names["method"]
    panel.show(panel.state.with_operator("ties"))
    assert other.name == "ties"
    assert heard == [panel.state]
    assert "ZeroDivisionError" in panel._merging._words.value, "what goes wrong in one is said, and hinders no other"
    panel.show(panel.state)
    panel.keep_as("good")
    assert len(heard) == 1, "the same state again is no change"
    panel.undo()
    assert other.name == "weighted_average"
