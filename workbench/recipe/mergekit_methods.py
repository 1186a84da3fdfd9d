"""What mergekit's methods are here, with its defaults written out, and its values that differ by layer. No file is read here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from workbench.merge.declaration import near
from workbench.recipe.translation import Draft, Value, node, together

_RANDOM = "draws at random: other elements than it drew, by the same chances"


class Asked(Protocol):
    """A merge as mergekit looks its parameters up."""

    @property
    def draft(self) -> Draft: ...
    @property
    def names(self) -> list[str]: ...
    @property
    def base_name(self) -> str: ...
    @property
    def has_base(self) -> bool: ...
    def count(self, few: int, many: int | None = None) -> list[str]: ...
    def value(self, key: str, default: float | None = None) -> Value: ...
    def each(self, key: str, default: float | None = None) -> list[Value]: ...
    def chosen(self, key: str, by: Mapping[float, str]) -> tuple[Value, list[dict[str, Any]]]: ...
    def flag(self, key: str, default: bool) -> bool: ...
    def constant(self, key: str, default: float) -> float: ...


@dataclass(frozen=True)
class MergekitMethod:
    """One of mergekit's methods: the parameters that it uses, and what writes the merge with an operator of ours."""

    name: str
    parameters: tuple[str, ...]
    write: Callable[[Asked], dict[str, Any]]
    from_base: bool = True  # whether a base is no model like the others


def find(draft: Draft, name: Any) -> MergekitMethod:
    """The method of that name. Raises RecipeError for one without a counterpart."""
    if not isinstance(name, str) or name not in METHODS:
        draft.refuse(f"merge_method {name!r} has no counterpart{near(str(name), list(METHODS))}", "choose another method")
    return METHODS[name]


def value(draft: Draft, key: str, given: Any) -> Value:
    """A number, or a gradient over the layers as a ramp. Raises RecipeError for one that bends, and for conditions."""
    if isinstance(given, dict):
        given = [given]
    if not isinstance(given, list):
        return draft.number(given, key)
    if any(isinstance(one, dict) for one in given):
        return _unconditional(draft, key, given)
    numbers = [draft.number(one, key) for one in given]
    if not numbers:
        draft.refuse(f"{key} is an empty list", "write a number")
    start, end = numbers[0], numbers[-1]
    steps = [start + (end - start) * at / max(len(numbers) - 1, 1) for at in range(len(numbers))]
    if any(abs(one - step) > 1e-9 for one, step in zip(numbers, steps, strict=True)):
        instead = f"write {key} by block: {{blocks: {{pattern: value, default: value}}}}, or a list of two values"
        draft.refuse(f"{key} {given} is a gradient with bends", instead)
    if start == end:
        return start
    draft.note(f"{key} {given}: tensors beside the layers have {start:g} here; mergekit gives those after the last layer {end:g}")
    return {"ramp": {"start": start, "end": end, "elsewhere": start}}


def is_condition(given: Any) -> bool:
    """Whether it goes for some tensors alone."""
    return isinstance(given, dict) and set(given) == {"filter", "value"} and isinstance(given["filter"], str) and given["filter"] != "*"


def _unconditional(draft: Draft, key: str, given: list[Any]) -> Value:
    """A list of conditions whose first goes for every tensor."""
    first = given[0]
    if isinstance(first, dict):
        draft.only(first, ("filter", "value"), key)
        if first.get("filter") in (None, "*"):
            return value(draft, key, first.get("value"))
    shown = first.get("filter") if isinstance(first, dict) else first
    instead = f"rules take tensors whole ({{match: '*{shown}*', take: model}}), blocks give a block its own {key}"
    return draft.refuse(f"{key} depends on the tensor's name, filter {shown!r}", f"options cannot here: {instead}")


def _weights(asked: Asked, *factors: Value) -> Value:
    """One weight for each model, times what goes for all."""

    def times(*found: Any) -> list[float]:
        numbers, by = found[: len(asked.names)], found[len(asked.names) :]
        product = 1.0
        for one in by:
            product *= one
        return [number * product for number in numbers]

    return _joined(asked, times, *asked.each("weight"), *factors)


def _joined(asked: Asked, change: Callable[..., Any], *values: Value) -> Value:
    try:
        return together(change, *values)
    except ValueError as error:
        return asked.draft.refuse(str(error), "write blocks or ramps for all of them, in a recipe of your own")


def _sum_weights(asked: Asked, *factors: Value) -> Value:
    """Weights of deltas that are added up; with `normalize` divided by their sum, as mergekit does."""
    weights = _weights(asked, *factors)
    if not asked.flag("normalize", False):
        return weights
    plain = _weights(asked)

    def divided(found: list[float], by: list[float]) -> list[float]:
        total = sum(by)
        return [one / (total if abs(total) >= 1e-8 else 1) for one in found]

    return _joined(asked, divided, weights, plain)


