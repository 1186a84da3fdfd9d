"""Sweeps: many merges of one kind, drawn and scored, with results that survive a restart."""

from workbench.sweeps.block_map_result import BlockMap
from workbench.sweeps.block_maps import block_map
from workbench.sweeps.queue_jobs import QueueJob
from workbench.sweeps.queueing import Queue
from workbench.sweeps.result import Cell, Sweep
from workbench.sweeps.running import sweep
from workbench.sweeps.sweep_file import open_sweep

__all__ = ["BlockMap", "Cell", "Queue", "QueueJob", "Sweep", "block_map", "open_sweep", "sweep"]
