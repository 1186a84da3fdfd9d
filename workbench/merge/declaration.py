"""What an operator declares about itself, read once from its signature; the recipe schema, messages and docs derive from it."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from types import CellType, CodeType, FunctionType
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar, get_args, get_origin

from workbench.errors import OptionError
from workbench.merge.asked import ASKED
from workbench.merge.constraints import Constraint, OneOf, Range, Vector
from workbench.plugins import place_of
from workbench.tensors import Scope, Slot, Space

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
UNION = "union"
HOME = "workbench.operators"  # where operators live that are Workbench's own
_PER_MODEL = "per model"
_CONSTANTS = (bool, int, float, complex, str, bytes, tuple)

# Annotation of an option that takes one value for all models, or a list with one for each: the function has the list. `Any` is
# what lets one value be the default.
PerModel: TypeAlias = Annotated[Sequence[T] | Any, _PER_MODEL]


class Missing(enum.Enum):
    """What stands in where a model lacks a tensor. A missing delta is always zero."""

    REFUSE = "refuse"
    OMIT = "omit"  # the operator sees only the models that hold it, and only their options
    CANDIDATE = "candidate"  # it comes untouched from the first input after the first that holds it, or else from the first


@dataclass(frozen=True)
class Input:
    """One positional parameter: a stream of tensors, or (`many`) one stream per model."""

    name: str
    space: Space
    many: bool


@dataclass(frozen=True)
class Option:
    """One keyword-only parameter. `required` says that it has no default; `optional` that None is a value of it."""

    name: str
    default: Any
    constraint: Constraint
    per_model: bool = False
    optional: bool = False

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def allowed(self) -> str:
        """The values it takes, in words: `in [0, 1]`, `one of 'total', 'frequency'`."""
        return self.constraint.allowed + (" or None" if self.optional else "")

    @property
    def told(self) -> tuple[str, str]:
        """How it is written with its default, and what it may be and does."""
        per = [name for name, is_so in (("model", self.per_model), ("block", self.constraint.per_block)) if is_so]
        default = "" if self.required else f"={self.default:g}" if isinstance(self.default, float) else f"={self.default!r}"
        reach = f"; per {' and '.join(per)}" if per else ""
        return f"{self.name}{default}", f"{self.allowed}: {self.constraint.help}{reach}"

    def is_value(self, given: Any) -> bool:
        """Whether a mapping is a value of it, and not one that differs by block."""
        return isinstance(self.constraint, Vector) and isinstance(given, Mapping) and set(given) not in ({"blocks"}, {"ramp"}, {"lines"})

    def check(self, operator: str, value: Any, models: int) -> None:
        """Raise OptionError unless `value` is allowed for every block: a value, or a list with one per model."""
        many = isinstance(value, Sequence) and not isinstance(value, str) and not isinstance(self.constraint, Vector)
        if many and not self.per_model:
            raise OptionError(f"{operator}: {self.name} takes one value, not a list, got {value!r}")
        if many and len(value) != models:
            raise OptionError(f"{operator}: {self.name} needs one value or {models}, one per model, got {len(value)}: {list(value)}")
        for item in value if many else [value]:
            complaint = None if item is None and self.optional else self.constraint.complaint(item)
            if complaint:
                raise OptionError(f"{operator}: {self.name} {complaint}")


@dataclass(frozen=True)
class Declaration:
    """Everything there is to know of an operator without running it."""

    name: str
    function: Callable[..., torch.Tensor]
    summary: str
    source: str
    scope: Scope | Callable[..., Scope]
    keys: str
    missing: Missing
    space: Space
    inputs: tuple[Input, ...]
    options: Mapping[str, Option]
    asks: Mapping[str, type]
    check: Callable[..., str | None] | None
    rules: tuple[Mapping[str, Any], ...]
    difference: tuple[str, ...] = ()
    prepare: Callable[..., Any] | None = None
    prepared_scope: Scope | None = None
    prepare_holds: bool = False
    fused: Callable[..., Callable[..., bool] | None] | None = None

    @property
    def module(self) -> str | None:
        """The module that defines it; None for one of Workbench's own."""
        place = place_of(self.function)
        return None if place.startswith(f"{HOME}.") else place

    @property
    def code(self) -> str | None:
        """What its function is compiled to, as a hash, in any process; None for one of Workbench's own, which do not change."""
        function = self.function
        told = (_instructions(function.__code__), function.__kwdefaults__)
        return None if self.module is None else hashlib.blake2b(repr(told).encode()).hexdigest()

    @property
    def definition(self) -> object:
        """What it does, for `repr`, in this process: its code, and what that and `prepare` use of their own module."""
        if self.module is None:
            return self.function.__code__
        known: dict[Any, None] = {}
        return [_meaning(one, known) for one in (self.function, self.prepare) if one is not None]

    @cached_property
    def many(self) -> Input | None:
        """The input that takes several models, if there is one."""
        return next((slot for slot in self.inputs if slot.many), None)

    def scope_for(self, options: Mapping[str, Any]) -> Scope:
        """How much of a tensor it must see, given those options that are not default."""
        if isinstance(self.scope, Scope):
            return self.scope
        return self.scope(**{name: options.get(name, option.default) for name, option in self.options.items()})

    def grain_for(self, options: Mapping[str, Any]) -> Scope:
        """How much of a tensor it must see at once, when what it prepares of the whole tensor, or model, is known."""
        scope = self.scope_for(options)
        return scope if self.prepared_scope is None or scope < Scope.TENSOR else min(scope, self.prepared_scope)

    def suits(self, models: int) -> bool:
        """Whether its default options go with so many models."""
        if self.check is None or any(option.required for option in self.options.values()):
            return True
        plain = {name: spread(option, option.default, range(models)) for name, option in self.options.items()}
        return self.check(models=models, **plain) is None

    def option(self, name: str) -> Option:
        try:
            return self.options[name]
        except KeyError:
            raise OptionError(f"{self.name}: there is no option {name!r}{near(name, self.options)}") from None


