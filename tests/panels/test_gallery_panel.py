"""Gallery: pages of what was drawn, filters, stars, notes, undo, and a click that gives a panel its state."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from PIL import Image

import workbench as wb
from workbench.errors import SweepError
from workbench.render.drawn import Drawn
from workbench.render.request import Request
from workbench.sweeps.picture_store import PictureStore


@pytest.fixture
def folder(tmp_path):
    """Two pictures of `a` and a hundred of `b`, the newest."""
    store = PictureStore(tmp_path)
    store.keep([Image.new("RGB", (300, 300), "red")] * 2, Drawn("a"), Request(("a red heart",), (0, 1)))
    store.keep([Image.new("RGB", (8, 8))] * 100, Drawn("b"), Request(("a moon",), tuple(range(100))))
    return tmp_path


@pytest.fixture
def gallery(folder):
    return wb.Gallery(folder)


def asks(gallery, do, *given):
    """As the browser asks."""
    gallery._asked({"do": do, "with": list(given)}, [])


def test_a_page_has_thumbnails_of_the_newest(gallery):
    assert (gallery.total, len(gallery.page), len(gallery.thumbnails)) == (102, 60, 60)
    assert gallery.page[0]["model"] == "b"
    gallery.start = 60
    assert [one["model"] for one in gallery.page][-2:] == ["a", "a"]
    assert max(Image.open(io.BytesIO(gallery.thumbnails[-1])).size) == 192


def test_a_filter_begins_at_its_first_page(gallery):
    gallery.start = 60
    gallery.prompt = "heart"
    assert (gallery.start, gallery.total, [one["seed"] for one in gallery.page]) == (0, 2, [0, 1])


def test_the_full_picture_travels_when_it_is_looked_at(gallery):
    assert gallery.full == b""
    gallery.model = "a"
    gallery.looked_at = gallery.page[0]["id"]
    assert Image.open(io.BytesIO(gallery.full)).size == (300, 300)
    gallery.looked_at = 0
    assert gallery.full == b""


def test_stars_notes_and_deletions_are_shown_and_undone(gallery):
    gallery.model = "a"
    first = gallery.page[0]["id"]
    asks(gallery, "star", first, True)
    asks(gallery, "note", first, "good")
    assert (gallery.page[0]["star"], gallery.page[0]["note"]) == (True, "good")
    asks(gallery, "delete", first)
    assert gallery.total == 1
    asks(gallery, "undo")
    assert gallery.total == 2
    gallery.starred = True
    assert [one["id"] for one in gallery.page] == [first]


def test_a_click_gives_the_panel_the_state_that_the_picture_was_drawn_with(folder):
    taken = []
    gallery = wb.Gallery(folder, SimpleNamespace(reopen=taken.append))
    assert gallery.takes
    asks(gallery, "take", gallery.page[0]["id"])
    assert taken == [gallery.pictures[0].path]


def test_what_cannot_be_done_is_said(gallery):
    asks(gallery, "take", 1)
    assert "no panel to give a state to" in gallery.said
    asks(gallery, "star", 12345)
    assert "no picture 12345 any more" in gallery.said
    asks(gallery, "fly")
    assert gallery.said
    with pytest.raises(SweepError, match="no panel"):
        gallery.take(1)


def test_a_picture_deleted_by_hand_has_no_thumbnail_and_cannot_be_looked_at(gallery):
    gallery.model = "a"
    one = gallery.pictures[0]
    one.path.unlink()
    one.path.with_suffix(".webp").unlink()
    gallery.refresh()
    assert gallery.thumbnails[0] == b""
    gallery.looked_at = one.id
    assert gallery.full == b""
    assert "cannot be shown" in gallery.said


def test_the_limit_is_told_and_settable(folder):
    assert "of at most 5,000 MB" in wb.Gallery(folder).said
    assert "of at most 2,000 MB" in wb.Gallery(folder, limit=2 * 10**9).said
