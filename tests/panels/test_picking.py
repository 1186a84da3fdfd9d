"""Pictures that are ticked, compared and starred: held as they were, whatever is drawn since."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from ipywidgets.widgets.widget import _instances
from PIL import Image

from workbench.errors import InputError, SweepError
from workbench.panels.ticks import Shown, Ticks
from workbench.render.request import Request
from workbench.sweeps.picture_store import PictureStore


def shown(name, number, image=None, change=""):
    return Shown(name, number, image or Image.new("RGB", (8, 8)), None, Request(("a", "b"), (3, 5)), change)


def test_a_ticked_picture_says_its_model_seed_and_what_led_to_it():
    one = shown("result", 3, change="weights 12:00:00")
    assert one.label == "result · weights 12:00:00 · seed 5"
    assert one.title.splitlines()[1:] == ["b", "8 x 8 pixels"]
    assert shown("heart", 0, change="weights 12:00:00").label == "heart · seed 3"


def test_the_same_picture_is_ticked_once_and_labels_differ():
    ticks, image = Ticks(), Image.new("RGB", (8, 8))
    ticks.toggle(shown("heart", 0, image))
    ticks.toggle(shown("heart", 0, image))
    assert ticks.held == {}
    ticks.toggle(shown("heart", 0))
    ticks.toggle(shown("heart", 2))
    assert list(ticks.named()) == ["heart · seed 3 (1)", "heart · seed 3 (2)"]
    ticks.toggle(shown("moon", 0))
    assert list(ticks.named())[-1] == "moon · seed 3"
    with pytest.raises(InputError, match="tick 2 pictures first; 3 are ticked"):
        ticks.named(exactly=2)
    with pytest.raises(InputError, match="no picture is ticked under 9"):
        ticks.untick(9)


def test_an_older_result_is_compared_with_a_newer_one(make):
    panel = make()
    before = panel.images["result"][0]
    panel.pictures.tick("result", 0)
    panel.show(panel.state.with_option("weights", [0.0, 1.0, 0.0]), "weights")
    assert panel.wait(60)
    assert panel.pictures.actions.ticked == []
    panel.pictures.tick("result", 0)
    compared = panel.pictures.compare()
    assert [name.split(" ")[2] for name in compared.names] == ["by", "weights"]
    assert np.array_equal(compared._table.picture(compared.left, (0,)), before)
    assert panel.pictures.comparing.children[1] is compared
    panel.pictures.side_by_side()
    assert compared.comm is None
    assert panel.pictures.comparing.children[1].value.count("<img") == 2
    panel.undo()
    assert panel.pictures.actions.ticked == [["result", 0]]
    panel.pictures.untick(1)
    assert [*panel.pictures.ticked] == [2]
    panel.pictures.clear()
    assert panel.pictures.comparing.children == ()
    assert panel.pictures.actions.held == []


def test_what_cannot_be_ticked_or_compared_is_said_in_the_panel(make):
    panel = make()
    panel.pictures.actions._handle_custom_msg({"do": "tick", "with": ["heart", 7]}, [])
    assert "there is no picture 7 of &#x27;heart&#x27;" in panel._merging._words.value
    panel.pictures.actions._handle_custom_msg({"do": "compare"}, [])
    assert "tick 2 pictures first; 0 are ticked" in panel._merging._words.value


def test_keys_undo_redo_and_stop(make):
    panel = make()
    first = panel.state
    panel.show(first.with_operator("ties"))
    press = lambda what: panel.pictures.actions._handle_custom_msg({"do": what}, [])  # noqa: E731
    press("undo")
    assert panel.state == first
    press("redo")
    assert panel.state.operator == "ties"
    press("stop")
    assert panel._pictures.status._button.description == "Draw"


def test_a_star_is_kept_in_the_gallery_and_shown_wherever_the_picture_is(make, tmp_path):
    panel, store = make(), PictureStore(tmp_path / "out" / "gallery")
    panel.pictures.star("result")
    assert [one.model for one in store.find(starred=True)] == ["result"]
    assert panel.pictures.actions.starred == [["result", 0]]
    first = panel.state
    panel.show(first.with_operator("ties"))
    assert panel.wait(60)
    assert panel.pictures.actions.starred == []
    panel.show(first)
    assert panel.pictures.actions.starred == [["result", 0]]
    store.delete(store.find(starred=True))
    panel.pictures.star("result")
    assert len(store.find(starred=True)) == 1, "what was deleted is kept again"
    panel.pictures.actions._handle_custom_msg({"do": "star", "with": ["result", 0]}, [])
    assert store.find(starred=True) == []


def test_without_a_gallery_a_star_is_refused_in_words(make):
    with pytest.raises(SweepError, match="keeps no pictures, so that none can have a star"):
        make(gallery=None).pictures.star()


def test_another_view_draws_nothing_and_does_not_disturb_what_is_drawn(make, monkeypatch):
    panel = make(keep="panel.yaml")
    image = panel.images["result"][0]
    monkeypatch.setattr(panel._pictures.studio, "draw", lambda *_: pytest.fail("drawn"))
    monkeypatch.setattr(panel._pictures._worker, "cancel", lambda: pytest.fail("cancelled"))
    panel._pictures._controls._across.value = "seeds"
    panel._pictures._controls._size.value = 384
    assert panel.state.view.size == 384
    assert panel.images["result"][0] is image
    assert "--wb-wide: 384px" in panel._pictures.columns.widget.children[0].value
    assert "size: 384" in panel._keep.path.read_text()
    monkeypatch.undo()


def test_a_panel_that_is_closed_leaves_no_widget_and_no_picture(make):
    before = set(_instances)
    panel = make()
    panel.pictures.tick("heart", 0)
    panel.pictures.tick("result", 0)
    panel.pictures.compare()
    image = weakref.ref(panel.images["result"][0])
    panel.close()
    assert [type(_instances[one]).__name__ for one in set(_instances) - before] == []
    gc.collect()
    assert image() is None
