"""`ab_grid`: several checkpoints draw the same prompts with the same seeds, side by side, with labels and scores."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.writing import replacing
from workbench.errors import RecipeError, RenderError
from workbench.render.assembly import default_config
from workbench.render.request import GUIDANCE, STEPS, Request
from workbench.render.samplers import DEFAULT_SAMPLER
from workbench.render.scorers import Scorer, default_scorers, score
from workbench.render.sheet import Heading, Sheet

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

    from workbench.recipe import Recipe
    from workbench.render.pipeline import Renderer

_EDGE = 128  # pixels a small picture is enlarged to at least


@dataclass(frozen=True)
class Drawn:
    """A model of a grid: its name there, its recipe or its files, and whose components it was drawn with."""

    name: str
    recipe: Recipe | None
    files: tuple[Path, ...]
    components: Mapping[str, str]

    def described(self, folder: Path) -> dict[str, Any]:
        """As plain data; files are named as seen from `folder`, so that the picture can move with them."""
        files = {"files": [_relative(path, folder) for path in self.files]}
        origin = {"recipe": self.recipe.relative_to(folder).to_yaml()} if self.recipe else files
        return {"name": self.name, **origin, "components": dict(self.components)}


@dataclass(frozen=True, eq=False)
class Grid:
    """Pictures of several models: `images` and score columns count through models, then prompts, then seeds."""

    request: Request
    models: tuple[Drawn, ...]
    images: tuple[Image, ...]
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __repr__(self) -> str:
        counts = f"{len(self.models)} models x {len(self.request.prompts)} prompts x {len(self.request.seeds)} seeds"
        return f"<Grid of {len(self.images)} pictures: {counts}>"

    def frame(self) -> pd.DataFrame:
        """One row per picture: `model`, `prompt`, `seed`, and the score columns."""
        import pandas as pd

        rows = [(model.name, *picture) for model in self.models for picture in self.request.pictures]
        return pd.DataFrame(rows, columns=["model", "prompt", "seed"]).assign(**self.scores)

    def image(self, model: str, prompt: str, seed: int) -> Image:
        """One picture. Raises RenderError when it is not in the grid."""
        names = [drawn.name for drawn in self.models]
        try:
            return self.images[self._index(names.index(model), self.request.pictures.index((prompt, seed)))]
        except ValueError as error:
            raise RenderError(
                f"the grid has no picture of {model!r}, {prompt!r}, seed {seed!r}; it has the models {names}, "
                f"prompts {list(self.request.prompts)} and seeds {list(self.request.seeds)}"
            ) from error

    def plot(self, *, edge: int | None = None, seeds: str = "across") -> Image:
        """The labelled sheet as a Pillow picture: a row for each prompt, a column for each model.

        `edge` is the width of a picture in pixels (small ones are enlarged to 128); `seeds` lie `"across"`, beside one
        another in each model's column, or `"down"`, below one another in each prompt's row.
        """
        if seeds not in ("across", "down"):
            raise RenderError(f"seeds must be 'across' or 'down', got {seeds!r}")
        if edge is not None and not 16 <= edge <= 4096:
            raise RenderError(f"edge must be in [16, 4096] pixels, got {edge!r}")
        down = seeds == "down"
        labels = [f"seed {seed}" for seed in self.request.seeds] if len(self.request.seeds) > 1 else [""]
        return Sheet(
            self._rows(down),
            [Heading(prompt) for prompt in self.request.prompts],
            [Heading(model.name, self._summary(index)) for index, model in enumerate(self.models)],
            labels if down else [""],
            [""] if down else labels,
            self._caption,
            edge or self._edge,
        ).draw()

    def save(self, path: str | Path, *, edge: int | None = None, seeds: str = "across") -> Path:
        """Write the sheet as a PNG whose text chunk `workbench` holds recipes and settings as JSON; returns the path.

        The file appears whole or not at all. Raises RenderError when it cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise RenderError(f"{path}: a grid is saved as a PNG; name it {path.with_suffix('.png').name}")
        if not path.parent.is_dir():
            raise RenderError(f"{path}: the folder {path.parent} does not exist; make it first")
        content = self._png(path.parent, edge=edge, seeds=seeds)
        try:
            with replacing(path) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            raise RenderError(f"{path}: cannot be written ({error.strerror or error})") from error
        return path

    def settings(self, folder: str | Path = ".") -> dict[str, Any]:
        """What the PNG carries: the models (recipe, or files as seen from `folder`) and everything asked of them."""
        return {
            "workbench": 1,
            "models": [model.described(Path(folder)) for model in self.models],
            **self.request.settings,
        }

    def _repr_png_(self) -> bytes:
        return self._shown

    @cached_property
    def _shown(self) -> bytes:
        return self._png(Path())

    def _png(self, folder: Path, **layout: Any) -> bytes:
        from PIL.PngImagePlugin import PngInfo

        chunks = PngInfo()
        chunks.add_text("workbench", json.dumps(self.settings(folder)))
        buffer = io.BytesIO()
        self.plot(**layout).save(buffer, "PNG", pnginfo=chunks, optimize=True)
        return buffer.getvalue()

    def _index(self, model: int, picture: int) -> int:
        return model * len(self.request.pictures) + picture

    def _rows(self, down: bool) -> list[list[Image]]:
        prompts, seeds, models = (range(len(group)) for group in (self.request.prompts, self.request.seeds, self.models))

        def at(model: int, prompt: int, seed: int) -> Image:
            return self.images[self._index(model, prompt * len(seeds) + seed)]

        if down:
            return [[at(model, prompt, seed) for model in models] for prompt in prompts for seed in seeds]
        return [[at(model, prompt, seed) for model in models for seed in seeds] for prompt in prompts]

    def _summary(self, model: int) -> str:
        """The means of a model's numeric scores, under its name."""
        part = slice(self._index(model, 0), self._index(model + 1, 0))
        means = {name: values[part] for name, values in self.scores.items() if np.issubdtype(values.dtype, np.number)}
        return " · ".join(_mean(name, values) for name, values in means.items() if np.isfinite(values).any())

    @property
    def _edge(self) -> int:
        width = self.images[0].width
        return width * max(1, -(-_EDGE // width)) if width < _EDGE else min(width, 2 * _EDGE)

    @property
    def _caption(self) -> str:
        request = self.request
        parts = [f"{request.steps} steps", f"guidance {request.guidance:g}", request.sampler]
        parts += [f"seed {request.seeds[0]}"] if len(request.seeds) == 1 else []
        return " · ".join(parts + ([f"negative: {request.negative}"] if request.negative else []))


def ab_grid(
    checkpoints: Mapping[str, Checkpoint],
    prompts: Sequence[str],
    seeds: Sequence[int] = (0,),
    *,
    renderer: Renderer | None = None,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    sampler: str = DEFAULT_SAMPLER,
    negative: str = "",
    scorers: Scorer | Sequence[Scorer] | None = None,
    progress: bool = True,
) -> Grid:
    """Every model draws every prompt with every seed, from the same noise.

    Without a `renderer` one is made on the CPU, of the diffusers folder that the checkpoints lie in or else of the
    family this project ships. `scorers` add columns to the result's `frame()`; without them, pictures of that family are
    scored with its own CLIP, and others not at all.

    Raises RenderError, before anything is drawn, for a request that cannot be drawn or a model that does not fit.
    """
    from tqdm.auto import tqdm

    from workbench.render.pipeline import Renderer

    request = Request.of(prompts, seeds, steps=steps, guidance=guidance, sampler=sampler, negative=negative)
    if not isinstance(checkpoints, Mapping) or isinstance(checkpoints, Checkpoint) or not checkpoints:
        raise RenderError('checkpoints must be a mapping of one or more names, as in {"a": checkpoint}')
    if renderer is None:
        whole = [checkpoint for checkpoint in checkpoints.values() if isinstance(checkpoint, Checkpoint)]
        renderer = Renderer(default_config(whole))
    for checkpoint in checkpoints.values():
        renderer.check(checkpoint)
    models, images = [], []
    for name, checkpoint in tqdm(checkpoints.items(), desc="grid", unit="model", delay=2, disable=not progress):
        loaded = renderer.load(checkpoint, progress=progress)
        images += renderer.draw(request, progress=progress)
        models.append(_drawn(str(name), checkpoint, loaded.components))
    asked = [prompt for prompt, _ in request.pictures] * len(models)
    scorers = default_scorers(renderer.config) if scorers is None else scorers
    return Grid(request, tuple(models), tuple(images), score(scorers, images, asked))


def _drawn(name: str, checkpoint: Checkpoint, components: Mapping[str, str]) -> Drawn:
    try:
        recipe = getattr(checkpoint, "recipe", None)
    except RecipeError:  # a merge of what lies in no file
        recipe = None
    return Drawn(name, recipe, checkpoint.sources(), components)


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # on another drive
        return path.as_posix()


def _mean(name: str, values: np.ndarray) -> str:
    mean = float(np.nanmean(values))
    return f"{name.removesuffix('_right')} {mean:.0%}" if name.endswith("_right") else f"{name} {mean:.1f}"
