"""How much faster two workers of dask draw a sweep than one, and what each cell costs beside drawing.

python -m benchmarks.scaling [--cells 40] [--goes 2] [--folder out/benchmarks]

Workers are processes with one thread each, and warm: each has drawn a cell before. One and two take turns (1 2 2 1 ...).
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Executor, wait
from pathlib import Path
from typing import Any

import dask
import numpy as np
import torch
from distributed import Client, LocalCluster

import workbench as wb
from benchmarks.arguments import asked
from workbench.render import ClipScorer
from workbench.render.request import requests
from workbench.render.spec import Spec
from workbench.sweeps import Sweep
from workbench.sweeps.jobs import Planner
from workbench.sweeps.store import StoredPictures, keep, kept

_NOTHING = 1000  # tasks that do nothing, of which the mean is taken
_PROMPTS = ["a red heart on a white background", "a yellow moon on a black background"]
_DRAWN: dict[str, Any] = {"prompts": _PROMPTS, "seeds": range(4), "steps": 25}


def swept(densities: np.ndarray, name: str, folder: Path, executor: Executor | None = None) -> tuple[float, Sweep]:
    """Seconds of a sweep that draws everything, scores included, and what came of it."""
    shutil.rmtree(folder / name, ignore_errors=True)
    began = time.monotonic()
    found = wb.sweep(wb.operators.ties, {"density": densities}, **_given(folder), name=name, executor=executor, progress=False)
    assert found.drawn == len(densities)
    assert not found.problems
    return time.monotonic() - began, found


def speedups(client: Client, densities: np.ndarray, goes: int, folder: Path) -> list[float]:
    """How many times as fast two workers were, in each pair of runs."""
    first = next(iter(client.scheduler_info()["workers"]))
    executors = {1: client.get_executor(workers=[first]), 2: client.get_executor()}
    for worker in client.scheduler_info()["workers"]:
        swept(densities[:1] / 2, "warm", folder, client.get_executor(workers=[worker]))
    found = []
    for go in range(goes):
        seconds = {}
        for count in (1, 2) if go % 2 == 0 else (2, 1):
            seconds[count], drawn = swept(densities, f"{count} workers", folder, executors[count])
            each = [cell.seconds for cell in drawn]
            print(
                f"{count} worker(s): {seconds[count]:6.1f} s; a cell {np.median(each):.2f} s (median), {min(each):.2f} s (least)",
                flush=True,
            )
        found.append(seconds[1] / seconds[2])
    return found


def beside(client: Client, drawn: Sweep, folder: Path) -> dict[str, float]:
    """Milliseconds of what a cell costs beside drawing: each alone, warm, on one thread."""
    executor, cell = client.get_executor(), drawn[0]
    planner = Planner(requests(**_DRAWN), Spec.of(wb.Renderer("data/shapes-sd/config")), folder)
    merge = cell.job.open()
    images = list(StoredPictures(cell.job.folder, cell.job.count))
    prompts = [prompt for request in cell.job.requests for prompt, _ in request.pictures]
    told = {"components": {}, "seconds": 0.0}
    scorer = ClipScorer("data/shapes-clip")
    wait([executor.submit(os.getpid) for _ in range(_NOTHING)])
    each = {
        "a task of the scheduler": _timed(lambda: wait([executor.submit(os.getpid) for _ in range(_NOTHING)]), 3) / _NOTHING,
        "planning": _timed(lambda: planner.job(merge), 20),
        "writing 8 pictures": _timed(lambda: keep(folder / "kept", images, told), 20),
        "finding them whole": _timed(lambda: kept(folder / "kept", len(images)), 20),
        "scoring them": _timed(lambda: scorer(images, prompts), 20),
        "merging, to read every tensor": _timed(lambda: [merge.read(key) for key in merge], 5),
    }
    return {name: 1000 * seconds for name, seconds in each.items()}


def _timed(work: Callable[[], object], times: int) -> float:
    """Seconds of one, the median of so many, after one that does not count."""
    work()
    seconds = []
    for _ in range(times):
        began = time.monotonic()
        work()
        seconds.append(time.monotonic() - began)
    return float(np.median(seconds))


def _given(folder: Path) -> dict[str, Any]:
    base, heart, moon = (wb.open(f"data/shapes-sd/{name}.safetensors") for name in ("base", "heart", "moon"))
    return {"inputs": {"base": base, "models": [heart, moon]}, "folder": folder, **_DRAWN}


def main() -> None:
    given = asked(__doc__, cells=40, goes=2)
    torch.set_num_threads(1)
    densities, folder = np.linspace(0.05, 1, given.cells), given.folder / "scaling"
    dask.config.set({"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None})  # docs/scaling.md, "Memory that is given back"
    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0") as cluster, Client(cluster) as client:
        found = speedups(client, densities, given.goes, folder)
        _, drawn = swept(densities[:1], "beside", folder, client.get_executor())
        for name, milliseconds in beside(client, drawn, folder).items():
            print(f"{name}: {milliseconds:.2f} ms")
    print(f"two workers were {', '.join(f'{one:.2f}' for one in found)} times as fast as one (median {np.median(found):.2f})")


if __name__ == "__main__":
    main()
