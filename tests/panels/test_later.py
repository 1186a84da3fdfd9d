"""What a panel has its queue do: asked for in Python and by hand, shown, taken up; and what is said where that cannot be."""

from __future__ import annotations

import html
import shutil

import pytest

import workbench as wb
from workbench.errors import InputError, SweepError
from workbench.sweeps.picture_store import PictureStore
from workbench.sweeps.queue_jobs import change_job
from workbench.sweeps.queue_runner import work_off


@pytest.fixture
def panel(make, monkeypatch):
    """A panel whose queue waits until a test works it off in this process."""
    monkeypatch.setattr(wb.Queue, "start", lambda self: None)
    made = make()
    made.show(made.state.with_operator("ties"))
    assert made.wait(60)
    yield made
    made.close()


def titles(panel) -> list[str]:
    return [html.unescape(row._title.value) for row in panel._later._view._rows.values()]


def type_in(panel, *rows: tuple[str, str]) -> None:
    for row, (name, text) in zip(panel._later._sweep._rows, rows, strict=False):
        row._option.value = name
        row._field.value = text


def test_a_new_panel_shows_no_queue_and_makes_no_folder(panel, tmp_path):
    assert panel._later._view.widget.layout.display == "none"
    assert not (tmp_path / "out" / "queue").exists()


def test_a_sweep_fills_its_grid_and_a_cell_becomes_the_state_which_can_be_undone(panel, make):
    job = panel.sweep({"density": "0.2, 0.8", "seeds": "0-1"})
    grid = panel._later._grid
    assert "sweep of density and seed: 4 cells" in titles(panel)[0]
    assert (grid.axes, grid.facets[0]["cells"]) == (["density", "seed"], [[0, 2], [1, 3]])
    assert grid.said.startswith("0 of 4 cells")
    other = make()  # with the same folders, while it goes on
    assert other._later._grid.job.id == job.id
    assert work_off(panel.queue.folder) == 1
    panel._later._view.refresh()
    assert grid.said.startswith("4 of 4 cells")
    assert list(grid.scores) == ["clip", "distance to the first cell"]
    assert grid.scores["distance to the first cell"][0] == 0
    assert [one["name"] for one in grid.told][3] == "density 0.8 · seed 1"
    before = panel.state
    grid.take(3)
    assert panel.state == before.with_option("density", 0.8).with_wanted(seeds=(1,))
    panel.undo()
    assert panel.state == before
    panel.rename("heart", "amor")
    grid.take(0)
    assert panel.state.many == ("amor", "moon")
    assert panel.state.value("density") == 0.2
    other._later._view.refresh()
    assert other._later._grid.said.startswith("4 of 4 cells")
    other._later._grid.take(2)
    assert other.state.value("density") == 0.8
    assert other.state.many == ("heart", "moon")
    other.close()


def test_pictures_and_files_are_made_later(panel, tmp_path):
    panel.draw_later()
    panel._outcome._name.value = "later.safetensors"
    panel._later.exporting.click()
    assert panel._outcome._said.value == "queued: export later.safetensors"
    panel._later.exporting.click()
    assert "is what &#x27;export later.safetensors&#x27; writes already" in panel._outcome._said.value
    assert work_off(panel.queue.folder) == 2
    assert wb.Recipe.from_file(tmp_path / "later.safetensors").data.merge == panel.recipe.data.merge
    newest = PictureStore(tmp_path / "out" / "gallery").find(model="result")[0]
    before = panel.state
    panel.show(panel.state.with_operator("weighted_average"))
    panel.reopen(newest.path)
    assert panel.state.operator == before.operator


def test_which_block_does_it_is_shown_and_goes_into_the_bars_of_a_panel_that_has_them(panel):
    panel.show(panel.state.with_wanted(steps=1))
    job = panel.map_blocks("base", "heart")
    with pytest.raises(SweepError, match="has found nothing yet"):
        panel._later.show_result(job)
    with pytest.raises(InputError, match="compared with itself"):
        panel.map_blocks("base", "base")
    with pytest.raises(InputError, match="no model 'sun'"):
        panel.map_blocks("sun", "base")
    work_off(panel.queue.folder)
    panel._later._view.refresh()
    row = panel._later._view._rows[job.id]
    row._buttons["show"].click()
    assert "MID" in panel._later._map._table.value
    assert panel._later._map.result.layout.display == ""


