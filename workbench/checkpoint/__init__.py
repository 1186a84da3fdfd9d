"""What a checkpoint is (`base`), what its `names` say, `files` of it, and `views` that are made of others. No arithmetic."""

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.files.opening import open
from workbench.checkpoint.views.layouts import in_layout

__all__ = ["Checkpoint", "in_layout", "open"]
