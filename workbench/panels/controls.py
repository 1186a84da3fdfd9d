"""From an operator's declaration to widgets: the only place where that happens. Each control has a `value`."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, final

import ipywidgets as widgets

from workbench.merge import Random
from workbench.merge.constraints import Flag, OneOf, Range
from workbench.merge.declaration import Declaration, Input, Option
from workbench.merge.schedules import Depth
from workbench.panels.bars import differs_by_block
from workbench.panels.between import Between, as_share, is_between, share_option
from workbench.panels.block_editor import BlockEditor
from workbench.panels.callbacks import on_change
from workbench.panels.fields import Automatic, CompositeField, Each, Numbers, Several, Soft, full
from workbench.panels.labels import MENU, labels

_MOST_POSITIONS = 2000  # of a slider; what has more is typed


def slot_control(slot: Input, models: Sequence[str], value: Sequence[str]) -> widgets.Widget:
    """The control of one input: a menu of models, or tags that are dragged into order; its value is a name or a tuple of names."""
    if slot.many:
        return Several(models, value)
    options = [("choose a model", ""), *((label, name) for name, label in labels(models, MENU).items())]
    return widgets.Dropdown(options=options, value=next(iter(value), ""), layout=full())


def option_control(option: Option, value: Any, models: Sequence[str], depth: Depth) -> widgets.Widget:
    """The control of one option, for these models and blocks."""
    if is_between(option, models):
        field = option_control(share_option(option, models), as_share(value, option, depth), models, depth)
        return Between(option, models, depth, field, value)
    if option.per_model:
        field = Each(models, [_field(option) for _ in models], value if not differs_by_block(value, option) else option.default)
    else:
        field = _field(option)
        if not differs_by_block(value, option):
            field.value = value
    if isinstance(option.constraint, Range) and option.constraint.per_block and depth.blocks and not option.optional:
        return ByBlockControl(option, field, BlockEditor(option, depth, models if option.per_model else [option.name]), value)
    return field


def is_random(declaration: Declaration) -> bool:
    """Whether an operator draws random numbers."""
    return Random in declaration.asks.values()


def seed_control(declaration: Declaration, value: int) -> widgets.Widget | None:
    """The control of the seed, for operators that draw random numbers."""
    if not is_random(declaration):
        return None
    return widgets.BoundedIntText(value=value, min=0, max=2**53, layout=widgets.Layout(width="130px"))


def heading(name: str, told: str) -> widgets.HTML:
    """The name of a control, with what it does when the mouse rests on it."""
    return widgets.HTML(f'<span title="{html.escape(told)}">{html.escape(name)}</span>').add_class("wb-name")


def option_heading(option: Option) -> widgets.HTML:
    """The name of an option, with its help and what it may be."""
    told = option.constraint.help
    return heading(option.name, f"{told[:1].upper()}{told[1:]}; {option.allowed}")


@final
class ByBlockControl(CompositeField):
    """An option that may differ by block: its plain field, or the block editor in its place."""

    def __init__(self, option: Option, field: widgets.Widget, editor: BlockEditor, value: Any) -> None:
        self._option, self._field, self.editor = option, field, editor
        self.switch = widgets.ToggleButton(description="by block", tooltip="A value for each block of the model").add_class("wb-switch")
        on_change(self.switch, self._switched)
        super().__init__([field, editor], value, layout=full())
        self.add_class("wb-column")

    def read(self) -> Any:
        return (self.editor if self.switch.value else self._field).value

    def write(self, value: Any) -> None:
        by_block = differs_by_block(value, self._option)
        if not by_block:
            self._field.value = value
        self.editor.value = value
        if by_block or not self.by_hand:  # bars that were painted all alike stay bars
            self.switch.value = by_block
        self._show()

    def _switched(self, change: Any) -> None:
        if not change.new and differs_by_block(self.value, self._option):
            self.value = self.editor.everywhere
        self._show()

    def _show(self) -> None:
        shown = self.editor if self.switch.value else self._field
        if self.children != (shown,):
            self.children = [shown]


def _field(option: Option) -> widgets.Widget:
    """The field of one value of an option; it begins with the default."""
    field = _plain(option)
    if not option.optional:
        return field
    return Automatic(field, field.value, option.default)


def _plain(option: Option) -> widgets.Widget:
    constraint = option.constraint
    tip = constraint.help
    default = None if option.required else option.default
    if isinstance(constraint, Range):
        return _number(constraint, default, tip)
    if isinstance(constraint, OneOf):
        return widgets.Dropdown(options=constraint.choices, value=default or constraint.choices[0], tooltip=tip, layout=full())
    if isinstance(constraint, Flag):
        return widgets.Checkbox(value=bool(default), description=tip, tooltip=tip, indent=False, layout=full())
    return Numbers({"constant": 0.0} if default is None else default)


def _number(bounds: Range, default: float | None, tip: str) -> widgets.Widget:
    if bounds.soft is not None:
        low, high = bounds.soft
        slider = _number(replace(bounds, low=low, high=high, soft=None), default, tip)
        slider.readout = False
        kind = widgets.BoundedIntText if bounds.whole else widgets.BoundedFloatText
        width = widgets.Layout(width="64px", flex="0 0 auto")
        return Soft(
            slider, kind(value=slider.value, min=bounds.low, max=bounds.high, step=bounds.step, tooltip=bounds.allowed, layout=width)
        )
    kinds = (widgets.IntSlider, widgets.BoundedIntText) if bounds.whole else (widgets.FloatSlider, widgets.BoundedFloatText)
    kind = kinds[(bounds.high - bounds.low) / bounds.step > _MOST_POSITIONS]
    begins = min(max(0, bounds.low), bounds.high) if default is None else default
    given = {"min": bounds.low, "max": bounds.high, "step": bounds.step}
    if bounds.whole:
        given = {name: int(value) for name, value in given.items()}
    elif kind is widgets.FloatSlider:
        given["readout_format"] = f".{_decimals(bounds.step)}f"
    return kind(value=begins, **given, continuous_update=False, tooltip=tip, layout=full())


def _decimals(step: float) -> int:
    return len(f"{step:.6f}".rstrip("0").partition(".")[2])
