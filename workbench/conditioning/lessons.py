"""What a fit learns from: which parent answers a prompt better, and its denoising of what it draws. The training is in `fitting`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from workbench.checkpoint import Checkpoint
from workbench.errors import HypernetworkError

if TYPE_CHECKING:
    from PIL.Image import Image

PARENTS = ("first", "second")

_BATCH = 16  # latents at once
_UNPROMPTED = 0.1  # share of lessons without the prompt, since guidance needs those answers too


@dataclass(frozen=True)
class Objective:
    """What a fitted merge should do: of each prompt, what the parent does that answers it better.

    That is the parent with the higher mean of the scorer's first column of numbers, over the pictures it draws (the first when
    equal); or the one that `teachers` names for a prompt, `"first"` or `"second"`. `pictures` are drawn for each prompt, in `steps`
    steps with `guidance`, and `lessons` taken from them: a noise level, noise, and the teacher's answer. `near_average` weighs the
    mean square of how far the merge is from the plain average, 0 there and 1 where it is one parent, against the mean square of
    the difference between the merge's answers and the teacher's.

    Raises HypernetworkError for what is out of range.
    """

    scorer: Callable[[Sequence[Image], Sequence[str]], Any] | None = None
    teachers: Mapping[str, str] | None = None
    near_average: float = 0.0
    pictures: int = 4
    lessons: int = 32
    steps: int = 20
    guidance: float = 5.0

    def __post_init__(self) -> None:
        for name in ("pictures", "lessons", "steps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise HypernetworkError(f"Objective: {name} must be a whole number of 1 or more, got {value!r}")
        if not self.near_average >= 0:
            raise HypernetworkError(f"Objective: near_average must be 0 or more, got {self.near_average!r}")
        if wrong := next((one for one in (self.teachers or {}).values() if one not in PARENTS), None):
            raise HypernetworkError(f"Objective: a teacher is 'first' or 'second', got {wrong!r}")


class Lessons(NamedTuple):
    """Questions to a denoiser, and the teacher's answers; one row each."""

    noisy: torch.Tensor
    times: torch.Tensor
    embeddings: torch.Tensor
    answers: torch.Tensor

    def at(self, rows: torch.Tensor) -> Lessons:
        """Some of them."""
        return Lessons(*(tensor[rows] for tensor in self))


def choose_teachers(
    parents: Sequence[Checkpoint], prompts: Sequence[str], renderer: Any, objective: Objective, progress: bool
) -> dict[str, str]:
    """Which parent teaches each prompt. Raises HypernetworkError when neither a scorer nor the user says."""
    given = dict(objective.teachers or {})
    open_ = [prompt for prompt in prompts if prompt not in given]
    if not open_:
        return {prompt: given[prompt] for prompt in prompts}
    if objective.scorer is None:
        raise HypernetworkError(f"no teacher is named for {open_[0]!r}, and there is no scorer to choose one: Objective(scorer=...)")
    means = []
    for parent in parents:
        renderer.load(parent, progress=progress)
        seeds = range(objective.pictures)
        pictures = renderer.images(open_, list(seeds), steps=objective.steps, guidance=objective.guidance, progress=progress)
        scores = _scores(objective.scorer, pictures, [prompt for prompt in open_ for _ in seeds])
        means.append(scores.reshape(len(open_), -1).mean(axis=1))
    better = {prompt: PARENTS[int(two > one)] for prompt, one, two in zip(open_, *means, strict=True)}
    return {prompt: given.get(prompt) or better[prompt] for prompt in prompts}


def _scores(scorer: Any, pictures: Sequence[Image], prompts: Sequence[str]) -> np.ndarray:
    """The first column of numbers that a scorer gives. Raises HypernetworkError for a prompt it has no number for."""
    found = scorer(pictures, prompts)
    columns = list(found.values()) if isinstance(found, Mapping) else [found]
    numbers = next((np.asarray(column, float) for column in columns if np.asarray(column).dtype.kind in "fiub"), None)
    if numbers is None:
        raise HypernetworkError(f"{scorer!r} gives no numbers; a scorer gives one for each picture")
    if not np.isfinite(numbers).all():
        prompt = prompts[int(np.flatnonzero(~np.isfinite(numbers))[0])]
        raise HypernetworkError(f"{scorer!r} has no score for {prompt!r}: name its teacher, Objective(teachers={{{prompt!r}: 'first'}})")
    return numbers


def prepare(
    parents: Sequence[Checkpoint], teachers: Mapping[str, str], renderer: Any, objective: Objective, seed: int, progress: bool
) -> dict[str, Lessons]:
    """Draw every prompt with its teacher, and let the teacher denoise what it drew; no parent is needed after that."""
    lessons = {}
    with tqdm(total=len(teachers), desc="lessons", unit="prompt", disable=not progress, delay=2, leave=False) as bar:
        for parent, name in zip(parents, PARENTS, strict=True):
            own = [prompt for prompt, teacher in teachers.items() if teacher == name]
            if own:
                renderer.load(parent, progress=progress)
            for prompt in own:
                draws = torch.Generator().manual_seed(seed * 1_000_003 + list(teachers).index(prompt))
                lessons[prompt] = _lessons(parent, prompt, renderer, objective, draws)
                bar.update()
    return {prompt: lessons[prompt] for prompt in teachers}


@torch.no_grad()
def _lessons(parent: Checkpoint, prompt: str, renderer: Any, objective: Objective, draws: torch.Generator) -> Lessons:
    denoiser = renderer.denoiser
    clean = denoiser.latents([prompt], list(range(objective.pictures)), steps=objective.steps, guidance=objective.guidance).cpu().float()
    clean = clean[torch.arange(objective.lessons) % len(clean)]
    noise = torch.randn(clean.shape, generator=draws)
    times = torch.randint(denoiser.times, (len(clean),), generator=draws)
    unprompted = torch.rand(len(clean), generator=draws) < _UNPROMPTED
    asked, blank = denoiser.embeddings([prompt, ""]).cpu().float()
    embeddings = torch.where(unprompted[:, None, None], blank, asked)
    noisy = denoiser.noised(clean, noise, times)
    answers = torch.cat(
        [denoiser.predict(parent, *(one[i : i + 8] for one in (noisy, times, embeddings))) for i in range(0, len(clean), 8)]
    )
    return Lessons(noisy, times, embeddings, answers.cpu().float())
