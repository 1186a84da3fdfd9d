"""Recipes of AUTOMATIC1111's and SD.Next's mergers, `sd_merge_recipe` of a header, as ours. SuperMerger's are in `of_supermerger`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from workbench.checkpoint.files.catalogue import Mark
from workbench.recipe.translation import Draft, Translation, node

_ROLES = ("primary", "secondary", "tertiary")
_HASHES = tuple(f"{role}_model_hash" for role in _ROLES)
_WEBUI = (
    "type", *_HASHES, "interp_method", "multiplier", "save_as_half", "custom_name", "config_source", "bake_in_vae", "discard_weights",
    "is_inpainting", "is_instruct_pix2pix",
)  # fmt: skip
_SDNEXT = ("type", *_HASHES, "merge_mode", "alpha", "beta", "precision", "custom_name")
_PRECISIONS = {"fp16": "float16", "fp32": "float32", "bf16": "bfloat16", "original": None, None: None}
_LITERAL = re.compile(r"(?:[\w-]|\\\.|\.\*?)+")  # of regular expressions, what a pattern of ours says as well
_WHOLE = 64  # hexadecimal digits of a sha256

Models = Mapping[str, Any]  # what `sd_merge_models` holds, by sha256


def model(draft: Draft, recipe: Mapping[str, Any], key: str, models: Models) -> str:
    """The name in our recipe of the model that a recipe names by its hash. Raises RecipeError where it names none."""
    sha256 = recipe.get(key)
    if not isinstance(sha256, str) or not sha256:
        draft.refuse(f"{key} names no model, got {sha256!r}", "write a recipe with the file that was meant")
    entry = models.get(sha256)
    mark = Mark.of(entry.get("name") if isinstance(entry, Mapping) else "", sha256)
    if not mark.name:
        draft.note(f"{key} is told by its hash alone, {sha256[:10]}")
    path = mark.name.replace("\\", "/") or f"{sha256}.safetensors"
    return draft.model(path, mark.sha256 if len(mark.sha256) == _WHOLE else None, None if mark.name else sha256[:10])


def of_webui(recipe: Mapping[str, Any], models: Models) -> Translation:
    """A merge of AUTOMATIC1111 or Forge. Raises RecipeError for what has no counterpart."""
    draft = Draft("AUTOMATIC1111's recipe")
    draft.only(recipe, _WEBUI)
    merge = _interpolated(draft, recipe, models)
    rules = _discarded(draft, recipe.get("discard_weights"))
    vae = recipe.get("bake_in_vae")
    if vae not in (None, "", "None"):
        baked = draft.model(str(vae).replace("\\", "/"))
        inputs = {"models": [merge, baked]}
        merge = node("weighted_average", inputs, [*rules, {"component": "vae", "take": baked}], weights=[1, 0])
    elif rules:
        merge["rules"] = rules
    if recipe.get("config_source", 0) != 0:
        draft.note(f"config_source {recipe['config_source']!r} is left out: no .yaml is copied beside the result")
    half = draft.flag(recipe.get("save_as_half", False), "save_as_half")
    return draft.finish(merge, "float16" if half else None)


def _interpolated(draft: Draft, recipe: Mapping[str, Any], models: Models) -> dict[str, Any]:
    method = recipe.get("interp_method")
    allowed = {"No interpolation": 1, "Weighted sum": 2, "Add difference": 3}
    if not isinstance(method, str) or method not in allowed:
        draft.refuse(f"interp_method {method!r} is not known", f"what is read: {', '.join(allowed)}")
    named = [model(draft, recipe, key, models) for key in _HASHES[: allowed[method]]]
    if method == "No interpolation":
        return node("weighted_average", {"models": named})
    much = draft.number(recipe.get("multiplier"), "multiplier")
    if method == "Add difference":
        return _added(named, much)
    if recipe.get("is_inpainting") or recipe.get("is_instruct_pix2pix"):  # whose first channels alone are merged
        return node("task_arithmetic", {"base": named[0], "models": named[1:]}, weights=[much])
    return node("weighted_average", {"models": named}, weights=[round(1 - much, 12), much])


def _added(named: list[str], much: float) -> dict[str, Any]:
    return node("add_difference", dict(zip(("base", "tuned", "original"), named, strict=True)), strength=much)


def _discarded(draft: Draft, given: Any) -> list[dict[str, Any]]:
    """Rules that leave out what a regular expression finds, where patterns can say the same."""
    if given in (None, ""):
        return []
    parts = str(given).split("|")
    if not all(map(_LITERAL.fullmatch, parts)):
        allowed = "names, parts of names, `.*` and `|`"
        draft.refuse(f"discard_weights {given!r} is more than patterns can say ({allowed})", "write rules: {match: pattern, skip: true}")
    return [{"match": f"*{_pattern(part)}*", "skip": True, "optional": True} for part in parts]


def _pattern(expression: str) -> str:
    return re.sub(r"\\\.|\.\*|\.", lambda found: {"\\.": ".", ".*": "*", ".": "?"}[found[0]], expression)


def of_sdnext(recipe: Mapping[str, Any], models: Models) -> Translation:
    """A merge of SD.Next, as far as its formulas are ours. Raises RecipeError for the others."""
    draft = Draft("SD.Next's recipe")
    draft.only(recipe, _SDNEXT)
    mode, precision = recipe.get("merge_mode"), recipe.get("precision")
    counts = {"weighted_sum": 2, "weighted_subtraction": 2, "add_difference": 3, "sum_twice": 3, "triple_sum": 3}
    if not isinstance(mode, str) or mode not in counts:
        draft.refuse(f"merge_mode {mode!r} has no exact counterpart", f"what is read: {', '.join(counts)}; or choose an operator")
    if not isinstance(precision, (str, type(None))) or precision not in _PRECISIONS:
        draft.refuse(f"precision {precision!r} is not known", "what is read: fp16, fp32, bf16, original")
    alpha = _plain(draft, recipe, "alpha")
    beta = _plain(draft, recipe, "beta") if mode not in ("weighted_sum", "add_difference") else 0.0
    named = [model(draft, recipe, key, models) for key in _HASHES[: counts[mode]]]
    if mode == "weighted_subtraction" and alpha * beta == 1:
        draft.refuse("alpha and beta of 1 take as much away as there is", "write other numbers")
    draft.note("does not record weights_clip, re_basin and a baked VAE: if they were used, the file was made otherwise")
    merge = (
        _added(named, alpha) if mode == "add_difference" else node("weighted_average", {"models": named}, weights=shares(mode, alpha, beta))
    )
    return draft.finish(merge, _PRECISIONS[precision])


def _plain(draft: Draft, recipe: Mapping[str, Any], key: str) -> float:
    given = recipe.get(key)
    if isinstance(given, (list, str)):
        draft.refuse(f"{key} {given!r} is a preset, or differs by block", "write one number, or blocks in a recipe of your own")
    return draft.number(given, key)


def shares(mode: str, alpha: float, beta: float) -> list[float]:
    """What part of the sum each model is, by SD.Next's names of the formulas."""
    found = {
        "weighted_sum": [1 - alpha, alpha],
        "weighted_subtraction": [1, -alpha * beta],  # divided by their sum
        "triple_sum": [1 - alpha - beta, alpha, beta],
        "sum_twice": [(1 - alpha) * (1 - beta), alpha * (1 - beta), beta],
    }
    return [round(one, 12) for one in found[mode]]
