"""`NoiseLevels`: two models that take turns by the noise level of a step, and how a pipeline is made to draw with both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from workbench.checkpoint.base import Checkpoint, hashed
from workbench.checkpoint.names.buffers import is_marker, leftover
from workbench.checkpoint.names.structure import Structure
from workbench.checkpoint.views.layouts import like
from workbench.errors import RenderError
from workbench.tensors import Calculation, Part, SavedDtype, Space, TensorInfo

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline
    from torch import nn

SECOND = "denoiser for low noise"  # the part that stands beside a pipeline's own


@final
class NoiseLevels(Checkpoint):
    """A model whose denoiser is `high` in the noisy steps and `low` in the others, as Wan 2.2 has two; drawn like any other.

    `boundary` is a share of the timesteps of training, between 0 and 1: `high` takes the steps whose timestep is at least
    `boundary * num_train_timesteps` (of a flow model: whose sigma is at least `boundary`), `low` the others. All that is beside the
    denoiser, and what markers say of the schedule, is `high`'s. Both may be files or merges, in any layout.

    There is no file of it: its denoiser has two values for each tensor, so `read` raises RenderError, and so does all that reads. Export
    `high` and `low` each, or one file of both, `workbench.operators.weighted_average([high, low])`.

    Raises RenderError for a boundary out of range, and for models whose denoisers differ in architecture, tensors or prediction.

    Source: two experts by noise level, Wan 2.2 (diffusers' `WanPipeline`, `boundary_ratio`); Balaji et al. 2022, arXiv:2211.01324.
    """

    def __init__(self, high: Checkpoint, low: Checkpoint, boundary: float = 0.5) -> None:
        if isinstance(boundary, bool) or not isinstance(boundary, (int, float)) or not 0 < boundary < 1:
            raise RenderError(f"NoiseLevels: boundary must be between 0 and 1, a share of the noise levels, got {boundary!r}")
        for role, model in (("high", high), ("low", low)):
            _check_model(role, model)
        _check_pair(high, low)
        self.high, self.low, self.boundary = high, low, float(boundary)
        self.name, self.metadata = f"{high.name} then {low.name}", high.metadata
        self.scope, self.layout, self.precision = high.scope, high.layout, high.precision

    @property
    def entries(self) -> Mapping[str, Any]:
        return self.high.entries

    @cached_property
    def structure(self) -> Structure:
        """That of `high`."""
        return self.high.structure

    def info(self, key: str) -> TensorInfo:
        return self.high.info(key)

    def read(self, key: str, part: Part = None) -> torch.Tensor:
        return self._only(key).read(key, part)

    def exact(self, key: str, part: Part = None) -> torch.Tensor:
        return self._only(key).exact(key, part)

    def calculate(self, key: str, part: Part, calculation: Calculation) -> torch.Tensor:
        return self._only(key).calculate(key, part, calculation)

    def origin(self, key: str) -> tuple[Checkpoint, str] | None:
        return None if self._differs(key) else self.high.origin(key)

    def fingerprint(self, key: str) -> str:
        own = self.high.fingerprint(key)
        return hashed(own, self.low.content, self.boundary) if self._differs(key) else own

    def sources(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys((*self.high.sources(), *self.low.sources())))

    def replaced(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys((*self.high.replaced(), *self.low.replaced())))

    def _rounded_to(self, dtype: SavedDtype) -> NoiseLevels:
        return NoiseLevels(self.high.with_dtype(dtype), self.low.with_dtype(dtype), self.boundary)

    def _differs(self, key: str) -> bool:
        self.entry(key)
        return self.structure.component(key) == self.structure.denoiser

    def _only(self, key: str) -> Checkpoint:
        """Who has the one value of a tensor. Raises RenderError for one of the denoiser."""
        if self._differs(key):
            raise RenderError(
                f"{self.name!r}: {key} has two values, one for high noise and one for low, so it cannot be read, merged or exported as "
                "one model: do so with its `high` and `low` each, or with workbench.operators.weighted_average([high, low])"
            )
        return self.high


def halves(checkpoint: Checkpoint) -> tuple[Checkpoint, Checkpoint | None]:
    """Whose tensors a pipeline is filled with, and whose denoiser takes its place at low noise; for most models nobody's."""
    return (checkpoint.high, checkpoint.low) if isinstance(checkpoint, NoiseLevels) else (checkpoint, None)


def _check_model(role: str, model: object) -> None:
    """Raises RenderError for what is no model that denoises."""
    if not isinstance(model, Checkpoint):
        raise RenderError(f"NoiseLevels: {role} must be a checkpoint, got {type(model).__name__}: open a file with workbench.open(path)")
    if isinstance(model, NoiseLevels):
        raise RenderError(f"NoiseLevels: {role} is of two noise levels itself, and there are two in all: give one of its halves")
    if model.space is Space.DELTA:
        advice = f"add it to a model, workbench.operators.add_delta(base, [{model.name}])"
        raise RenderError(f"NoiseLevels: {role}, {model.name!r}, holds changes of a model (a LoRA): {advice}")
    if model.structure.denoiser not in model.components:
        held = ", ".join(model.components) or "no tensors"
        part = model.structure.denoiser
        raise RenderError(f"NoiseLevels: {role}, {model.name!r}, has no {part}, only {held}: give a model that denoises")


def _check_pair(high: Checkpoint, low: Checkpoint) -> None:
    """Raises RenderError for models that cannot take turns. Nothing is read."""
    if high.structure.family is not low.structure.family:
        raise RenderError(
            f"NoiseLevels: high, {high.name!r}, is {high.architecture}, and low, {low.name!r}, is {low.architecture}: "
            "give two models of one architecture"
        )
    kinds = high.structure.prediction, low.structure.prediction
    if kinds[0] != kinds[1] and "unknown" not in kinds:
        raise RenderError(
            f"NoiseLevels: high, {high.name!r}, predicts {kinds[0]}, and low, {low.name!r}, {kinds[1]}: "
            "they take steps on one schedule, so give two that predict the same"
        )
    shapes, others = _denoiser(high), _denoiser(like(low, high))
    for key in dict.fromkeys((*shapes, *others)):
        if shapes.get(key) != others.get(key):
            told = [f"{list(found[key])}" if key in found else "absent" for found in (shapes, others)]
            raise RenderError(
                f"NoiseLevels: {key} is {told[0]} in high, {high.name!r}, and {told[1]} in low, {low.name!r}: "
                "give two models with the same tensors in the denoiser"
            )


def _denoiser(model: Checkpoint) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors that a pipeline's denoiser is filled with."""
    structure = model.structure
    own = (key for key in model if structure.component(key) == structure.denoiser)
    return {key: model.info(key).shape for key in own if model.info(key).numel and not is_marker(key) and leftover(key) is None}


@dataclass(frozen=True)
class Second:
    """The denoiser for low noise, beside that of the pipeline, and the share of the noise levels below which it acts."""

    module: nn.Module
    boundary: float


@contextmanager
def taking_turns(pipeline: DiffusionPipeline, denoiser: str, second: Second | None) -> Iterator[None]:
    """While a pipeline draws, have its denoiser's calls at low noise answered by the second; the weights of neither are touched.

    The level is told by the scheduler, whose timesteps count the same for all pipelines: what their denoisers are given is scaled,
    and turned around by some. Raises RenderError for a scheduler that does not count in timesteps of training.
    """
    if second is None:
        yield
        return
    module: Any = pipeline.components[denoiser]
    scheduler: Any = pipeline.scheduler
    edge = _edge(scheduler, second.boundary)
    forward, step, taken = module.forward, scheduler.step, 0

    @wraps(forward)
    def denoise(*arguments: Any, **options: Any) -> Any:
        low = float(scheduler.timesteps[taken]) < edge
        return second.module(*arguments, **options) if low else forward(*arguments, **options)

    @wraps(step)  # pipelines ask for its signature
    def advance(*arguments: Any, **options: Any) -> Any:
        nonlocal taken
        taken += 1
        return step(*arguments, **options)

    module.forward, scheduler.step = denoise, advance
    try:
        yield
    finally:
        del module.forward, scheduler.step  # back to those of their classes


def _edge(scheduler: Any, boundary: float) -> float:
    """The timestep from which on a step is at high noise."""
    if "sigma_data" in scheduler.config or "num_train_timesteps" not in scheduler.config:  # EDM's and TrigFlow's count otherwise
        raise RenderError(
            f"NoiseLevels: {type(scheduler).__name__} does not count noise levels in timesteps of training, so a boundary says nothing "
            "there; draw `high` and `low` each"
        )
    count: int = scheduler.config.num_train_timesteps
    return boundary * count
