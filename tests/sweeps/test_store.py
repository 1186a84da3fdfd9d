"""A sweep goes on where it stopped: after another call, a kill, another kernel, a full disk, a damaged file."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
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
_SCRIPT = """
import sys, workbench as wb
base, heart, moon = (wb.open(f"data/shapes-sd/{name}.safetensors") for name in ("base", "heart", "moon"))
make = lambda weights: wb.operators.task_arithmetic(base, [heart, moon], weights=weights)
asked = {"prompts": "a red heart", "steps": int(sys.argv[2]), "folder": sys.argv[1], "score": [], "progress": False}
found = wb.sweep(make, {"weights": [i / 20 for i in range(8)]}, **asked)
print(found.drawn, len(found.problems))
"""


_HOLDER = """
import sys, time
from pathlib import Path
from workbench.sweeps.store import claimed
with claimed(Path(sys.argv[1]), wait=False) as mine:
    print(mine, flush=True)
    time.sleep(300)
"""


def run(folder: Path, steps: int = 1) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", _SCRIPT, str(folder), str(steps)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def cells(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob("sweep/*/cell.json")}


def test_a_killed_sweep_goes_on_where_it_stopped_and_draws_nothing_twice(tmp_path):
    first = run(tmp_path, steps=10)
    deadline = time.monotonic() + 300
    while len(cells(tmp_path)) < 2 and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    done = cells(tmp_path)
    assert 2 <= len(done) < 8
    second = run(tmp_path, steps=10)
    printed, _ = second.communicate(timeout=300)
    assert printed.split() == [str(8 - len(done)), "0"]
    after = cells(tmp_path)
    assert len(after) == 8
    assert all(after[path] == written for path, written in done.items())


def test_two_processes_share_a_store_and_draw_each_cell_once(tmp_path):
    both = [run(tmp_path, steps=10), run(tmp_path, steps=10)]
    printed = [process.communicate(timeout=300)[0].split() for process in both]
    assert sum(int(drawn) for drawn, _ in printed) == 8
    assert [problems for _, problems in printed] == ["0", "0"]


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


def test_the_key_of_a_sweep_is_what_it_was_in_the_first_release(make):
    merge = make(weights={"ramp": {"start": [1, 0], "end": [0, 1]}}, rules=[{"component": "vae", "take": "base"}])
    planner = Planner(requests(["a red heart"], [0, 1], steps=4, guidance=5.0), SimpleNamespace(identity={"device": "cpu"}), Path())
    key = planner._key(merge.recipe, [["one"], ["two"], ["three"]], [])
    assert key == "75497b90a0693201e2aa2b32"  # else people's sweeps are drawn anew: if that is meant, raise _KEY_VERSION


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
