"""Streams a checkpoint's tensors through calculation into a file. No method of merging and no file format lives here."""

from workbench.engine.exporting import Exported, export
from workbench.engine.verifying import Verification, verify

__all__ = ["Exported", "Verification", "export", "verify"]