def test_what_is_typed_is_counted_or_said_to_be_wrong(panel):
    view = panel._later._sweep
    type_in(panel, ("density", "0..1 step 0.1"), ("seeds", "0-3"))
    assert "11 x 4 = 44 cells; about" in view._said.value
    assert not view._button.disabled
    assert view.over == {"density": "0..1 step 0.1", "seeds": "0-3"}
    type_in(panel, ("density", "0..2 step 1"))
    assert "density: must be in [0, 1], got 2" in html.unescape(view._said.value)
    assert view._button.disabled
    type_in(panel, ("density", "0..1 step 0.01"), ("seeds", "0-99"))
    assert "10,100 cells" in view._said.value
    type_in(panel, ("density", "0.5"), ("seeds", "0-99"))
    view._button.click()
    assert "100 pictures. Draw them?" in view._said.value
    assert panel.queue.jobs == ()
    view._no.click()
    assert view._button.layout.display == ""
    view._button.click()
    view._yes.click()
    assert len(panel.queue.jobs) == 1
    panel.show(panel.state.with_operator("weighted_average"))
    assert view.over == {"seeds": "0-99"}, "an option that is no more is not swept over"


def test_a_thousand_seeds_are_asked_about_and_more_are_refused(panel):
    type_in(panel, ("seeds", "0-999"))
    panel._later._sweep._button.click()
    assert "1,000 pictures. Draw them?" in panel._later._sweep._said.value
    with pytest.raises(InputError, match="a sweep of 1,001 cells"):
        panel.sweep({"seeds": "0-1000"})


def test_pictures_that_are_gone_are_said_in_their_cell_and_drawn_again(panel, tmp_path):
    job = panel.sweep({"density": "0.5, 0.6"})
    work_off(panel.queue.folder)
    shutil.rmtree(panel.queue.job(job.id).results["1"]["folder"])
    panel._later.show_result(panel.queue.job(job.id))  # as a click on the job does
    assert [bool(one["problem"]) for one in panel._later._grid.told] == [False, True]
    assert "gone or damaged" in panel._later._grid.told[1]["problem"]
    panel._later._view._rows[job.id]._buttons["again"].click()
    work_off(panel.queue.folder)
    panel._later._view.refresh()
    assert panel.queue.job(job.id).message == "2 cells, 1 drawn now"
    assert panel._later._grid.said.startswith("2 of 2 cells")
    assert panel._later._grid.told[1]["problem"] == ""


def test_a_folder_that_vanishes_is_said_in_the_panel(panel):
    job = panel.sweep({"density": "0.5"})
    shutil.rmtree(panel.queue.folder)
    panel._later._view.refresh()
    assert "the queue&#x27;s folder is gone" in panel._later._view._said.value
    with pytest.raises(SweepError, match="folder is gone"):
        panel.queue.stop(job.id)
    panel.sweep({"density": "0.5"})
    assert len(titles(panel)) == 1


def test_jobs_are_stopped_done_again_and_removed_by_their_buttons(panel):
    one, other = panel.sweep({"density": "0.5"}), panel.sweep({"density": "0.6"})
    rows = panel._later._view._rows
    rows[other.id]._buttons["up"].click()
    assert [job.id for job in panel.queue.jobs] == [other.id, one.id]
    assert list(panel._later._view._rows) == [other.id, one.id]
    rows = panel._later._view._rows
    rows[one.id]._buttons["stop"].click()
    assert "stopped" in rows[one.id]._far.value
    rows[one.id]._buttons["again"].click()
    assert panel.queue.job(one.id).state == "waiting"
    rows[one.id]._buttons["stop"].click()
    panel._later._view._clear.click()
    change_job(panel.queue.job(other.id), state="running", share=0.5)  # as a runner leaves it that is killed
    panel._later._view.refresh()
    assert "interrupted" in panel._later._view._rows[other.id]._far.value
    assert panel._later._view._go_on.layout.display == ""
    assert list(panel._later._view._rows) == [other.id]


def test_what_cannot_be_done_later_is_said(make, monkeypatch):
    monkeypatch.setattr(wb.Queue, "start", lambda self: None)
    panel = make(gallery=None)
    panel._later.drawing.click()
    assert "keeps no pictures" in panel._merging._words.value
    panel.show(panel.state.with_input("models", []))
    panel._later.drawing.click()
    panel._later.exporting.click()
    assert "needs models" in panel._outcome._said.value
    panel.close()
