"""`search`: tries merges where earlier ones did well, beside what costs as much without looking, and says whether that was worth it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tqdm.auto import tqdm

from workbench.checkpoint import Checkpoint
from workbench.errors import SearchError
from workbench.merge import Operator
from workbench.search.found import DEFAULT, GRID, RANDOM, SEARCH, Found
from workbench.search.objective import Objective, objectives_of
from workbench.search.space import Dimension, Point, Space, space_of
from workbench.search.trials import Trial, Trials, best
from workbench.sweeps import sweep
from workbench.sweeps.result import Sweep

if TYPE_CHECKING:
    import optuna

    from workbench.render import Renderer

Sampler = Literal["tpe", "cmaes"]

_AT_ONCE = 4  # points that are asked for before any of them is told; the same on any number of workers


def search(
    make: Operator | Callable[..., Checkpoint],
    space: Mapping[str, Any] | None = None,
    *,
    objective: Any,
    prompts: Sequence[str],
    seeds: Sequence[int] = (0, 1, 2, 3),
    unseen_prompts: Sequence[str] | None = None,
    unseen_seeds: Sequence[int] | None = None,
    trials: int = 32,
    sampler: Sampler = "tpe",
    inputs: Mapping[str, Any] | None = None,
    seed: int = 0,
    name: str = "search",
    folder: str | Path = "out/searches",
    renderer: Renderer | None = None,
    executor: Executor | None = None,
    progress: bool = True,
    **settings: Any,
) -> Found:
    """Find the options whose merge draws best by an objective, and say how sure that is.

    `make` is an operator, whose `inputs` are given, or a function of options that returns a checkpoint. `space` says what may vary
    (see `space.space_of`); None takes the operator's declaration. `objective` is a scorer, an `Objective`, or several, of which
    the first decides and the others make a Pareto front.

    Optuna's TPE (or CMA-ES, where all dimensions are numbers) suggests `trials` points; what is worse than half of those before with
    the first third of the seeds is given up. As many points are tried of a coarse grid, and as many at random, beside the defaults. The
    best of each, chosen with `prompts` and `seeds`, is drawn with `unseen_prompts` (default: the same) and `unseen_seeds` (default: as
    many others), and only that is reported: whether the gain is larger than its deviation between seeds.

    All is kept in `folder/name`, as sweeps are: the same call goes on where it stopped, for the same `seed` asks for the same points.
    `settings` (`steps`, `guidance`, ...) are those of pictures. Raises SearchError for a space or an objective that makes no sense, or
    where all trials fail; SweepError and RenderError for what cannot be drawn or kept.
    Source: Akiba et al. 2019, arXiv:1907.10902; TPE: Bergstra et al. 2011; CMA-ES: Hansen 2016, arXiv:1604.00772.
    """
    _check(trials, prompts, seeds, sampler)
    objectives = objectives_of(objective)
    operator = make if isinstance(make, Operator) else None
    found = space_of(space, operator, _models(inputs))
    others, other_seeds, told = _unseen(prompts, seeds, unseen_prompts, unseen_seeds)
    drawn = {"score": [one.scorer for one in objectives], "inputs": inputs, "folder": Path(folder) / name, "renderer": renderer}
    drawn |= {"executor": executor, "progress": False, "cells": math.inf, **settings}

    def draw(options: Sequence[Mapping[str, Any]], prompts: Sequence[str], seeds: Sequence[int], kind: str) -> Sweep:
        return sweep(make, list(options), prompts=list(prompts), seeds=list(seeds), name="cells", **drawn)

    work = Trials(found, objectives, draw, prompts, seeds)
    plan = _plan(found, trials, sampler, seed, objectives, work)
    with tqdm(total=3 * trials, desc=name, unit="trial", delay=1, disable=not progress) as bar:
        for tried in plan:
            bar.update(len(tried))
    base = _defaults(work, draw)
    chosen = {kind: best([one for one in work.done if one.kind == kind], objectives[0]) for kind in (SEARCH, GRID, RANDOM)}
    chosen |= {DEFAULT: base} if base else {}
    unseen = {kind: _again(one, objectives[0], draw, others, other_seeds) for kind, one in chosen.items()}
    return Found(objectives, (*work.done, *([base] if base else [])), chosen, unseen, told)


def _plan(
    space: Space, trials: int, sampler: Sampler, seed: int, objectives: Sequence[Objective], work: Trials
) -> Iterator[Sequence[Trial]]:
    """Everything that is tried, in lots: the grid, points at random, and the search."""
    yield from _lots(work, GRID, list(space.grid(trials)))
    numbers = random.Random(seed)
    yield from _lots(work, RANDOM, [{one.name: _random(one, numbers) for one in space.dimensions} for _ in range(trials)])
    study = _study(space, sampler, seed, objectives)
    distributions = {one.name: _distribution(one) for one in space.dimensions}
    left = trials
    while left:
        asked = [study.ask(distributions) for _ in range(min(left, _AT_ONCE))]
        tried = work.run(SEARCH, [{one.name: _value(one, trial.params[one.name]) for one in space.dimensions} for trial in asked])
        for trial, one in zip(asked, tried, strict=True):
            failed = _optuna().trial.TrialState.FAIL
            study.tell(trial, None, failed) if one.problem else study.tell(trial, list(one.values))
        left -= len(asked)
        yield tried


def _lots(work: Trials, kind: str, points: Sequence[Point]) -> Iterator[Sequence[Trial]]:
    for start in range(0, len(points), _AT_ONCE):
        yield work.run(kind, points[start : start + _AT_ONCE])


def _defaults(work: Trials, draw: Callable[..., Sweep]) -> Trial | None:
    """What the merge is when nothing is varied; None where it cannot be made so."""
    swept = draw([{}], work.prompts, work.seeds, DEFAULT)
    cell = swept.cells[0]
    if not cell.drawn or cell.problem:
        return None
    return Trial(DEFAULT, 0, {}, {}, (cell,), tuple(one.by_seed(cell.scores, len(work.prompts)) for one in work.objectives))


def _again(trial: Trial, objective: Objective, draw: Callable[..., Sweep], prompts: Sequence[str], seeds: Sequence[int]) -> Any:
    cell = draw([trial.options], prompts, seeds, "unseen").cells[0]
    if not cell.drawn or cell.problem:
        raise SearchError(f"{cell.name}: was drawn, and then could not be drawn again: {cell.problem}")
    return objective.by_seed(cell.scores, len(prompts))


def _study(space: Space, sampler: Sampler, seed: int, objectives: Sequence[Objective]) -> optuna.Study:
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if sampler == "cmaes":
        if any(one.choices for one in space.dimensions) or len(objectives) > 1:
            raise SearchError("sampler='cmaes' takes numbers and one objective; choose 'tpe' for choices and for several")
        chosen: Any = optuna.samplers.CmaEsSampler(seed=seed)
    else:
        chosen = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    return optuna.create_study(sampler=chosen, directions=["minimize" if one.least else "maximize" for one in objectives])


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise SearchError("a search needs optuna: pip install 'workbench[search]'") from error
    return optuna


def _distribution(one: Dimension) -> Any:
    kinds = _optuna().distributions
    if one.choices:
        return kinds.CategoricalDistribution(range(len(one.choices)))  # of any type
    if one.whole:
        return kinds.IntDistribution(int(one.low), int(one.high), log=one.log)
    return kinds.FloatDistribution(one.low, one.high, log=one.log)


def _value(one: Dimension, suggested: Any) -> Any:
    return one.choices[suggested] if one.choices else one.fitted(suggested)


def _random(one: Dimension, numbers: random.Random) -> Any:
    return numbers.choice(one.choices) if one.choices else one.fitted(one.at(numbers.random()))


def _models(inputs: Mapping[str, Any] | None) -> int:
    """How many models the input has that takes several."""
    many = (given for given in (inputs or {}).values() if isinstance(given, Sequence) and not isinstance(given, str | Checkpoint))
    return len(next(many, ()))


def _unseen(
    prompts: Sequence[str], seeds: Sequence[int], other_prompts: Sequence[str] | None, other_seeds: Sequence[int] | None
) -> tuple[Sequence[str], Sequence[int], str]:
    """What is reported on, and that in words. Raises SearchError for seeds that the choice was made with, too."""
    reported = list(other_seeds) if other_seeds is not None else [max(seeds) + 1 + number for number in range(len(seeds))]
    if both := sorted(set(reported) & set(seeds)):
        raise SearchError(f"unseen_seeds: {both[0]} is among the seeds that are chosen with; give others")
    if other_prompts is None:
        return prompts, reported, f"on the same prompts with {len(reported)} other seeds"
    if both_prompts := sorted(set(other_prompts) & set(prompts)):
        raise SearchError(f"unseen_prompts: {both_prompts[0]!r} is among the prompts that are chosen with; give others")
    return other_prompts, reported, f"on {len(other_prompts)} other prompts with {len(reported)} other seeds"


def _check(trials: int, prompts: Sequence[str], seeds: Sequence[int], sampler: str) -> None:
    if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
        raise SearchError(f"trials must be a whole number above 0, got {trials!r}")
    if isinstance(prompts, str) or not prompts:
        raise SearchError(f"prompts must be a list of one or more, got {prompts!r}")
    if isinstance(seeds, int) or not list(seeds):
        raise SearchError(f"seeds must be a list of one or more, got {seeds!r}")
    if sampler not in ("tpe", "cmaes"):
        raise SearchError(f"sampler must be 'tpe' or 'cmaes', got {sampler!r}")
