"""What of a panel's state can be swept over, how values for it are written, and the state that each makes. No widget is here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any, final

from workbench.errors import InputError
from workbench.merge import Random
from workbench.merge.constraints import Constraint, Flag, OneOf, Range, Vector
from workbench.merge.declaration import Option, near
from workbench.operators import find, registry
from workbench.panels.between import as_weights, is_between, share_option
from workbench.panels.prompts import expanded, literal
from workbench.panels.ranges import NUMBERS, lines, names, numbers, several
from workbench.panels.state import PanelState, each_value, per_model
from workbench.panels.wanted_view import whole_numbers

MOST_AXES = 3
_SEED = Range(0, (1 << 63) - 1, 1, "seed", whole=True)
_STEPS = Range(1, 1000, 1, "steps", whole=True)
_GUIDANCE = Range(0, 100, 0.5, "guidance")


@final
@dataclass(frozen=True)
class Sweepable:
    """Something that can be swept over: `read` understands what is typed, `with_value` is the state with one value of it.

    `example` is what may be typed; `asked` its name among what is asked of the renderer, None for what makes another merge.
    """

    name: str
    example: str
    read: Callable[[str], tuple[Any, ...]]
    judge: Callable[[Any], str | None]
    with_value: Callable[[PanelState, Any], PanelState]
    asked: str | None = None
    lines: bool = False


def sweepables(state: PanelState, samplers: Sequence[str] = ()) -> dict[str, Sweepable]:
    """All of it, by name: the method's options first, then what it merges, then what is asked of pictures."""
    found: dict[str, Sweepable] = {}
    for one in (*_options(state), *_merged(state), *_pictures(samplers)):
        found.setdefault(one.name, one)
    return found


def values_of(over: Mapping[str, Any], known: Mapping[str, Sweepable]) -> dict[str, tuple[Any, ...]]:
    """What is swept over, as values: each is text, or a list. Raises InputError, which names the option and the word that is wrong."""
    if not over or len(over) > MOST_AXES:
        raise InputError(f"sweep: choose one to {MOST_AXES} options, got {', '.join(over) or 'none'}")
    return {name: _values(name, given, known) for name, given in over.items()}


def state_with(state: PanelState, values: Mapping[str, Any], known: Mapping[str, Sweepable]) -> PanelState:
    """The state with one value of each. Raises InputError where a method does not have an option."""
    for name in sorted(values, key=lambda one: known[one].name != "method"):  # with another method come other options
        try:
            state = known[name].with_value(state, values[name])
        except KeyError:
            raise InputError(f"sweep: {state.operator} has no {name}; take one of the two out") from None
    return state


