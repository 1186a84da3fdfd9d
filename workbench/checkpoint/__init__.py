"""Weights on disk: reading, writing, hashing, and what names say. No arithmetic."""

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.opening import open
from workbench.checkpoint.viewing import in_layout

__all__ = ["Checkpoint", "in_layout", "open"]
