"""Recipes of SuperMerger, `sd_merge_recipe` of a header, as ours; its weights by block as our blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.recipe.of_webui import Models, model, shares
from workbench.recipe.translation import Draft, Translation, Value, by_block, node, together, unet_blocks

_KEYS = (
    "type", "weights_alpha", "weights_beta", "weights_alpha_orig", "weights_beta_orig", "model_a", "model_b", "model_c", "base_alpha",
    "base_beta", "mode", "mbw", "elemental_merge", "calcmode", "Off", "Include", "Exclude",
)  # fmt: skip
_MODES = {"Weight": "weighted_sum", "Add": "add_difference", "Triple": "triple_sum", "Twice": "sum_twice"}
_INSTEAD = {
    "cosineA": "add_cosine_a, or weighted_similarity, which stretches the cosines of each tensor and not of the model",
    "cosineB": "add_cosine_b, or weighted_similarity, which stretches the cosines of each tensor and not of the model",
    "tensor": "tensor_sum with width alpha and offset beta, which rounds where SuperMerger cuts",
}
_SD1, _SDXL = 25, 19
_UNETS = ("SD 1", "SD 2", "SDXL")  # whose blocks it knows
_UNTOUCHED = {"time_embed": 0.0, "label_emb": 0.0}  # of SDXL, which it leaves as in the first model


def read(recipe: Mapping[str, Any], models: Models, architecture: str | None = None) -> Translation:
    """A merge of SuperMerger, of models of that architecture if it is known. Raises RecipeError for what has no counterpart."""
    draft = Draft("SuperMerger's recipe")
    draft.only(recipe, _KEYS)
    if architecture is not None and not architecture.startswith(_UNETS):
        draft.refuse(f"its models are {architecture}, of which it leaves parts as in model A", "write a recipe with rules that take them")
    mode, calculation = _mode(draft, recipe), recipe.get("calcmode", "normal")
    if calculation not in ("normal", "trainDifference"):
        near = _INSTEAD.get(str(calculation), "no operator does the same; choose one of the README's table")
        draft.refuse(f"calcmode {calculation!r} has no exact counterpart (normal and trainDifference have)", f"what comes near: {near}")
    mode = mode if calculation == "normal" else "add_difference"  # which it then always is
    for key in ("elemental_merge", "Include", "Exclude"):
        if recipe.get(key) not in (None, "", [], [""]):
            draft.refuse(f"{key} {recipe[key]!r} chooses tensors inside blocks", "leave it empty, and write rules for them")
    alpha = _weights(draft, recipe, "alpha", architecture)
    beta = _weights(draft, recipe, "beta", architecture) if mode in ("triple_sum", "sum_twice") else 0.0
    slots = ("model_a", "model_b") if mode == "weighted_sum" else ("model_a", "model_b", "model_c")
    named = [model(draft, recipe, slot, models) for slot in slots]
    draft.note("does not record a baked VAE and its adjustments: if they were used, the file was made otherwise")
    if not recipe.get("mbw") and architecture is None:
        draft.note("leaves an SDXL model's time_embed and label_emb as in model A; here they are merged like the rest")
    if mode == "add_difference":
        operator = "add_difference" if calculation == "normal" else "train_difference"
        return draft.finish(node(operator, dict(zip(("base", "tuned", "original"), named, strict=True)), strength=alpha))
    weights = together(lambda one, other: shares(mode, one, other), alpha, beta)
    return draft.finish(node("weighted_average", {"models": named}, weights=weights))


def _mode(draft: Draft, recipe: Mapping[str, Any]) -> str:
    told = recipe.get("mode")
    found = next((ours for theirs, ours in _MODES.items() if isinstance(told, str) and theirs in told.partition(":")[0]), None)
    if found is None:
        draft.refuse(f"mode {told!r} is not known", "what is read: Weight sum, Add difference, Triple sum, sum Twice")
    return found


def _weights(draft: Draft, recipe: Mapping[str, Any], which: str, architecture: str | None) -> Value:
    """alpha or beta: one number, or by block."""
    base, key = recipe.get(f"base_{which}"), f"weights_{which}"
    if not draft.flag(recipe.get("mbw", False), "mbw"):
        number = draft.number(base, f"base_{which}")
        return by_block(_UNTOUCHED, number) if architecture == "SDXL" else number
    given = recipe.get(key)
    texts = given.split(",") if isinstance(given, str) else given
    if not isinstance(texts, list):
        draft.refuse(f"mbw is true, and {key} is {given!r}", "write 25 numbers (19 for SDXL), or one more with the base before them")
    numbers = [draft.number(one, key) for one in texts]
    if isinstance(given, list) and len(numbers) == _SDXL + 1:
        numbers = numbers[:-1]  # it adds one for the VAE, which it never uses
    elif len(numbers) in (_SD1 + 1, _SDXL + 1):
        base, *numbers = numbers  # as it has it itself: the one in the text counts
    if len(numbers) not in (_SD1, _SDXL):
        draft.refuse(f"{key} has {len(numbers)} numbers", "it must have 25 (19 for SDXL), or one more with the base before them")
    if architecture == "SDXL" and len(numbers) == _SD1:
        numbers = [*numbers[:9], *numbers[12:22]]  # as it does: those of blocks that SDXL has
    return _by_block(draft, numbers, draft.number(base, f"base_{which}"))


def _by_block(draft: Draft, numbers: list[float], base: float) -> Value:
    values = dict(zip(unet_blocks(len(numbers)), numbers, strict=True)) | {"out": numbers[-1]}
    if len(numbers) == _SDXL:
        draft.note("leaves an SDXL model's time_embed and label_emb as in model A, and so does this recipe")
        return by_block(values | _UNTOUCHED, base)
    if numbers[0] != numbers[-1]:
        draft.note("versions of it give time_embed the weight of IN00, as this recipe does, or of the last block")
    return by_block(values | {"time_embed": numbers[0]}, base)
