"""The widgets that one value of an option is typed or dragged into; each has a `value`. Which option gets which is in `controls`."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import ipywidgets as widgets
import traitlets

from workbench.errors import ExportError
from workbench.merge import sources
from workbench.panels.callbacks import on_change
from workbench.panels.labels import labels
from workbench.untrusted import Refused, parse_yaml

NUMBERS = "numbers"
_ROW = 10  # letters of a name beside its slider


def full() -> widgets.Layout:
    """The layout of a widget that takes what width there is; each needs its own, since it goes when its widget does."""
    return widgets.Layout(width="auto", min_width="0", flex="1 1 auto")


def check_free(path: Path, overwrite: bool) -> None:
    """Raise ExportError for a file that is there and not to be replaced, in the words of the boxes that are ticked."""
    if path.is_file() and not overwrite:
        raise ExportError(f"{path}: is there already; give another name, or tick 'overwrite'")


def close_all(widget: widgets.Widget) -> None:
    """Take a widget down, and all that are in it, shown or not."""
    for child in (*getattr(widget, "children", ()), *(widget._parts if isinstance(widget, CompositeField) else ())):
        close_all(child)
    for own in (getattr(widget, "layout", None), getattr(widget, "style", None)):
        if isinstance(own, widgets.Widget):
            own.close()
    widget.close()


class CompositeField(widgets.Box):  # type: ignore[misc]  # ipywidgets says nothing of its types
    """Several widgets that hold one `value` together; setting it sets them all, and tells once."""

    value = traitlets.Any(Ellipsis)  # until it is given: None is a value, too

    def __init__(self, parts: Sequence[widgets.Widget], value: Any, **given: Any) -> None:
        self._parts = tuple(parts)
        self._showing = self.by_hand = False
        super().__init__(**given)
        for part in self._parts:
            on_change(part, self._part_changed)
        self.value = value

    def read(self) -> Any:
        """What the parts hold."""
        raise NotImplementedError

    def write(self, value: Any) -> None:
        """Make the parts hold a value."""
        raise NotImplementedError

    def _part_changed(self, _: Any) -> None:
        if not self._showing:
            self.by_hand = True  # while the value is one that a part was given, not one to be shown
            self.value = self.read()
            self.by_hand = False

    @traitlets.observe("value")
    def _value_changed(self, change: Any) -> None:
        self._showing = True
        try:
            self.write(change.new)
        finally:
            self._showing = False


@final
class Soft(CompositeField):
    """A slider through the usual values of a number, and a field into which any that is allowed is typed."""

    def __init__(self, slider: widgets.Widget, text: widgets.Widget) -> None:
        self._slider, self._text = slider, text
        super().__init__([slider, text], text.value, children=[slider, text], layout=full())
        self.add_class("wb-row")

    def write(self, value: float) -> None:
        self._text.value = value
        self._slider.value = min(max(value, self._slider.min), self._slider.max)

    def _part_changed(self, change: Any) -> None:
        if not self._showing:
            self.value = change["new"]


@final
class Automatic(CompositeField):
    """A field that may be left to the operator: then its value is None."""

    def __init__(self, field: widgets.Widget, begins: Any, value: Any) -> None:
        self._field = field
        self._begins = begins
        self._automatic = widgets.Checkbox(description="automatic", indent=False, layout=widgets.Layout(width="auto", flex="0 0 auto"))
        super().__init__([self._automatic, field], value, children=[self._automatic, field], layout=full())
        self.add_class("wb-row")

    def read(self) -> Any:
        return None if self._automatic.value else self._field.value

    def write(self, value: Any) -> None:
        self._automatic.value = value is None
        self._field.value = self._begins if value is None else value
        self._field.layout.visibility = "hidden" if value is None else "visible"


@final
class Each(CompositeField):
    """One field per model, below one another; the value is a list."""

    def __init__(self, names: Sequence[str], fields: Sequence[widgets.Widget], value: Any) -> None:
        short = labels(names, _ROW)
        rows = [widgets.HBox([_label(name, short[name]), field]).add_class("wb-row") for name, field in zip(names, fields, strict=True)]
        super().__init__(fields, value, children=rows, layout=full())
        self.add_class("wb-column")

    def read(self) -> list[Any]:
        return [field.value for field in self._parts]

    def write(self, value: Any) -> None:
        for field, one in zip(self._parts, value if isinstance(value, (list, tuple)) else [value] * len(self._parts), strict=True):
            field.value = one


@final
class ModelTags(widgets.TagsInput):  # type: ignore[misc]  # ipywidgets says nothing of its types
    """Names of models as tags that are dragged into order, cut so that they can be told apart; whole when the mouse rests on them."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # by label
        super().__init__(allow_duplicates=False, placeholder="")
        self.add_class("wb-tags")

    @property
    def names(self) -> tuple[str, ...]:
        """The models, in order."""
        return tuple(self._names[label] for label in self.value)

    def show(self, names: Sequence[str], short: Mapping[str, str]) -> None:
        """Set the models; `short` has the label of each that there may be."""
        known = {label: name for name, label in short.items()}
        value = [short.get(name, name) for name in names]
        if (known, value) == (self._names, self.value):
            return
        self._names = known | {name: name for name in names if name not in short}
        self.allowed_tags = []  # checked against what is there, while both change
        self.set_trait("value", value)
        self.allowed_tags = list(self._names)
        self.tooltip = ", ".join(names) if any(short.get(name, name) != name for name in names) else ""