def _linear(asked: Asked) -> dict[str, Any]:
    names, weights = asked.names, _weights(asked)
    if not asked.flag("normalize", True):
        ends = _joined(asked, lambda found: [sum(found)], weights)
        if ends != [1.0]:
            instead = "write weights that sum to 1, or normalize: true; sums of weights that are not averages are no method here"
            asked.draft.refuse(f"normalize is false, and the weights {weights} do not sum to 1", instead)
    return node("weighted_average", {"models": names}, weights=weights)


def _slerp(asked: Asked) -> dict[str, Any]:
    base, (other,) = asked.base_name, asked.count(1, 1)
    t, rules = asked.chosen("t", {0: base, 1: other})
    return node("slerp", {"first": base, "second": other}, rules, t=t)


def _two(operator: str, slots: tuple[str, str], option: str | None) -> Callable[[Asked], dict[str, Any]]:
    """A method of the base and one other."""

    def write(asked: Asked) -> dict[str, Any]:
        base, (other,) = asked.base_name, asked.count(1, 1)
        return node(operator, dict(zip(slots, (base, other), strict=True)), **({option: asked.value(option)} if option else {}))

    return write


def _nuslerp(asked: Asked) -> dict[str, Any]:
    names, over = asked.count(2, 2), "tensor"
    if not asked.flag("nuslerp_flatten", True):
        over = "column" if asked.flag("nuslerp_row_wise", False) else "row"  # as it works, not as it is called
    if over == "row":
        asked.draft.note("nuslerp_flatten false: a row of a convolution is all that follows dimension 0 here, not the last one alone")
    weights = _weights(asked)
    if asked.has_base:
        return node("delta_nuslerp", {"base": asked.base_name, "models": names}, weights=weights, over=over)
    return node("nuslerp", {"models": names}, weights=weights, over=over)


def _deltas(asked: Asked) -> dict[str, Any]:
    return {"base": asked.base_name, "models": asked.count(1)}


def _rescaled(asked: Asked, usual: bool) -> bool:
    """Whether what is kept is scaled up; nothing else than the method's usual is here, but for dare."""
    found = asked.flag("rescale", usual)
    if not usual and found:
        asked.draft.refuse("rescale true has no counterpart in this method", "leave it out, or choose dare_ties or della")
    return found


def _task_arithmetic(asked: Asked) -> dict[str, Any]:
    return node("task_arithmetic", _deltas(asked), weights=_sum_weights(asked, asked.value("lambda", 1.0)))


def _signs(asked: Asked, default: bool) -> dict[str, Any]:
    return {"normalize": "weights" if asked.flag("normalize", default) else "none", "strength": asked.value("lambda", 1.0)}


def _ties(asked: Asked) -> dict[str, Any]:
    _rescaled(asked, False)
    return node("ties", _deltas(asked), density=asked.value("density", 1.0), weights=_weights(asked), **_signs(asked, True))


def _dare_ties(asked: Asked) -> dict[str, Any]:
    options = {"density": asked.value("density", 1.0), "weights": _weights(asked)} | _signs(asked, False)
    asked.draft.note(_RANDOM)
    if not _rescaled(asked, True):
        return node("delta_merge", _deltas(asked), prune="random", rescale=False, **options)
    return node("dare_ties", _deltas(asked), **options)


def _dare_linear(asked: Asked) -> dict[str, Any]:
    options = {"density": asked.value("density", 1.0), "weights": _sum_weights(asked, asked.value("lambda", 1.0))}
    asked.draft.note(_RANDOM)
    if not _rescaled(asked, True):
        return node("delta_merge", _deltas(asked), prune="random", combine="sum", rescale=False, **options)
    return node("dare_linear", _deltas(asked), **options)


def _breadcrumbs(asked: Asked) -> dict[str, Any]:
    _rescaled(asked, False)
    options = {"density": asked.value("density", 1.0), "gamma": asked.value("gamma", 0.01)}
    return node("breadcrumbs", _deltas(asked), **options, weights=_sum_weights(asked), strength=asked.value("lambda", 1.0))


def _breadcrumbs_ties(asked: Asked) -> dict[str, Any]:
    _rescaled(asked, False)
    if asked.flag("normalize", False):
        asked.draft.refuse("normalize true has no counterpart in breadcrumbs_ties, which adds up here", "leave it out, or choose ties")
    options = {"density": asked.value("density", 1.0), "gamma": asked.value("gamma", 0.01)}
    return node("breadcrumbs_ties", _deltas(asked), **options, weights=_weights(asked), strength=asked.value("lambda", 1.0))


def _della(asked: Asked) -> dict[str, Any]:
    return _by_rank(asked, "della", ("ties", {"density": 1.0} | _signs(asked, True)), _weights(asked))


