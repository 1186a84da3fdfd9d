"""Sweeps: many merges of one kind, drawn and scored, with results that survive a restart."""

from workbench.sweeps.result import Cell, Sweep
from workbench.sweeps.running import sweep

__all__ = ["Cell", "Sweep", "sweep"]
