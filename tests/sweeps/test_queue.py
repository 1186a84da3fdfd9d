"""The queue: jobs on disk, worked off one after another by a process of its own, whatever becomes of that."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from held import Held
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import workbench as wb
from workbench.cli import app
from workbench.errors import InputError, RecipeError, SweepError
from workbench.render.request import Request
from workbench.sweeps import Queue
from workbench.sweeps.picture_store import PictureStore
from workbench.sweeps.queue_folder import QueueFolder
from workbench.sweeps.queue_runner import work_off
from workbench.sweeps.queue_work import block_map_of

PROMPT = "a red heart on a white background"
FAMILY = Path(__file__).resolve().parents[2] / "data" / "shapes-sd"


@pytest.fixture
def queue(tmp_path):
    """Jobs that nobody works off until a test does."""
    return Queue(tmp_path / "queue", run=False)


@pytest.fixture
def plain_renderer():
    return wb.Renderer(FAMILY / "config")


@pytest.fixture
def asked(tmp_path):
    """What sweeps and block maps of these tests ask for."""
    return {"prompts": PROMPT, "seeds": [0], "steps": 1, "folder": tmp_path / "sweeps"}


@pytest.fixture
def tuned(models, tmp_path):
    """The base with another middle block: a map of all its blocks would draw some fifty cells."""
    middle = "model.diffusion_model.middle_block.0.in_layers.2.weight"
    save_file(load_file(models["base"].path) | {middle: models["heart"][middle]}, tmp_path / "tuned.safetensors", {"format": "pt"})
    return wb.open(tmp_path / "tuned.safetensors")


@pytest.fixture
def copied(tmp_path):
    """Two models that a test may change."""
    for name in ("base", "heart"):
        shutil.copy(FAMILY / f"{name}.safetensors", tmp_path)
    return [wb.open(tmp_path / f"{name}.safetensors") for name in ("base", "heart")]


def test_a_queue_that_has_no_folder_yet_is_empty_and_makes_none(queue):
    assert queue.jobs == ()
    assert not queue.running
    assert not queue.folder.exists()
    assert "none" in repr(queue)


def test_drawing_exporting_and_sweeping_are_done_in_order_and_told(queue, make, models, asked, tmp_path):
    merge = make(weights=0.5)
    gallery, file = tmp_path / "gallery", tmp_path / "later.safetensors"
    queue.draw(merge, Request.of([PROMPT, "a yellow moon on a black background"], [0, 1], steps=1), gallery=gallery)
    queue.export(merge, file)
    swept = queue.sweep(make, {"weights": [0.0, 1.0]}, axes=["weights", "seed"], **asked | {"seeds": [0, 3]})
    assert [job.state for job in queue.jobs] == ["waiting"] * 3
    assert work_off(queue.folder) == 3
    assert [(job.state, job.share) for job in queue.jobs] == [("done", 1.0)] * 3, queue.jobs
    kept = PictureStore(gallery).find()
    assert sorted((one.prompt, one.seed) for one in kept) == sorted(
        (p, s) for p in (PROMPT, "a yellow moon on a black background") for s in (0, 1)
    )
    assert kept[0].method == "task_arithmetic"
    assert all(torch.equal(wb.open(file)[key], merge[key]) for key in list(merge)[::40])
    found = queue.job(swept.id).results
    assert sorted(found, key=int) == ["0", "1", "2", "3"]
    assert {len(one["scores"]["clip"]) for one in found.values()} == {1}
    by_hand = wb.sweep(make, {"weights": [1.0]}, **asked | {"seeds": [3]}, progress=False, score=[], name="sweep")
    assert by_hand.drawn == 0, "what the queue drew is drawn again"
    assert Path(found["3"]["folder"]) == by_hand[0].job.folder
    assert "3 done" in repr(queue)
    assert "later.safetensors" in queue._repr_html_()


def test_a_block_map_comes_back_from_the_disk(queue, models, tuned, asked, tmp_path):
    job = queue.block_map(models["base"], tuned, **asked)
    work_off(queue.folder)
    found = block_map_of(queue.job(job.id))
    direct = wb.block_map(models["base"], tuned, progress=False, **asked)
    assert direct.sweep.drawn == 0
    assert found.headline == direct.headline
    assert found.frame().equals(direct.frame())
    with pytest.raises(SweepError, match="has found nothing yet"):
        block_map_of(queue.export(models["base"], tmp_path / "other.safetensors"))


def test_a_cell_that_cannot_be_made_says_so_and_the_others_are_drawn(queue, make, asked):
    job = queue.sweep(make, {"weights": [0.5, "x"]}, **asked)
    work_off(queue.folder)
    done = queue.job(job.id)
    assert done.state == "done"
    assert "1 with problems: task_arithmetic: weights must be a number" in done.message
    assert done.results["1"]["folder"] == ""


def test_what_cannot_be_queued_is_said_before_anything_is_written(queue, models, asked, tmp_path, renderer):
    memory = wb.operators.weighted_average([models["base"], Held(dict(models["heart"]))])
    with pytest.raises(RecipeError, match="lies in no file"):
        queue.export(memory, tmp_path / "a.safetensors")
    with pytest.raises(SweepError, match=r"none of the 1 cells can be made.* lies in no file"):
        queue.sweep(lambda: memory, {}, **asked)
    with pytest.raises(SweepError, match=r"only a plain wb\.Renderer"):
        queue.draw(models["base"], Request.of(PROMPT, 0), renderer=renderer)
    with pytest.raises(SweepError, match="1,001 cells: at most 1,000"):
        queue.sweep(lambda n: models["base"], {"n": list(range(1001))}, **asked)
    with pytest.raises(SweepError, match="1,001 cells: at most 1,000"):
        queue.sweep(lambda: models["base"], {}, axes=["seed"], **asked | {"seeds": range(1001)})
    (tmp_path / "there.safetensors").touch()
    with pytest.raises(InputError, match="is there already"):
        queue.export(models["base"], tmp_path / "there.safetensors")
    assert not queue.folder.exists()


def test_two_exports_to_one_file_are_not_queued(queue, models, tmp_path):
    queue.export(models["base"], tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"is what 'export a\.safetensors' writes already"):
        queue.export(models["heart"], tmp_path / "a.safetensors")


def test_a_file_that_appears_meanwhile_is_not_overwritten(queue, models, tmp_path):
    job = queue.export(models["base"], tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_text("mine")
    work_off(queue.folder)
    assert queue.job(job.id).state == "failed"
    assert "a.safetensors" in queue.job(job.id).message
    assert (tmp_path / "a.safetensors").read_text() == "mine"


def test_files_that_changed_or_went_are_told_on_the_job_and_the_next_is_done(queue, copied, models, tmp_path):
    base, heart = copied
    changed, gone = queue.export(base, tmp_path / "1.safetensors"), queue.export(heart, tmp_path / "2.safetensors")
    fine = queue.export(models["moon"], tmp_path / "3.safetensors")
    os.utime(base.path, (1, 1))
    heart.path.unlink()
    assert work_off(queue.folder) == 3
    assert "base.safetensors: has changed since this was queued" in queue.job(changed.id).message
    assert "heart.safetensors: is gone since this was queued" in queue.job(gone.id).message
    assert [queue.job(one.id).state for one in (changed, gone, fine)] == ["failed", "failed", "done"]
    queue.again(changed.id)
    assert queue.job(changed.id).state == "waiting"


def test_a_full_disk_is_told_on_the_job(queue, make, asked, monkeypatch):
    from workbench.sweeps import store

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    job = queue.sweep(make, {"weights": [0.5]}, **asked)
    monkeypatch.setattr(store, "picture_at", full)
    work_off(queue.folder)
    assert queue.job(job.id).state == "failed"
    assert "No space left on device" in queue.job(job.id).message


def test_jobs_are_stopped_moved_up_removed_and_done_again(queue, models, tmp_path):
    first, second, third = (queue.export(models["base"], tmp_path / f"{number}.safetensors") for number in range(3))
    queue.up(third.id)
    assert [job.id for job in queue.jobs] == [first.id, third.id, second.id]
    queue.up(first.id)
    assert queue.stop(third.id).state == "stopped"
    queue.remove(second.id)
    assert work_off(queue.folder) == 1
    assert [path.name for path in sorted(tmp_path.glob("*.safetensors"))] == ["0.safetensors"]
    queue.again(third.id)
    assert work_off(queue.folder) == 1
    assert (tmp_path / "2.safetensors").exists()
    queue.clear()
    assert queue.jobs == ()
    with pytest.raises(SweepError, match="there is no job"):
        queue.stop(first.id)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the interrupt may come anywhere, also within a library
def test_a_job_that_runs_is_stopped_and_what_it_drew_is_kept(queue, models, asked):
    job = queue.sweep(lambda: models["base"], {}, axes=["seed"], **asked | {"seeds": range(1000)})

    def stop():
        while not queue.job(job.id).results:
            time.sleep(0.05)
        with pytest.raises(SweepError, match="runs; stop it first"):
            queue.remove(job.id)
        queue.stop(job.id)

    stopping = threading.Thread(target=stop)
    stopping.start()
    assert work_off(queue.folder) == 1
    stopping.join()
    stopped = queue.job(job.id)
    assert (stopped.state, stopped.message) == ("stopped", "stopped")
    assert 0 < stopped.share < 1
    assert len(list(asked["folder"].glob("*/*/0000.png"))) >= len(stopped.results) > 0


def test_a_damaged_job_is_told_and_can_be_removed(queue, models, tmp_path):
    job = queue.export(models["base"], tmp_path / "a.safetensors")
    (job.folder / "job.json").write_text("{")
    (found,) = queue.jobs
    assert found.state == "failed"
    assert "cannot be read" in found.message
    assert work_off(queue.folder) == 0
    queue.remove(found.id)
    assert queue.jobs == ()


def test_a_folder_that_vanishes_is_said(queue, models, tmp_path):
    job = queue.export(models["base"], tmp_path / "a.safetensors")
    shutil.rmtree(queue.folder)
    assert queue.jobs == ()
    with pytest.raises(SweepError, match="the queue's folder is gone, and its jobs with it"):
        queue.stop(job.id)
    (tmp_path / "file").touch()
    with pytest.raises(SweepError, match="the queue cannot be written"):
        Queue(tmp_path / "file" / "queue").export(models["base"], tmp_path / "a.safetensors")


def test_a_runner_that_was_killed_is_seen_and_the_next_goes_on(tmp_path, models, asked):
    queue = Queue(tmp_path / "queue")
    job = queue.sweep(lambda: models["base"], {}, axes=["seed"], **asked | {"seeds": range(40)})
    _until(lambda: queue.job(job.id).results)
    assert queue.running
    assert work_off(queue.folder) is None, "two runners at once"
    os.kill(queue._folder.runner, signal.SIGKILL)
    _until(lambda: not queue.running)
    interrupted = queue.job(job.id)
    assert interrupted.state == "running", "nobody was there to say more"
    assert "-9" in queue.problem
    drawn = len(list(asked["folder"].glob("*/*/cell.json")))
    assert drawn > 0
    assert work_off(queue.folder) == 1
    assert queue.job(job.id).state == "done"
    assert queue.job(job.id).message == f"40 cells, {40 - drawn} drawn now"
    assert queue.problem == ""


def test_a_job_that_somebody_wanted_to_stop_before_its_runner_was_killed_does_not_go_on(tmp_path):
    folder = QueueFolder(tmp_path / "queue")
    job = folder.add("draw", "a picture", {})
    folder.change(job.id, lambda _: {"state": "running", "stopping": True})
    assert work_off(folder.path) == 0
    assert (folder.job(job.id).state, folder.job(job.id).message) == ("stopped", "stopped")


def test_the_command_lists_and_works_off(queue, models, tmp_path):
    queue.export(models["base"], tmp_path / "a.safetensors")
    listed = CliRunner().invoke(app, ["queue", str(queue.folder), "--list"]).output
    assert "waiting" in listed
    assert "export a.safetensors" in listed
    assert not (tmp_path / "a.safetensors").exists()
    assert CliRunner().invoke(app, ["queue", str(queue.folder)]).output == "1 done; nothing waits any more\n"
    assert (tmp_path / "a.safetensors").exists()


def _until(true):
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)
