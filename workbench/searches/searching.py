"""`search`: tries merges where earlier ones did well, beside what costs as much without looking, and says whether that was worth it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from workbench.checkpoint import Checkpoint
from workbench.errors import SearchError
from workbench.merge import Operator
from workbench.render.request import SETTINGS
from workbench.searches.found import GRID, RANDOM, SEARCH, Found
from workbench.searches.merges import Merges
from workbench.searches.objective import Prompts, Skills, objectives_of
from workbench.searches.sampling import Sampler, Suggestions, at_random
from workbench.searches.space import SearchSpace
from workbench.searches.trials import SearchTrial, Trials, best
from workbench.sweeps import sweep
from workbench.sweeps.result import Sweep

if TYPE_CHECKING:
    from workbench.render import Renderer

_AT_ONCE = 4  # points that are asked for before any of them is scored; the same on any number of workers


def search(
    make: Operator | Callable[..., Checkpoint] | None = None,
    space: Mapping[str, Any] | None = None,
    *,
    objective: Any,
    prompts: Prompts,
    seeds: Sequence[int] = (0, 1, 2, 3),
    unseen_prompts: Prompts | None = None,
    unseen_seeds: Sequence[int] | None = None,
    trials: int = 32,
    sampler: Sampler = "tpe",
    inputs: Mapping[str, Any] | None = None,
    seed: int = 0,
    name: str = "search",
    folder: str | Path = "out/sweeps",
    renderer: Renderer | None = None,
    executor: Executor | None = None,
    progress: bool = True,
    **settings: Any,
) -> Found:
    """Find the options whose merge draws best by an objective, and say how sure that is.

    `make` is an operator, whose `inputs` are given, or a function of options that returns a checkpoint; without it `space` has a choice
    of `method`s, and `inputs` the `base` and the `models`, as a sweep over methods takes them. `space` says what may vary (see
    `workbench.searches.space.space_of`); None takes the operator's declaration. `objective` is a scorer, a `SearchObjective`, or several
    of them: the first decides, and all make a Pareto front. `prompts` are a list, or lists by the skill that they ask for.

    Optuna's TPE (or CMA-ES, for numbers alone) suggests `trials` points, the first of them where nothing is varied; what is worse than
    half of those before with the first third of the seeds is given up. As many points are tried of a coarse grid, and as many at random,
    beside the defaults, the plain average and the plain sum. The best of each kind, chosen with `prompts` and `seeds`, is drawn with
    `unseen_prompts` (by default the same) and `unseen_seeds` (as many others), and only that is reported: a gain that is no larger than
    its deviation between seeds is no win.

    Pictures are kept in `folder/name`, as those of a sweep: the same call goes on where it stopped, since the same `seed` asks for the
    same points, whatever the `executor`. `settings` (`steps`, `guidance`, ...) are those of pictures, one value each. Raises SearchError
    for a space or an objective that makes no sense, or where all trials fail; SweepError and RenderError for what cannot be drawn.
    Source: Akiba et al. 2019, arXiv:1907.10902; TPE: Bergstra et al. 2011; CMA-ES: Hansen 2016, arXiv:1604.00772.
    """
    _check(trials, seeds, settings)
    objectives, skills = objectives_of(objective), Skills.of(prompts)
    others, other_seeds, told = _unseen(skills, seeds, unseen_prompts, unseen_seeds)
    merges = Merges(make, inputs or {}, space)
    suggested = Suggestions(merges.space, sampler, seed, [one.least for one in objectives], merges.starts)
    scorers = list({id(one.scorer): one.scorer for one in objectives}.values())
    drawing: dict[str, Any] = {"score": scorers, "name": name, "folder": folder, "executor": executor, "cells": math.inf, "progress": False}
    drawing |= {"renderer": renderer or merges.renderer(progress), **settings}

    def draw(options: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> Sweep:
        return sweep(merges.make, options, prompts=skills.prompts, seeds=seeds, **drawing)

    work = Trials(merges.options, objectives, draw, skills, seeds)
    with tqdm(total=3 * trials, desc=name, unit="trial", delay=1, disable=not progress) as bar:
        for tried in _tried(merges.space, trials, seed, suggested, work):
            bar.set_description(f"{name}: {tried[0].kind}")
            bar.update(len(tried))
    plain = _plain(merges, work, partial(sweep, prompts=skills.prompts, seeds=seeds, **drawing))
    chosen = {kind: best([one for one in work.done if one.kind == kind], objectives[0]) for kind in (SEARCH, GRID, RANDOM)}
    chosen |= {one.kind: one for one in plain if one.whole}
    again = {kind: partial(merges.again, one) for kind, one in chosen.items()}
    unseen = _by_kind(again, partial(sweep, prompts=others.prompts, seeds=other_seeds, **drawing))
    for cell in unseen.cells:
        if not cell.drawn or cell.problem:
            raise SearchError(f"{cell.name}: was drawn with seen prompts and seeds, and cannot be with unseen ones: {cell.problem}")
    numbers = [tuple(one.by_seed(one.table(cell.scores, others), others) for one in objectives) for cell in unseen.cells]
    return Found(objectives, (*work.done, *plain), chosen, dict(zip(chosen, numbers, strict=True)), unseen, told)


def _tried(space: SearchSpace, trials: int, seed: int, suggested: Suggestions, work: Trials) -> Iterator[list[SearchTrial]]:
    """Everything that is tried, in lots: the grid, points at random, and the search."""
    for kind, points in ((GRID, list(space.grid(trials))), (RANDOM, at_random(space, trials, seed))):
        for start in range(0, len(points), _AT_ONCE):
            yield work.run(kind, points[start : start + _AT_ONCE])
    for start in range(0, trials, _AT_ONCE):
        tried = work.run(SEARCH, suggested.ask(min(_AT_ONCE, trials - start)))
        suggested.tell([one.values for one in tried])
        yield tried


def _plain(merges: Merges, work: Trials, draw: Callable[..., Sweep]) -> list[SearchTrial]:
    """The merges that need no search."""
    plain = merges.plain
    return [work.tried(cell.options["by"], cell) for cell in _by_kind(plain, draw).cells] if plain else []


def _by_kind(merges: Mapping[str, Callable[[], Checkpoint]], draw: Callable[..., Sweep]) -> Sweep:
    """One cell for each merge, by its name."""
    return draw(lambda by: merges[by](), {"by": list(merges)})


def _unseen(
    skills: Skills, seeds: Sequence[int], other_prompts: Prompts | None, other_seeds: Sequence[int] | None
) -> tuple[Skills, list[int], str]:
    """What is reported on, and that in words. Raises SearchError for prompts and seeds that the choice is made with, too."""
    reported = [max(seeds) + 1 + number for number in range(len(seeds))] if other_seeds is None else list(other_seeds)
    if not reported:
        raise SearchError("unseen_seeds is empty: give one or more, or leave it out")
    if both := sorted(set(reported) & set(seeds)):
        raise SearchError(f"unseen_seeds: {both[0]} is among the seeds that are chosen with; give others")
    told = f"{len(reported)} unseen seeds"
    if other_prompts is None:
        return skills, reported, f"the same prompts with {told}"
    others = Skills.of(other_prompts, "unseen_prompts")
    if again := sorted(set(others.prompts) & set(skills.prompts)):
        raise SearchError(f"unseen_prompts: {again[0]!r} is among the prompts that are chosen with; give others")
    return others, reported, f"{len(others.prompts)} unseen prompts with {told}"


def _check(trials: int, seeds: Sequence[int], settings: Mapping[str, Any]) -> None:
    if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
        raise SearchError(f"trials must be a whole number above 0, got {trials!r}")
    if isinstance(seeds, int) or not list(seeds):
        raise SearchError(f"seeds must be a list of one or more, got {seeds!r}")
    for name, value in settings.items():
        if name not in SETTINGS:
            raise SearchError(f"search takes no {name!r}; settings of pictures are {', '.join(SETTINGS)}")
        if isinstance(value, list | tuple):
            raise SearchError(f"{name} takes one value in a search, got {value!r}; sweep over it instead")
