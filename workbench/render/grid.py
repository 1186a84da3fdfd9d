"""`Grid`, pictures of several models with labels and scores. How it looks is in `sheet` and `page`; `side_by_side` draws one."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.checkpoint.files.writing import replacing
from workbench.errors import RenderError
from workbench.render.axes import Axes, Facet, arrange, label
from workbench.render.drawn import Drawn
from workbench.render.page import page
from workbench.render.request import SETTINGS, Request, differing
from workbench.render.scorers import in_words, spread
from workbench.render.sheet import Heading, Sheet, stacked

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image


_EDGE = 128  # pixels a small picture is enlarged to at least
_LEAST_EDGE, _MOST_ACROSS = 32, 8000  # pixels of a picture, and of all pictures across


@dataclass(frozen=True, eq=False)
class Grid:
    """Pictures of several models: `images` and score columns count through models, then requests, then prompts, then seeds.

    `requests` differ by their settings. `images` may be read when they are asked for; None is a picture that could not be
    drawn.
    """

    requests: tuple[Request, ...]
    models: tuple[Drawn, ...]
    images: Sequence[Image | None]
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    axes: Axes = field(default_factory=Axes)

    def __repr__(self) -> str:
        each = [f"{len(self.requests)} settings"] if len(self.requests) > 1 else []
        each += [f"{len(self.request.prompts)} prompts", f"{len(self.request.seeds)} seeds"]
        return f"<Grid of {len(self.images)} pictures: {' x '.join([f'{len(self.models)} models', *each])}>"

    @property
    def request(self) -> Request:
        """The first request; the others have its prompts and seeds."""
        return self.requests[0]

    @cached_property
    def pictures(self) -> list[dict[str, Any]]:
        """The coordinates of each picture: `model` and its options, settings (`steps`, ...) where they differ, `prompt`, `seed`."""
        several = differing(self.requests)
        return [
            model.coordinates | {name: getattr(request, name) for name in several} | {"prompt": prompt, "seed": seed}
            for model in self.models
            for request in self.requests
            for prompt, seed in request.pictures
        ]

    def frame(self) -> pd.DataFrame:
        """One row per picture: its coordinates (`model`, `prompt`, `seed` and others), and the score columns."""
        import pandas as pd

        return pd.DataFrame(self.pictures).assign(**self.scores)

    def image(self, model: str, prompt: str, seed: int, **others: Any) -> Image | None:
        """One picture; `others` are settings that differ. Raises RenderError when it is not in the grid."""
        asked = {"model": model, "prompt": prompt, "seed": seed, **others}
        for number, picture in enumerate(self.pictures):
            if all(picture.get(name) == value for name, value in asked.items()):
                return self.images[number]
        raise RenderError(
            f"the grid has no picture of {', '.join(f'{name} {value!r}' for name, value in asked.items())}; it has the models "
            f"{[drawn.name for drawn in self.models]}, prompts {list(self.request.prompts)} and seeds {list(self.request.seeds)}"
        )

    def plot(self, *, edge: int | None = None, **axes: str) -> Image:
        """The labelled sheet as a Pillow picture: by default a row for each prompt, a column for each model.

        `edge` is the width of a picture in pixels (small ones are enlarged to 128). `axes`: `x`, `y` and `z` name them
        (model, prompt, seed, and settings or a model's options where they differ); `seeds` that are no axis lie
        `"across"`, beside one another in each cell, or `"down"`.
        """
        drawn = [sheet.draw() for sheet in self._sheets(edge, axes)]
        return stacked(drawn) if len(drawn) > 1 else drawn[0]

    def save(self, path: str | Path, *, edge: int | None = None, **axes: str) -> Path:
        """Write the sheet as a PNG, or as an HTML page with zoom and scores; `open_grid` reads recipes and settings back from a PNG.

        Both carry them as JSON (the PNG in its text chunk `workbench`), and the page needs nothing else beside it. The file
        appears whole or not at all. Raises RenderError when it cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() not in (".png", ".html"):
            raise RenderError(f"{path}: a grid is saved as a PNG or an HTML page; name it {path.with_suffix('.png').name}")
        if not path.parent.is_dir():
            raise RenderError(f"{path}: the folder {path.parent} does not exist; make it first")
        if path.suffix.lower() == ".html":
            content = page(self._sheets(edge, axes), self._labels, self.settings(path.parent))
        else:
            content = iter([self._png(path.parent, edge=edge, **axes)])
        try:
            with replacing(path) as temporary, temporary.open("wb") as file:
                file.writelines(content)
        except OSError as error:
            raise RenderError(f"{path}: cannot be written ({error.strerror or error})") from error
        return path

    def settings(self, folder: str | Path = ".") -> dict[str, Any]:
        """What a saved grid carries: the models (recipe, or files as seen from `folder`) and everything asked of them."""
        asked = {**self.request.settings, **differing(self.requests)}
        return {"workbench": 1, "models": [model.described(Path(folder)) for model in self.models], **asked}

    def summary(self, pictures: Sequence[int | None]) -> str:
        """The numeric scores of some pictures, given by number: their mean, and how it differs from seed to seed."""
        there = [number for number in pictures if number is not None]
        seeds = [self.pictures[number]["seed"] for number in there]
        numeric = {name: values[there] for name, values in self.scores.items() if np.issubdtype(values.dtype, np.number)}
        return " · ".join(in_words(name, *spread(values, seeds)) for name, values in numeric.items() if np.isfinite(values).any())

    def note(self, pictures: Sequence[int | None]) -> str:
        """What stands below a cell: why it is empty, or its scores."""
        problems = [self.problem(number) for number in pictures if number is not None]
        return next(filter(None, problems), "") or self.summary(pictures)

    def problem(self, picture: int) -> str:
        """Why the model of a picture has none; empty when it has."""
        return self.models[picture // (len(self.images) // len(self.models))].problem

    def _repr_png_(self) -> bytes:
        return self._shown

    @cached_property
    def _shown(self) -> bytes:
        return self._png(Path())

    def _png(self, folder: Path, **asked: Any) -> bytes:
        from PIL.PngImagePlugin import PngInfo

        chunks = PngInfo()
        chunks.add_text("workbench", json.dumps(self.settings(folder)))
        buffer = io.BytesIO()
        self.plot(**asked).save(buffer, "PNG", pnginfo=chunks, optimize=True)
        return buffer.getvalue()

    @property
    def _labels(self) -> list[str]:
        """What each picture is, and its scores."""
        told = [" · ".join(label(axis, value) for axis, value in picture.items()) for picture in self.pictures]
        return [" · ".join(filter(None, [text, self.summary([number])])) for number, text in enumerate(told)]

    def _sheets(self, edge: int | None, given: Mapping[str, str]) -> list[Sheet]:
        """A sheet for each facet, the caption under the last. Raises RenderError for axes that there are not, and too small an edge."""
        if edge is not None and not 16 <= edge <= 4096:
            raise RenderError(f"edge must be in [16, 4096] pixels, got {edge!r}")
        if wrong := set(given) - {"x", "y", "z", "seeds"}:
            raise RenderError(f"the axes are x, y, z and seeds; got {', '.join(sorted(wrong))}")
        axes = replace(self.axes, **given)
        facets = arrange(self.pictures, axes)
        edge = edge or self.edge(facets[-1])
        captions = [*[""] * (len(facets) - 1), self.caption(axes)]
        return [self._sheet(facet, axes.seeds == "down", edge, caption) for facet, caption in zip(facets, captions, strict=True)]

    def _sheet(self, facet: Facet, down: bool, edge: int, caption: str) -> Sheet:
        cells = [[number for cell in row for number in cell] for row in facet.cells]
        if down:
            cells = [[cell[seed] for cell in row] for row in facet.cells for seed in range(len(facet.seeds))]
        several = len(facet.rows) > 1  # the scores of a single row stand below its pictures already
        columns = [Heading(text, self.summary(facet.column(index)) if several else "") for index, text in enumerate(facet.columns)]
        return Sheet(
            images=self.images,
            pictures=cells,
            shape=self.size,
            rows=[Heading(text) for text in facet.rows],
            columns=columns,
            row_details=facet.seeds if down else [""],
            column_details=[""] if down else facet.seeds,
            notes=[[self.note(cell) for cell in row] for row in facet.cells],
            edge=edge,
            title=facet.title,
            caption=caption,
        )

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height of a picture in pixels."""
        return next((image.size for image in self.images if image is not None), (_EDGE, _EDGE))

    def edge(self, facet: Facet) -> int:
        """Small pictures are enlarged, large ones made smaller, the more so the more there are."""
        width = self.size[0]
        edge = width * max(1, -(-_EDGE // width)) if width < _EDGE else min(width, 2 * _EDGE)
        return max(_LEAST_EDGE, min(edge, _MOST_ACROSS // (len(facet.columns) * len(facet.seeds))))

    def caption(self, axes: Axes) -> str:
        """What all pictures share, and how scores are to be read."""
        shared, request = SETTINGS - differing(self.requests).keys(), self.request
        own = [name for name in ("steps", "guidance") if name in shared and getattr(request, name) is None]
        parts = [_in_words(name, getattr(request, name)) for name in SETTINGS if name in shared and getattr(request, name) is not None]
        parts = [*filter(None, parts), *([f"each model's own {' and '.join(own)}"] if own else [])]
        parts += [f"seed {request.seeds[0]}"] if len(request.seeds) == 1 and "seed" not in (axes.x, axes.y, axes.z) else []
        parts += [request.prompts[0]] if len(request.prompts) == 1 and "prompt" not in (axes.x, axes.y, axes.z) else []
        return " · ".join(parts + (["scores: mean ± deviation between seeds"] if self.scores and len(request.seeds) > 1 else []))


def _in_words(setting: str, value: Any) -> str:
    """A setting that all pictures share, as a caption has it."""
    if setting in ("width", "height"):
        return ""  # the pictures show it
    return {"sampler": str(value), "negative": f"negative: {value}"}.get(setting) or label(setting, value)
