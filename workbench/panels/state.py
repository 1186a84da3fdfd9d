"""What a merge panel shows, as data, and every change of it as a pure function. Checkpoints and widgets are elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, final

from workbench.errors import InputError
from workbench.merge.declaration import Declaration, Option
from workbench.merge.rules import complaint_of
from workbench.merge.schedules import Lines
from workbench.operators import find
from workbench.panels.prompts import expanded
from workbench.panels.viewing import Viewing
from workbench.render.devices import Offload, Placement
from workbench.render.request import Request

FIRST_OPERATOR = "weighted_average"
AT_FIRST = 3  # models that a new panel merges


@final
@dataclass(frozen=True)
class Wanted:
    """The pictures that are asked for, as a person typed them; `request()` and `placement` say whether they can be drawn.

    Prompts may have alternatives, `a {red|blue} star`. `width`, `height` and `sampler` are each model's own where they are None; without
    `negative` there is no negative prompt. `device`, `dtype` and `offload` are the renderer's (see `Renderer`), None what is best here.
    """

    prompts: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    steps: int = 20
    guidance: float = 5.0
    negative: str = ""
    width: int | None = None
    height: int | None = None
    sampler: str | None = None
    clip_skip: int | None = None
    device: str | None = None
    dtype: str | None = None
    offload: Offload | None = None

    @property
    def placement(self) -> Placement:
        """Where they are calculated. Raises RenderError, which says what is wrong."""
        return Placement(self.device, self.dtype, self.offload)

    @property
    def asked(self) -> dict[str, Any]:
        """What is asked of a renderer, by name, with a prompt for every combination of alternatives. Raises RenderError."""
        return vars(self.request())

    def request(self) -> Request:
        """The same for a renderer, with a prompt for every combination of alternatives. Raises RenderError, which says what is wrong."""
        settings = {name: getattr(self, name) for name in ("steps", "guidance", "width", "height", "sampler", "clip_skip")}
        return Request.of(expanded(self.prompts), self.seeds, negative=self.negative or None, **settings)


@final
@dataclass(frozen=True)
class Setup:
    """What a method was last used with, to be found again when one comes back to it."""

    inputs: Mapping[str, tuple[str, ...]]
    options: Mapping[str, Any]
    rules: tuple[Mapping[str, Any], ...] | None = None


@final
@dataclass(frozen=True)
class PanelState:
    """A panel at one moment: names of models, an operator with its inputs, options and rules, and the pictures wanted.

    `inputs` has a tuple of names for each of the operator's inputs, empty where none is chosen; `options` only what is not
    default; `rules` None for the operator's own. `setups` is what other methods were last used with, and makes no state another one.
    """

    models: tuple[str, ...]
    operator: str = FIRST_OPERATOR
    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    rules: tuple[Mapping[str, Any], ...] | None = None
    seed: int = 0
    dtype: str | None = None
    layout: str | None = None  # of the exported file, if not the first model's
    wanted: Wanted = Wanted()
    setups: Mapping[str, Setup] = field(default_factory=dict, compare=False)
    loras: tuple[str, ...] = ()  # which are added to the result of the method
    strengths: Any = 1.0  # of those, as `add_delta` takes them
    alone: bool = False  # whether each is drawn on the first model, too
    view: Viewing = field(default=Viewing(), compare=False)  # how the pictures are looked at: no state is another one for that
    changes: tuple[str, ...] = field(default=(), compare=False)  # those of the models that are LoRAs, or other changes: the shelf tells

    @classmethod
    def start(cls, models: Sequence[str], wanted: Wanted, merged: Sequence[str] | None = None, changes: Sequence[str] = ()) -> PanelState:
        """A new panel: the average of the first models, or of the first that are to be `merged`; `changes` are the LoRAs among them."""
        state = cls(tuple(models), wanted=wanted, changes=tuple(changes)).with_operator(FIRST_OPERATOR)
        many = state.declaration.many
        return state if merged is None or many is None else state.with_input(many.name, merged[:AT_FIRST])

    @property
    def declaration(self) -> Declaration:
        return find(self.operator).declaration

    @property
    def used(self) -> tuple[str, ...]:
        """The models that are merged, each once, in the order of the inputs."""
        return tuple(dict.fromkeys(name for names in self.inputs.values() for name in names))

    @property
    def many(self) -> tuple[str, ...]:
        """The models of the input that takes several."""
        slot = self.declaration.many
        return self.inputs.get(slot.name, ()) if slot else ()

    def value(self, name: str) -> Any:
        """An option's value, given or default."""
        return self.options.get(name, self.declaration.options[name].default)

    def with_operator(self, name: str) -> PanelState:
        """Another operator, as it was used last; at first models go to its inputs in order, and options that it has as well stay."""
        if name == self.operator and self.inputs:
            return self
        setups = {**self.setups, self.operator: Setup(self.inputs, self.options, self.rules)} if self.inputs else self.setups
        if (known := setups.get(name)) is not None:
            again = replace(self, operator=name, inputs=known.inputs, options=known.options, rules=known.rules, setups=setups)
            return again.with_models(self.models)
        old, new = self.declaration, find(name).declaration
        kept = {key: value for key, value in self.options.items() if old.options.get(key) == new.options.get(key)}
        begun = {key: {"constant": 0.0} for key, option in new.options.items() if option.required and key not in kept}
        singles = [slot.name for slot in new.inputs if not slot.many]
        used = tuple(model for model in self.used if model not in self.changes)
        pool = [*used, *(model for model in self.models if model not in (*used, *self.loras, *self.changes))]
        inputs = {slot: tuple(pool[i : i + 1]) for i, slot in enumerate(singles)}
        if new.many:
            rest = used[len(singles) :] or tuple(pool[len(singles) : max(AT_FIRST, len(singles) + 1)])
            inputs[new.many.name] = rest[: next((count for count in range(len(rest), 0, -1) if new.suits(count)), len(rest))]
        ordered = {slot.name: inputs[slot.name] for slot in new.inputs}
        changed = replace(self, operator=name, inputs=ordered, options=kept | begun, rules=None, setups=setups)
        return changed._dealt(self.many)

    def with_input(self, slot: str, names: Sequence[str]) -> PanelState:
        """Other models for one input; options that go per model stay with their models."""
        return replace(self, inputs={**self.inputs, slot: tuple(names)})._dealt(self.many)

    def with_option(self, name: str, value: Any) -> PanelState:
        """Another value of an option; what is default is left out."""
        option = self.declaration.options[name]
        others = {key: given for key, given in self.options.items() if key != name}
        simple = _simplest(value) if option.per_model else value
        return replace(self, options=others if simple == option.default and not option.required else others | {name: simple})

    def with_rules(self, rules: Sequence[Mapping[str, Any]]) -> PanelState:
        """Other rules; the operator's own are None. Raises InputError for what is no rule."""
        if complaint := next(filter(None, map(complaint_of, rules)), None):
            raise InputError(f"rules: {complaint}")
        own = list(rules) == [dict(rule) for rule in self.declaration.rules]
        return replace(self, rules=None if own else tuple(rules))

    def with_loras(self, names: Sequence[str]) -> PanelState:
        """Other LoRAs on the result; strengths stay with theirs."""
        dealt = each_value(self.strengths, partial(_deal, option=_strengths(), before=self.loras, now=tuple(names)))
        return replace(self, loras=tuple(names), strengths=dealt)

    def with_alone(self, alone: bool) -> PanelState:
        """Whether each LoRA is drawn on the first model, too."""
        return replace(self, alone=alone)

    def with_strengths(self, strengths: Any) -> PanelState:
        """Other strengths of the LoRAs: one for all, one for each, or either by block."""
        return replace(self, strengths=_simplest(strengths))

    def with_seed(self, seed: int) -> PanelState:
        """Another seed of the operator's random numbers."""
        return replace(self, seed=seed)

    def with_dtype(self, dtype: str | None) -> PanelState:
        """Another dtype of the result."""
        return replace(self, dtype=dtype)

    def with_layout(self, layout: str | None) -> PanelState:
        """Another layout of the exported file."""
        return replace(self, layout=layout)

    def with_wanted(self, **changes: Any) -> PanelState:
        """Other pictures: `prompts`, `seeds`, `steps`, `guidance`, `negative`, `width`, ...: as many of them as change."""
        given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
        return replace(self, wanted=replace(self.wanted, **given))

    def with_view(self, **changes: Any) -> PanelState:
        """The pictures looked at otherwise: `size`, `across` (see `Viewing`). Raises OptionError."""
        return replace(self, view=replace(self.view, **changes))

    def with_model(self, name: str) -> PanelState:
        """One more model to choose from."""
        return self if name in self.models else replace(self, models=(*self.models, name))

    def with_merged(self, name: str) -> PanelState:
        """One more model that is merged: in the first input that is empty, or else beside others. Raises InputError where there is no room.

        A LoRA goes on the result.
        """
        shown = self.with_model(name)
        if name in (*self.used, *self.loras):
            return shown
        if name in self.changes:
            return shown.with_loras([*self.loras, name])
        empty = (slot.name for slot in self.declaration.inputs if not self.inputs.get(slot.name))
        many = [self.declaration.many.name] if self.declaration.many else []
        for slot in (*empty, *many):
            return shown.with_input(slot, [*self.inputs.get(slot, ()), name])
        taken = " and ".join(slot.name for slot in self.declaration.inputs)
        raise InputError(f"{name} is among the models, and not in the merge: {self.operator} has its {taken}; choose it there")

    def renamed(self, old: str, new: str) -> PanelState:
        """The same state after a model was given another name."""
        setups = {
            key: replace(one, inputs=_called(one.inputs, old, new), rules=_taking(one.rules, old, new)) for key, one in self.setups.items()
        }
        given = {"models": self.models, "loras": self.loras, "changes": self.changes}
        models, loras, changes = _called(given, old, new).values()
        inputs, rules = _called(self.inputs, old, new), _taking(self.rules, old, new)
        return replace(self, models=models, inputs=inputs, rules=rules, setups=setups, loras=loras, changes=changes)

    def with_models(self, names: Sequence[str]) -> PanelState:
        """The models to choose from in another order, or fewer of them; one that is gone leaves its input empty."""
        inputs = {slot: tuple(name for name in used if name in names) for slot, used in self.inputs.items()}
        there = self.with_loras([name for name in self.loras if name in names])
        return replace(there, models=tuple(names), inputs=inputs)._dealt(self.many)

    def _dealt(self, before: Sequence[str]) -> PanelState:
        """Options that go per model, given for the models `before`, for those there are now."""
        options = dict(self.options)
        for name in options:
            option = self.declaration.options[name]
            if option.per_model and before != self.many:
                options[name] = each_value(options[name], partial(_deal, option=option, before=before, now=self.many))
        return replace(self, options={name: value for name, value in options.items() if value != self.declaration.options[name].default})


