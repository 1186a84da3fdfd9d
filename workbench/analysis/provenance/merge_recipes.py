"""What `sd_merge_recipe` and `sd_merge_models` say: AUTOMATIC1111's fields, which SuperMerger, Chattiori's and Workbench write too."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from workbench.analysis.provenance import workbench_recipes
from workbench.analysis.provenance.account import ROOT, Account, Link, Member, described, json_in, mapping, number, parsed, shown
from workbench.checkpoint.files.catalogue import Mark

RECIPE, MODELS = "sd_merge_recipe", "sd_merge_models"
_OWN = "workbench"
_PROGRAMS = {"webui": "AUTOMATIC1111", "sd-webui-supermerger": "SuperMerger", _OWN: "Workbench"}
_MODEL = re.compile(r"(\w+)_model_hash|model_[a-z]|base_model")  # of webui and Chattiori; of SuperMerger and model-mixer


def account(metadata: Mapping[str, str]) -> Account | None:
    """The graph of both fields; None where neither holds anything."""
    recipe, entries = parsed(json_in(metadata, RECIPE)), mapping(json_in(metadata, MODELS))
    recipe = recipe if isinstance(recipe, dict) else {}
    if not recipe and not entries:
        return None
    given = {sha256: mapping(entry) for sha256, entry in entries.items()}
    known = {name: _key(sha256) for sha256, entry in given.items() if isinstance(name := entry.get("name"), str)}
    known |= {sha256: _key(sha256) for sha256 in given}  # as recipes name them: by hash or, model-mixer, by name
    made: dict[str, Member] = {}
    _add(made, ROOT, recipe, known, Mark())
    for sha256, entry in given.items():
        mark = Mark.of(entry.get("name"), sha256, entry.get("legacy_hash"))
        _add(made, _key(sha256), mapping(entry.get(RECIPE)), known, mark)
    return Account(f"{_program(recipe)}'s {RECIPE if recipe else MODELS}", _with_rest(made, entries))


def _add(made: dict[str, Member], key: str, recipe: Mapping[str, Any], known: Mapping[str, str], mark: Mark) -> None:
    """Add what a recipe says of the member `key`."""
    if recipe.get("type") == _OWN:
        made |= _listed(workbench_recipes.members(recipe.get("recipe"), key, mark), known)
        return
    links = tuple(_links(made, key, recipe, known))
    settings = described((name, value) for name, value in recipe.items() if name != "type" and not _MODEL.fullmatch(name))
    made[key] = Member(mark, f"{_program(recipe)}: {settings}" if recipe else "", links)


def _listed(members: Mapping[str, Member], known: Mapping[str, str]) -> dict[str, Member]:
    """The members of our own recipe, in which a file that the models list is that entry, which says how it was made itself."""
    same = {key: known[one.mark.sha256] for key, one in members.items() if not one.links and one.mark.sha256 in known}
    return {
        key: replace(one, links=tuple(replace(link, to=same.get(link.to, link.to)) for link in one.links))
        for key, one in members.items()
        if key not in same
    }


def _links(made: dict[str, Member], key: str, recipe: Mapping[str, Any], known: Mapping[str, str]) -> Iterator[Link]:
    weights = _weights(recipe)
    for role, given in recipe.items():
        if not (found := _MODEL.fullmatch(role)) or not isinstance(given, str) or not given:
            continue
        told = found[1] or role
        if given in known:
            yield Link(known[given], told, weights.get(told, ""))
        else:  # a file that the models do not list
            mark = Mark.of(sha256=given)
            made[f"{key}{role}"] = Member(mark if mark.hash else Mark.of(given))
            yield Link(f"{key}{role}", told, weights.get(told, ""))


def _weights(recipe: Mapping[str, Any]) -> dict[str, str]:
    """How much of each model is in it, where AUTOMATIC1111's two formulas say so."""
    much = number(recipe.get("multiplier"))
    if much is None or recipe.get("type") != "webui":
        return {}
    formulas = {
        "Weighted sum": {"primary": 1 - much, "secondary": much},
        "Add difference": {"primary": 1, "secondary": much, "tertiary": -much},
    }
    method = recipe.get("interp_method")
    return {role: shown(value) for role, value in formulas.get(method if isinstance(method, str) else "", {}).items()}


def _with_rest(made: dict[str, Member], entries: Mapping[str, Any]) -> dict[str, Member]:
    """Where the recipe names no parent, those models that no other was made of."""
    root = made.get(ROOT, Member())
    if root.links:
        return made
    claimed = {link.to for member in made.values() for link in member.links}
    rest = [key for key in map(_key, entries) if key not in claimed] or list(map(_key, entries))
    return made | {ROOT: Member(root.mark, root.method, tuple(Link(key, "one of its ancestors") for key in rest))}


def _key(sha256: str) -> str:
    return f"sha256 {sha256}"


def _program(recipe: Mapping[str, Any]) -> str:
    kind = recipe.get("type")
    return _PROGRAMS.get(kind, kind[:40]) if isinstance(kind, str) and kind else "a merger"
