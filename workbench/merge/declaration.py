"""What an operator declares about itself, read once from its signature; the recipe schema, messages and docs derive from it."""

from __future__ import annotations

import difflib
import enum
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args, get_origin

from workbench.errors import OptionError
from workbench.tensors import Scope, Slot, Space

T = TypeVar("T")
UNION = "union"


class PerModel(Generic[T]):
    """Annotation of an option that takes one value for all models, or a list with one for each."""


class Missing(enum.Enum):
    """What stands in where a model lacks a tensor. A missing delta is always zero."""

    REFUSE = "refuse"
    OMIT = "omit"  # the operator sees only the models that hold it, and only their options


@dataclass(frozen=True)
class Range:
    """Bounds of a number, the step of its slider, and what it does; `per_block` lets it differ by block."""

    low: float
    high: float
    step: float
    help: str
    per_block: bool = False


@dataclass(frozen=True)
class OneOf:
    """What a choice among an annotation's `Literal` values decides."""

    help: str


@dataclass(frozen=True)
class Input:
    """One positional parameter: a stream of tensors, or (`many`) one stream per model."""

    name: str
    space: Space
    many: bool


@dataclass(frozen=True)
class Option:
    """One keyword-only parameter."""

    name: str
    default: Any
    constraint: Range | OneOf
    choices: tuple[str, ...]
    per_model: bool

    @property
    def per_block(self) -> bool:
        return isinstance(self.constraint, Range) and self.constraint.per_block

    @property
    def allowed(self) -> str:
        """The values it takes, in words: `in [0, 1]`, `one of 'total', 'frequency'`."""
        if isinstance(self.constraint, OneOf):
            return f"one of {', '.join(map(repr, self.choices))}"
        return f"in [{self.constraint.low:g}, {self.constraint.high:g}]"

    def check_value(self, operator: str, value: Any) -> None:
        """Raise OptionError unless `value` is one allowed value, for one model and one block."""
        if isinstance(self.constraint, OneOf):
            good = isinstance(value, str) and value in self.choices
        else:
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number:
                raise OptionError(f"{operator}: {self.name} must be a number {self.allowed}, got {value!r}")
            good = math.isfinite(value) and self.constraint.low <= value <= self.constraint.high
        if not good:
            raise OptionError(f"{operator}: {self.name} must be {self.allowed}, got {value!r}")

    def check(self, operator: str, value: Any, models: int) -> None:
        """Raise OptionError unless `value` is allowed for every block: a value, or a list with one per model."""
        if isinstance(value, Sequence) and not isinstance(value, str):
            if not self.per_model:
                raise OptionError(f"{operator}: {self.name} takes one value, not a list, got {value!r}")
            if len(value) != models:
                raise OptionError(f"{operator}: {self.name} needs one value or {models}, one per model, got {len(value)}: {list(value)}")
            for item in value:
                self.check_value(operator, item)
        else:
            self.check_value(operator, value)


@dataclass(frozen=True)
class Declaration:
    """Everything there is to know of an operator without running it."""

    name: str
    function: Callable[..., Any]
    summary: str
    source: str
    scope: Scope
    keys: str
    missing: Missing
    space: Space
    inputs: tuple[Input, ...]
    options: Mapping[str, Option]
    check: Callable[..., str | None] | None
    rules: tuple[Mapping[str, Any], ...]

    @property
    def many(self) -> Input | None:
        """The input that takes several models, if there is one."""
        return next((slot for slot in self.inputs if slot.many), None)

    def option(self, name: str) -> Option:
        try:
            return self.options[name]
        except KeyError:
            raise OptionError(f"{self.name}: there is no option {name!r}{near(name, self.options)}") from None


def spread(option: Option, value: Any, seen: Sequence[int]) -> Any:
    """An option's value as the operator gets it: a list for the models it sees where it is one per model."""
    if not option.per_model:
        return value
    return [value[i] for i in seen] if isinstance(value, (list, tuple)) else [value] * len(seen)


def near(name: str, allowed: Mapping[str, Any] | Sequence[str]) -> str:
    """The end of a message about an unknown name: what it may have meant, and what there is."""
    guess = difflib.get_close_matches(name, list(allowed), 1)
    meant = f"; did you mean {guess[0]!r}?" if guess else ""
    return f"{meant} (there {'is' if len(allowed) == 1 else 'are'}: {', '.join(allowed) or 'none'})"


def declare(
    function: Callable[..., Any],
    *,
    scope: Scope,
    keys: str,
    source: str,
    missing: Missing,
    check: Callable[..., str | None] | None,
    rules: tuple[Mapping[str, Any], ...],
) -> Declaration:
    """Read the declaration off a function's signature and docstring; a TypeError says what an author left out."""
    signature = inspect.signature(function, eval_str=True)
    inputs, options = [], {}
    for name, parameter in signature.parameters.items():
        hint = parameter.annotation
        base, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            options[name] = _option(name, parameter.default, base, marks)
        else:
            slot = next((mark for mark in marks if isinstance(mark, Slot)), None)
            if slot is None:
                raise TypeError(f"{function.__name__}: {name} must be annotated Weight, Weights, Delta or Deltas")
            inputs.append(Input(name, slot.space, slot.many))
    if keys not in (UNION, *(slot.name for slot in inputs if not slot.many)):
        raise TypeError(f"{function.__name__}: keys must be 'union' or the name of a single input, got {keys!r}")
    if sum(slot.many for slot in inputs) > 1:
        raise TypeError(f"{function.__name__}: only one input may take several models")
    result = next(mark for mark in get_args(signature.return_annotation)[1:] if isinstance(mark, Slot))
    summary = inspect.getdoc(function).splitlines()[0]
    return Declaration(
        name=function.__name__,
        function=function,
        summary=summary,
        source=source,
        scope=scope,
        keys=keys,
        missing=missing,
        space=result.space,
        inputs=tuple(inputs),
        options=options,
        check=check,
        rules=rules,
    )


def _option(name: str, default: Any, base: Any, marks: list[Any]) -> Option:
    constraint = next((mark for mark in marks if isinstance(mark, (Range, OneOf))), None)
    if constraint is None or default is inspect.Parameter.empty:
        raise TypeError(f"option {name} must have a default and be Annotated with Range or OneOf")
    per_model = get_origin(base) is PerModel
    value_type = get_args(base)[0] if per_model else base
    choices = get_args(value_type) if get_origin(value_type) is Literal else ()
    return Option(name, default, constraint, choices, per_model)
