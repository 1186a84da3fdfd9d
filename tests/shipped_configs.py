"""The configs that come with the package, and the modules that they describe."""

from __future__ import annotations

import importlib
import json
from typing import Any

from accelerate import init_empty_weights

from workbench.render.vocabulary import SHIPPED

FOLDERS = ("sd1", "sd2", "sd2-base", "sdxl", "sdxl-refiner", "flux-dev", "flux-schnell")


def read(*parts: str) -> dict[str, Any]:
    return json.loads(SHIPPED.joinpath(*parts).read_text(encoding="utf-8"))


def empty(class_name: str, config: dict[str, Any]) -> Any:
    """The module of a config, its weights shapes only."""
    kind = getattr(importlib.import_module("transformers" if "Text" in class_name or "T5" in class_name else "diffusers"), class_name)
    with init_empty_weights():
        return kind(kind.config_class(**config)) if hasattr(kind, "config_class") else kind.from_config(config)


def tensors(module: Any) -> dict[str, tuple[int, ...]]:
    """Name -> shape of a module's tensors; one that is another's second name is left out."""
    tied = getattr(module, "_tied_weights_keys", None) or ()
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items() if name not in tied}
