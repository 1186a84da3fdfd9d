"""What Workbench's own recipe says: every operator a step, every model a file with its sha256. Read as it is, of any version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from workbench.analysis.provenance.account import ROOT, Link, Member, described, mapping, number, shown
from workbench.checkpoint.files.catalogue import Mark

_DEEPEST = 40  # operators inside each other


def members(recipe: Any, key: str = ROOT, mark: Mark | None = None) -> dict[str, Member]:
    """The members of a recipe, whose result is the file of `mark`, called `key`; the others' keys begin with it."""
    found = mapping(recipe)
    models = mapping(found.get("models"))
    made: dict[str, Member] = {}
    _add(made, key, mapping(found.get("merge")), models, key, mark or Mark(), 0)
    for name, model in models.items():
        given = {"path": model} if isinstance(model, str) else mapping(model)
        made[_key(key, name)] = Member(Mark.of(_file_name(given.get("path")) or name, given.get("sha256")))
    return made


def _add(made: dict[str, Member], at: str, node: Mapping[str, Any], models: Mapping[str, Any], key: str, mark: Mark, depth: int) -> None:
    """Add an operator with all that is inside it; at the root it is the file."""
    operator, options = str(node.get("operator", "unknown"))[:60], mapping(node.get("options"))
    links = []
    for role, given, weight in _inputs(node, options):
        if isinstance(given, str) and given in models:
            links.append(Link(_key(key, given), role, weight))
        elif isinstance(given, dict) and depth < _DEEPEST:
            inner = f"{at}/{role}"
            _add(made, inner, given, models, key, Mark(), depth + 1)
            links.append(Link(inner, role, weight))
        elif isinstance(given, dict):
            made[f"{at}/{role}"] = Member(method="a merge nested deeper than is read", is_file=False)
            links.append(Link(f"{at}/{role}", role, weight))
    settings = described(options.items())
    made[at] = Member(mark, f"{operator}({settings})", tuple(links), is_file=at == key)


def _inputs(node: Mapping[str, Any], options: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Each input with its role and, where one number a model is told, its weight."""
    weights = options.get("weights", options.get("strengths"))
    for slot, given in mapping(node.get("inputs")).items():
        if not isinstance(given, list):
            yield slot, given, ""
            continue
        for at, one in enumerate(given):
            value = number(weights[at] if isinstance(weights, list) and len(weights) == len(given) else weights)
            yield f"{slot}[{at}]", one, "" if value is None else shown(value)


def _key(key: str, name: str) -> str:
    return f"{key}model {name}"


def _file_name(path: Any) -> str:
    """The name alone: where it lay is seen from where the merge lay."""
    if not isinstance(path, str):
        return ""
    return PurePosixPath(path).name if "\\" not in path else PureWindowsPath(path).name