def _strengths() -> Option:
    return find("add_delta").declaration.options["strengths"]


def _called(inputs: Mapping[str, tuple[str, ...]], old: str, new: str) -> dict[str, tuple[str, ...]]:
    """Inputs after a model was given another name."""
    return {slot: tuple(new if name == old else name for name in names) for slot, names in inputs.items()}


def _taking(rules: tuple[Mapping[str, Any], ...] | None, old: str, new: str) -> tuple[Mapping[str, Any], ...] | None:
    """Rules after a model was given another name."""
    return rules and tuple({**rule, "take": new} if rule.get("take") == old else rule for rule in rules)


def each_value(given: Any, change: Callable[[Any], Any]) -> Any:
    """An option's value with every value in it changed, whether it differs by block or not."""
    if not isinstance(given, Mapping):
        return change(given)
    ((form, inner),) = given.items()
    if form == "lines":  # of which the end is a value, and `beta` a difference
        lines = Lines.between(change(inner["alpha"]), change(Lines(**inner).end))
        return {"lines": {"alpha": lines.alpha, "beta": lines.beta}}
    return {form: {key: value if key in ("first", "last") and form == "ramp" else change(value) for key, value in inner.items()}}


def per_model(value: Any, count: int) -> list[Any]:
    """One value for each model."""
    return list(value) if isinstance(value, (list, tuple)) else [value] * count


def _deal(value: Any, option: Option, before: Sequence[str], now: Sequence[str]) -> Any:
    if not isinstance(value, (list, tuple)):
        return value
    known = dict(zip(before, value, strict=True))
    return _simplest([known.get(name, option.default) for name in now])


def _simplest(value: Any) -> Any:
    """One value in place of a list of equal ones."""
    if not isinstance(value, (list, tuple)):
        return value
    return value[0] if value and all(one == value[0] for one in value) else list(value)
