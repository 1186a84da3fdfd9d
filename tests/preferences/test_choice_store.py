"""The file of choices: kept, resumed, taken back, used by two at once; what cannot be read is refused and left as it is."""

from __future__ import annotations

import json
import multiprocessing
import time

import pandas as pd
import pytest
from made_up_choices import chosen

from workbench.errors import PreferenceError
from workbench.preferences import choices as module
from workbench.preferences.choices import ChoiceStore, Comparison, Seen


def write(folder, count: int) -> None:
    store = ChoiceStore(folder)
    for _ in range(count):
        store.add(chosen("a", "b", "left"))


def test_choices_are_there_again_as_they_were(tmp_path):
    assert ChoiceStore(tmp_path / "new" / "mine").read() == []
    first = Comparison(Seen("k1", "dens 0.2", {"density": 0.2, "sign": 1}), Seen("k2", "ü"), 'a "red" heart,\nwide', 3, "tie")
    ChoiceStore(tmp_path).add(first)
    ChoiceStore(tmp_path).add(chosen("a", "b", "neither"))
    again = ChoiceStore(tmp_path).read()
    assert again[0] == first
    assert [one.answer for one in again] == ["tie", "neither"]


def test_a_choice_is_taken_back_wherever_it_is_by_now(tmp_path):
    mine, other = ChoiceStore(tmp_path), ChoiceStore(tmp_path)
    (first,) = mine.add(chosen("a", "b", "left"))
    other.add(chosen("b", "c", "right"))
    assert [one.answer for one in mine.take_back(first)] == ["right"]
    with pytest.raises(PreferenceError, match="taken back already, by another panel"):
        mine.take_back(first)


def test_two_processes_that_write_at_once_lose_nothing(tmp_path):
    other = multiprocessing.get_context("spawn").Process(target=write, args=(tmp_path, 15))
    other.start()
    while not (tmp_path / "choices.json").exists():
        assert other.exitcode is None
        time.sleep(0.01)
    write(tmp_path, 15)
    other.join(60)
    assert other.exitcode == 0
    found = ChoiceStore(tmp_path).read()
    assert len({one.id for one in found}) == 30


def test_another_version_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "choices.json"
    path.write_text('{"version": 2, "choices": []}')
    with pytest.raises(PreferenceError, match=r"choices\.json: holds choices of version 2, and this Workbench reads version 1; .*name="):
        ChoiceStore(tmp_path)
    assert path.read_text() == '{"version": 2, "choices": []}'


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1}', '{"version": 1, "choices": [{"answer": "left"}]}'])
def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path, content):
    path = tmp_path / "choices.json"
    path.write_text(content)
    with pytest.raises(PreferenceError, match=r"choices\.json"):
        ChoiceStore(tmp_path)
    assert path.read_text() == content


def test_an_answer_that_is_none_is_damage(tmp_path):
    store = ChoiceStore(tmp_path)
    store.add(chosen("a", "b", "left"))
    told = json.loads(store.path.read_text())
    told["choices"][0]["answer"] = "both"
    store.path.write_text(json.dumps(told))
    with pytest.raises(PreferenceError, match=r"is damaged .*move it away"):
        store.read()


def test_a_file_that_somebody_holds_is_said_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    holder, other = ChoiceStore(tmp_path), ChoiceStore(tmp_path)
    with holder._lock, pytest.raises(PreferenceError, match="another process has held it"):
        other.add(chosen("a", "b", "left"))
    assert other.read() == []


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(PreferenceError, match="mine: cannot be read or written"):
        ChoiceStore(tmp_path / "mine")


def test_the_table_has_a_row_for_each_choice(tmp_path):
    store = ChoiceStore(tmp_path)
    store.add(Comparison(Seen("k1", "weights [1, 2]", {"x": 0.5}), Seen("k2", "b"), 'a "red" heart,\nwide', 3, "left", made=0.0))
    store.add(chosen("a", "b", "neither"))
    frame = pd.read_csv(store.to_csv(tmp_path / "mine.csv"))
    assert list(frame["answer"]) == ["left", "neither"]
    first = frame.iloc[0]
    assert (first["made"], first["prompt"], first["seed"]) == ("1970-01-01T00:00:00.000+00:00", 'a "red" heart,\nwide', 3)
    assert (first["left"], first["left_key"], json.loads(first["left_point"])) == ("weights [1, 2]", "k1", {"x": 0.5})
    assert pd.isna(first["right_point"])
    with pytest.raises(PreferenceError, match="there is no folder"):
        store.to_csv(tmp_path / "nowhere" / "mine.csv")
