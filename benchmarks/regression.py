"""Measures `regmean` at the pairs and triples of the SD models, beside averaging and adding; of LoRAs (SSR) beside their sum.

python -m benchmarks.regression [--rank 16]

What the layers are given, and the choice of alpha, is of one set of prompts and seeds; what is reported of another (see `method_tasks`).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

import workbench as wb
from benchmarks.method_tasks import BASE, CHOOSING, REPORTING, TASKS, prompts
from benchmarks.methods import Comparison
from workbench.checkpoint import Checkpoint
from workbench.operators import add_delta, task_arithmetic, weighted_average

_ALPHAS = (0.9, 0.5, 0.99)  # the default first


def merges(work: Comparison, rank: int) -> Mapping[str, list[Checkpoint]]:
    """What is compared at a task; of several the best by CLIP score on the prompts for choosing is reported."""
    base = work.models[BASE]
    models = [work.models[name] for name in work.task.models]
    asked = prompts(work.task, CHOOSING["start"], CHOOSING["count"])
    own = [[prompt for prompt, (skill, _) in asked.items() if skill == name] for name in work.task.models]
    drawn = {"renderer": work.renderer, "seeds": CHOOSING["seeds"], "steps": work.task.steps, "guidance": 3.0, "progress": False}
    loras = [wb.lora.extract(model, base, rank=rank, progress=False) for model in models]
    return {
        "averaging": [weighted_average(models)],
        "adding": [task_arithmetic(base, models)],
        "regmean": [wb.regmean(base, models, own, **drawn, alpha=alpha) for alpha in _ALPHAS],
        "sum of LoRAs": [add_delta(base, loras)],
        "regmean of LoRAs": [add_delta(base, [wb.regmean(base, loras, own, **drawn)])],
    }


def told(work: Comparison, several: list[Checkpoint]) -> str:
    """Per cent of pictures that are right, and its deviation between seeds."""
    scores = [work._drawn(one, **CHOOSING)[0]["clip"] for one in several] if len(several) > 1 else [0.0]
    best = scores.index(max(scores))
    row, _ = work._drawn(several[best], **REPORTING)
    alpha = f" (alpha {_ALPHAS[best]})" if len(several) > 1 else ""
    return f"{100 * row['score']:.0f} ± {100 * row['spread']:.0f}{alpha}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=int, default=16, help="of the LoRAs that are extracted from the models")
    rank = parser.parse_args().rank
    torch.set_num_threads(1)  # the models are small, and more threads mostly wait for each other
    tasks = [task for task in TASKS if task.folder == "shapes-sd"]
    rows: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks:
            work = Comparison(task, Path(folder))
            for name, several in merges(work, rank).items():
                rows.setdefault(name, []).append(told(work, several))
                print(f"{task.name}: {name}: {rows[name][-1]}", flush=True)
    print(f"| merge | {' | '.join(task.name for task in tasks)} |\n| --- |{' --- |' * len(tasks)}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
