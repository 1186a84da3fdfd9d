"""Streams a checkpoint's tensors through calculation into a file. No method of merging and no file format lives here."""

from workbench.engine.exporting import Exported, export

__all__ = ["Exported", "export"]