@final
class Several(CompositeField):
    """Models in order: tags that are dragged, and a menu of those that can be added."""

    def __init__(self, models: Sequence[str], value: Sequence[str]) -> None:
        self._models = tuple(models)
        self._labels = labels(self._models)
        self._tags = ModelTags()
        self._menu = widgets.Dropdown(layout=widgets.Layout(width="96px", flex="0 0 auto"), tooltip="One model more")
        super().__init__([self._tags, self._menu], tuple(value), children=[self._tags, self._menu], layout=full())
        self.add_class("wb-row")

    def read(self) -> tuple[str, ...]:
        added = [self._menu.value] if self._menu.value else []
        return (*self._tags.names, *added)

    def write(self, value: Sequence[str]) -> None:
        self._tags.show(value, self._labels)
        self._menu.options = [("add …", ""), *((label, name) for name, label in self._labels.items() if name not in value)]
        self._menu.value = ""


@final
class Numbers(CompositeField):
    """A vector, or where it comes from: a menu of sources, and what is given to them.

    A curve is `[[0, 1], [1, -1]]`; what takes more than one argument is a mapping, `{prompt: a heart, encoder: model.safetensors}`.
    """

    def __init__(self, value: Any) -> None:
        self._source = widgets.Dropdown(options=[NUMBERS, *sources.registry], layout=widgets.Layout(width="110px", flex="0 0 auto"))
        self._text = widgets.Text(continuous_update=False, layout=full())
        super().__init__([self._source, self._text], value, children=[self._source, self._text], layout=full())
        self.add_class("wb-row")

    def read(self) -> Any:
        """Whatever was typed, as far as it can be understood; the operator judges it."""
        text, source = self._text.value.strip(), self._source.value
        try:
            found = parse_yaml(f"[{text}]" if source == NUMBERS and not text.startswith(("[", "{")) else text)
        except Refused:
            found = text
        if source == NUMBERS or (isinstance(found, dict) and source in found):
            return found
        return {source: found}

    def write(self, value: Any) -> None:
        source = next((name for name in sources.registry if isinstance(value, dict) and name in value), NUMBERS)
        given = value[source] if source != NUMBERS and len(value) == 1 else value
        self._source.value = source
        self._text.value = given if isinstance(given, str) else json.dumps(given).strip("[]" if source == NUMBERS else "")


def _label(name: str, short: str) -> widgets.HTML:
    return widgets.HTML(f'<span title="{html.escape(name)}">{html.escape(short)}</span>').add_class("wb-label")