def combined(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of values, the last fastest."""
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


def _values(name: str, given: Any, known: Mapping[str, Sweepable]) -> tuple[Any, ...]:
    if name not in known:
        raise InputError(f"sweep: there is no option {name!r}{near(name, list(known))}")
    one = known[name]
    if isinstance(given, str):
        values = one.read(given)
    else:
        values = tuple(given.tolist() if hasattr(given, "tolist") else given) if hasattr(given, "__iter__") else (given,)
    if not values:
        raise InputError(f"{name}: has no values; write {one.example}")
    for value in values:
        if complaint := one.judge(value):
            raise InputError(f"{name}: {complaint}")
    return values


def _options(state: PanelState) -> list[Sweepable]:
    """The method's own."""
    found = []
    for option in state.declaration.options.values():
        if isinstance(option.constraint, Vector):
            continue
        if is_between(option, state.many):
            found.append(_between(option, state.many))
            continue
        counted = isinstance(option.constraint, Range) and option.constraint.shares and option.per_model
        if not counted:  # of weights that count by their ratio alone, one value for all changes nothing
            found.append(_typed(option.name, option.constraint, partial(_with_option, option.name)))
        if option.per_model and len(state.many) > 1:
            found += [
                _typed(f"{option.name} of {model}", option.constraint, partial(_of_model, option.name, model)) for model in state.many
            ]
    if Random in state.declaration.asks.values():
        found.append(_typed("method seed", _SEED, lambda state, value: state.with_seed(value)))
    return found


def _merged(state: PanelState) -> list[Sweepable]:
    """Method, models and LoRAs."""
    strengths = find("add_delta").declaration.options["strengths"].constraint
    found = [_typed(f"strength of {lora}", strengths, partial(_of_lora, lora)) for lora in state.loras]
    methods = list(registry())
    found.append(_named("method", methods, lambda state, value: state.with_operator(value)))
    models = [name for name in state.models if name not in state.loras]
    for slot in state.declaration.inputs:
        place = partial(_in_slot, slot.name)
        if slot.many:
            example = f"{' + '.join(models[:2])}, {' + '.join(models[1:3])}"
            read = partial(several, slot.name, allowed=models)
            found.append(Sweepable(slot.name, example, read, partial(_group_complaint, models), place))
        else:
            found.append(_named(slot.name, models, place))
    return found


def _pictures(samplers: Sequence[str]) -> list[Sweepable]:
    """What is asked of the renderer."""
    seeds = Sweepable("seeds", "0-3, 7", _seeds, _SEED.complaint, partial(_wanted, "seeds", many=True), "seed")
    prompts = Sweepable("prompts", "one prompt per line", _each_prompt, _no_prompt, _with_prompt, "prompt", True)
    rest = [
        replace(_typed("steps", _STEPS, partial(_wanted, "steps")), asked="steps", example="4, 8, 16"),
        replace(_typed("guidance", _GUIDANCE, partial(_wanted, "guidance")), asked="guidance", example="1..7 step 2"),
    ]
    known = [replace(_named("sampler", samplers, partial(_wanted, "sampler")), asked="sampler")] if samplers else []
    return [prompts, seeds, *rest, *known]


def _between(option: Option, models: Sequence[str]) -> Sweepable:
    """Two models' weights as one number: how far it is from the first to the second."""
    share = share_option(option, models).constraint
    found = _typed(option.name, share, lambda state, value: state.with_option(option.name, as_weights(value)))
    return replace(found, example=f"0..1 step 0.1 (0 is {models[0]}, 1 is {models[1]})")


def _typed(name: str, constraint: Constraint, with_value: Callable[[PanelState, Any], PanelState]) -> Sweepable:
    """What a declaration says may be typed."""
    if isinstance(constraint, OneOf):
        return _named(name, constraint.choices, with_value)
    if isinstance(constraint, Flag):
        read = lambda text: tuple(word == "true" for word in names(name, text.lower(), ("true", "false")))  # noqa: E731
        return Sweepable(name, "true, false", read, constraint.complaint, with_value)
    whole = isinstance(constraint, Range) and constraint.whole
    low, high = constraint.slider if isinstance(constraint, Range) else (0, 1)
    example = f"{low:g}..{high:g} step {max(1, (high - low) // 4):g}" if whole else NUMBERS
    return Sweepable(name, example, partial(numbers, name, whole=whole), constraint.complaint, with_value)


def _named(name: str, allowed: Sequence[str], with_value: Callable[[PanelState, Any], PanelState]) -> Sweepable:
    """One of some names."""
    judge = OneOf("", tuple(allowed)).complaint
    return Sweepable(name, ", ".join(allowed[:3]), partial(names, name, allowed=list(allowed)), judge, with_value)


def _each_prompt(text: str) -> tuple[str, ...]:
    return expanded(lines("prompts", text))


def _with_prompt(state: PanelState, prompt: str) -> PanelState:
    return state.with_wanted(prompts=(literal(prompt),))


def _seeds(text: str) -> tuple[int, ...]:
    found = whole_numbers(text)
    if not found:
        raise InputError("seeds: has no values; write 0-3, 7")
    return found


def _no_prompt(value: Any) -> str | None:
    return None if isinstance(value, str) and value.strip() else f"must be words, got {value!r}"


def _group_complaint(models: Sequence[str], value: Any) -> str | None:
    if not isinstance(value, (tuple, list)) or not value:
        return f"must be a list of models, got {value!r}"
    wrong = next((one for one in value if one not in models), None)
    return None if wrong is None else f"there is no {wrong!r}{near(str(wrong), list(models))}"


def _wanted(name: str, state: PanelState, value: Any, many: bool = False) -> PanelState:
    return state.with_wanted(**{name: (value,) if many else value})


def _in_slot(slot: str, state: PanelState, value: Any) -> PanelState:
    if slot not in state.inputs:
        raise KeyError(slot)
    return state.with_input(slot, (value,) if isinstance(value, str) else tuple(value))


def _with_option(name: str, state: PanelState, value: Any) -> PanelState:
    return state.with_option(name, value)


def _of_model(option: str, model: str, state: PanelState, value: Any) -> PanelState:
    """One model's value of an option, in all blocks."""
    if model not in state.many:
        raise KeyError(model)
    place, count = state.many.index(model), len(state.many)
    return state.with_option(option, each_value(state.value(option), lambda given: _put(per_model(given, count), place, value)))


def _of_lora(lora: str, state: PanelState, value: Any) -> PanelState:
    place, count = state.loras.index(lora), len(state.loras)
    return state.with_strengths(each_value(state.strengths, lambda given: _put(per_model(given, count), place, value)))


def _put(values: list[Any], place: int, value: Any) -> list[Any]:
    return [value if number == place else one for number, one in enumerate(values)]
