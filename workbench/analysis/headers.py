"""What two checkpoints say of themselves, and where they say different things: kind, metadata, recipe. No weight is read here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.checkpoint import Checkpoint
from workbench.errors import RecipeError
from workbench.recipe import Recipe
from workbench.recipe.file import HEADER
from workbench.recipe.judgement import describe
from workbench.untrusted import MOST_LEVELS, Refused, parse_json
from workbench.wording import enumerated

_KINDS = ("architecture", "layout", "components", "prediction")


@dataclass(frozen=True)
class Said:
    """A thing of which the first says one, and the second another; None where one says nothing."""

    what: str
    first: str | None
    second: str | None


def kinds(first: Checkpoint, second: Checkpoint) -> tuple[Said, ...]:
    """Where the kinds of model differ, as names tell it."""
    one, other = describe(first), describe(second)
    return tuple(Said(what, str(one[what]), str(other[what])) for what in _KINDS if one[what] != other[what])


def metadata(first: Checkpoint, second: Checkpoint) -> tuple[Said, ...]:
    """Where the metadata differs, but for recipes that can be read."""
    one, other = (
        {key: value for key, value in model.metadata.items() if key != HEADER or recipe(model) is None} for model in (first, second)
    )
    return _differing(one, other)


def recipes(first: Checkpoint, second: Checkpoint) -> tuple[Said, ...]:
    """Where the recipes differ, part by part, with paths as seen from the current folder; a hash that one leaves out is no difference."""
    one, other = recipe(first), recipe(second)
    if one is None or other is None:
        return _differing(_in_short(one), _in_short(other))
    differing = _differing(dict(_flat(one)), dict(_flat(other)))
    return tuple(said for said in differing if not said.what.endswith(".sha256") or None not in (said.first, said.second))


def recipe(model: Checkpoint) -> Mapping[str, Any] | None:
    """The recipe that a merge is, or that a file carries, another program's too; None where there is none."""
    try:
        if found := model.recipe:
            return _data(found)
    except RecipeError:
        pass
    try:
        found = parse_json(model.metadata.get(HEADER, "null"), levels=MOST_LEVELS)
    except Refused:
        return None
    return found if isinstance(found, dict) else None


def _data(found: Recipe) -> Mapping[str, Any]:
    return found.relative_to(Path()).data.model_dump(mode="json")


def _in_short(found: Mapping[str, Any] | None) -> dict[str, str]:
    """`{"recipe": "ties of base, heart and moon"}`; of another program's recipe, whose it is."""
    if found is None:
        return {}
    merge, models = found.get("merge"), found.get("models")
    if isinstance(merge, Mapping) and isinstance(models, Mapping):
        return {"recipe": f"{merge.get('operator')} of {enumerated(list(models))}"}
    return {"recipe": f"of type {found.get('type')}"}


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested data by dotted names; a list without mappings is one leaf."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}".removeprefix("."))
    elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        for at, inner in enumerate(value):
            yield from _flat(inner, f"{name}[{at}]")
    elif value != {}:
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> tuple[Said, ...]:
    names = dict.fromkeys([*one, *other])
    return tuple(Said(name, one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name))
