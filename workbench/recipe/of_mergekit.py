"""mergekit's YAML as a recipe of ours: its models, slices, dtypes and values. What its methods are here is in `mergekit_methods`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from glob import escape
from typing import Any, get_args

from workbench.recipe import mergekit_methods as methods
from workbench.recipe.translation import Draft, Translation, Value
from workbench.tensors import SavedDtype

_KEYS = (
    "merge_method", "models", "slices", "base_model", "parameters", "dtype", "out_dtype", "tokenizer_source", "tokenizer", "chat_template",
)  # fmt: skip
_TOKENS = ("tokenizer_source", "tokenizer", "chat_template")
_UNUSED = ("int8_mask",)  # how it holds its masks, which is of no matter for what they say
_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(?:@[\w./-]+)?")
_DTYPES = get_args(SavedDtype)


@dataclass(frozen=True)
class _Source:
    """A model with what is said of it alone; `reference` is how the file has it."""

    reference: str
    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


def read(found: Mapping[str, Any], exists: Callable[[str], bool]) -> Translation:
    """The merge of a mergekit file; `exists` tells whether there is a file of a path. Raises RecipeError for what has no counterpart."""
    draft = Draft("mergekit's recipe")
    if "modules" in found:
        draft.refuse("modules have no counterpart", "write the merge of one, and rules that take the others: {component: ..., take: ...}")
    draft.only(found, _KEYS)
    for key in _TOKENS:
        if found.get(key) is not None:
            draft.note(f"{key} {found[key]!r} is left out: tokenizers are no part of a merge here")
    sources, base, shared = _sources(draft, found, exists)
    method = methods.find(draft, found.get("merge_method"))
    given = _Given(draft, method, shared, _merged(method, sources, base), base)
    given.judge(sources)
    return draft.finish(method.write(given), _dtype(draft, found))


def _merged(method: methods.MergekitMethod, sources: list[_Source], base: _Source | None) -> list[_Source]:
    """The models that are merged: without the base, or where a method has none with it, listed or not."""
    listed = [one for one in sources if base is None or one.reference != base.reference]
    if method.from_base or base is None:
        return listed
    return sources if len(listed) < len(sources) else [*sources, base]


def _dtype(draft: Draft, found: Mapping[str, Any]) -> str | None:
    """The dtype of the result; calculation is in float32 here, whatever mergekit's is."""
    for key in ("out_dtype", "dtype"):
        if (given := found.get(key)) is not None and given not in _DTYPES:
            draft.refuse(f"{key} {given!r} is none that is written", f"it can be {', '.join(_DTYPES)}")
    if found.get("dtype") in ("float16", "bfloat16"):
        draft.note(f"calculates in {found['dtype']}, its dtype; here it is float32, and only the result is rounded")
    return found.get("out_dtype") or found.get("dtype")


def _sources(
    draft: Draft, found: Mapping[str, Any], exists: Callable[[str], bool]
) -> tuple[list[_Source], _Source | None, list[Mapping[str, Any]]]:
    """The models, the base if there is one, and the parameters of all, the nearest first."""
    listed, base, shared = found.get("models"), found.get("base_model"), [_mapping(draft, found.get("parameters"), "parameters")]
    if (listed is None) == (found.get("slices") is None):
        draft.refuse("it must have models or slices, and not both", "write one of them")
    if listed is None:
        only = _slice(draft, found["slices"])
        listed, base = only["sources"], only.get("base_model", base)
        shared.insert(0, _mapping(draft, only.get("parameters"), "slices[0].parameters"))
    if not isinstance(listed, list) or not listed:
        draft.refuse(f"models must be a list, got {listed!r}", "write one {model: ...} for each")
    made = []
    for at, one in enumerate(listed):
        given = _mapping(draft, one, f"models[{at}]")
        draft.only(given, ("model", "parameters", "layer_range"), f"models[{at}]")
        parameters = _mapping(draft, given.get("parameters"), f"models[{at}].parameters")
        made.append(_source(draft, given.get("model"), f"models[{at}].model", exists, parameters))
    first = None if base is None else _source(draft, base, "base_model", exists, {})
    return made, first, shared


def _slice(draft: Draft, slices: Any) -> Mapping[str, Any]:
    """The one slice, of all layers of each of its models."""
    if not isinstance(slices, list) or len(slices) != 1:
        draft.refuse(
            f"{len(slices) if isinstance(slices, list) else 0} slices put layers together anew, which no operator does",
            "write one slice of all layers, or models; values that differ by layer are blocks here",
        )
    only = _mapping(draft, slices[0], "slices[0]")
    draft.only(only, ("sources", "base_model", "parameters"), "slices[0]")
    sources = only.get("sources")
    ranges = [one.get("layer_range") if isinstance(one, dict) else None for one in sources] if isinstance(sources, list) else []
    if not ranges or any(one != ranges[0] or not isinstance(one, list) or len(one) != 2 or one[0] != 0 for one in ranges):
        draft.refuse(f"layer_range {ranges!r} is not [0, number of layers] of every source", "write models instead")
    draft.note(f"layer_range {ranges[0]!r} is taken to be all layers: the whole models are merged")
    return only


