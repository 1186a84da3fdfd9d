"""`Operator`: what the decorator makes of a tensor function. Called with checkpoints, it gives a merge."""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, final

import workbench  # what was measured lies floors above; the package's own front door is the way up
from workbench.errors import InputError, OptionError
from workbench.merge import rules as rule_parsing
from workbench.merge import schedules
from workbench.merge.call import Call, bind
from workbench.merge.declaration import HOME, Declaration, Missing, declare, spread
from workbench.merge.node import DTYPES, PRECISIONS, Merge, Settings
from workbench.merge.rules import Rule
from workbench.plugins import Registry, place_of
from workbench.tensors import Scope

if TYPE_CHECKING:
    import torch

_SETTINGS = tuple(field.name for field in dataclasses.fields(Settings))


@final
@dataclass(frozen=True)
class Operator:
    """A tensor function and its declaration.

    Called with checkpoints for its inputs, options by name, and optionally `rules` and `Settings` by name (`seed`,
    `precision`, `dtype`), it gives a `Merge`.
    Raises InputError and OptionError; nothing is read. `function` is the pure function on tensors.
    """

    declaration: Declaration

    @cached_property
    def function(self) -> Callable[..., torch.Tensor]:
        """The pure function; an option that is per model may be a list, or one value for all."""
        return _for_all_models(self.declaration)

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        options = "\n".join(f"    {written}: {what}" for written, what in (one.told for one in self.declaration.options.values()))
        measured = workbench.analysis.purpose_of(self.declaration.name)
        told = textwrap.fill(f"As measured on the embedded models (docs/methods.md): {measured}.", 130) + "\n\n" if measured else ""
        return f"{inspect.getdoc(self.function)}\n\n{told}Options:\n{options or '    none'}\n\nSource: {self.declaration.source}"

    @property
    def __signature__(self) -> inspect.Signature:
        asked = self.declaration.asks
        own = [p.replace(annotation=p.empty) for p in inspect.signature(self.function).parameters.values() if p.name not in asked]
        common = {"rules": None} | {field.name: field.default for field in dataclasses.fields(Settings)}
        extra = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default) for name, default in common.items()]
        return inspect.Signature([*own, *extra], return_annotation=Merge)

    def __call__(self, *inputs: Any, rules: Sequence[Rule | Mapping[str, Any]] | None = None, **named: Any) -> Merge:
        settings = _settings(self.declaration.name, {name: named.pop(name) for name in _SETTINGS if name in named})
        declared = [slot.name for slot in self.declaration.inputs]
        options = {name: _listed(value) for name, value in named.items() if name not in declared}
        given = dict(zip(declared, inputs, strict=False)) | {name: named[name] for name in declared if name in named}
        if len(inputs) > len(declared) or set(given) != set(declared) or len(given) < len(inputs) + len(named) - len(options):
            raise InputError(f"{self.declaration.name} takes {', '.join(declared)}; got {len(inputs)} inputs and {list(named)}")
        call = bind(self.declaration, given)
        check_options(self.declaration, options, len(call.many))
        _check_inner(call, settings)
        parsed = rule_parsing.parse(self.declaration.rules if rules is None else rules, call)
        return Merge(call, options, parsed, settings)


registry: Registry[Operator] = Registry("operator", home=HOME, group="workbench.operators")


def _for_all_models(declaration: Declaration) -> Callable[..., torch.Tensor]:
    function, many = declaration.function, declaration.many
    per_model = {name: option for name, option in declaration.options.items() if option.per_model}
    if many is None or not per_model:
        return function
    position = declaration.inputs.index(many)

    @wraps(function)
    def spreading(*tensors: Any, **named: Any) -> torch.Tensor:
        models = range(len(named[many.name] if many.name in named else tensors[position]))
        each = {name: spread(option, named.get(name, option.default), models) for name, option in per_model.items()}
        return function(*tensors, **named | each)

    return spreading


