"""Measures what it gains to merge by noise level: `wb.NoiseLevels` of two merges, beside one merge, and one file of the two.

python -m benchmarks.noise_levels [--quick] [--folder out/benchmarks/noise_levels]

Which models lead at high noise, by how much, and where the boundary lies is chosen by the CLIP score with the prompts and seeds for
choosing, and what it comes to is reported with other ones, as in `methods`, of which the scoring is. Since the best of many is chosen,
one merge is also given about as many weights to choose from. What was measured is kept in the folder by task and method.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import torch

import workbench as wb
from benchmarks.method_tasks import BASE, CHOOSING, REPORTING, TASKS
from benchmarks.methods import Comparison, keep
from workbench.checkpoint import Checkpoint
from workbench.sweeps.by_method import by_method

T = TypeVar("T")

METHODS = ("task_arithmetic", "weighted_average")
BOUNDARIES = (0.25, 0.5, 0.75)  # of 8 steps, 6, 4 and 2 are at high noise
# What a model weighs at the level where it leads, and at the other. At the first pair a model is left to itself
LEADS = ((1.0, 0.0), (1.0, 0.5), (1.5, 0.5))
WEIGHTS = (0.0, 0.5, 1.0, 1.5)  # of each model, in one merge
REPORTED = REPORTING | {"seeds": tuple(range(10, 22))}  # three times those of `methods`: there is less between these rows
AT_WORK = tuple(task for task in TASKS if task.folder == "shapes-sd")  # the fifth task's models do not predict the same


@dataclass(frozen=True)
class Levels:
    """Which models lead at high noise (the others lead at low noise), what leading and following weigh, and the boundary."""

    early: tuple[str, ...]
    leading: float
    following: float
    boundary: float

    def weights(self, models: Sequence[str], high: bool) -> list[float]:
        """What each model weighs at one of the levels."""
        return [self.leading if (name in self.early) == high else self.following for name in models]

    def __str__(self) -> str:
        return f"{' and '.join(self.early)} at high noise, {self.leading:g} to {self.following:g}, boundary {self.boundary:g}"


def levels(models: Sequence[str]) -> Iterator[Levels]:
    """All that are tried: every division of the models into early and late ones, neither of them empty."""
    divisions = [
        tuple(name for name, early in zip(models, flags, strict=True) if early) for flags in product((True, False), repeat=len(models))
    ]
    for early, (leading, following), boundary in product(divisions, LEADS, BOUNDARIES):
        if 0 < len(early) < len(models):
            yield Levels(early, leading, following, boundary)


@dataclass(frozen=True)
class Measured:
    """One method at one task."""

    work: Comparison
    method: str

    def rows(self) -> dict[str, Any]:
        """One merge, the best of many, the best pair by noise level, and one file of this pair: what was chosen, and what each draws."""
        count, limit = len(self.work.task.models), 2 if self.work.quick else None
        weights, weighed = self._best([each for each in product(WEIGHTS, repeat=count) if any(each)][:limit], self._merge)
        best, scores = self._best(list(levels(self.work.task.models))[:limit], self._by_noise)
        told = " and ".join(f"{weight:g} of {name}" for name, weight in zip(self.work.task.models, weights, strict=True))
        return {
            "one merge": {"chosen": "", **self._reported(self._merge(None))},
            "one merge, weights chosen": {"chosen": told, **self._reported(self._merge(weights)), "tried": weighed},
            "by noise level": {"chosen": str(best), **self._reported(self._by_noise(best)), "tried": scores},
            "one file of the two": {"chosen": "", **self._reported(wb.operators.weighted_average(list(self._halves(best))))},
        }

    def _best(self, several: Sequence[T], make: Callable[[T], Checkpoint]) -> tuple[T, dict[str, float]]:
        """The one with the best CLIP score on the prompts and seeds for choosing, and all scores."""
        scores = [self.work.drawn(make(each), **CHOOSING)[0]["clip"] for each in several]
        return several[scores.index(max(scores))], {str(each): score for each, score in zip(several, scores, strict=True)}

    def _merge(self, weights: Sequence[float] | None) -> Checkpoint:
        models = [self.work.models[name] for name in self.work.task.models]
        options = {} if weights is None else {"weights": list(weights)}
        return by_method(self.method, base=self.work.models[BASE], models=models, seed=0, **options)

    def _halves(self, at: Levels) -> tuple[Checkpoint, Checkpoint]:
        high, low = (self._merge(at.weights(self.work.task.models, high)) for high in (True, False))
        return high, low

    def _by_noise(self, at: Levels) -> Checkpoint:
        return wb.NoiseLevels(*self._halves(at), boundary=at.boundary)

    def _reported(self, model: Checkpoint) -> dict[str, Any]:
        return self.work.drawn(model, **REPORTED)[0]


def table(folder: Path) -> str:
    """What is kept in the folder, as the document has it: per cent of pictures that are right, and their deviation between seeds.

    Every row draws from the same noise; of how many seeds are more pictures right, or fewer, by noise level than by the one merge with the
    best weights is said last.
    """
    lines: list[str] = []
    for task, method in product(AT_WORK, METHODS):
        path = folder / task.name / f"{method}.json"
        if path.exists():
            rows = json.loads(path.read_text(encoding="utf-8"))
            lines = lines or [f"| task | method | {' | '.join(rows)} | seeds better, worse |", "|" + " --- |" * (3 + len(rows))]
            pairs = list(zip(rows["by noise level"]["seeds"], rows["one merge, weights chosen"]["seeds"], strict=True))
            seeds = f"{sum(one > other for one, other in pairs)}, {sum(one < other for one, other in pairs)} of {len(pairs)}"
            lines.append(f"| {task.name} | `{method}` | {' | '.join(map(_cell, rows.values()))} | {seeds} |")
    return "\n".join(lines)


def _cell(row: Mapping[str, Any]) -> str:
    share = f"{100 * row['score']:.0f} ± {100 * row['spread']:.0f}"
    return f"{share} ({row['chosen']})" if row["chosen"] else share


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("out/benchmarks/noise_levels"))
    parser.add_argument("--quick", action="store_true", help="one task, two of what is tried, two steps: to see that it runs")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)  # the models are small, and more threads mostly wait for each other
    for task in AT_WORK[:1] if given.quick else AT_WORK:
        (given.folder / task.name).mkdir(parents=True, exist_ok=True)
        work = Comparison(task, given.folder / task.name, given.quick)
        for method in METHODS:
            path = given.folder / task.name / f"{method}.json"
            if not path.exists():
                keep(path, Measured(work, method).rows())
                print(f"{task.name}: {method}", flush=True)
    print(table(given.folder))


if __name__ == "__main__":
    main()