def _instructions(code: CodeType) -> tuple[Any, ...]:
    """A function's code without the file and lines that it stands in."""
    constants = [_instructions(one) if isinstance(one, CodeType) else one for one in code.co_consts]
    return code.co_code, code.co_names, constants


def _meaning(value: object, known: dict[Any, None]) -> object:
    """A value, or a function with all that it uses of its own module, for `repr`; `known` are the functions that are told already."""
    if isinstance(value, partial):
        return [_meaning(one, known) for one in (value.func, *value.args, *value.keywords.values())]
    import torch

    if isinstance(value, torch.Tensor):  # whose `repr` leaves most of a large one out
        held_bytes = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return value.dtype, tuple(value.shape), hashlib.blake2b(held_bytes).hexdigest()
    function = inspect.unwrap(value) if callable(value) else value
    if not isinstance(function, FunctionType):
        return value
    if function in known:
        return function.__qualname__
    known[function] = None
    held = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    named = [function.__globals__.get(name) for name in _names(function.__code__)]
    used = [one for one in named if isinstance(one, _CONSTANTS) or getattr(one, "__module__", None) == function.__module__]
    told = function.__defaults__, function.__kwdefaults__, *held, *used
    return _instructions(function.__code__), [_meaning(one, known) for one in told]


def _names(code: CodeType) -> Iterator[str]:
    """What a function's code, and the code inside it, asks of its module, and attributes."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_filled(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:  # not yet
        return False
    return True


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
    scope: Scope | Callable[..., Scope],
    keys: str,
    source: str,
    missing: Missing,
    check: Callable[..., str | None] | None,
    rules: tuple[Mapping[str, Any], ...],
    difference: tuple[str, ...] = (),
    prepare: Callable[..., Any] | None = None,
    prepared_scope: Scope | None = None,
    prepare_holds: bool = False,
    fused: Callable[..., Callable[..., bool] | None] | None = None,
) -> Declaration:
    """Read the declaration off a function's signature and docstring; a TypeError says what an author left out."""
    signature = inspect.signature(function, eval_str=True)
    inputs: list[Input] = []
    options: dict[str, Option] = {}
    asks: dict[str, type] = {}
    for name, parameter in signature.parameters.items():
        hint = parameter.annotation
        base, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if base in ASKED:
            asks[name] = base
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            options[name] = _option(name, parameter.default, base, marks)
        else:
            slot = next((mark for mark in marks if isinstance(mark, Slot)), None)
            if slot is None:
                raise TypeError(f"{function.__name__}: {name} must be annotated Weight, Weights, Delta or Deltas")
            inputs.append(Input(name, slot.space, slot.many))
    if keys not in (UNION, *(slot.name for slot in inputs if not slot.many)):
        raise TypeError(f"{function.__name__}: keys must be 'union' or the name of a single input, got {keys!r}")
    if any(slot.space is Space.WEIGHT for slot in inputs) and inputs[0].space is Space.DELTA:
        raise TypeError(f"{function.__name__}: deltas are changes of the first input, which must be weights, got {inputs[0].name}")
    if sum(slot.many for slot in inputs) > 1:
        raise TypeError(f"{function.__name__}: only one input may take several models")
    result = next(mark for mark in get_args(signature.return_annotation)[1:] if isinstance(mark, Slot))
    docstring = inspect.getdoc(function)
    if not docstring:
        raise TypeError(f"{function.__name__}: needs a docstring; its first line says what the operator does")
    return Declaration(
        name=function.__name__,
        function=function,
        summary=docstring.splitlines()[0],
        source=source,
        scope=scope,
        keys=keys,
        missing=missing,
        space=result.space,
        inputs=tuple(inputs),
        options=options,
        asks=asks,
        check=check,
        rules=rules,
        difference=difference,
        prepare=prepare,
        prepared_scope=prepared_scope,
        prepare_holds=prepare_holds,
        fused=fused,
    )


def _option(name: str, default: Any, hint: Any, marks: list[Any]) -> Option:
    constraint = next((mark for mark in marks if isinstance(mark, Constraint)), None)
    if constraint is None or (default is inspect.Parameter.empty and not isinstance(constraint, Vector)):
        raise TypeError(f"option {name} must have a default and be Annotated with Range, OneOf, Flag or Vector (which may have none)")
    per_model = _PER_MODEL in marks
    kind = get_args(get_args(hint)[0])[0] if per_model else hint  # of the list in it
    optional = type(None) in get_args(kind)
    if optional:
        (kind,) = (one for one in get_args(kind) if one is not type(None))
    if isinstance(constraint, Range):
        constraint = dataclasses.replace(constraint, whole=kind is int)
    if isinstance(constraint, OneOf):
        constraint = dataclasses.replace(constraint, choices=get_args(kind))
    return Option(name, default, constraint, per_model, optional)