def _settings(operator: str, given: Mapping[str, Any]) -> Settings:
    for name, value in given.items():
        if name == "seed":
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
                raise OptionError(f"{operator}: seed must be a whole number from 0 to 2**64 - 1, got {value!r}")
        elif value not in (allowed := DTYPES if name == "dtype" else PRECISIONS):
            raise OptionError(f"{operator}: {name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return Settings(**given)


def _check_inner(call: Call, settings: Settings) -> None:
    """Only the outermost merge rounds and sets the precision: what an inner one asks for would be lost in silence."""
    for slot, model in call.models.items():
        what = "a merge" if model.parents else f"{model.name},"
        if model.rounding:
            told, lost = f"{what} with dtype={model.rounding!r}", "dtype"
        elif PRECISIONS.index(model.precision) > PRECISIONS.index(settings.precision):
            told, lost = f"{what} with precision={model.precision!r}", "precision"
        else:
            continue
        raise InputError(f"{call.operator.name}: {slot} is {told}; give {lost} to the outermost merge only")


def _listed(value: Any) -> Any:
    """An option's value as plain data: arrays and tensors, also inside mappings, as lists of numbers; one row as a vector."""
    if isinstance(value, Mapping):
        return {key: _listed(one) for key, one in value.items()}
    if not hasattr(value, "tolist"):
        return value
    found = value.tolist()
    return found[0] if isinstance(found, list) and len(found) == 1 and isinstance(found[0], list) else found


def check_options(declaration: Declaration, options: Mapping[str, Any], models: int) -> None:
    """Raise OptionError unless every option is known, every value it names is allowed, and none is missing."""
    for option in declaration.options.values():
        if option.required and option.name not in options:
            raise OptionError(f"{declaration.name}: {option.name} must be given: {option.allowed}")
    for name, given in options.items():
        option = declaration.option(name)
        try:
            schedule = schedules.parse(given, option)
        except OptionError as error:
            raise OptionError(f"{declaration.name}: {name} {error}") from None
        if not isinstance(schedule, schedules.Constant) and not option.constraint.per_block:
            raise OptionError(f"{declaration.name}: {name} cannot differ by block; give one value {option.allowed}")
        for value in schedules.values(schedule):
            option.check(declaration.name, value, models)
    plain = {name: options.get(name, option.default) for name, option in declaration.options.items()}
    if declaration.check and not any(isinstance(value, Mapping) for value in plain.values()):
        each = {name: spread(declaration.options[name], value, range(models)) for name, value in plain.items()}
        if complaint := declaration.check(models=models, **each):
            raise OptionError(f"{declaration.name}: {complaint}")


def operator(
    *,
    scope: Scope | Callable[..., Scope],
    keys: str,
    source: str,
    missing: Missing = Missing.REFUSE,
    check: Callable[..., str | None] | None = None,
    rules: Sequence[Mapping[str, Any]] = (),
    difference: Sequence[str] = (),
    prepare: Callable[..., Any] | None = None,
    prepared_scope: Scope | None = None,
    prepare_holds: bool = False,
    fused: Callable[..., Callable[..., bool] | None] | None = None,
) -> Callable[[Callable[..., Any]], Operator]:
    """Make a pure tensor function an operator, known by its name from now on; its signature and docstring are its declaration.

    `scope` may depend on the options: then it is a function of them. `keys` is whose tensors the result has: the name of an
    input, or `"union"`. `check(models, **options)` returns what is wrong with so many models, or with options that are each allowed but
    not together, or None; it is asked before anything is read. `rules` are defaults. `difference` are inputs of which only the difference
    matters: where they have fewer input channels than the base, they are continued as it is, which comes to no change. Where the
    scope is MODEL, `prepare(passes)` is called first, and what it returns is given to a parameter annotated `Prepared`: small, for it is
    kept. Each `passes()` goes through the model anew, and yields for every tensor that is merged what reads its inputs, and its options.
    With `prepared_scope` that goes for the scope TENSOR too, of one tensor alone: large tensors are then not held whole, but calculated in
    parts of that scope, ELEMENT or ROW; `prepare_holds` says that `prepare` has a float32 number for each of the tensor's elements in
    memory, so that an export has fewer tensors at once. `fused(**options)` is a faster way to the same bits: it returns a loop, or None
    where there is none for these options. `loop(out, ...)` gets the inputs as they are stored, models instead of deltas and None for what a
    model lacks, fills `out`, rounded, and returns True; or False, as where something is not finite, and the function does it.
    Defined anew in the same module, it replaces what it was; raises WorkbenchError for a name that one of Workbench's own operators has.
    """

    def decorate(function: Callable[..., Any]) -> Operator:
        extra: dict[str, Any] = {
            "rules": tuple(rules),
            "difference": tuple(difference),
            "prepare": prepare,
            "prepared_scope": prepared_scope,
            "prepare_holds": prepare_holds,
            "fused": fused,
        }
        made = Operator(declare(function, scope=scope, keys=keys, source=source, missing=missing, check=check, **extra))
        registry.add(made.declaration.name, place_of(function), made)
        return made

    return decorate
