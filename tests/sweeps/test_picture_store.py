"""Pictures that were drawn are kept with their recipes, found again, and never more than the limit."""

from __future__ import annotations

import io
import time

import pytest
from PIL import Image

import workbench as wb
from workbench.errors import SweepError
from workbench.render.drawn import Drawn
from workbench.render.request import Request
from workbench.sweeps.picture_store import PictureStore
from workbench.sweeps.store import StoredPictures, kept

HEART, MOON = "a red heart", "a yellow moon"


@pytest.fixture
def store(tmp_path):
    return PictureStore(tmp_path / "gallery")


def fill(store, *names, prompts=(HEART,), seeds=(0,), edge=64, recipe=None):
    """Keep noise that does not pack, as pictures of models of these names."""
    for name in names:
        images = [Image.effect_noise((edge, edge), 50).convert("RGB") for _ in range(len(prompts) * len(seeds))]
        store.keep(images, Drawn(name, recipe), Request(tuple(prompts), tuple(seeds), 2))
        time.sleep(0.002)


@pytest.fixture
def recipe(models):
    return wb.operators.weighted_average([models["heart"], models["moon"]]).recipe


def test_the_newest_picture_comes_first_and_one_that_is_drawn_again_is_kept_once(store):
    fill(store, "a", "b")
    fill(store, "a")
    assert [one.model for one in store.find()] == ["a", "b"]


def test_a_picture_is_found_by_prompt_model_method_and_star(store, recipe):
    fill(store, "heart", prompts=(HEART, MOON), seeds=(0, 3))
    fill(store, "result", recipe=recipe)
    assert [(one.prompt, one.seed) for one in store.find(model="heart") if one.model == "heart"] == [
        (HEART, 0),
        (HEART, 3),
        (MOON, 0),
        (MOON, 3),
    ]
    assert [one.model for one in store.find(model="HEART")] == ["result", *["heart"] * 4]  # the result was merged from it
    assert [one.models for one in store.find(method="weighted_average")] == [("heart", "moon")]
    assert store.methods() == ["weighted_average"]
    store.star(store.find("moon"))
    assert [one.prompt for one in store.find(starred=True)] == [MOON, MOON]
    assert store.count("%") == 0  # a letter, not a pattern


def test_a_page_is_a_part_of_what_is_found(store):
    fill(store, *"abcde")
    assert [one.model for one in store.find(start=1, most=2)] == ["d", "c"]
    assert len(store) == 5


def test_a_picture_carries_its_recipe_prompt_seed_and_settings(store, recipe):
    fill(store, "result", prompts=(HEART, MOON), seeds=(0, 7), recipe=recipe)
    told = wb.open_grid(store.find()[3].path)
    assert (told.settings["prompts"], told.settings["seeds"], told.settings["steps"]) == ([MOON], [7], 2)
    assert told.recipes["result"].build().merge.call.operator.name == "weighted_average"


def test_it_lies_on_disk_as_a_cell_of_a_sweep(store):
    fill(store, "a", seeds=(0, 1))
    folder = store.find()[0].path.parent
    assert kept(folder, 2)["asked"][0]["prompts"] == [HEART]
    assert StoredPictures(folder, 2)[1].size == (64, 64)


def test_stars_notes_and_deletions_can_be_undone(store):
    fill(store, "a", "b")
    b, a = store.find()
    store.note(b, "too dark")
    store.star([a, b])
    store.delete([a])
    assert [(one.model, one.star, one.note) for one in store.find()] == [("b", True, "too dark")]
    assert [store.undo() for _ in range(4)] == [True, True, True, False]
    assert [(one.model, one.star, one.note) for one in store.find()] == [("b", False, ""), ("a", False, "")]


def test_beyond_the_limit_the_oldest_without_a_star_go(tmp_path):
    store = PictureStore(tmp_path, limit=50_000)  # of about 14 kB each
    fill(store, "starred")
    store.star(store.find())
    fill(store, *"abcdefg")
    assert store.nbytes <= 50_000
    assert [one.model for one in store.find()][-1] == "starred"
    assert store.find()[0].model == "g"
    assert 2 <= len(store) < 8
    assert len(list(tmp_path.glob("*/*.png"))) == len(store)
    assert PictureStore(tmp_path).limit == 50_000  # for all who use the folder


def test_what_was_deleted_long_ago_goes_from_the_disk(store, monkeypatch):
    fill(store, "a", "b")
    store.delete(store.find(model="a"))
    assert len(list(PictureStore(store.folder).folder.glob("*/*.png"))) == 2
    monkeypatch.setattr("workbench.sweeps.picture_store._REGRET", -1)
    assert len(list(PictureStore(store.folder).folder.glob("*/*.png"))) == 1


def test_a_folder_that_is_opened_again_has_everything_and_without_its_index_all_but_stars(store, recipe):
    fill(store, "a")
    fill(store, "result", recipe=recipe)
    store.star(store.find())
    assert PictureStore(store.folder).find() == store.find()
    (store.folder / "index.sqlite").unlink()
    found = PictureStore(store.folder).find()
    assert [(one.model, one.models, one.star) for one in found] == [("result", ("heart", "moon"), False), ("a", (), False)]


def test_a_thumbnail_is_small_and_none_where_the_file_was_deleted_by_hand(store):
    fill(store, "a", edge=1024)
    (one,) = store.find()
    assert Image.open(io.BytesIO(store.thumbnail(one))).size == (192, 192)
    one.path.with_suffix(".webp").unlink()
    assert Image.open(io.BytesIO(store.thumbnail(one))).size == (192, 192)
    one.path.unlink()
    assert store.thumbnail(one) is None


def test_a_folder_that_cannot_be_used_is_told(tmp_path, store):
    (tmp_path / "file").write_text("")
    with pytest.raises(SweepError, match="cannot be written"):
        PictureStore(tmp_path / "file")
    with pytest.raises(SweepError, match="limit must be"):
        PictureStore(tmp_path, 0)
    (store.folder / "index.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(SweepError, match=r"index\.sqlite: cannot be used .*delete it"):
        store.find()


def test_two_stores_of_one_folder_see_each_others_pictures(store):
    other = PictureStore(store.folder)
    fill(store, "a")
    fill(other, "b")
    assert [one.model for one in store.find()] == [one.model for one in other.find()] == ["b", "a"]
