"""What instructions of sd-mecha make, as our recipes have it: models, changes, masks, numbers by block. No method is here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from workbench.checkpoint.base import MOST_MERGES
from workbench.recipe.translation import Draft, Value, by_block, node, unet_blocks

_DEEPEST = 30  # merges in each other: what a file of ours can hold
_SDXL, _SD1 = unet_blocks(19), unet_blocks(25)


@dataclass(frozen=True)
class Weight:
    """A model's name, or a merge as plain data, of so many merges in so many levels."""

    data: Any
    levels: int = 0
    merges: int = 0

    @classmethod
    def of(cls, draft: Draft, operator: str, inputs: Mapping[str, Weight | list[Weight]], **options: Any) -> Weight:
        """The merge of these. Raises RecipeError for more than a recipe can hold."""
        inside = [one for given in inputs.values() for one in (given if isinstance(given, list) else [given])]
        levels, merges = 1 + max(one.levels for one in inside), 1 + sum(one.merges for one in inside)
        if levels > _DEEPEST or merges > MOST_MERGES:
            allowed = f"{MOST_MERGES:,} merges, {_DEEPEST} in each other"
            draft.refuse(
                f"it has {merges:,} merges, {levels} in each other", f"write an inner one to a file: a recipe has at most {allowed}"
            )
        plain = {slot: [one.data for one in given] if isinstance(given, list) else given.data for slot, given in inputs.items()}
        return cls(node(operator, plain, **options), levels, merges)


@dataclass(frozen=True)
class Delta:
    """A change: what makes a model of it and a base, and whose difference it is, where it is one of two models."""

    added: Callable[[Weight, Value], Weight]
    tuned: Weight | None = None
    original: Weight | None = None


@dataclass(frozen=True)
class Mask:
    """How much of a change is added, element by element, as one of our operators has it."""

    operator: str
    models: tuple[Weight, Weight, Weight]
    strength: Value


@dataclass(frozen=True)
class Cast:
    """A model in another dtype."""

    weight: Weight
    dtype: str | None


@dataclass(frozen=True)
class BlockNumbers:
    """Numbers by SuperMerger's names of the blocks, and one for those that have none."""

    values: Mapping[str, float]
    sdxl: bool
    default: float | None = None

    def option(self, draft: Draft) -> Value:
        """As an option of ours. Raises RecipeError for names that are no blocks, and for blocks without a number."""
        names = {"M00" if name == "MID" else name: name for name in (_SDXL if self.sdxl else _SD1)}
        draft.only(self.values, ("BASE", "VAE", *names), "a dict of numbers by block")
        lacking = [name for name in ("BASE", *names) if name not in self.values]
        if lacking and self.default is None:
            draft.refuse(f"numbers by block lack {', '.join(lacking[:3])}", "write one for each, or a fallback for those that have none")
        base = self.values.get("BASE", self.default)
        vae = self.values.get("VAE", self.default if self.sdxl else base)
        if self.sdxl and vae is not None and vae != base:
            draft.refuse(
                f"VAE is {vae:g}, and BASE {base:g}: an option has one number for what is in no block",
                "make them the same, and write a rule: {component: vae, take: model}",
            )
        found = {ours: self.values.get(theirs, self.default) for theirs, ours in names.items()}
        return by_block(found | {"out": found[next(reversed(found))]}, base)  # type: ignore[arg-type] # lacking ones are refused
