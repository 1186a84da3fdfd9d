"""The part of a panel below the pictures: the recipe and the line of Python that make the merge again, and the export."""

from __future__ import annotations

import html
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, final, get_args

import ipywidgets as widgets

from workbench.checkpoint import Checkpoint, in_layout
from workbench.engine import export
from workbench.errors import WorkbenchError
from workbench.merge import Merge
from workbench.panels.callbacks import on_change, on_click
from workbench.panels.controls import heading
from workbench.panels.fields import check_free, full
from workbench.panels.python_line import python_line
from workbench.panels.state import PanelState
from workbench.tensors import SavedDtype

_AS_FIRST = [("as the first", "")]


@final
class OutcomeView:
    """Tells of another dtype, which is part of the merge, and of another layout; writes the merge it was shown last."""

    def __init__(self, dtype_changed: Callable[[str | None], None], layout_changed: Callable[[str | None], None]) -> None:
        self._result: Checkpoint | None = None
        self._showing = False
        self._name = widgets.Text(value="merged.safetensors", continuous_update=False, layout=full(), tooltip="Where the file goes")
        kinds = [("as the models", ""), *((name, name) for name in get_args(SavedDtype))]
        self._dtype = widgets.Dropdown(options=kinds, layout=widgets.Layout(width="150px", flex="0 0 auto"))
        self._layout = widgets.Dropdown(options=_AS_FIRST, layout=widgets.Layout(width="150px", flex="0 0 auto"))
        self._overwrite = widgets.Checkbox(description="overwrite", indent=False, layout=widgets.Layout(width="auto", flex="0 0 auto"))
        self._button = widgets.Button(description="Export", icon="download", button_style="primary", layout=widgets.Layout(width="110px"))
        self._said = widgets.HTML().add_class("wb-said")
        self._bar = widgets.Output()
        self._yaml, self._python = (widgets.HTML().add_class("wb-code") for _ in range(2))
        for field, changed in ((self._dtype, dtype_changed), (self._layout, layout_changed)):
            on_change(field, partial(self._chosen, changed))
        on_click(self._button, self.export)
        where = widgets.HBox([heading("file", "Relative to the notebook's folder"), self._name, self._overwrite]).add_class("wb-row")
        dtype = [heading("dtype", "What the result is rounded to"), self._dtype]
        layout = [heading("layout", "How the file's tensors are named and cut"), self._layout]
        self._how = widgets.HBox([*dtype, *layout, self._button]).add_class("wb-row")
        exporting = widgets.VBox([where, self._how, self._bar, self._said]).add_class("wb-column")
        tabs = widgets.Tab([exporting, self._yaml, self._python], titles=["Export", "Recipe", "Python"])
        self.widget = tabs.add_class("wb-tabs")

    def show(self, merge: Merge | None, state: PanelState, ok: bool) -> None:
        """Show how this merge is made; it can be exported if it is `ok`."""
        self._showing = True
        self._dtype.value = state.dtype or ""
        layouts = merge.structure.family.layouts if merge else ()
        self._layout.options = [*_AS_FIRST, *((name, name) for name in dict.fromkeys([*layouts, *filter(None, [state.layout])]))]
        self._layout.value = state.layout or ""
        self._showing = False
        self._said.value = "" if ok else "Nothing to export until the errors are mended."
        try:
            self._result = in_layout(merge, state.layout) if merge and state.layout else merge
        except WorkbenchError as error:  # a layout that these models do not have
            self._result, self._said.value = None, html.escape(str(error))
        self._button.disabled = not ok or self._result is None
        self._tell()

    @property
    def target(self) -> tuple[Path, bool]:
        """Where the file is to go, and whether what is there is replaced."""
        return Path(self._name.value), self._overwrite.value

    def offer(self, button: widgets.Button) -> None:
        """Put another button beside the one that exports."""
        self._how.children = (*self._how.children, button)

    def say(self, text: str) -> None:
        """Say something at the export."""
        self._said.value = html.escape(text)

    def _tell(self) -> None:
        """The recipe and the line of Python."""
        try:
            told = self._result.recipe if self._result else None
            self._yaml.value, self._python.value = map(_code, (told.to_yaml(), python_line(told)) if told else ("", ""))
        except WorkbenchError as error:  # a model that lies in no file
            self._yaml.value = self._python.value = html.escape(str(error))

    def export(self) -> None:
        """Write the file; what went wrong is said."""
        self._button.disabled = True
        self._bar.clear_output()
        with self._bar:  # which shows what is raised, and lets nothing through
            self._said.value = html.escape(self._exported())
        self._button.disabled = False

    def _exported(self) -> str:
        """Write the file, and say where it lies, or what went wrong."""
        try:
            path = Path(self._name.value)
            check_free(path, self._overwrite.value)
            return str(export(self._result, path, overwrite=self._overwrite.value))
        except (WorkbenchError, OSError) as error:
            return str(error)

    def _chosen(self, changed: Callable[[str | None], None], change: dict[str, Any]) -> None:
        if not self._showing:
            changed(change["new"] or None)


def _code(text: str) -> str:
    return f'<pre title="One click selects all of it">{html.escape(text)}</pre>'
