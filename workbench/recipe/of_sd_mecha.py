"""sd-mecha's text as a recipe of ours: lines of instructions, each of which may take the results of earlier ones, `&3`.

What its methods are here is in `sd_mecha_methods`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, get_args

from workbench.recipe import sd_mecha_methods as methods
from workbench.recipe.sd_mecha_values import BlockNumbers, Cast, Weight
from workbench.recipe.translation import Draft, Translation, node
from workbench.tensors import SavedDtype

VERSION = "version 0.1.0"
_MOST = 10_000  # instructions
_DTYPES = get_args(SavedDtype)
_BLOCKS = "supermerger_blocks"
_WORDS = {"null": None, "true": True, "false": False}
_TOKEN = re.compile(r'\s*((?:[^\s"\\]|\\.|"(?:[^"\\]|\\.)*")+)')
_CONVERSION = "convert_"  # of layouts, which are seen by themselves here, and of numbers by block
_LORA = re.compile(r"kohya|lycoris")


def read(text: str) -> Translation:
    """The merge that a recipe of sd-mecha describes. Raises RecipeError for what has no counterpart."""
    draft = Draft("sd-mecha's recipe")
    first, *lines = text.lstrip("\ufeff").splitlines() or [""]
    if first.strip() != VERSION:
        draft.refuse(f"it begins with {first.strip()[:40]!r}", f"what is read begins with {VERSION!r}")
    if len(lines) > _MOST:
        draft.refuse(f"it has {len(lines):,} lines", f"at most {_MOST:,} are read")
    results: list[Any] = []
    for number, line in enumerate(lines, 2):
        if (stripped := line.strip()) and not stripped.startswith("#"):
            results.append(_result(draft, number, stripped, results))
    return _whole(draft, results[-1] if results else None)


def _whole(draft: Draft, last: Any) -> Translation:
    """The recipe whose result is that of the last instruction."""
    last, dtype = (last.weight, last.dtype) if isinstance(last, Cast) else (last, None)
    if not isinstance(last, Weight):
        draft.refuse("its last instruction makes no whole model", "add a change to a model at the end: add_difference")
    if dtype is not None and dtype not in _DTYPES:
        draft.refuse(f"cast to dtype {dtype!r}, which is not written", f"it can be {', '.join(_DTYPES)}")
    return draft.finish(last.data if last.merges else node("weighted_average", {"models": [last.data]}), dtype)


def _result(draft: Draft, number: int, line: str, results: list[Any]) -> Any:
    """What an instruction makes: a model, a change, numbers, or what a `dict` holds."""
    command, *tokens = _TOKEN.findall(line) or [""]
    if _TOKEN.sub("", line).strip():
        draft.refuse(f"line {number} has a quote that does not end: {line[:60]!r}", "close it")
    if command not in _COMMANDS:
        draft.refuse(f"line {number} begins with {command[:40]!r}", f"what is read: {', '.join(_COMMANDS)}")
    given: list[Any] = []
    named: dict[str, Any] = {}
    for token in tokens:
        key, equals, bare = token.partition("=")
        if equals and '"' not in key:
            named[key] = _value(draft, number, bare, results)
        else:
            given.append(_value(draft, number, token, results))
    if command != "dict" and not given:
        draft.refuse(f"line {number}: {command} is of nothing", "write what it is of")
    return _COMMANDS[command](draft, number, given, named)


def _value(draft: Draft, number: int, token: str, results: list[Any]) -> Any:
    """A word, a text, a number, or an earlier result."""
    if token in _WORDS:
        return _WORDS[token]
    if token.startswith('"') and token.endswith('"') and len(token) > 1:
        return re.sub(r"\\(.)", r"\1", token[1:-1])
    if token.startswith("&"):
        at = int(token[1:]) if token[1:].isdecimal() and len(token) < 9 else len(results)
        if at >= len(results):
            draft.refuse(f"line {number}: {token[:40]} is no earlier result", f"there are {len(results)} before it, from &0 on")
        return results[at]
    return draft.number(token, f"line {number}: a value")


def _dict(draft: Draft, number: int, given: list[Any], named: dict[str, Any]) -> Any:
    return named


def _literal(draft: Draft, number: int, given: list[Any], named: dict[str, Any]) -> Any:
    """A number, or numbers by block of a U-Net."""
    draft.only(named, ("model_config", "merge_space"), f"line {number}")
    found = given[0]
    if not isinstance(found, dict):
        return found
    if set(found) == {"key"}:  # its config of a single number
        return found["key"]
    config = str(named.get("model_config"))
    if _BLOCKS not in config:
        allowed = f"numbers, and dicts of sd1-{_BLOCKS} and sdxl-{_BLOCKS}"
        draft.refuse(f"line {number}: a literal of the model_config {config!r} has no counterpart", f"what is read: {allowed}")
    return BlockNumbers({key: draft.number(value, key) for key, value in found.items()}, config.startswith("sdxl"))


def _model(draft: Draft, number: int, given: list[Any], named: dict[str, Any]) -> Any:
    """A file, as the model or, of a LoRA, the change that it is."""
    draft.only(named, ("model_config", "merge_space"), f"line {number}")
    if not isinstance(given[0], str) or not given[0]:
        draft.refuse(f"line {number}: model {given[0]!r} is no path", "write the file between quotes")
    name = draft.model(given[0].replace("\\", "/"))
    lora = _LORA.search(str(named.get("model_config"))) is not None or named.get("merge_space") == "delta"
    return methods.changes(draft, name) if lora else Weight(name)


def _merge(draft: Draft, number: int, given: list[Any], named: dict[str, Any]) -> Any:
    """What a method makes; a conversion changes nothing here."""
    method, *given = given
    if not isinstance(method, str):
        draft.refuse(f"line {number}: merge {method!r} names no method", "write its name between quotes")
    if method.startswith(_CONVERSION):
        inside = [*given, *named.values()]
        if len(inside) != 1:
            draft.refuse(f"line {number}: {method} is of {len(inside)} results", "convert one")
        return inside[0]
    if method == "fallback" and given and isinstance(given[0], BlockNumbers):
        return _with_default(draft, number, given[0], given[1:], named)
    given = [one.option(draft) if isinstance(one, BlockNumbers) else one for one in given]
    named = {key: one.option(draft) if isinstance(one, BlockNumbers) else one for key, one in named.items()}
    return methods.translated(draft, method, given, named)


def _with_default(draft: Draft, number: int, numbers: BlockNumbers, given: list[Any], named: dict[str, Any]) -> BlockNumbers:
    """Numbers by block, with one for the blocks that have none."""
    default = named.get("default", given[0] if len(given) == 1 else None)
    return replace(numbers, default=draft.number(default, f"line {number}: the fallback of numbers by block"))


_COMMANDS = {"dict": _dict, "literal": _literal, "model": _model, "merge": _merge}
