"""Where models are chosen, without a browser: what a folder holds, filtered and sorted; families from headers; folders that are none."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import save_file

from workbench.errors import InputError
from workbench.panels import folder_listing
from workbench.panels.file_families import family_of
from workbench.panels.folder_listing import list_folder
from workbench.panels.models_view import ModelsView
from workbench.panels.recent_folders import MOST, recent_folders, remember_folder
from workbench.places import DATA


@pytest.fixture
def told() -> list:
    return []


@pytest.fixture
def view(models: Path, told: list) -> ModelsView:
    (models / "more").mkdir()
    shutil.copy(DATA / "shapes-sd" / "lora" / "stripes.safetensors", models / "more")
    (models / "notes.txt").touch()
    (models / ".hidden.safetensors").touch()
    (models / "pipeline").mkdir()
    (models / "pipeline" / "model_index.json").touch()
    os.utime(models / "moon.safetensors", (0, 86400 * 365.25 * 30))
    made = ModelsView(models, lambda paths, merge: told.append((list(paths), merge)), told.append, lambda: told.append("again"))
    assert made.files.wait(60)
    return made


def names(view: ModelsView) -> list[str]:
    return [row["name"] for row in view.files.page]


def ask(view: ModelsView, do: str, *given: object) -> None:
    view.files._handle_custom_msg({"do": do, "with": list(given)}, [])


def test_folders_are_gone_into_and_out_of(view, models):
    assert names(view) == ["more", "base.safetensors", "heart.safetensors", "moon.safetensors", "pipeline"]
    ask(view, "go", "more")
    assert names(view) == ["stripes.safetensors"]
    ask(view, "up")
    assert view.files.here == models


def test_a_row_tells_size_date_and_family_or_what_is_wrong_with_the_file(view, models):
    rows = {row["name"]: row for row in view.files.page}
    assert rows["heart.safetensors"]["family"] == "SD 1.x"
    assert rows["heart.safetensors"]["size"].endswith(" MB")
    assert rows["moon.safetensors"]["date"].startswith("20")
    assert rows["pipeline"]["family"] == "broken"
    assert "model_index.json" in rows["pipeline"]["told"]
    assert rows["more"]["family"] == ""
    view.files.folder = str(models / "more")
    assert view.files.wait(60)
    assert view.files.page[0]["family"] == "LoRA SD 1.x"
    save_file({}, models / "more" / "nothing.safetensors")
    assert family_of(models / "more" / "nothing.safetensors").name in ("?", "broken")


def test_words_find_in_any_order_and_columns_sort(view):
    view.files.words = "TENSORS he"
    assert names(view) == ["heart.safetensors"]
    view.files.words = "safetensors"
    view.files.by = "date"
    assert names(view)[0] == "moon.safetensors"
    view.files.descending = True
    assert names(view)[-1] == "moon.safetensors"
    view.files.by = "family"
    assert view.files.wait(60)
    assert view.files.total == 3


def test_models_below_are_found_and_folders_that_lead_in_a_circle_end(view, models):
    (models / "more" / "round").symlink_to(models)
    view.files.below = True
    assert names(view) == ["base.safetensors", "heart.safetensors", "moon.safetensors", "more/stripes.safetensors", "pipeline"]


def test_what_was_not_gone_through_is_said(view, monkeypatch):
    monkeypatch.setattr(folder_listing, "MOST_FOLDERS", 1)
    view.files.below = True
    assert view.files.said == "only the first 1 folders were searched"


def test_several_are_added_at_once_into_the_merge_or_only_to_the_shelf(view, models, told):
    ask(view, "add", ["moon.safetensors", "base.safetensors"], True)
    ask(view, "add", ["pipeline"], False)
    assert told == [([models / "moon.safetensors", models / "base.safetensors"], True), ([models / "pipeline"], False)]
    ask(view, "add", ["../elsewhere.safetensors"], True)
    assert view.files.said.startswith("Choose a model first")
    assert view.files.recent == [str(models)]


@pytest.mark.parametrize(
    ("folder", "said"), [("nowhere", "is not there"), ("base.safetensors", "is no folder"), ("~nobody/x", ""), ("a\0b", "")]
)
def test_a_folder_that_is_none_is_said(view, models, monkeypatch, folder, said):
    monkeypatch.chdir(models)
    view.files.folder = folder
    assert said in view.files.said
    assert view.files.said
    assert view.files.page == []
    view.files.folder = str(models)
    assert not view.files.said


def test_a_folder_that_vanishes_is_said_when_it_is_read_again(view, models, told):
    shutil.rmtree(models)
    ask(view, "again")
    assert told == ["again"]
    assert "is not there (any more)" in view.files.said


def test_a_folder_that_cannot_be_read_is_named(models, monkeypatch):
    real = os.scandir

    def locked(place):
        if str(place).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(place))
        return real(place)

    monkeypatch.setattr(os, "scandir", locked)
    (models / "locked").mkdir()
    with pytest.raises(InputError, match="locked: cannot be read: Permission denied"):
        list_folder(models / "locked")
    assert list_folder(models, below=True).said == "'locked' cannot be read"


def test_of_3_000_files_a_page_is_shown_and_read(models, told):
    for i in range(3000):
        (models / f"model {i:04}.safetensors").touch()
    view = ModelsView(models, lambda *given: told.append(given), told.append, lambda: None)
    assert view.files.wait(60)
    assert (view.files.total, len(view.files.page)) == (3003, 100)
    view.files.start = 3000
    assert view.files.wait(60)
    assert names(view) == ["model 2998.safetensors", "model 2999.safetensors", "moon.safetensors"]
    view.files.words = "2999"
    assert view.files.start == 0
    assert names(view) == ["model 2999.safetensors"]


def test_recent_folders_are_remembered_and_never_in_the_way(tmp_path, monkeypatch):
    for i in range(MOST + 3):
        remember_folder(tmp_path / str(i))
    remember_folder(tmp_path / "5")
    assert recent_folders()[:2] == [str(tmp_path / "5"), str(tmp_path / str(MOST + 2))]
    assert len(recent_folders()) == MOST
    monkeypatch.setattr("platformdirs.user_config_path", lambda name: tmp_path)
    (tmp_path / "recent_folders.json").write_text("[1, ", encoding="utf-8")
    assert recent_folders() == []
    (tmp_path / "file").touch()
    monkeypatch.setattr("platformdirs.user_config_path", lambda name: tmp_path / "file" / name)
    remember_folder(tmp_path)
    assert recent_folders() == []


def test_the_shelf_tells_its_order(view, told):
    view.show(["base", "moon"])
    told.clear()
    view._shelf.value = ["moon", "base"]
    assert told == [["moon", "base"]]
