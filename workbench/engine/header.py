"""What an exported file says of itself: the recipe, its parents, and the fields other programs look for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from workbench.checkpoint import Checkpoint
from workbench.checkpoint import open as open_checkpoint
from workbench.checkpoint.base import tree
from workbench.checkpoint.files import hashing
from workbench.errors import RecipeError
from workbench.recipe import Recipe
from workbench.recipe.file import HEADER, TYPE
from workbench.untrusted import MOST_LEVELS, Refused, parse_json

QUANTISE = "workbench_quantise"  # how the tensors were quantised, as JSON
_PARENTS = "sd_merge_models"
_HASHES = ("modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash")  # ModelSpec's, and kohya's


def metadata(checkpoint: Checkpoint, folder: Path, title: str, hashes: Mapping[Path, str]) -> dict[str, str]:
    """The metadata of a header that lies in `folder`; `hashes` has the sha256 of every file that `checkpoint` is made of.

    What is made of tensors that lie in no file has no recipe.
    """
    if not checkpoint.parents:
        return {**_own(checkpoint, folder), "format": "pt"}
    if homeless(checkpoint):
        return {"format": "pt", _PARENTS: json.dumps(_parents(hashes)), **_modelspec(checkpoint, title, [file.stem for file in hashes])}
    recipe = Recipe.of(checkpoint, hashes).relative_to(folder)
    return {
        "format": "pt",
        HEADER: _spelled(recipe),
        _PARENTS: json.dumps(_parents(hashes)),
        **_modelspec(checkpoint, title, [Path(model.path).stem for model in recipe.data.models.values()]),
    }


def _own(checkpoint: Checkpoint, folder: Path) -> dict[str, str]:
    """What a file says of itself; its recipe as it is for what is written now, with paths as seen from `folder`.

    A hash in it is of the bytes that were read, and so is left out, as is how these were quantised.
    """
    said = {name: value for name, value in checkpoint.metadata.items() if name not in (*_HASHES, QUANTISE)}
    if _json_object(said.get(HEADER)).get("type") == TYPE:
        try:
            recipe = checkpoint.recipe
        except RecipeError:  # a newer version's, perhaps
            recipe = None
            if checkpoint.rounding is None and checkpoint.layout is None:
                return said
        del said[HEADER]
        said |= {HEADER: _spelled(recipe.relative_to(folder))} if recipe else {}
    return said


def _spelled(recipe: Recipe) -> str:
    return json.dumps({"type": TYPE, "recipe": recipe.to_dict()})


def homeless(checkpoint: Checkpoint) -> list[str]:
    """The names of what a merge is made of that lies in no file."""
    return list(dict.fromkeys(model.name for model in tree(checkpoint) if not model.parents and model.path is None))


def _parents(hashes: Mapping[Path, str]) -> dict[str, object]:
    """AUTOMATIC1111's lineage: an entry for each parent, and those that the parents carry themselves."""
    entries: dict[str, object] = {}
    for path, sha256 in hashes.items():
        carried = open_checkpoint(path).metadata
        entries |= _json_object(carried.get(_PARENTS))
        recipe = _json_object(carried.get(HEADER)) or None
        entries[sha256] = {"name": path.name, "legacy_hash": hashing.legacy_hash(path), "sd_merge_recipe": recipe}
    return entries


def _json_object(text: str | None) -> dict[str, object]:
    """An object that another program may have written into a header; empty when it is not one."""
    try:
        found = parse_json(text or "null", levels=MOST_LEVELS)
    except Refused:
        return {}
    return found if isinstance(found, dict) else {}


def _modelspec(checkpoint: Checkpoint, title: str, parents: list[str]) -> dict[str, str]:
    """ModelSpec 1.0.1. Its date is left out, since the same recipe is to give the same bytes."""
    structure = checkpoint.structure
    prediction = structure.prediction
    specification = structure.family.specification(tuple(checkpoint), prediction)
    if specification is None:
        return {}
    fields = {
        "sai_model_spec": "1.0.1",
        "architecture": specification.id,
        "implementation": specification.implementation,
        "title": title,
        "resolution": _carried(checkpoint, "resolution") or specification.resolution,
        "merged_from": ", ".join(parents),
    }
    if prediction in ("v", "epsilon"):
        fields["prediction_type"] = prediction
    return {f"modelspec.{name}": value for name, value in fields.items()}


def _carried(checkpoint: Checkpoint, field: str) -> str | None:
    """What the first file that says so says of itself in a ModelSpec field."""
    said = (model.metadata.get(f"modelspec.{field}") for model in tree(checkpoint) if not model.parents)
    return next(filter(None, said), None)
