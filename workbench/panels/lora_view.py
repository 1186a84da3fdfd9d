"""The part of a LoRA panel below the pictures: where the LoRA goes, in which names, and the export."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any, final, get_args

import ipywidgets as widgets

from workbench.checkpoint.views.low_rank import LowRank
from workbench.errors import WorkbenchError
from workbench.lora.formats import export
from workbench.lora.module_names import Format
from workbench.panels.callbacks import on_click
from workbench.panels.controls import heading
from workbench.panels.fields import check_free, full


@final
class LoraView:
    """Writes the LoRA that it was shown last."""

    def __init__(self) -> None:
        self.lora: LowRank | None = None
        self._name = widgets.Text(value="lora.safetensors", continuous_update=False, layout=full(), tooltip="Where the file goes")
        self._format = widgets.Dropdown(options=get_args(Format), layout=widgets.Layout(width="120px", flex="0 0 auto"))
        self._overwrite = widgets.Checkbox(description="overwrite", indent=False, layout=widgets.Layout(width="auto", flex="0 0 auto"))
        self._button = widgets.Button(description="Export", icon="download", button_style="primary", layout=widgets.Layout(width="110px"))
        self._said = widgets.HTML().add_class("wb-said")
        on_click(self._button, self.export)
        where = widgets.HBox([heading("file", "Relative to the notebook's folder"), self._name, self._overwrite]).add_class("wb-row")
        how = widgets.HBox([heading("names", "Whose names the tensors get"), self._format, self._button]).add_class("wb-row")
        box = widgets.VBox([where, how, self._said]).add_class("wb-column")
        self.widget = widgets.Tab([box], titles=["Export the LoRA"]).add_class("wb-tabs")

    def show(self, *_: Any) -> None:
        """A panel tells its other views here of the merge; a LoRA is the same in all of them."""
        self._said.value = ""

    def export(self) -> None:
        """Write the file, in half precision; what went wrong is said."""
        try:
            check_free(Path(self._name.value), self._overwrite.value)
            path = export(self.lora, Path(self._name.value), format=self._format.value, overwrite=self._overwrite.value)
            told = f"{path}: {path.stat().st_size / 1e6:.2f} MB"
        except (WorkbenchError, OSError) as error:
            told = str(error)
        self._said.value = html.escape(told)
