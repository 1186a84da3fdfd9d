"""What is said where the workers of an executor cannot do what they are asked, and what they have in common in one process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import workbench as wb
from workbench.errors import SweepError
from workbench.render.spec import Spec
from workbench.sweeps import store, workers

# one that has imported what takes long, where that forks safely
PROCESSES = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
PROCESSES.set_forkserver_preload(["workbench.sweeps", "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion"])


@pytest.fixture
def nobody(monkeypatch):
    """As if this process had drawn nothing yet."""
    monkeypatch.setattr(workers, "_renderers", {})


def test_a_killed_process_breaks_its_pool_and_the_same_call_goes_on(make, short):
    with ProcessPoolExecutor(1, mp_context=PROCESSES) as pool:

        def kill(number, count, cell):
            os.kill(next(iter(pool._processes)), signal.SIGKILL)

        with pytest.raises(SweepError, match=r"a worker process ended .* \d cells before the end.*memory.*goes on where it stopped"):
            wb.sweep(make, {"weights": [0.1, 0.2, 0.3, 0.4]}, executor=pool, on_cell=kill, **short)
    again = wb.sweep(make, {"weights": [0.1, 0.2, 0.3, 0.4]}, **short)
    assert 0 < again.drawn < 4
    assert not again.problems


def test_an_executor_that_was_shut_down_is_named_and_what_is_drawn_stays(make, short):
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(
        SweepError, match=r"the executor takes no work \(RuntimeError: .*shutdown.*\): make a new one; what is drawn is kept"
    ):
        wb.sweep(make, {"weights": [0.5]}, executor=pool, **short)


@pytest.mark.usefixtures("nobody")
def test_cells_that_somebody_cancels_are_an_error_and_what_is_drawn_is_kept(make, short):
    with ThreadPoolExecutor(1) as pool, pytest.raises(SweepError, match=r"the executor gave up \d cells .* goes on where it stopped"):
        wb.sweep(
            make,
            {"weights": [0.1, 0.2, 0.3, 0.4]},
            executor=pool,
            on_cell=lambda *_: pool.shutdown(wait=False, cancel_futures=True),
            **short,
        )
    assert 0 < wb.sweep(make, {"weights": [0.1, 0.2, 0.3, 0.4]}, **short).drawn < 4


@pytest.mark.usefixtures("nobody")
def test_threads_of_one_process_share_one_renderer(make, short, monkeypatch):
    made = []
    monkeypatch.setattr(Spec, "make", lambda spec, own=Spec.make: made.append(threading.get_ident()) or own(spec))
    with ThreadPoolExecutor(3) as threads:
        found = wb.sweep(make, {"weights": [0.1, 0.2, 0.3, 0.4]}, executor=threads, **short)
    assert not found.problems
    assert len(made) == 1


@pytest.mark.usefixtures("nobody")
def test_another_renderer_takes_the_place_of_the_one_before_on_its_device(renderer):
    spec = Spec.of(renderer)
    first = workers._renderer_for(spec)
    assert workers._renderer_for(spec) is first
    second = workers._renderer_for(replace(spec, dtype="bfloat16"))
    assert second is not first
    assert [held for _, held in workers._renderers.values()] == [second]


@pytest.mark.usefixtures("nobody")
def test_a_worker_without_the_configs_says_which_and_who_it_is(make, short, renderer, monkeypatch, tmp_path):
    def elsewhere(found, of=Spec.of):
        told = of(found)
        return replace(told, configs=replace(told.configs, folder=tmp_path / "absent"))

    monkeypatch.setattr("workbench.sweeps.planning.Spec.of", elsewhere)
    monkeypatch.setattr("workbench.sweeps.jobs.Planner._identity", {"config": "", "device": "cpu", "dtype": "float32"})
    monkeypatch.setattr(Spec, "lender", lambda *_: None)
    with ThreadPoolExecutor(1) as threads:
        found = wb.sweep(make, {"weights": [0.5]}, executor=threads, **short)
    assert found[0].problem.startswith("worker on ")
    assert "absent" in found[0].problem


def test_a_worker_of_another_version_draws_nothing(make, short, monkeypatch):
    monkeypatch.setattr(workers, "draw_here", lambda job, wait, version, draw=workers.draw_here: draw(job, wait, "0.0.1"))
    with ThreadPoolExecutor(1) as threads, pytest.raises(SweepError, match=r"has Workbench .*, and the caller 0.0.1: install the same"):
        wb.sweep(make, {"weights": [0.5]}, executor=threads, **short)


def test_what_a_worker_drew_into_a_folder_of_its_own_is_not_taken_for_done(make, short, monkeypatch):
    monkeypatch.setattr(store, "_LATE", 0.0)
    monkeypatch.setattr(workers, "draw_here", lambda *_: workers.Outcome(drawn=True, where="node7, process 5"))
    with ThreadPoolExecutor(1) as threads:
        found = wb.sweep(make, {"weights": [0.5]}, executor=threads, **short)
    assert "the worker on node7, process 5 drew it, and it is not in" in found[0].problem
    assert "all machines share" in found[0].problem


def test_a_cell_that_a_shared_folder_shows_late_is_waited_for(make, short, monkeypatch):
    folder = wb.sweep(make, {"weights": [0.5]}, **short)[0].job.folder
    hidden = folder.rename(folder.with_name("hidden"))
    timer = threading.Timer(0.3, lambda: hidden.rename(folder))
    monkeypatch.setattr(workers, "draw_here", lambda *_: timer.start() or workers.Outcome(drawn=True, where="node7"))
    with ThreadPoolExecutor(1) as threads:
        found = wb.sweep(make, {"weights": [0.5]}, executor=threads, **short)
    timer.join()
    assert not found.problems


def test_a_store_of_another_version_is_refused_before_anything_is_drawn(make, short, renderer, tmp_path):
    found = wb.sweep(make, {"weights": [0.5]}, **short)
    mark = found.folder / "store.json"
    assert mark.read_text(encoding="utf-8") == '{"workbench_store": 1}'
    mark.write_text('{"workbench_store": 2}', encoding="utf-8")
    with pytest.raises(
        SweepError, match=r"sweep: is a store of version 2, and this Workbench reads version 1: .*choose another name= or folder="
    ):
        wb.sweep(make, {"weights": [0.6]}, **short)
    mark.write_text("{", encoding="utf-8")
    with pytest.raises(SweepError, match=r"store.json: does not say which version"):
        wb.sweep(make, {"weights": [0.6]}, **short)
    assert renderer.loads == 1
    mark.unlink()  # as of stores that were made before there was a mark
    assert wb.sweep(make, {"weights": [0.5]}, **short).drawn == 0
    assert not mark.exists()


def test_a_file_is_opened_from_wherever_a_worker_stands(short, monkeypatch, tmp_path):
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    model = wb.open("data/shapes-sd/heart.safetensors")
    job = wb.sweep(lambda: model, [{}], **short)[0].job
    monkeypatch.chdir(tmp_path)
    assert job.open()["first_stage_model.decoder.conv_in.bias"].equal(model["first_stage_model.decoder.conv_in.bias"])
