"""Sweeps on the workers of dask.distributed: two processes of a real LocalCluster, and what may happen to them."""

from __future__ import annotations

import os
import shutil
import signal

import pytest
import torch

import workbench as wb
from workbench.errors import SweepError
from workbench.places import DATA
from workbench.render import ClipScorer

distributed = pytest.importorskip("distributed")

DENSITIES = [0.2, 0.4, 0.6, 0.8, 0.9, 1.0]


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0") as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture(autouse=True)
def one_thread():
    """As many as dask's workers have: sums are split among threads, and end in other bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def asked(models, short):
    inputs = {"base": models["base"], "models": [models["heart"], models["moon"]]}
    return {"inputs": inputs, **short, "seeds": [0, 1], "score": ClipScorer(DATA / "shapes-clip")}


@pytest.fixture
def here(asked):
    return wb.sweep(wb.operators.ties, {"density": DENSITIES}, name="here", **asked)


def assert_same(one: wb.sweeps.Sweep, other: wb.sweeps.Sweep) -> None:
    """Pictures and scores, to the bit."""
    assert not one.problems
    assert not other.problems
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert [picture.tobytes() for picture in a.pictures] == [picture.tobytes() for picture in b.pictures]
        assert a.scores["clip"].tobytes() == b.scores["clip"].tobytes()


def test_two_workers_draw_what_one_process_draws_and_a_killed_one_loses_no_cell(client, here, asked):
    workers = client.run(os.getpid)
    assert len(set(workers.values())) == 2
    heard = []

    def kill(number, count, cell):
        heard.append(number)
        if len(heard) == 1:
            os.kill(next(iter(workers.values())), signal.SIGKILL)

    drawn = wb.sweep(wb.operators.ties, {"density": DENSITIES}, name="there", executor=client.get_executor(), on_cell=kill, **asked)
    assert drawn.drawn == len(DENSITIES)
    assert sorted(heard) == list(range(len(DENSITIES)))
    assert_same(here, drawn)


def test_a_worker_that_lacks_a_file_says_which_and_which_worker_it_is(client, models, asked, tmp_path):
    shutil.copy(DATA / "shapes-sd" / "heart.safetensors", tmp_path / "lacking.safetensors")
    lacking = wb.open(tmp_path / "lacking.safetensors")

    def make(weights):
        return wb.operators.task_arithmetic(models["base"], [lacking], weights=weights)

    def planned(number, count, cell):  # heard first of the cell that cannot be made, when all others are planned
        lacking.path.unlink(missing_ok=True)

    asked.pop("inputs")
    found = wb.sweep(make, {"weights": ["none", 1]}, executor=client.get_executor(), on_cell=planned, **asked)
    assert found[1].problem.startswith("worker on ")
    assert "process" in found[1].problem
    assert "lacking.safetensors" in found[1].problem
    assert found[1].pictures == []


def test_a_renderer_lives_once_in_a_worker(client, asked):
    def held():
        from workbench.sweeps import workers

        return {device: id(renderer) for device, (_, renderer) in workers._renderers.items()}

    executor = client.get_executor()
    wb.sweep(wb.operators.ties, {"density": [0.5, 0.6]}, executor=executor, **asked)
    before = client.run(held)
    others = asked | {"inputs": dict(zip(("first", "second"), asked["inputs"]["models"], strict=True))}
    assert not wb.sweep(wb.operators.slerp, {"t": [0.3, 0.4]}, executor=executor, **others).problems
    after = client.run(held)
    assert {device for renderers in after.values() for device in renderers} == {"cpu"}
    assert all(after[worker] == renderers for worker, renderers in before.items() if renderers)


def test_a_scheduler_that_goes_away_is_an_error_that_says_how_to_go_on(cluster, client, asked):
    def stop(number, count, cell):
        cluster.close()

    executor = client.get_executor()
    with pytest.raises(SweepError, match=r"gave up \d+ cells .*scheduler cannot be reached.*goes on where it stopped"):
        wb.sweep(wb.operators.ties, {"density": DENSITIES}, name="gone", executor=executor, on_cell=stop, **asked)
    with pytest.raises(SweepError, match="takes no work"):
        wb.sweep(wb.operators.ties, {"density": DENSITIES}, name="gone", executor=executor, **asked)
    again = wb.sweep(wb.operators.ties, {"density": DENSITIES}, name="gone", **asked)
    assert 0 < again.drawn < len(DENSITIES)
