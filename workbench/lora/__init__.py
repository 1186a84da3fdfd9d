"""Changes of low rank: taken out of models, put together, and written. Reading them lies in `checkpoint`, adding them in `operators`."""

from workbench.lora.applying import apply
from workbench.lora.balancing import balance
from workbench.lora.combining import merge, resize
from workbench.lora.error_curves import error
from workbench.lora.extraction import extract
from workbench.lora.formats import export
from workbench.lora.hyper import hyper_merge
from workbench.lora.inspection import inspect
from workbench.lora.projection import project

__all__ = ["apply", "balance", "error", "export", "extract", "hyper_merge", "inspect", "merge", "project", "resize"]
