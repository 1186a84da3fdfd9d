"""What a merge and its parents draw, side by side, for `explain`. The renderer is whoever is given; none is made here."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from workbench.checkpoint import Checkpoint

if TYPE_CHECKING:
    from PIL.Image import Image

_EDGE = 128  # pixels a picture is shown at


@dataclass(frozen=True, eq=False)
class DrawnPictures:
    """Pictures of several models: `images` has a list for each, prompts first, then seeds."""

    images: Mapping[str, Sequence[Image]]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]

    def to_html(self) -> str:
        """A table with a column for each model and a row for each prompt and seed."""
        heads = "".join(f"<th style='text-align:center'>{html.escape(name)}</th>" for name in self.images)
        rows = []
        for number, (prompt, seed) in enumerate(product(self.prompts, self.seeds)):
            told = f"{html.escape(prompt)}<br>seed {seed}"
            cells = "".join(f"<td>{_shown(images[number])}</td>" for images in self.images.values())
            rows.append(f"<tr><th style='text-align:left;max-width:14em;white-space:normal'>{told}</th>{cells}</tr>")
        return f"<table><tr><th></th>{heads}</tr>{''.join(rows)}</table>"


def draw(renderer: Any, models: Mapping[str, Checkpoint], prompts: Sequence[str], seeds: Sequence[int], progress: bool) -> DrawnPictures:
    """Every prompt with every seed by every model; the renderer holds the last one then."""
    images = {}
    for name, model in models.items():
        renderer.load(model, progress=progress)
        images[name] = tuple(renderer.images(prompts, seeds, progress=progress))
    return DrawnPictures(images, tuple(prompts), tuple(seeds))


def _shown(image: Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"<img width={_EDGE} src='data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}'>"