def _della_linear(asked: Asked) -> dict[str, Any]:
    weights = _sum_weights(asked)
    whole = ("task_arithmetic", {}) if asked.value("lambda", 1.0) == 1 else ("delta_merge", {"prune": "none", "combine": "sum"})
    return _by_rank(asked, "della_linear", whole, weights)


def _by_rank(asked: Asked, operator: str, whole: tuple[str, Mapping[str, Any]], weights: Value) -> dict[str, Any]:
    """della; at density 1 it keeps everything, and is another operator here."""
    density, strength = asked.value("density", 1.0), asked.value("lambda", 1.0)
    if not asked.flag("rescale", True):
        asked.draft.refuse("rescale false has no counterpart in della", "leave it out")
    if operator == "della" and not asked.flag("normalize", True):
        asked.draft.refuse("normalize false has no counterpart in della", "leave it out, or choose dare_ties")
    if density == 1:
        options = dict(whole[1]) if whole[0] == "task_arithmetic" else dict(whole[1]) | {"strength": strength}
        return node(whole[0], _deltas(asked), weights=weights, **options)
    asked.draft.note(_RANDOM)
    options = {"density": density, "epsilon": asked.value("epsilon", 0.15), "strength": strength}
    return node(operator, _deltas(asked), weights=weights, **options)


def _sce(asked: Asked) -> dict[str, Any]:
    return node("sce", _deltas(asked), density=asked.constant("select_topk", 1.0))


def _model_stock(asked: Asked) -> dict[str, Any]:
    return node("model_stock", {"base": asked.base_name, "models": asked.count(2)}, filter_wise=asked.flag("filter_wise", False))


def _karcher(asked: Asked) -> dict[str, Any]:
    steps, tolerance = int(asked.constant("max_iter", 10)), asked.constant("tol", 1e-5)
    return node("karcher_mean", {"models": asked.names}, iterations=steps, tolerance=tolerance)


def _ram(asked: Asked) -> dict[str, Any]:
    return node("ram", _deltas(asked), epsilon=asked.constant("epsilon", 1e-5))


def _ram_plus(asked: Asked) -> dict[str, Any]:
    shares = {"r": asked.value("r", 0.1), "alpha": asked.value("alpha", 0.2)}
    return node("ram_plus", _deltas(asked), **shares, epsilon=asked.constant("epsilon", 1e-5))


def _passthrough(asked: Asked) -> dict[str, Any]:
    (name,) = asked.count(1, 1)
    if asked.value("scale", 1.0) != 1:
        asked.draft.refuse(f"scale {asked.value('scale', 1.0)} has no counterpart", "leave it out")
    return node("weighted_average", {"models": [name]})


_OF_DELTAS = ("weight", "density", "normalize", "lambda", "rescale")
METHODS = {
    method.name: method
    for method in (
        MergekitMethod("linear", ("weight", "normalize"), _linear, from_base=False),
        MergekitMethod("slerp", ("t",), _slerp),
        MergekitMethod("nuslerp", ("weight", "nuslerp_flatten", "nuslerp_row_wise"), _nuslerp),
        MergekitMethod("karcher", ("max_iter", "tol"), _karcher, from_base=False),
        MergekitMethod("nearswap", ("t",), _two("nearswap", ("first", "second"), "t")),
        MergekitMethod("arcee_fusion", (), _two("arcee_fusion", ("base", "tuned"), None)),
        MergekitMethod("task_arithmetic", ("weight", "normalize", "lambda"), _task_arithmetic),
        MergekitMethod("ties", _OF_DELTAS, _ties),
        MergekitMethod("dare_ties", _OF_DELTAS, _dare_ties),
        MergekitMethod("dare_linear", _OF_DELTAS, _dare_linear),
        MergekitMethod("della", (*_OF_DELTAS, "epsilon"), _della),
        MergekitMethod("della_linear", (*_OF_DELTAS, "epsilon"), _della_linear),
        MergekitMethod("breadcrumbs", (*_OF_DELTAS, "gamma"), _breadcrumbs),
        MergekitMethod("breadcrumbs_ties", (*_OF_DELTAS, "gamma"), _breadcrumbs_ties),
        MergekitMethod("sce", ("select_topk",), _sce),
        MergekitMethod("model_stock", ("filter_wise",), _model_stock),
        MergekitMethod("ram", ("epsilon",), _ram),
        MergekitMethod("ramplus_tl", ("r", "alpha", "epsilon"), _ram_plus),
        MergekitMethod("passthrough", ("scale",), _passthrough, from_base=False),
    )
}
OF_ALL = ("t", "lambda", "normalize", "rescale", "select_topk", "filter_wise", "max_iter", "tol", "nuslerp_flatten", "nuslerp_row_wise")
PARAMETERS = tuple(dict.fromkeys(key for method in METHODS.values() for key in method.parameters))
