"""The part of a panel that is the operator's: method, inputs, options, rules, and what is to be said of the merge."""

from __future__ import annotations

import html
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, final

import ipywidgets as widgets
import traitlets
import yaml

from workbench.errors import InputError
from workbench.merge.schedules import Depth
from workbench.operators import registry
from workbench.panels.block_editor import BlockEditor
from workbench.panels.callbacks import on_change
from workbench.panels.controls import heading, is_random, option_control, option_heading, seed_control, slot_control
from workbench.panels.fields import close_all, full
from workbench.panels.labels import MENU, labels
from workbench.panels.parts_kept import PARTS, kept_from, with_kept
from workbench.panels.state import PanelState
from workbench.untrusted import Refused, parse_yaml

_MARKS = {"error": "✖", "warning": "▲", "note": "i"}
_RULES = "Exceptions, one on a line: {match: '*guidance*', take: base}, {component: vae, skip: true}. The first that fits decides."

Change = Callable[[PanelState], PanelState]


@final
class _Form:
    """The controls of one method, as they were last made: they stay when another is chosen, for a page keeps something of what goes."""

    def __init__(self) -> None:
        self.made_for: dict[str, Any] = {}
        self.controls: dict[str, widgets.Widget] = {}
        self.slots, self.options = (widgets.VBox().add_class("wb-options") for _ in range(2))


