"""Compares all methods at the same pairs and triples of the embedded models, and writes what was measured into the package.

python -m benchmarks.methods [--workers 2] [--quick] [--folder out/benchmarks/methods] [--result workbench/analysis/methods.json]

Options are chosen with one set of prompts and seeds, and what they come to is reported with another. Each method's numbers are kept
in the folder as soon as there are some: the same command goes on where it stopped. What is compared is in `method_tasks` and
`method_options`, what the numbers come to in `method_results`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import method_results
from benchmarks.method_costs import against
from benchmarks.method_options import Options, tried
from benchmarks.method_tasks import BASE, CHOOSING, REPORTING, TASKS, Task, prompts
from workbench.checkpoint import Checkpoint
from workbench.checkpoint.files.writing import replacing
from workbench.demo.captions import Subject
from workbench.demo.judge import Judge
from workbench.errors import InputError, MergeError, OptionError
from workbench.operators import own
from workbench.places import DATA
from workbench.render import ClipScorer, Renderer, ab_grid
from workbench.render.scorers import spread
from workbench.sweeps.by_method import by_method

AVERAGE = "weighted_average"
TIMED = TASKS[0]  # where time and memory are measured, once for each method
QUICK_METHODS = (AVERAGE, "task_arithmetic", "slerp")
_CLIP = DATA / "shapes-clip"
_GUIDANCE = 3.0
EQUAL = 1.0  # CLIP score that options may be below the best ones: with so few pictures it is chance, and the default is to be preferred
_SEEN = ("shape", "colour", "style")  # what must be as asked for a picture to be right


@dataclass
class Comparison:
    """A task at work: draws, scores and keeps what a method gives."""

    task: Task
    folder: Path
    quick: bool = False
    pictures: dict[str, np.ndarray] = field(default_factory=dict)  # of each model alone

    @cached_property
    def models(self) -> dict[str, Checkpoint]:
        """The base first, then the models."""
        return self.task.checkpoints()

    @cached_property
    def renderer(self) -> Renderer:
        """With the base's components where a model is a U-Net alone."""
        return Renderer(DATA / self.task.folder / "config", fallback=self.models[BASE], device="cpu")

    def alone(self, name: str) -> dict[str, Any]:
        """What a model draws by itself."""
        row, self.pictures[name] = self.drawn(self.models[name], **REPORTING)
        return row

    def method(self, name: str) -> dict[str, Any]:
        """What a method gives with the best of its options; a problem where it cannot take these models."""
        try:
            chosen, points = self._chosen(name)
            merge = self._merge(name, chosen)
            row, pictures = self.drawn(merge, **REPORTING)
        except (InputError, OptionError, MergeError) as error:
            return {"problem": str(error)}
        np.save(self.folder / f"{name}.npy", pictures)
        away = {one: round(float(np.sqrt(np.mean((pictures - other) ** 2))), 4) for one, other in self.pictures.items()}
        costs = against(merge, self._merge(AVERAGE, {})) if self.task.name == TIMED.name else {}
        return {"options": dict(chosen), "tried": points} | row | {"from": away} | costs

    def _merge(self, name: str, options: Options) -> Checkpoint:
        seeded = {"seed": 0, **options}
        return by_method(name, base=self.models[BASE], models=[self.models[one] for one in self.task.models], **seeded)

    def _chosen(self, name: str) -> tuple[Options, list[tuple[Options, float]]]:
        """The first options, from the default on, that are as good as the best on the prompts and seeds for choosing; and all scores."""
        several = tried(name)[: 1 if self.quick else None]
        for options in several:
            self._merge(name, options)
        if len(several) == 1:
            return several[0], []
        points = [(dict(options), self.drawn(self._merge(name, options), **CHOOSING)[0]["clip"]) for options in several]
        enough = max(score for _, score in points) - EQUAL
        return next(options for options, score in points if score >= enough), points

    def drawn(self, model: Checkpoint, start: int, count: int, seeds: Sequence[int]) -> tuple[dict[str, Any], np.ndarray]:
        """Shares of pictures that are right, by skill and by seed, and the pictures, from 0 to 1."""
        asked = prompts(self.task, start, count)
        seeds = seeds[:2] if self.quick else seeds
        grid = ab_grid(
            {"": model},
            list(asked),
            seeds,
            renderer=self.renderer,
            steps=2 if self.quick else self.task.steps,
            guidance=_GUIDANCE,
            scorers=self._clip,
            progress=False,
        )
        pictures = [np.asarray(image, np.float32) / 255 for image in grid.images]
        return _row(grid.frame(), asked, self._judge.name(grid.images)), np.stack(pictures)

    @cached_property
    def _judge(self) -> Judge:
        return Judge(_CLIP)

    @cached_property
    def _clip(self) -> ClipScorer:
        return ClipScorer(_CLIP)


def _row(frame: Any, asked: Mapping[str, tuple[str, Subject]], seen: Sequence[Subject]) -> dict[str, Any]:
    """The mean CLIP score, and shares that are right: by skill, over all skills, and its deviation between seeds."""
    wanted = [asked[prompt] for prompt in frame["prompt"]]
    right = [all(getattr(one, what) == getattr(subject, what) for what in _SEEN) for one, (_, subject) in zip(seen, wanted, strict=True)]
    frame = frame.assign(skill=[skill for skill, _ in wanted], right=np.array(right, float))
    share, deviation = spread(frame["right"], frame["seed"])
    skills = frame.groupby("skill", sort=False)["right"].mean()
    by_seed = frame.groupby("seed", sort=False)["right"].mean()
    return {
        "score": round(share, 4),
        "spread": round(deviation, 4),
        "seeds": [round(one, 4) for one in by_seed],
        "skills": {str(skill): round(one, 4) for skill, one in skills.items()},
        "clip": round(float(frame["clip"].mean()), 2),
    }


def compare(task: Task, folder: Path, quick: bool) -> None:
    """Measure what of a task is not in the folder yet."""
    torch.set_num_threads(1)  # the models are small, and more threads mostly wait for each other
    folder = folder / task.name
    folder.mkdir(parents=True, exist_ok=True)
    work = Comparison(task, folder, quick)
    keep(folder / "alone.json", {name: work.alone(name) for name in work.models})
    for number, name in enumerate(methods := QUICK_METHODS if quick else tuple(own())):
        path = folder / f"{name}.json"
        if not path.exists():
            keep(path, work.method(name))
            print(f"{task.name}: {number + 1} of {len(methods)}, {name}", flush=True)


def keep(path: Path, told: Mapping[str, Any]) -> None:
    """Write what was measured, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(told), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("out/benchmarks/methods"))
    parser.add_argument("--result", type=Path, default=method_results.RESULT)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one task, a few methods, two steps: to see that it runs")
    given = parser.parse_args(arguments)
    tasks = TASKS[:1] if given.quick else TASKS
    if given.workers == 1:
        for task in tasks:
            compare(task, given.folder, given.quick)
    else:
        with ProcessPoolExecutor(given.workers) as pool:
            list(pool.map(compare, tasks, [given.folder] * len(tasks), [given.quick] * len(tasks)))
    method_results.write(given.result, given.folder, tasks)


if __name__ == "__main__":
    main()
