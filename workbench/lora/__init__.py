"""Changes of low rank: taken out of models, put together, and written. Reading them lies in `checkpoint`, adding them in `operators`."""

from workbench.lora.formats import export

__all__ = ["export"]