def _source(draft: Draft, given: Any, key: str, exists: Callable[[str], bool], parameters: Mapping[str, Any]) -> _Source:
    if isinstance(given, dict) and isinstance(inner := given.get("model"), dict) and given.get("lora") is None:
        draft.only(given, ("model", "lora"), key)
        draft.only(inner, ("path", "revision"), f"{key}.model")
        given = f"{inner.get('path')}@{inner['revision']}" if inner.get("revision") else inner.get("path")
    if not isinstance(given, str) or not given:
        draft.refuse(f"{key} is {given!r}", "write the path of a model, or its name on the hub")
    if exists(given):
        return _Source(given, draft.model(given), parameters)
    if "+" in given:
        draft.refuse(f"{key} {given!r} adds a LoRA", "add it with the operator add_delta, and name the result of that")
    if not _HUB.fullmatch(given):
        return _Source(given, draft.model(given), parameters)
    draft.note(f"{given!r} is no file or folder here, and so taken from the hub: hf://{given}")
    return _Source(given, draft.model(f"hf://{given}"), parameters)


def _mapping(draft: Draft, given: Any, key: str) -> Mapping[str, Any]:
    if given is not None and not isinstance(given, dict):
        draft.refuse(f"{key} must be a mapping, got {given!r}", "write {name: value}")
    return given or {}


@dataclass(frozen=True)
class _Given:
    """What a method is asked with: its models without the base, and every parameter as mergekit looks it up."""

    draft: Draft
    method: methods.MergekitMethod
    shared: Sequence[Mapping[str, Any]]
    sources: Sequence[_Source]
    base: _Source | None

    def judge(self, sources: Sequence[_Source]) -> None:
        """Raise RecipeError for parameters that mergekit does not have; tell which this method does not use."""
        groups = [("parameters", one) for one in self.shared] + [(f"the parameters of {one.name}", one.parameters) for one in sources]
        for one in sources:
            for key in one.parameters.keys() & set(methods.OF_ALL):
                self.draft.refuse(f"{key} stands under the model {one.name}", f"write it under parameters: {key} goes for all models")
        for where, group in groups:
            self.draft.only(group, (*methods.PARAMETERS, *_UNUSED), where)
            for key in group.keys() - set(self.method.parameters):
                self.draft.note(f"{key} is left out: {self.method.name} does not use it")

    @property
    def names(self) -> list[str]:
        """The models that are merged; a base is not among them."""
        return [one.name for one in self.sources]

    @property
    def has_base(self) -> bool:
        """Whether there is a base."""
        return self.base is not None

    @property
    def base_name(self) -> str:
        """The base, which the method needs."""
        if self.base is None:
            self.draft.refuse(f"{self.method.name} needs base_model, which is not there", "write base_model: path")
        return self.base.name

    def count(self, few: int, many: int | None = None) -> list[str]:
        """The names, if they are as many as the method takes."""
        if len(self.names) < few or len(self.names) > (many or len(self.names)):
            allowed = f"{few}" if few == many else f"{few} or more"
            self.draft.refuse(f"{self.method.name} takes {allowed} models beside the base, got {self.names}", "list as many")
        return self.names

    def value(self, key: str, default: float | None = None) -> Value:
        """A parameter of all models. Where models have their own, these must be the same."""
        found = [self._looked_up(one, key, default) for one in self.sources]
        if any(one != found[0] for one in found):
            self.draft.refuse(f"{key} differs from model to model: {found}", f"write one {key} for all, under parameters")
        return found[0]

    def constant(self, key: str, default: float) -> float:
        """A parameter of all models that is one number for all layers."""
        found = self.value(key, default)
        if isinstance(found, dict):
            self.draft.refuse(f"{key} differs by layer: {self.raw(key)!r}", "here it is one number for the whole model")
        return float(found)

    def each(self, key: str, default: float | None = None) -> list[Value]:
        """A parameter of every model."""
        return [self._looked_up(one, key, default) for one in self.sources]

    def flag(self, key: str, default: bool) -> bool:
        """A parameter that is true or false."""
        found = next((group[key] for group in self.shared if key in group), default)
        return self.draft.flag(found, key)

    def chosen(self, key: str, by: Mapping[float, str]) -> tuple[Value, list[dict[str, Any]]]:
        """A parameter of all models, and rules where a condition on a tensor's name gives it a value at which that is one of them."""
        rest, rules = self.raw(key), []
        while isinstance(rest, list) and rest and methods.is_condition(rest[0]) and rest[0]["value"] in list(by):
            first, *rest = rest
            rules.append({"match": f"*{escape(first['filter'])}*", "take": by[first["value"]], "optional": True})
        if rules:
            self.draft.note(f"{key} depends on tensors' names, as rules do here: these know a tensor by its name in every layout")
        if rest is None or rest == []:
            self.draft.refuse(f"{key} is missing, and {self.method.name} has no default", f"write {key} under parameters")
        return methods.value(self.draft, key, rest), rules

    def raw(self, key: str) -> Any:
        """A parameter of all models as it stands; None where it is not there."""
        return next((group[key] for group in self.shared if key in group), None)

    def _looked_up(self, source: _Source, key: str, default: float | None) -> Value:
        given = next((group[key] for group in (source.parameters, *self.shared) if key in group), default)
        if given is None:
            self.draft.refuse(f"{key} of {source.name} is missing, and {self.method.name} has no default", f"write {key} for it")
        return methods.value(self.draft, key, given)
