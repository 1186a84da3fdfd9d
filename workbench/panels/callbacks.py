"""The one place through which what a person does reaches a panel: nothing that goes wrong there is lost in a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import ipywidgets as widgets

from workbench.errors import WorkbenchError

Tell = Callable[[str], None]

_told_by: WeakKeyDictionary[widgets.Widget, Tell] = WeakKeyDictionary()  # the panels that there are, by the widget that is all of one


def tells(root: widgets.Widget, tell: Tell) -> None:
    """Have `tell(text)` say what goes wrong in a widget, and in all that are in it."""
    _told_by[root] = tell


def on_change(widget: widgets.Widget, react: Callable[[Any], None], names: str | Sequence[str] = "value") -> None:
    """Have `react(change)` called whenever traits change, by hand or not."""
    widget.observe(_guarded(widget, react), names)


def on_click(button: widgets.Button, react: Callable[[], None]) -> None:
    """Have `react()` called whenever a button is pressed."""
    button.on_click(_guarded(button, lambda _: react()))


def on_message(widget: widgets.DOMWidget, react: Callable[[Any, Sequence[Any]], None]) -> None:
    """Have `react(content, buffers)` called with what a widget's page sends."""
    widget.on_msg(_guarded(widget, lambda _, content, buffers: react(content, buffers)))


def in_words(error: Exception) -> str:
    """An error as a panel says it."""
    if isinstance(error, WorkbenchError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the disk'}: {error.strerror}"
    return f"This did not work, and nothing was changed: {type(error).__name__}: {error}"


def _guarded(widget: widgets.Widget, react: Callable[..., None]) -> Callable[..., None]:
    """Raises only where no panel shows the widget, so that nobody could be told."""

    def guarded(*given: Any) -> None:
        tell = _teller_of(widget)  # before it is replaced by what comes of it
        try:
            react(*given)
        except Exception as error:
            if tell is None:
                raise
            tell(in_words(error))

    return guarded


def _teller_of(widget: widgets.Widget) -> Tell | None:
    return next((tell for root, tell in _told_by.items() if any(one is widget for one in _all_in(root))), None)


def _all_in(widget: widgets.Widget) -> Iterator[widgets.Widget]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from _all_in(child)
