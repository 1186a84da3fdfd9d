"""Numbers about checkpoints, as frames. Nothing is drawn here, and no file but the checkpoints' own is read."""

from workbench.analysis.comparison import compare

__all__ = ["compare"]
