"""`regmean`: the weights whose layers answer as each model's own do, for what that model's layers are given. Of LoRAs: `routing`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.checkpoint import Checkpoint, in_layout
from workbench.checkpoint.names.components import DENOISER
from workbench.checkpoint.views.layouts import like
from workbench.checkpoint.views.low_rank import LowRank
from workbench.errors import InputError, MergeError, OptionError
from workbench.families.correspondence import DIFFUSERS
from workbench.operators.combine import task_arithmetic
from workbench.recipe import preflight
from workbench.regression.calibration import WHO, Calibration, bar, prompts_of, ridge_of
from workbench.regression.routing import routed
from workbench.regression.solved import Solving
from workbench.render.listening import columns, layers_of
from workbench.tensors import Calculation
from workbench.wording import listed, size

if TYPE_CHECKING:
    import torch

    from workbench.render import Renderer
    from workbench.render.listening import Layer

_RIDGE = 1e-6  # far above the rounding of the products
_FLOAT = 4


def regmean(
    base: Checkpoint,
    models: Sequence[Checkpoint],
    prompts: Sequence[str] | Sequence[Sequence[str]],
    renderer: Renderer,
    *,
    alpha: float = 0.9,
    seeds: Sequence[int] = (0,),
    steps: int | None = None,
    guidance: float | None = None,
    memory: int = 2 << 30,
    progress: bool = True,
) -> Checkpoint:
    """Merge fine-tunes of `base` so that every layer answers as each model's own does, for what that model's layer is given.

    Each model draws its `prompts` (one list for all models, or one for each) with `renderer`; no training data is needed. With what a
    layer of the denoiser is given in the model i as the columns of X_i, of places on average, G_i = X_i X_i^T:
    W = W_base + (sum_i (W_i - W_base) H_i) (sum_i H_i)^-1, where H_i = alpha G_i + (1 - alpha) diag(G_i). It is for linear layers and
    convolutions (on their patches); all else, biases and norms too, is the mean of the models. With alpha=0 each input of a layer
    has a weight of its own; 1 is the regression itself, which few prompts do not determine.

    Layers are solved for in groups whose products take at most `memory` bytes (default 2 GiB), and each group costs a drawing by each
    model; a layer whose products take more than that alone is averaged, which `notes` say. The result lies in no file: export it.

    Of LoRAs (all models are) it is SSR, the same regression within the directions that they have together, with alpha=1: the result is a
    LoRA of their ranks together. With A their lower factors on top of each other, B the upper ones side by side, Z_i = A X_i, and S_i what
    keeps LoRA i's part of it, B A becomes B R A, R = (sum_i S_i Z_i Z_i^T + D) (sum_i Z_i Z_i^T + D)^-1. D is 1e-4 of the second sum's
    diagonal: what no prompt excites is added up as ever. (The source adds 1e-4 to the second sum alone, which takes strength from small
    changes, and all of it from what no prompt excites.)

    Raises InputError for what are no models of one architecture, or no prompts; OptionError for numbers out of range; MergeError where a
    model's layers are given NaN or infinity; RenderError for what the renderer cannot draw.
    Source: Jin et al. 2023, arXiv:2212.09849, section 3; for LoRAs Wei et al. 2026, arXiv:2606.10617.
    """
    _check(base, models, alpha, memory)
    calibration = Calibration(renderer, base, prompts_of(prompts, len(models)), tuple(seeds), steps, guidance)
    loras = [model for model in models if isinstance(model, LowRank)]
    if loras:
        if len(loras) < len(models):
            raise InputError(f"{WHO} takes models, or LoRAs, and not both: apply the LoRAs first (wb.lora.apply), or extract the others")
        return routed(base, loras, calibration, progress)
    return _averaged(base, models, calibration, alpha, memory, progress)


def _check(base: Checkpoint, models: Sequence[Checkpoint], alpha: float, memory: int) -> None:
    if isinstance(models, Checkpoint) or not models or not all(isinstance(one, Checkpoint) for one in [base, *models]):
        raise InputError(f"{WHO} takes a base and a list of models (see workbench.open), got {base!r} and {models!r}")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 <= alpha <= 1:
        raise OptionError(f"{WHO}: alpha must be in [0, 1], got {alpha!r}")
    if isinstance(memory, bool) or not isinstance(memory, int) or memory <= 0:
        raise OptionError(f"{WHO}: memory must be bytes, above 0, got {memory!r}")
    preflight(task_arithmetic(base, [*models])).raise_errors()


def _averaged(
    base: Checkpoint, models: Sequence[Checkpoint], calibration: Calibration, alpha: float, memory: int, progress: bool
) -> Checkpoint:
    rest = in_layout(task_arithmetic(base, [*models], weights=1 / len(models)), DIFFUSERS)
    views = [in_layout(like(model, base), DIFFUSERS) for model in (base, *models)]
    calibration.renderer.load(base, fallback=base, progress=False)
    places = [_place(rest, name, layer) for name, layer in layers_of(calibration.renderer).items()]
    there = [place for place in places if all(_key(view, place.name) in view for view in views)]
    if not there:
        raise MergeError(f"{WHO}: {' and '.join(model.name for model in (base, *models))} have no layer of the denoiser in common")
    fitting = [place for place in there if place.nbytes <= memory]
    solving = Solving({place.key: rest.info(place.key).shape for place in fitting})
    groups = list(_groups(fitting, memory))
    with bar(len(groups) * len(models), progress) as shown:
        for group in groups:
            for number, model in enumerate(models):
                products = _products(calibration, number, model, group)
                for place in group:
                    change = _weights(views[1 + number], place.name) - _weights(views[0], place.name)
                    place.add(change, products.pop(place.name), alpha)
                shown.update()
            for place in group:
                if (found := place.solved()) is not None:
                    solving.put(place.key, _weights(views[0], place.name) + found.reshape(rest.info(place.key).shape))
    merged = solving.over(rest, "+".join(model.name for model in models), tuple(_notes(solving.there, there, fitting, memory)))
    layout = base.structure.layout
    return in_layout(merged, layout) if layout in base.structure.family.layouts else merged  # type: ignore[arg-type]


def _key(view: Checkpoint, name: str) -> str:
    """What a model in diffusers' layout calls the weights of a layer of its denoiser: one that is a denoiser alone has no prefix."""
    return view.structure.spell(DENOISER, f"{name}.weight") or ""


