"""What a checkpoint is (`base`), what its `names` say, `files` of it, `changes` in LoRAs, `views` of others."""

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.files.opening import open
from workbench.checkpoint.views.layouts import in_layout

__all__ = ["Checkpoint", "in_layout", "open"]
