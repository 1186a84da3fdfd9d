"""What a kept picture says of itself in its PNG: recipe or files, prompt, seed and settings, as a grid does. `open_grid` reads it back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from workbench.render.drawn import Drawn
from workbench.render.grid import Grid
from workbench.render.request import Request


def carried(model: Drawn, requests: Sequence[Request], folder: Path) -> list[str]:
    """A text for each picture that `model` draws, by request, prompt and seed; files in it are named as seen from `folder`."""
    single = [replace(request, prompts=(prompt,), seeds=(seed,)) for request in requests for prompt, seed in request.pictures]
    return [json.dumps(Grid((one,), (model,), ()).settings(folder)) for one in single]