def _weights(view: Checkpoint, name: str) -> torch.Tensor:
    return view.calculate(_key(view, name), None, Calculation("float32"))


def _notes(solved: set[str], there: Sequence[_Place], fitting: Sequence[_Place], memory: int) -> Iterator[str]:
    yield f"{WHO}: {len(solved)} layers were solved for, all else is the mean of the models"
    if large := [place for place in there if place not in fitting]:
        most = max(place.nbytes for place in large)
        keys = listed([place.key for place in large])
        told = f"{len(large)} layers are averaged, since their products take more than memory={memory}"
        yield f"{told} ({keys}); the largest takes {size(most)}"
    if silent := [place.key for place in fitting if place.key not in solved]:
        yield f"{len(silent)} layers are averaged, since they were given nothing but zeros ({listed(silent)})"


@dataclass(eq=False)
class _Place:
    """A layer, and what is summed up for it: `left` of changes times products, `right` of products."""

    name: str
    key: str
    shape: tuple[int, int]
    left: torch.Tensor | None = None
    right: torch.Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of what one model is given, of the sum of that, and of the changes."""
        rows, inputs = self.shape
        return _FLOAT * inputs * (2 * inputs + rows)

    def add(self, change: torch.Tensor, product: torch.Tensor, alpha: float) -> None:
        """One more model."""
        diagonal = product.diagonal().clone()
        weighted = product.mul_(alpha)
        weighted.diagonal().copy_(diagonal)
        told = change.flatten(1) @ weighted
        self.left = told if self.left is None else self.left.add_(told)
        self.right = weighted if self.right is None else self.right.add_(weighted)

    def solved(self) -> torch.Tensor | None:
        """The merged change, rows x inputs; None where no model's layer was given anything. The sums are let go of."""
        import torch

        assert self.left is not None
        assert self.right is not None
        left, right = self.left.double(), self.right.double()
        self.left = self.right = None
        if not right.diagonal().any():
            return None
        right.diagonal().add_(ridge_of(right, _RIDGE))
        return torch.cholesky_solve(left.T, torch.linalg.cholesky(right)).T


def _place(rest: Checkpoint, name: str, layer: Layer) -> _Place:
    rows = layer.weight.shape[0]
    return _Place(name, _key(rest, name), (rows, math.prod(layer.weight.shape[1:])))


def _groups(places: Sequence[_Place], memory: int) -> Iterator[list[_Place]]:
    """Layers whose sums fit together, in the order of the network."""
    group: list[_Place] = []
    for place in places:
        if group and sum(one.nbytes for one in [*group, place]) > memory:
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def _products(calibration: Calibration, number: int, model: Checkpoint, group: Sequence[_Place]) -> dict[str, torch.Tensor]:
    """For each layer, the products of what it is given, over its places on average, while a model draws."""
    import torch

    sums = {place.name: torch.zeros(place.shape[1], place.shape[1]) for place in group}
    counts = dict.fromkeys(sums, 0)

    def hear(name: str, layer: Layer, given: torch.Tensor) -> None:
        seen = columns(layer, given)
        sums[name] += (seen @ seen.T).to("cpu")
        counts[name] += seen.shape[1]

    calibration.listen(number, model, list(sums), hear)
    for name, total in sums.items():
        total.div_(max(1, counts[name]))
    return sums
