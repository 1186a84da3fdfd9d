"""What sd-mecha's methods are here, with its defaults. Its text is read in `of_sd_mecha`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from workbench.merge.declaration import near
from workbench.recipe.sd_mecha_values import Cast, Delta, Mask, Weight
from workbench.recipe.translation import Value, Writing, together

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


def translated(writing: Writing, name: str, given: list[Any], named: dict[str, Any]) -> Any:
    """What a method makes of its arguments. Raises RecipeError for one without an exact counterpart, and for other arguments."""
    if name not in METHODS:
        known = "" if name in _INSTEAD else near(name, list(METHODS))
        instead = _INSTEAD.get(name, "a method that is read, or an operator in a recipe of your own")
        writing.refuse(f"the method {name[:60]!r} has no exact counterpart{known}", f"instead: {instead}")
    method = METHODS[name]
    arguments = inspect.signature(method)
    try:
        bound = arguments.bind(writing, *given, **named)
    except TypeError as error:
        shown = ", ".join(str(one.replace(annotation=one.empty)) for one in list(arguments.parameters.values())[1:])
        return writing.refuse(f"{name}: {error}", f"it takes ({shown})")
    if any(isinstance(one, Cast) for one in (*given, *named.values())):
        writing.refuse(f"{name} takes a model that was cast", "cast the result alone: inputs are calculated in float32 here")
    return method(*bound.args, **bound.kwargs)


def _weights(writing: Writing, name: str, *given: Any) -> list[Weight]:
    """The models, if they are some: not changes, not numbers."""
    for one in given:
        if not isinstance(one, Weight):
            kind = "a change" if isinstance(one, Delta) else f"{one!r}"
            writing.refuse(f"{name} of {kind} has no counterpart; it takes models", "add the change to a model first: add_difference")
    return list(given)


def _value(writing: Writing, name: str, given: Any) -> Value:
    """A number, or numbers by block."""
    if isinstance(given, dict) and "blocks" in given:
        return given
    if isinstance(given, (Weight, Delta, Mask)):
        return writing.refuse(f"{name} is a model or a mask", "write a number, or numbers by block")
    return writing.number(given, name)


def _of_two(operator: str, usual: float, option: str, **fixed: Any) -> Callable[..., Weight]:
    """A method of two models with one number, `alpha`."""

    def method(writing: Writing, a: Any, b: Any, alpha: Any = usual) -> Weight:
        first, second = _weights(writing, operator, a, b)
        return Weight.of(writing, operator, {"first": first, "second": second}, **{option: _value(writing, "alpha", alpha)}, **fixed)

    return method


def _weighted_sum(writing: Writing, a: Any, b: Any, alpha: Any = 0.5) -> Weight:
    share = together(lambda one: [1 - one, one], _value(writing, "alpha", alpha))
    return Weight.of(writing, "weighted_average", {"models": _weights(writing, "weighted_sum", a, b)}, weights=share)


def _n_average(writing: Writing, *models: Any) -> Any:
    if models and all(isinstance(one, Delta) for one in models):
        return _sum(writing, "n_average", list(models), 1 / len(models))
    return Weight.of(writing, "weighted_average", {"models": _some(writing, "n_average", models)}, weights=1)


def _some(writing: Writing, name: str, models: tuple[Any, ...]) -> list[Weight]:
    if not models:
        writing.refuse(f"{name} is of no models", "write of which results: &0 &1")
    return _weights(writing, name, *models)


def _subtract(writing: Writing, a: Any, b: Any) -> Delta:
    tuned, original = _weights(writing, "subtract", a, b)

    def added(base: Weight, alpha: Value) -> Weight:
        return Weight.of(writing, "add_difference", {"base": base, "tuned": tuned, "original": original}, strength=alpha)

    return Delta(added, tuned, original)


def changes(writing: Writing, name: str) -> Delta:
    """What a LoRA changes."""

    def added(base: Weight, alpha: Value) -> Weight:
        return Weight.of(writing, "add_delta", {"base": base, "deltas": [Weight(name)]}, strengths=together(lambda one: [one], alpha))

    return Delta(added)


def _add_difference(writing: Writing, a: Any, b: Any, alpha: Any = 1.0) -> Any:
    if not isinstance(b, Delta):
        writing.refuse("add_difference adds what is no change of a model", "subtract the model that it was made from first")
    (base,) = _weights(writing, "add_difference", a)
    if not isinstance(alpha, Mask):
        return b.added(base, _value(writing, "alpha", alpha))
    if (base, b.tuned, b.original) != alpha.models:
        instead = "write a, b and c alike: add_difference(a, subtract(b, c), mask(a, b, c))"
        writing.refuse(f"{alpha.operator}_mask is of other models than what it masks", instead)
    inputs = dict(zip(("base", "tuned", "original"), alpha.models, strict=True))
    return Weight.of(writing, alpha.operator, inputs, strength=alpha.strength)


def _mask(operator: str) -> Callable[..., Mask]:
    def method(writing: Writing, a: Any, b: Any, c: Any, alpha: Any = 1.0) -> Mask:
        first, second, third = _weights(writing, f"{operator}_mask", a, b, c)
        return Mask(operator, (first, second, third), _value(writing, "alpha", alpha))

    return method


def _of_three(operator: str) -> Callable[..., Weight]:
    def method(writing: Writing, a: Any, b: Any, c: Any, alpha: Any = 1.0) -> Weight:
        inputs = dict(zip(("base", "tuned", "original"), _weights(writing, operator, a, b, c), strict=True))
        return Weight.of(writing, operator, inputs, strength=_value(writing, "alpha", alpha))

    return method


def _perpendicular(writing: Writing, a: Any, b: Any) -> Delta:
    """The part of one change at a right angle to another, which is added to the model of that."""
    if not (isinstance(a, Delta) and isinstance(b, Delta) and a.original is not None and a.original == b.original):
        writing.refuse("perpendicular_component is read of two differences from one model alone", "subtract the same model from both")

    def added(base: Weight, alpha: Value) -> Weight:
        if base != a.tuned or b.tuned is None or b.original is None:
            writing.refuse("perpendicular_component is added to another model than its first", "add it to that")
        inputs = {"base": base, "tuned": b.tuned, "original": b.original}
        return Weight.of(writing, "add_perpendicular", inputs, strength=alpha)

    return Delta(added)


def _sum(writing: Writing, name: str, deltas: list[Any], share: float) -> Delta:
    """Differences from one base, added to it."""

    def added(base: Weight, alpha: Value) -> Weight:
        tuned = _from(writing, name, deltas, base)
        weights = together(lambda one: [one * share] * len(tuned), alpha)
        return Weight.of(writing, "task_arithmetic", {"base": base, "models": tuned}, weights=weights)

    return Delta(added)


def _from(writing: Writing, name: str, deltas: list[Any], base: Weight) -> list[Weight]:
    tuned = [one.tuned for one in deltas if isinstance(one, Delta) and one.original == base and one.tuned is not None]
    if len(tuned) < len(deltas) or not deltas:
        writing.refuse(f"{name} is read of differences from the model it is added to alone", "subtract that model from each of the others")
    return tuned


def _ties_sum(writing: Writing, *models: Any, k: Any = 1.0, vote_sgn: Any = False) -> Delta:
    if vote_sgn is not True:
        writing.refuse("ties_sum with vote_sgn false leaves out what is tied", "ties decides: choose one of its majority_sign")
    density = writing.number(k, "k")
    if density != 1:
        writing.note("ties_sum keeps one or two elements of each tensor more than ties, which keeps int(density n) of n")

    def added(base: Weight, alpha: Value) -> Weight:
        tuned = _from(writing, "ties_sum", list(models), base)
        return Weight.of(writing, "ties", {"base": base, "models": tuned}, density=density, strength=alpha)

    return Delta(added)


def _geometric_median(writing: Writing, *models: Any, eps: Any = 1e-6, maxiter: Any = 100, ftol: Any = 1e-20) -> Weight:
    inputs = {"models": _some(writing, "geometric_median", models)}
    steps = int(writing.number(maxiter, "maxiter"))
    return Weight.of(
        writing, "geometric_median", inputs, iterations=steps, epsilon=writing.number(eps, "eps"), tolerance=writing.number(ftol, "ftol")
    )


def _clamp(writing: Writing, a: Any, *bounds: Any, stiffness: Any = 0.0) -> Weight:
    (model,) = _weights(writing, "clamp", a)
    inputs: dict[str, Any] = {"model": model, "bounds": _some(writing, "clamp", bounds)}
    return Weight.of(writing, "clamp", inputs, stiffness=_value(writing, "stiffness", stiffness))


def _region(operator: str, usual: float) -> Callable[..., Weight]:
    def method(writing: Writing, a: Any, b: Any, width: Any = usual, offset: Any = 0.0) -> Weight:
        first, second = _weights(writing, operator, a, b)
        place = {"width": _value(writing, "width", width), "offset": _value(writing, "offset", offset)}
        return Weight.of(writing, operator, {"first": first, "second": second}, **place)

    return method


def _crossover(writing: Writing, a: Any, b: Any, alpha: Any = 0.5, tilt: Any = 0.0) -> Weight:
    first, second = _weights(writing, "crossover", a, b)
    options = {"t": _value(writing, "alpha", alpha), "tilt": _value(writing, "tilt", tilt)}
    return Weight.of(writing, "crossover", {"first": first, "second": second}, **options)


def _rotate(
    writing: Writing,
    a: Any,
    b: Any,
    alignment: Any = 1.0,
    alpha: Any = 0.0,
    centralization: Any = 1.0,
    stiefel_eps: Any = 1e-8,
    stiefel_max_iters: Any = 100,
) -> Weight:
    first, second = _weights(writing, "rotate", a, b)
    if writing.number(alignment, "alignment") not in (0, 1):
        writing.refuse(f"rotate with alignment {alignment} goes along another way here", "write 0 or 1, or rotate in a recipe of your own")
    options = {
        "alignment": float(alignment),
        "t": _value(writing, "alpha", alpha),
        "centralization": writing.number(centralization, "centralization"),
    }
    return Weight.of(writing, "rotate", {"first": first, "second": second}, **options)


def _cast(writing: Writing, a: Any, device: Any = None, dtype: Any = None) -> Cast:
    if device is not None:
        writing.note("cast to a device is left out: where it is calculated is said when it is exported")
    (weight,) = _weights(writing, "cast", a)
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
