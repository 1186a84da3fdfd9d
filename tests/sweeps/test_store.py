"""A sweep goes on where it stopped: after another call, a kill, another kernel, a full disk, a damaged file."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import workbench as wb
from workbench.errors import SweepError
from workbench.render.request import requests
from workbench.sweeps.jobs import Planner
from workbench.sweeps.store import claimed, keep, kept

ROOT = Path(__file__).resolve().parents[2]
# processes of their own, which come from one that has imported what takes long, where that forks safely
PROCESSES = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
PROCESSES.set_forkserver_preload(["workbench.sweeps", "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion"])


_HOLDER = """
import sys, time
from pathlib import Path
from workbench.sweeps.store import claimed
with claimed(Path(sys.argv[1]), wait=False) as mine:
    print(mine, flush=True)
    time.sleep(300)
"""


def draw(folder: Path, tells: Connection) -> None:
    """Draw a sweep of eight cells; how many were drawn here and how many failed."""
    base, heart, moon = (wb.open(ROOT / "data" / "shapes-sd" / f"{name}.safetensors") for name in ("base", "heart", "moon"))

    def make(weights: float) -> wb.Merge:
        return wb.operators.task_arithmetic(base, [heart, moon], weights=weights)

    asked = {"prompts": "a red heart", "steps": 5, "folder": folder, "score": [], "progress": False}
    found = wb.sweep(make, {"weights": [i / 20 for i in range(8)]}, **asked)
    tells.send((found.drawn, len(found.problems)))


def start(folder: Path) -> tuple[BaseProcess, Connection]:
    """A process that draws it, and where it tells."""
    here, there = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=draw, args=(folder, there))
    process.start()
    there.close()
    return process, here


def told(started: tuple[BaseProcess, Connection]) -> tuple[int, int]:
    process, here = started
    with here:
        assert here.poll(300)
        answer = here.recv()
    process.join()
    return answer


def cells(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob("sweep/*/cell.json")}


def test_a_killed_sweep_goes_on_where_it_stopped_and_draws_nothing_twice(tmp_path):
    first, hears = start(tmp_path)
    deadline = time.monotonic() + 300
    while len(cells(tmp_path)) < 2 and first.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    first.kill()
    first.join()
    hears.close()
    done = cells(tmp_path)
    assert 2 <= len(done) < 8
    assert told(start(tmp_path)) == (8 - len(done), 0)
    after = cells(tmp_path)
    assert len(after) == 8
    assert all(after[path] == written for path, written in done.items())


def test_two_processes_share_a_store_and_draw_each_cell_once(tmp_path):
    both = [told(started) for started in [start(tmp_path), start(tmp_path)]]
    assert sum(drawn for drawn, _ in both) == 8
    assert [problems for _, problems in both] == [0, 0]


def test_the_same_sweep_again_draws_nothing(make, short, renderer):
    wb.sweep(make, {"weights": [0, 1]}, **short)
    again = wb.sweep(make, {"weights": [1, 0]}, **short)
    assert (again.drawn, renderer.loads) == (0, 2)


@pytest.mark.parametrize(
    "change", [{"prompts": "another"}, {"seeds": 1}, {"steps": 2}, {"guidance": 1}, {"sampler": "Euler"}, {"negative": "x"}]
)
def test_everything_asked_of_the_renderer_makes_other_pictures(make, short, renderer, change):
    wb.sweep(make, {"weights": [1]}, **short)
    assert wb.sweep(make, {"weights": [1]}, **short | change).drawn == 1


def test_a_file_that_changed_makes_other_pictures_and_one_that_moved_does_not(short, tmp_path):
    def swept(name: str, folder: str) -> int:
        target = tmp_path / folder / "model.safetensors"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((ROOT / "data" / "shapes-sd" / f"{name}.safetensors").read_bytes())
        model = wb.open(target)
        sweep = wb.sweep(lambda: wb.operators.weighted_average([model]), [{}], **short)
        assert not sweep.problems
        return sweep.drawn

    assert [swept("heart", "a"), swept("heart", "b"), swept("moon", "a")] == [1, 0, 1]


def test_a_release_draws_nothing_anew_and_a_raised_key_everything(make, short, monkeypatch):
    wb.sweep(make, {"weights": [1]}, **short)
    monkeypatch.setattr(wb, "__version__", "99.0")
    assert wb.sweep(make, {"weights": [1]}, **short).drawn == 0
    monkeypatch.setattr("workbench.sweeps.jobs._KEY_VERSION", 99)
    assert wb.sweep(make, {"weights": [1]}, **short).drawn == 1


def test_the_key_of_a_sweep_is_what_it_was(make):
    merge = make(weights={"ramp": {"start": [1, 0], "end": [0, 1]}}, rules=[{"component": "vae", "take": "base"}])
    planner = Planner(requests(["a red heart"], [0, 1], steps=4, guidance=5.0), SimpleNamespace(identity={"device": "cpu"}), Path())
    key = planner._key(merge.recipe, [["one"], ["two"], ["three"]], [], [])
    assert key == "ca9a2eda5fc123d8383c2d6e"  # else people's sweeps are drawn anew: if that is meant, raise _KEY_VERSION


def test_a_claim_is_one_caller_s_until_it_ends_however_it_ended(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", _HOLDER, str(tmp_path / "cell")], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline().strip() == "True"
    with claimed(tmp_path / "cell", wait=False) as mine:
        assert not mine
    holder.kill()
    holder.communicate()
    with claimed(tmp_path / "cell", wait=True) as mine:
        assert mine
    with claimed(tmp_path / "cell", wait=False) as again:
        assert again


def test_a_damaged_cell_is_drawn_again(make, short):
    sweep = wb.sweep(make, {"weights": [0, 0.5, 1]}, **short)
    folders = [cell.job.folder for cell in sweep]
    (folders[0] / "cell.json").write_text('{"secon')
    (folders[1] / "0000.png").unlink()
    with pytest.raises(SweepError, match=r"0000.png: the picture cannot be read .*run the sweep again"):
        sweep[1].pictures[0]
    assert wb.sweep(make, {"weights": [0, 0.5, 1]}, **short).drawn == 2


def test_a_full_disk_is_said_and_leaves_nothing_half_written(make, short, tmp_path, monkeypatch):
    wb.sweep(make, {"weights": [0]}, **short)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(SweepError, match=r"cannot be written \(No space left on device\); mend that, and the same call goes on"):
            wb.sweep(make, {"weights": [0, 1]}, **short)
    assert not list((tmp_path / "sweeps").rglob("*.tmp"))
    assert wb.sweep(make, {"weights": [0, 1]}, **short).drawn == 1


def test_a_store_that_cannot_be_made_is_named(make, short, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SweepError, match="file/sweep: cannot be written"):
        wb.sweep(make, {"weights": [0]}, **short | {"folder": tmp_path / "file"})


def test_what_another_kernel_draws_is_left_to_it_and_waited_for_at_the_end(make, short):
    busy, free = (cell.job.folder / "cell.json" for cell in wb.sweep(make, {"weights": [0, 1]}, **short))
    told = busy.read_text()
    busy.unlink()
    free.unlink()
    begun = threading.Event()

    def elsewhere() -> None:
        with claimed(busy.parent, wait=True):
            begun.set()
            while not free.exists():
                time.sleep(0.01)
            busy.write_text(told)

    other = threading.Thread(target=elsewhere)
    other.start()
    begun.wait()
    found = wb.sweep(make, {"weights": [0, 1]}, **short)
    other.join()
    assert found.drawn == 1
    assert not found.problems


def test_a_cell_is_there_only_when_all_of_it_is(tmp_path):
    picture = Image.new("RGB", (4, 4))
    folder = tmp_path / "cell"
    folder.mkdir()
    told = {"components": {}, "seconds": 1.0}
    keep(folder, [picture], told)
    assert kept(folder, 1) == told
    assert kept(folder, 2) is None
    (folder / "0000.png").write_bytes(b"")
    assert kept(folder, 1) is None


@pytest.mark.parametrize("damage", ["cut short", "a bit flipped", "another kind of file", "nothing"])
def test_a_damaged_picture_is_drawn_again_by_the_same_call_and_costs_one_cell(make, short, damage):
    first = wb.sweep(make, {"weights": [0, 1]}, **short)
    picture = first[0].job.folder / "0000.png"
    content = bytearray(picture.read_bytes())
    if damage == "a bit flipped":
        content[len(content) // 2] ^= 1
    picture.write_bytes({"cut short": content[:-40], "another kind of file": b"GIF89a", "nothing": b""}.get(damage, content))
    again = wb.sweep(make, {"weights": [0, 1]}, **short)
    assert (again.drawn, again.problems) == (1, first.problems)
    assert [image.tobytes() for image in again[0].pictures] != []
    assert wb.sweep(make, {"weights": [0, 1]}, **short).drawn == 0
