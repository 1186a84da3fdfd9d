"""What sd-mecha's methods are here, with its defaults. Its text is read in `of_sd_mecha`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from workbench.merge.declaration import near
from workbench.recipe.sd_mecha_values import Cast, Delta, Mask, Weight
from workbench.recipe.translation import Draft, Value, together

_MASKED = ("train_difference", "add_opposite", "add_strict_opposite")
_INSTEAD = {
    "model_stock": "model_stock with filter_wise compares all pairs, and rows of convolutions whole",
    "truncate_rank": "truncate_rank keeps a rank, not a share of it: choose one",
    "ties_sum_extended": "ties, and model_stock or geometric_median after it",
    "ties_sum_with_dropout": "dare_ties or della, which draw other elements",
    "dropout": "dare_linear, which draws other elements",
    "pick_component": "a rule for each other component: {component: vae, skip: true}",
    "omit_component": "a rule: {component: vae, skip: true}",
    "fallback": "a rule: {match: pattern, take: model}",
}


def translated(draft: Draft, name: str, given: list[Any], named: dict[str, Any]) -> Any:
    """What a method makes of its arguments. Raises RecipeError for one without an exact counterpart, and for other arguments."""
    if name not in METHODS:
        known = "" if name in _INSTEAD else near(name, list(METHODS))
        instead = _INSTEAD.get(name, "a method that is read, or an operator in a recipe of your own")
        draft.refuse(f"the method {name[:60]!r} has no exact counterpart{known}", f"instead: {instead}")
    method = METHODS[name]
    arguments = inspect.signature(method)
    try:
        bound = arguments.bind(draft, *given, **named)
    except TypeError as error:
        shown = ", ".join(str(one.replace(annotation=one.empty)) for one in list(arguments.parameters.values())[1:])
        return draft.refuse(f"{name}: {error}", f"it takes ({shown})")
    if any(isinstance(one, Cast) for one in (*given, *named.values())):
        draft.refuse(f"{name} takes a model that was cast", "cast the result alone: inputs are calculated in float32 here")
    return method(*bound.args, **bound.kwargs)


def _weights(draft: Draft, name: str, *given: Any) -> list[Weight]:
    """The models, if they are some: not changes, not numbers."""
    for one in given:
        if not isinstance(one, Weight):
            kind = "a change" if isinstance(one, Delta) else f"{one!r}"
            draft.refuse(f"{name} of {kind} has no counterpart; it takes models", "add the change to a model first: add_difference")
    return list(given)


def _value(draft: Draft, name: str, given: Any) -> Value:
    """A number, or numbers by block."""
    if isinstance(given, dict) and "blocks" in given:
        return given
    if isinstance(given, (Weight, Delta, Mask)):
        return draft.refuse(f"{name} is a model or a mask", "write a number, or numbers by block")
    return draft.number(given, name)


def _of_two(operator: str, usual: float, option: str, **fixed: Any) -> Callable[..., Weight]:
    """A method of two models with one number, `alpha`."""

    def method(draft: Draft, a: Any, b: Any, alpha: Any = usual) -> Weight:
        first, second = _weights(draft, operator, a, b)
        return Weight.of(draft, operator, {"first": first, "second": second}, **{option: _value(draft, "alpha", alpha)}, **fixed)

    return method


def _weighted_sum(draft: Draft, a: Any, b: Any, alpha: Any = 0.5) -> Weight:
    share = together(lambda one: [1 - one, one], _value(draft, "alpha", alpha))
    return Weight.of(draft, "weighted_average", {"models": _weights(draft, "weighted_sum", a, b)}, weights=share)


def _n_average(draft: Draft, *models: Any) -> Any:
    if models and all(isinstance(one, Delta) for one in models):
        return _sum(draft, "n_average", list(models), 1 / len(models))
    return Weight.of(draft, "weighted_average", {"models": _some(draft, "n_average", models)}, weights=1)


def _some(draft: Draft, name: str, models: tuple[Any, ...]) -> list[Weight]:
    if not models:
        draft.refuse(f"{name} is of no models", "write of which results: &0 &1")
    return _weights(draft, name, *models)


def _subtract(draft: Draft, a: Any, b: Any) -> Delta:
    tuned, original = _weights(draft, "subtract", a, b)

    def added(base: Weight, alpha: Value) -> Weight:
        return Weight.of(draft, "add_difference", {"base": base, "tuned": tuned, "original": original}, strength=alpha)

    return Delta(added, tuned, original)


def changes(draft: Draft, name: str) -> Delta:
    """What a LoRA changes."""

    def added(base: Weight, alpha: Value) -> Weight:
        return Weight.of(draft, "add_delta", {"base": base, "deltas": [Weight(name)]}, strengths=together(lambda one: [one], alpha))

    return Delta(added)


def _add_difference(draft: Draft, a: Any, b: Any, alpha: Any = 1.0) -> Any:
    if not isinstance(b, Delta):
        draft.refuse("add_difference adds what is no change of a model", "subtract the model that it was made from first")
    (base,) = _weights(draft, "add_difference", a)
    if not isinstance(alpha, Mask):
        return b.added(base, _value(draft, "alpha", alpha))
    if (base, b.tuned, b.original) != alpha.models:
        instead = "write a, b and c alike: add_difference(a, subtract(b, c), mask(a, b, c))"
        draft.refuse(f"{alpha.operator}_mask is of other models than what it masks", instead)
    inputs = dict(zip(("base", "tuned", "original"), alpha.models, strict=True))
    return Weight.of(draft, alpha.operator, inputs, strength=alpha.strength)


def _mask(operator: str) -> Callable[..., Mask]:
    def method(draft: Draft, a: Any, b: Any, c: Any, alpha: Any = 1.0) -> Mask:
        first, second, third = _weights(draft, f"{operator}_mask", a, b, c)
        return Mask(operator, (first, second, third), _value(draft, "alpha", alpha))

    return method


def _of_three(operator: str) -> Callable[..., Weight]:
    def method(draft: Draft, a: Any, b: Any, c: Any, alpha: Any = 1.0) -> Weight:
        inputs = dict(zip(("base", "tuned", "original"), _weights(draft, operator, a, b, c), strict=True))
        return Weight.of(draft, operator, inputs, strength=_value(draft, "alpha", alpha))

    return method


def _perpendicular(draft: Draft, a: Any, b: Any) -> Delta:
    """The part of one change at a right angle to another, which is added to the model of that."""
    if not (isinstance(a, Delta) and isinstance(b, Delta) and a.original is not None and a.original == b.original):
        draft.refuse("perpendicular_component is read of two differences from one model alone", "subtract the same model from both")

    def added(base: Weight, alpha: Value) -> Weight:
        if base != a.tuned or b.tuned is None or b.original is None:
            draft.refuse("perpendicular_component is added to another model than its first", "add it to that")
        inputs = {"base": base, "tuned": b.tuned, "original": b.original}
        return Weight.of(draft, "add_perpendicular", inputs, strength=alpha)

    return Delta(added)


def _sum(draft: Draft, name: str, deltas: list[Any], share: float) -> Delta:
    """Differences from one base, added to it."""

    def added(base: Weight, alpha: Value) -> Weight:
        tuned = _from(draft, name, deltas, base)
        weights = together(lambda one: [one * share] * len(tuned), alpha)
        return Weight.of(draft, "task_arithmetic", {"base": base, "models": tuned}, weights=weights)

    return Delta(added)


def _from(draft: Draft, name: str, deltas: list[Any], base: Weight) -> list[Weight]:
    tuned = [one.tuned for one in deltas if isinstance(one, Delta) and one.original == base and one.tuned is not None]
    if len(tuned) < len(deltas) or not deltas:
        draft.refuse(f"{name} is read of differences from the model it is added to alone", "subtract that model from each of the others")
    return tuned


def _ties_sum(draft: Draft, *models: Any, k: Any = 1.0, vote_sgn: Any = False) -> Delta:
    if vote_sgn is not True:
        draft.refuse("ties_sum with vote_sgn false leaves out what is tied", "ties decides: choose one of its majority_sign")
    density = draft.number(k, "k")
    if density != 1:
        draft.note("ties_sum keeps one or two elements of each tensor more than ties, which keeps int(density n) of n")

    def added(base: Weight, alpha: Value) -> Weight:
        tuned = _from(draft, "ties_sum", list(models), base)
        return Weight.of(draft, "ties", {"base": base, "models": tuned}, density=density, strength=alpha)

    return Delta(added)


def _geometric_median(draft: Draft, *models: Any, eps: Any = 1e-6, maxiter: Any = 100, ftol: Any = 1e-20) -> Weight:
    inputs = {"models": _some(draft, "geometric_median", models)}
    steps = int(draft.number(maxiter, "maxiter"))
    return Weight.of(
        draft, "geometric_median", inputs, iterations=steps, epsilon=draft.number(eps, "eps"), tolerance=draft.number(ftol, "ftol")
    )


def _clamp(draft: Draft, a: Any, *bounds: Any, stiffness: Any = 0.0) -> Weight:
    (model,) = _weights(draft, "clamp", a)
    inputs: dict[str, Any] = {"model": model, "bounds": _some(draft, "clamp", bounds)}
    return Weight.of(draft, "clamp", inputs, stiffness=_value(draft, "stiffness", stiffness))


def _region(operator: str, usual: float) -> Callable[..., Weight]:
    def method(draft: Draft, a: Any, b: Any, width: Any = usual, offset: Any = 0.0) -> Weight:
        first, second = _weights(draft, operator, a, b)
        place = {"width": _value(draft, "width", width), "offset": _value(draft, "offset", offset)}
        return Weight.of(draft, operator, {"first": first, "second": second}, **place)

    return method


def _crossover(draft: Draft, a: Any, b: Any, alpha: Any = 0.5, tilt: Any = 0.0) -> Weight:
    first, second = _weights(draft, "crossover", a, b)
    options = {"t": _value(draft, "alpha", alpha), "tilt": _value(draft, "tilt", tilt)}
    return Weight.of(draft, "crossover", {"first": first, "second": second}, **options)


def _rotate(
    draft: Draft,
    a: Any,
    b: Any,
    alignment: Any = 1.0,
    alpha: Any = 0.0,
    centralization: Any = 1.0,
    stiefel_eps: Any = 1e-8,
    stiefel_max_iters: Any = 100,
) -> Weight:
    first, second = _weights(draft, "rotate", a, b)
    if draft.number(alignment, "alignment") not in (0, 1):
        draft.refuse(f"rotate with alignment {alignment} goes along another way here", "write 0 or 1, or rotate in a recipe of your own")
    options = {
        "alignment": float(alignment),
        "t": _value(draft, "alpha", alpha),
        "centralization": draft.number(centralization, "centralization"),
    }
    return Weight.of(draft, "rotate", {"first": first, "second": second}, **options)


def _cast(draft: Draft, a: Any, device: Any = None, dtype: Any = None) -> Cast:
    if device is not None:
        draft.note("cast to a device is left out: where it is calculated is said when it is exported")
    (weight,) = _weights(draft, "cast", a)
    return Cast(weight, dtype)


METHODS: dict[str, Callable[..., Any]] = {
    "weighted_sum": _weighted_sum,
    "n_average": _n_average,
    "slerp": _of_two("slerp", 0.5, "t", renormalise=True),
    "subtract": _subtract,
    "add_difference": _add_difference,
    **{name: _of_three(name) for name in _MASKED},
    **{f"{name}_mask": _mask(name) for name in _MASKED},
    "add_perpendicular": _of_three("add_perpendicular"),
    "perpendicular_component": _perpendicular,
    "multiply_quotient": _of_three("multiply_quotient"),
    "geometric_sum": _of_two("geometric_sum", 0.5, "t"),
    "add_cosine_a": _of_two("add_cosine_a", 1.0, "share"),
    "add_cosine_b": _of_two("add_cosine_b", 1.0, "share"),
    "crossover": _crossover,
    "clamp": _clamp,
    "tensor_sum": _region("tensor_sum", 0.5),
    "top_k_tensor_sum": _region("top_k_tensor_sum", 1.0),
    "rotate": _rotate,
    "ties_sum": _ties_sum,
    "geometric_median": _geometric_median,
    "cast": _cast,
}
