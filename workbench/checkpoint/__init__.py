"""Weights on disk: reading, writing, hashing, and what names say. No arithmetic."""

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.layouts import in_layout
from workbench.checkpoint.opening import open

__all__ = ["Checkpoint", "in_layout", "open"]
