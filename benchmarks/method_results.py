"""What the comparison of methods comes to: the one file of numbers that the package keeps. How they are measured is in `methods`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.method_tasks import BASE, CHOOSING, REPORTING, Task, prompts
from workbench.analysis.measures import measures
from workbench.checkpoint.files.writing import replacing
from workbench.operators import own

RESULT = Path("workbench/analysis/methods.json")


def write(result: Path, folder: Path, tasks: Sequence[Task]) -> None:
    """Write what is in the folder of each task as one file; a task whose average is not there yet is left out."""
    there = [task for task in tasks if (folder / task.name / "weighted_average.json").exists()]
    asked = {"choosing": CHOOSING, "reporting": REPORTING}
    told: dict[str, Any] = {"asked": asked, "tasks": {task.name: _task(task, folder / task.name) for task in there}}
    alike = [task for task in there if told["tasks"][task.name]["measures"]["predictions"] == 1]  # other merges may draw noise
    told["apart"] = _apart([folder / task.name for task in alike])
    with replacing(result) as temporary:
        temporary.write_text(_lines(told), encoding="utf-8")
    print(f"written {result}: " + ", ".join(f"{name} ({len(one['methods'])} methods)" for name, one in told["tasks"].items()))


def _task(task: Task, folder: Path) -> dict[str, Any]:
    models = task.checkpoints()
    base = models.pop(BASE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what a U-Net alone lacks
        found = measures(base, list(models.values()), progress=False)
    methods = {name: json.loads(path.read_text(encoding="utf-8")) for name in own() if (path := folder / f"{name}.json").exists()}
    return {
        "models": list(task.models),
        "pictures": len(prompts(task, REPORTING["start"], REPORTING["count"])) * len(REPORTING["seeds"]),
        "steps": task.steps,
        "measures": found,
        "alone": json.loads((folder / "alone.json").read_text(encoding="utf-8")),
        "methods": methods,
    }


def _apart(folders: Sequence[Path]) -> dict[str, Any]:
    """Distances of the pictures of every two methods (root mean square), the mean over tasks that have both: the lower triangle."""
    names = [name for name in own() if any((folder / f"{name}.npy").exists() for folder in folders)]
    sums, counts = np.zeros((len(names),) * 2), np.zeros((len(names),) * 2)
    for folder in folders:
        pictures = {number: np.load(path) for number, name in enumerate(names) if (path := folder / f"{name}.npy").exists()}
        for one, first in pictures.items():
            for other, second in pictures.items():
                sums[one, other] += np.sqrt(np.mean((first - second) ** 2))
                counts[one, other] += 1
    means = [[round(sums[i, j] / counts[i, j], 4) if counts[i, j] else None for j in range(i)] for i in range(len(names))]
    return {"methods": names, "below": means}


def _lines(told: Mapping[str, Any]) -> str:
    """JSON with a line for each method of each task, so that a difference can be read."""
    text = json.dumps(told)
    for name in (*told["tasks"], *own()):
        text = text.replace(f'"{name}": {{', f'\n"{name}": {{')
    return text + "\n"
