"""`fit`: train a hypernetwork through the merged weights, so that a prompt really decides what a merge draws."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

import workbench  # renderers are beside this floor; the package's own front door is the way there
from workbench.checkpoint import Checkpoint
from workbench.checkpoint.base import hashed
from workbench.conditioning.fit_result import Fit
from workbench.conditioning.fit_state import Run
from workbench.conditioning.hypernetworks import Hypernetwork
from workbench.conditioning.lessons import Lessons, Objective, choose_teachers, prepare
from workbench.conditioning.steered import Steered
from workbench.conditioning.text_encoders import TextEncoder
from workbench.errors import HypernetworkError, NonFiniteWarning, warn
from workbench.merge import Merge
from workbench.operators.spectral import fft_blend

if TYPE_CHECKING:
    from PIL.Image import Image

_BATCH = 16  # lessons of a step
_COUNT = 16  # numbers over the frequencies
# the whole blend: entanglement and decoherence hold every merge near the average, whatever a prompt asks for
_OPTIONS = {"smooth": True, "over": "row", "entanglement_strength": 1.0, "decoherence_factor": 0.0}
_SIZE = 128  # pixels of the pictures that a fit keeps of its progress


def fit(
    first: Checkpoint,
    second: Checkpoint,
    prompts: Sequence[str],
    *,
    objective: Objective,
    steps: int,
    renderer: Any = None,
    hypernetwork: Hypernetwork | None = None,
    encoder: TextEncoder | None = None,
    together: bool = False,
    held_out: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    learning_rate: float = 2e-3,
    every: int = 25,
    state: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Fit:
    """Train a hypernetwork so that the FFT merge of two checkpoints, given a prompt, follows the parent that answers it better.

    Both checkpoints stay as they are; gradients reach the coefficients through the merged weights. Each step asks for one prompt's
    merge, or, `together`, for one merge for all prompts, which is what can be exported as one file. `renderer` draws (default: one of
    the models' kind, see `workbench.Renderer`; it needs a U-Net of SD 1.x or 2.x). `hypernetwork` is trained in a
    copy (default: one vector for each block of the U-Net, 16 numbers over the frequencies); `encoder` defaults to the first
    checkpoint's own; `options` are `fft_blend`'s for all else (default: the whole blend, smooth, over rows). Every `every` steps the
    loss on `held_out` prompts is measured, and a picture drawn of the first of these (or of `prompts`).

    With `state`, a file, a fit that was stopped (by an interrupt, too, which returns what there is) goes on where it left off, and
    takes the same steps. A loss that is no number stops it: the last good network is kept, and a warning says so.

    Memory: the merged U-Net in float32 with its gradient, what the U-Net keeps for its way back (`_BATCH` lessons), and the
    transforms of one tensor; parents are read from disk. See benchmarks/README.md for what SD 1.5 takes.

    Raises HypernetworkError for arguments that cannot be, and what encoder, renderer and merge raise for what does not fit.
    """
    prompts, held_out = _checked(prompts, held_out, steps=steps, every=every)
    encoder = encoder or TextEncoder(first)
    options = {**_OPTIONS, **(options or {})}
    merge = fft_blend(first, second, **{**options, "coefficients": [0.0]})
    network = _copy(hypernetwork or Hypernetwork(encoder.token_width, blocks=merge.depth.names, count=_COUNT, seed=seed))
    everything = (*prompts, *held_out)
    asked = {prompt: network.embed(prompts if together else prompt, encoder) for prompt in everything}
    renderer = renderer or workbench.Renderer(merge)
    renderer.check(merge)
    teachers = choose_teachers((first, second), everything, renderer, objective, progress)
    lessons = prepare((first, second), teachers, renderer, objective, seed, progress)
    learnt, kept = ({prompt: lessons[prompt] for prompt in some} for some in (prompts, held_out))
    course = _Course(merge, renderer, objective, asked, learnt, kept, together)
    files = [str(path) for path in merge.sources()]
    told: list[object] = [files, prompts, held_out, options, teachers, asdict(replace(objective, scorer=None)), network.settings]
    told += [network.identity, encoder.identity, together, learning_rate, every, seed]
    run = Run(network, torch.optim.Adam(network.parameters(), lr=learning_rate), hashed(*told))
    run.resume(state)
    stopped = _train(run, course, steps, every, seed, state, progress)
    shown = prompts if together else (held_out or prompts)[0]
    return Fit(network, encoder, first, second, options, teachers, tuple(run.history), tuple(run.pictures), shown, together, stopped)


@dataclass(frozen=True)
class _Course:
    """What is trained on, and how answers are judged."""

    merge: Merge
    renderer: Any
    objective: Objective
    asked: Mapping[str, torch.Tensor]  # what the network reads of each prompt
    lessons: Mapping[str, Lessons]
    held_out: Mapping[str, Lessons]
    together: bool

    def loss(self, network: Hypernetwork, prompt: str, lessons: Lessons) -> torch.Tensor:
        """How far one merge's answers are from the teacher's."""
        coefficients = network(self.asked[prompt]).reshape(-1, network.count)
        model = Steered(self.merge, coefficients, network.blocks)
        answers = self.renderer.denoiser.predict(model, lessons.noisy, lessons.times, lessons.embeddings)
        loss: torch.Tensor = (answers.float() - lessons.answers.to(answers.device)).square().mean()
        if self.objective.near_average:
            loss = loss + self.objective.near_average * (2 * torch.sigmoid(5 * coefficients) - 1).square().mean().to(loss.device)
        return loss

    def batch(self, draws: torch.Generator) -> tuple[str, Lessons]:
        """One prompt's lessons; or, when there is one merge for all, lessons of all prompts."""
        names = list(self.lessons)
        if self.together:
            pool = Lessons(*(torch.cat(tensors) for tensors in zip(*self.lessons.values(), strict=True)))
            return names[0], pool.at(torch.randint(len(pool.times), (_BATCH,), generator=draws))
        prompt = names[int(torch.randint(len(names), (), generator=draws))]
        rows = torch.randint(len(self.lessons[prompt].times), (_BATCH,), generator=draws)
        return prompt, self.lessons[prompt].at(rows)

    @torch.no_grad()
    def measure(self, network: Hypernetwork) -> float:
        """The mean loss on held-out prompts; NaN when there are none."""
        losses = [float(self.loss(network, prompt, lessons)) for prompt, lessons in self.held_out.items()]
        return sum(losses) / len(losses) if losses else math.nan

    def picture(self, network: Hypernetwork) -> Image:
        """What the merge draws now."""
        prompt = next(iter(self.held_out or self.lessons))
        numbers = network.coefficients(self.asked[prompt])
        call = self.merge.call
        self.renderer.load(fft_blend(*call.inputs, **{**self.merge.options, "coefficients": numbers}), progress=False)
        settings = {"steps": self.objective.steps, "guidance": self.objective.guidance}
        picture: Image = self.renderer.images([prompt], [0], **settings, progress=False)[0]
        picture.thumbnail((_SIZE, _SIZE))
        return picture


def _train(run: Run, course: _Course, steps: int, every: int, seed: int, state: str | os.PathLike[str] | None, progress: bool) -> str:
    """Take the steps that are left; why it stopped early, if it did."""
    good, stopped = run.snapshot(), ""
    losses: list[float] = []
    with tqdm(total=steps, initial=run.step, desc="fit", unit="step", disable=not progress) as bar:
        try:
            while run.step < steps:
                loss = _step(run, course, seed)
                if not math.isfinite(loss):
                    run.put_back(good)
                    stopped = f"the loss was {loss} after step {run.step}; the network of that step was kept"
                    warn(f"fit: {stopped}; try a lower learning_rate", NonFiniteWarning)
                    break
                losses.append(loss)
                run.step += 1
                bar.update()
                if run.step % every == 0 or run.step == steps:
                    run.history.append({"step": run.step, "loss": sum(losses) / len(losses), "held_out": course.measure(run.network)})
                    run.pictures.append((run.step, course.picture(run.network)))
                    losses, good = [], run.snapshot()
                    run.save(state)
                    bar.set_postfix(loss=f"{run.history[-1]['loss']:.4f}", held_out=f"{run.history[-1]['held_out']:.4f}")
        except KeyboardInterrupt:
            run.put_back(good)
            stopped = f"interrupted; the network of step {run.step} was kept"
    return stopped


def _step(run: Run, course: _Course, seed: int) -> float:
    """One step of the optimizer, unless the loss is no number; all that is random depends on seed and step alone."""
    draws = torch.Generator().manual_seed((seed + 1) * 1_000_003 + run.step)
    loss = course.loss(run.network, *course.batch(draws))
    if math.isfinite(value := loss.item()):
        run.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        run.optimizer.step()
    return value


def _copy(network: Hypernetwork) -> Hypernetwork:
    twin = Hypernetwork(**network.settings)
    twin.load_state_dict(network.state_dict())
    return twin


def _checked(prompts: Sequence[str], held_out: Sequence[str], **counts: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The prompts as they are used. Raises HypernetworkError."""
    for name, given in (("prompts", prompts), ("held_out", held_out)):
        if isinstance(given, str) or not all(isinstance(prompt, str) for prompt in given):
            raise HypernetworkError(f"fit: {name} must be a list of prompts, got {given!r}")
    if not prompts:
        raise HypernetworkError("fit: needs one prompt or more to learn from")
    if twice := [prompt for prompt in held_out if prompt in prompts]:
        raise HypernetworkError(f"fit: {twice[0]!r} cannot be learnt from and held out")
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise HypernetworkError(f"fit: {name} must be a whole number of 1 or more, got {value!r}")
    return tuple(dict.fromkeys(prompts)), tuple(dict.fromkeys(held_out))
