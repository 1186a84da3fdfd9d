"""`balance`: looks for the strengths at which LoRAs together lose least of what each draws alone. Nothing is drawn but by the renderer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.views.low_rank import LowRank
from workbench.errors import InputError, OptionError
from workbench.lora.applying import apply
from workbench.lora.balanced import Balanced, Scores, Trial, laid_out
from workbench.lora.checking import check_lora
from workbench.merge import Merge

if TYPE_CHECKING:
    from workbench.render import Renderer
    from workbench.render.scorers import Scorer

_WHO = "balance"
_LEAST, _MOST = 0.0, 2.0  # strengths that are tried
_FIRST, _LAST = 0.25, 0.05  # steps: the first, and what is too small to see


def balance(
    base: Checkpoint,
    loras: Sequence[LowRank],
    prompts: Sequence[str] | Sequence[Sequence[str]],
    renderer: Renderer,
    scorer: Scorer,
    *,
    groups: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1, 2, 3),
    trials: int = 40,
    progress: bool = True,
    **settings: Any,
) -> Balanced:
    """The strengths at which pictures of `base` with all LoRAs lose least of what each LoRA draws alone, at strength 1.

    `prompts` are one list for each LoRA, of what it is for, or one list for all. `scorer` is called with pictures and their prompts and
    gives one number for each, higher is better (as in `ab_grid`, `wb.render.ClipScorer` or a function). What a LoRA loses is the mean over
    its prompts of its own score less that of all together, and no less than 0 for any prompt; the strengths sought have the least mean
    of that over the LoRAs. `groups` are patterns of block names (`["IN*", "MID", "OUT*"]`): each then has strengths of its own, and so
    has what lies in none of them. `settings` are those of `Renderer.images` (`steps`, `guidance`, ...).

    The search begins with 1 for each and goes one strength at a time, in steps of 0.25 that are halved where none is better, within
    [0, 2], until they are below 0.05 or `trials` merges are drawn. It draws with `seeds`. What it finds is then drawn with as many other
    seeds, and so are strengths of 1: only that tells whether it helps (`.helps`), for a search also finds what is good for its
    seeds alone. The same arguments give the same strengths.

    Raises InputError for what is no list of LoRAs or prompts, OptionError for seeds, trials and groups that make no sense or a scorer
    that gives no number, and what `apply` and the renderer raise.
    """
    asked = _asked(loras, prompts)
    _check(seeds, trials, groups)
    table = _Table(base, tuple(loras), asked, renderer, scorer, tuple(groups), settings)
    table.merge(table.ones)  # what does not fit is told before anything is drawn
    later = range(max(seeds) + 1, max(seeds) + 1 + len(seeds))
    with tqdm(total=len(loras) + trials, desc=_WHO, unit="merge", delay=1, disable=not progress) as bar:
        alone = table.alone(seeds, bar.update)
        found = _search(table, alone, seeds, trials, bar.update)
    ones, best = table.ones, min(found, key=lambda trial: trial.lost)
    fresh = table.alone(later)
    checked = {"alone": fresh, "1 each": table.together(ones, later)}
    checked["balanced"] = checked["1 each"] if best.strengths == ones else table.together(best.strengths, later)
    return Balanced(tuple(lora.name for lora in loras), tuple(groups), best.strengths, tuple(found), checked)


@dataclass(frozen=True)
class _Table:
    """What is drawn and scored, and how strengths are laid out: for each LoRA one, or one for each group and one for the rest."""

    base: Checkpoint
    loras: tuple[LowRank, ...]
    asked: tuple[tuple[str, ...], ...]
    renderer: Renderer
    scorer: Scorer
    groups: tuple[str, ...]
    settings: Mapping[str, Any]

    def merge(self, strengths: tuple[float, ...]) -> Merge:
        """The base with all LoRAs."""
        return apply(self.base, list(zip(self.loras, laid_out(strengths, self.groups), strict=True)))

    @property
    def ones(self) -> tuple[float, ...]:
        return (1.0,) * (len(self.loras) * (len(self.groups) + 1))

    def alone(self, seeds: Sequence[int], done: Callable[[], Any] = lambda: None) -> Scores:
        """Of each LoRA, the scores of its prompts, drawn with it alone: prompts x seeds."""
        found = []
        for lora, prompts in zip(self.loras, self.asked, strict=True):
            found.append(self._scores(apply(self.base, [(lora, 1.0)]), prompts, seeds))
            done()
        return Scores(tuple(found))

    def together(self, strengths: tuple[float, ...], seeds: Sequence[int]) -> Scores:
        """Of each LoRA, the scores of its prompts, drawn with all LoRAs."""
        prompts = tuple(dict.fromkeys(prompt for each in self.asked for prompt in each))
        scores = dict(zip(prompts, self._scores(self.merge(strengths), prompts, seeds), strict=True))
        return Scores(tuple(np.stack([scores[prompt] for prompt in each]) for each in self.asked))

    def _scores(self, model: Merge, prompts: tuple[str, ...], seeds: Sequence[int]) -> np.ndarray:
        with self.renderer.lock:  # others may draw with it
            self.renderer.load(model, progress=False)
            images = self.renderer.images(prompts, tuple(seeds), progress=False, **self.settings)
        numbers = _numbers(self.scorer, images, [prompt for prompt in prompts for _ in seeds])
        return numbers.reshape(len(prompts), len(seeds))


@dataclass
class _Tried:
    """Every merge that was drawn, by its strengths."""

    table: _Table
    alone: Scores
    seeds: Sequence[int]
    most: int
    done: Callable[[], Any]
    trials: dict[tuple[float, ...], Trial] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        return len(self.trials) >= self.most

    def lost(self, strengths: tuple[float, ...]) -> float:
        if strengths not in self.trials:
            lost = self.alone.lost(self.table.together(strengths, self.seeds))
            self.trials[strengths] = Trial(strengths, *lost)
            self.done()
        return self.trials[strengths].lost


def _search(table: _Table, alone: Scores, seeds: Sequence[int], most: int, done: Callable[[], Any]) -> list[Trial]:
    """Pattern search over one strength at a time (Hooke and Jeeves 1961, without the pattern moves)."""
    tried = _Tried(table, alone, seeds, most, done)
    best, step = table.ones, _FIRST
    lost = tried.lost(best)
    while step >= _LAST and lost > 0:
        before = best
        for place in range(len(best)):
            for way in (-step, step):
                value = min(max(best[place] + way, _LEAST), _MOST)
                candidate = (*best[:place], value, *best[place + 1 :])
                if tried.full and candidate not in tried.trials:
                    return list(tried.trials.values())
                if (found := tried.lost(candidate)) < lost:
                    best, lost = candidate, found
                    break
        step = step / 2 if best == before else step
    return list(tried.trials.values())


def _numbers(scorer: Scorer, images: Sequence[Any], prompts: list[str]) -> np.ndarray:
    """A number for each picture. Raises OptionError."""
    found = scorer(images, prompts)
    columns = {name: np.asarray(values) for name, values in (found if isinstance(found, Mapping) else {"score": found}).items()}
    numeric = {name: values for name, values in columns.items() if np.issubdtype(values.dtype, np.number) or values.dtype == bool}
    if len(numeric) != 1:
        raise OptionError(f"{_WHO}: scorer must give one number for each picture; it gives {', '.join(numeric) or 'none'}")
    ((name, values),) = numeric.items()
    if values.shape != (len(images),):
        raise OptionError(f"{_WHO}: scorer gives {name} of shape {list(values.shape)} for {len(images)} pictures")
    if not np.isfinite(values := values.astype(float)).all():
        prompt = prompts[int(np.argmin(np.isfinite(values)))]
        raise OptionError(f"{_WHO}: scorer gives {name} that is no finite number for {prompt!r}; leave that prompt out")
    return values


def _asked(loras: object, prompts: object) -> tuple[tuple[str, ...], ...]:
    """The prompts of each LoRA. Raises InputError."""
    if isinstance(loras, str | Checkpoint) or not isinstance(loras, Sequence) or not loras:
        raise InputError(f"{_WHO} takes one or more LoRAs in a list, got {loras!r}")
    for lora in loras:
        check_lora(lora, _WHO)
    told = f"{_WHO}: prompts must be a list of prompts for all LoRAs, or {len(loras)} lists, one for each LoRA"
    if isinstance(prompts, str) or not isinstance(prompts, Sequence) or not prompts:
        raise InputError(f"{told}; got {prompts!r}")
    each = [prompts] * len(loras) if all(isinstance(prompt, str) for prompt in prompts) else list(prompts)
    for some in each:
        if isinstance(some, str) or not isinstance(some, Sequence) or not some or not all(isinstance(one, str) for one in some):
            raise InputError(f"{told}; got {some!r} in it")
    if len(each) != len(loras):
        raise InputError(f"{told}; got {len(each)} lists")
    return tuple(tuple(dict.fromkeys(some)) for some in each)


def _check(seeds: object, trials: object, groups: object) -> None:
    """Raise OptionError for what makes no sense."""
    fine = isinstance(seeds, Sequence) and all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in seeds)
    if not fine or len(set(seeds)) < 2 or len(set(seeds)) < len(seeds):  # type: ignore[arg-type,call-overload]
        told = "two or more different whole numbers from 0, for one seed tells no difference from chance"
        raise OptionError(f"{_WHO}: seeds must be {told}; got {seeds!r}")
    if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
        raise OptionError(f"{_WHO}: trials must be a whole number from 1, got {trials!r}")
    if isinstance(groups, str) or not isinstance(groups, Sequence) or not all(isinstance(one, str) for one in groups):
        raise OptionError(f"{_WHO}: groups must be a list of patterns of block names, such as ['IN*', 'MID', 'OUT*']; got {groups!r}")
    if len(set(groups)) < len(groups) or "default" in groups:
        raise OptionError(f"{_WHO}: groups must differ, and 'default' is what lies in none of them; got {list(groups)}")
