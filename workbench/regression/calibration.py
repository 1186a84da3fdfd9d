"""What a regression is asked for: its models, the prompts of each, and how they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from workbench.checkpoint import Checkpoint
from workbench.errors import InputError, MergeError
from workbench.render.listening import Hear, layers_of, listening

if TYPE_CHECKING:
    import torch

    from workbench.render import Renderer
    from workbench.render.listening import Layer

WHO = "regmean"


@dataclass(frozen=True)
class Calibration:
    """`prompts` has those of each model; `lender` has what a model lacks."""

    renderer: Renderer
    lender: Checkpoint
    prompts: Sequence[Sequence[str]]
    seeds: Sequence[int]
    steps: int | None
    guidance: float | None

    def listen(self, place: int, model: Checkpoint, names: Sequence[str], hear: Hear) -> None:
        """Draw the prompts of the model at that place, and be told what its layers of these names are given."""
        with self.renderer.lock:
            self.renderer.load(model, fallback=self.lender, progress=False)
            layers = layers_of(self.renderer)

            def sound(name: str, layer: Layer, given: torch.Tensor) -> None:
                if not given.isfinite().all():
                    told = "draw in float32, or mend the model (wb.diff and preflight say where it is broken)"
                    raise MergeError(f"{WHO}: {name!r} is given NaN or infinity while {model.name} draws: {told}")
                hear(name, layer, given)

            with listening({name: layers[name] for name in names}, sound):
                self.renderer.images(self.prompts[place], self.seeds, steps=self.steps, guidance=self.guidance, progress=False)


def prompts_of(given: Sequence[str] | Sequence[Sequence[str]], count: int) -> list[list[str]]:
    """The prompts of each of so many models: the same for all, or one list for each. Raises InputError."""
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise InputError(f"{WHO} takes prompts as a list for all models, or one list for each, got {given!r}")
    if all(isinstance(one, str) for one in given):
        return [[str(one) for one in given]] * count
    each = [[one] if isinstance(one, str) else list(one) for one in given]
    if len(each) != count or not all(one and all(isinstance(prompt, str) for prompt in one) for one in each):
        told = f"{len(each)} lists, {[len(one) for one in each]} prompts long"
        raise InputError(f"{WHO} takes one list of prompts for all models, or one for each of the {count}, none empty; got {told}")
    return each


def bar(total: int, shown: bool) -> tqdm[Any]:
    """A progress bar over drawings."""
    return tqdm(total=total, desc=f"{WHO}: listening to models that draw", unit="model", delay=2, leave=False, disable=not shown)


def ridge_of(products: torch.Tensor, share: float) -> torch.Tensor:
    """What is added to the diagonal of products so that they can be solved for: a share of it, whatever its scale; 1 where that is zero."""
    import torch

    diagonal = products.diagonal()
    return torch.where(diagonal > 0, share * diagonal, 1.0)