@final
class MergeView:
    """Tells `changed(change, what)` how the state is to change; controls are made anew only when they are other controls.

    `only` names the options that a panel of one method leaves to it; method, inputs and rules are then not shown.
    """

    def __init__(self, changed: Callable[[Change, str], None], only: Collection[str] | None = None) -> None:
        self._changed, self._only, self._showing = changed, only, False
        self._forms: dict[str, _Form] = {}
        self._form: _Form  # of the method that is shown
        self._method = widgets.Dropdown(options=list(registry()), layout=full())
        self._summary = widgets.HTML().add_class("wb-hint")
        self._of_methods = widgets.VBox().add_class("wb-forms")
        self._rules = widgets.Textarea(continuous_update=False, rows=2, placeholder="no exceptions", tooltip=_RULES, layout=full())
        self._words = widgets.HTML().add_class("wb-words")
        on_change(self._method, lambda change: self._tell(lambda state: state.with_operator(change["new"]), change["new"]))
        on_change(self._rules, self._ruled)
        method = _titled(heading("method", "How the models are merged"), [self._method, self._summary])
        rules = _titled(heading("rules", _RULES), [self._rules])
        self._kept = {part: widgets.Dropdown(layout=full()) for part in PARTS}
        for part, menu in self._kept.items():
            on_change(menu, partial(self._keeps, part))
        titles = [heading(part, f"Merged, or one model's {part}, untouched: a rule says so") for part in PARTS]
        rows = [widgets.HBox([title, menu]).add_class("wb-row") for title, menu in zip(titles, self._kept.values(), strict=True)]
        self._keeping = widgets.VBox(rows).add_class("wb-option")
        self._components: tuple[str, ...] = ()
        parts = [method, self._of_methods, self._keeping, rules] if only is None else [self._of_methods]
        self.widget = widgets.VBox([*parts, self._words]).add_class("wb-column")

    def show(self, state: PanelState, depth: Depth, words: Sequence[tuple[str, str]], components: Collection[str] = ()) -> None:
        """Show a state, of models that have these components; nothing is told."""
        self._showing = True
        try:
            declaration = state.declaration
            self._method.value = state.operator
            source = html.escape(declaration.source)
            self._summary.value = f'<span title="{source}">{html.escape(declaration.summary)}</span>'
            self._show_form(state.operator)
            self._make("slots", (state.operator, state.models), lambda: self._make_slots(state))
            self._make("options", (state.operator, state.many, depth), lambda: self._make_options(state, depth))
            for name, value in _values(state).items():
                if name not in self._form.controls:
                    continue
                with suppress(traitlets.TraitError, ValueError, TypeError):  # no value for this control: preflight says why
                    self._form.controls[name].value = value
            self._show_kept(state, components)
            rules = declaration.rules if state.rules is None else state.rules
            self._rules.value = "".join(yaml.safe_dump(dict(rule), default_flow_style=True, sort_keys=False) for rule in rules)
            self.say(words)
        finally:
            self._showing = False

    def colour(self, effects: Mapping[str, Any] | None, model: str) -> None:
        """Show what each block of a model does on the bars of all options by block; None takes the colours away."""
        for control in self._form.controls.values():
            if isinstance(editor := getattr(control, "editor", None), BlockEditor):
                editor.colour(effects, model)

    def say(self, words: Sequence[tuple[str, str]]) -> None:
        """What is to be known of the merge, under the controls."""
        told = [(level, f'<div class="wb-{level}"><b>{_MARKS[level]}</b><span>{html.escape(text)}</span></div>') for level, text in words]
        notes = [line for level, line in told if level == "note"]
        count = f"{len(notes)} note{'s' if len(notes) > 1 else ''}"
        folded = f"<details><summary>{count}</summary>{''.join(notes)}</details>" if notes else ""
        self._words.value = "".join([*(line for level, line in told if level != "note"), folded])

    def _show_kept(self, state: PanelState, components: Collection[str]) -> None:
        """A menu for each part that these models have."""
        self._components = tuple(sorted(components))
        for row, (part, menu) in zip(self._keeping.children, self._kept.items(), strict=True):
            there = self._of(part)
            row.layout.display = "" if there and state.used else "none"
            options = (("merged", ""), *((f"of {label}", name) for name, label in labels(state.used, MENU).items()))
            if menu.options != options:
                menu.options = options
            menu.value = kept_from(state, there)

    def _of(self, part: str) -> list[str]:
        return [component for component in PARTS[part] if component in self._components]

    def _keeps(self, part: str, change: dict[str, Any]) -> None:
        self._tell(lambda state: with_kept(state, self._of(part), change["new"]), f"{part} of {change['new'] or 'all'}")

    def _show_form(self, method: str) -> None:
        if method not in self._forms:
            made = self._forms[method] = _Form()
            parts = [made.slots, made.options] if self._only is None else [made.options]
            self._of_methods.children = (*self._of_methods.children, widgets.VBox(parts).add_class("wb-form"))
        self._form = self._forms[method]
        for name, box in zip(self._forms, self._of_methods.children, strict=True):
            box.layout.display = "" if name == method else "none"

    def _make(self, part: str, key: Any, make: Callable[[], None]) -> None:
        if self._form.made_for.get(part) != key:
            self._form.made_for[part] = key
            make()

    def _make_slots(self, state: PanelState) -> None:
        rows = []
        for slot in state.declaration.inputs:
            control = slot_control(slot, state.models, state.inputs[slot.name])
            told = (
                "Models, in order; what each learned counts"
                if slot.space.value == "delta"
                else "Models, in order"
                if slot.many
                else "A model"
            )
            rows.append(_titled(heading(slot.name, told), [control]))
            self._listen(f"input {slot.name}", control, lambda value, name=slot.name: lambda state: state.with_input(name, _names(value)))
        _replace(self._form.slots, rows)

    def _make_options(self, state: PanelState, depth: Depth) -> None:
        rows = []
        for name, option in state.declaration.options.items():
            if self._only is not None and name not in self._only:
                continue
            control = option_control(option, state.value(name), state.many, depth)
            switch = [control.switch] if getattr(control, "switch", None) else []
            rows.append(_titled(option_heading(option), [control], switch))
            self._listen(name, control, lambda value, name=name: lambda state: state.with_option(name, value))
        if (seed := seed_control(state.declaration, state.seed)) is not None:
            rows.append(_titled(heading("seed", "Of the random numbers that the method draws"), [seed]))
            self._listen("seed", seed, lambda value: lambda state: state.with_seed(value))
        _replace(self._form.options, rows)

    def _listen(self, name: str, control: widgets.Widget, change_of: Callable[[Any], Change]) -> None:
        self._form.controls[name] = control
        on_change(control, lambda change: self._tell(change_of(tidied(change["new"])), name))

    def _ruled(self, change: dict[str, Any]) -> None:
        try:
            rules = [parse_yaml(line) for line in change["new"].splitlines() if line.strip()]
        except Refused as error:
            raise InputError(f"rules: {change['new']!r} cannot be read; {_RULES}") from error
        self._tell(lambda state: state.with_rules(rules), "rules")

    def _tell(self, change: Change, what: str) -> None:
        if not self._showing:
            self._changed(change, what)


def _values(state: PanelState) -> dict[str, Any]:
    """What each control shows."""
    slots = {}
    for slot in state.declaration.inputs:
        names = state.inputs[slot.name]
        slots[f"input {slot.name}"] = names if slot.many else next(iter(names), "")
    options = {name: state.value(name) for name in state.declaration.options}
    return slots | options | ({"seed": state.seed} if is_random(state.declaration) else {})


def tidied(value: Any) -> Any:
    """What a slider meant: browsers count its steps in binary fractions, 0.05 as 0.04999999999999982."""
    if isinstance(value, float):
        return round(value, 10)
    if isinstance(value, dict):
        return {key: tidied(one) for key, one in value.items()}
    return [tidied(one) for one in value] if isinstance(value, list) else value


def _names(value: Any) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (value,) if value else ()


def _titled(title: widgets.HTML, rows: Sequence[widgets.Widget], more: Sequence[widgets.Widget] = ()) -> widgets.VBox:
    return widgets.VBox([widgets.HBox([title, *more]).add_class("wb-heading"), *rows]).add_class("wb-option")


def _replace(box: widgets.Box, children: Sequence[widgets.Widget]) -> None:
    old, box.children = box.children, tuple(children)
    for widget in old:
        close_all(widget)
