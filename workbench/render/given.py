"""What a renderer is made for: the model that is given, opened, and the configs that it is drawn with."""

from __future__ import annotations

import os
from pathlib import Path

from workbench.checkpoint import open as open_checkpoint
from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.files.hub import is_address
from workbench.render.assembly import INDEX
from workbench.render.configs import Configs, find_configs
from workbench.render.fitting import check_given

Given = str | os.PathLike[str] | Checkpoint | Configs


def opened(x: Given, config: str | os.PathLike[str] | None) -> tuple[Checkpoint | None, Configs]:
    """The model that is to be drawn, None for a folder of configs alone, and its configs. Raises RenderError and CheckpointError."""
    if isinstance(x, Configs):
        return None, x
    if isinstance(x, str | os.PathLike) and not is_address(x):
        folder = Path(x).expanduser()
        described = (folder / INDEX).is_file() or not next(folder.rglob("*.safetensors"), None)
        if folder.is_dir() and config is None and described:
            found = Configs(folder)
            return (open_checkpoint(folder) if found.has_weights else None), found
    model = open_checkpoint(x) if isinstance(x, str | os.PathLike) else x
    check_given(model)
    return model, find_configs(model, None if config is None else Path(config) if not is_address(config) else os.fspath(config))
