"""`ab_grid`: several models draw the same, side by side. What it returns is in `grid`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from workbench.checkpoint.base import Checkpoint
from workbench.errors import RenderError
from workbench.render.drawn import Drawn
from workbench.render.fitting import check_given
from workbench.render.grid import Grid
from workbench.render.request import Request, requests
from workbench.render.scorers import ParentDistance, Scorer, default_scorers, score

if TYPE_CHECKING:
    from workbench.render.pipeline import Renderer


def ab_grid(
    checkpoints: Mapping[str, Checkpoint],
    prompts: Sequence[str],
    seeds: Sequence[int] = (0,),
    *,
    renderer: Renderer | Mapping[str, Renderer] | None = None,
    width: int | Sequence[int] | None = None,
    height: int | Sequence[int] | None = None,
    steps: int | Sequence[int] | None = None,
    guidance: float | Sequence[float] | None = None,
    sampler: str | Sequence[str | None] | None = None,
    negative: str | Sequence[str | None] | None = None,
    clip_skip: int | Sequence[int | None] | None = None,
    scorers: Scorer | ParentDistance | Sequence[Scorer | ParentDistance] | None = None,
    progress: bool = True,
) -> Grid:
    """Every model draws every prompt with every seed, from the same noise; every setting may be a list too, and is an axis then.

    Models of several families may stand side by side: `renderer` is one for all, or a mapping that has one for each name.
    Without it each model is drawn by the renderer of its kind, on the best device there is (see `Renderer` for where its configs come
    from), and one that lacks components, such as a U-Net alone, borrows them from another of its family in the grid. Settings left out
    are each model's own (`Renderer.defaults`); see `Renderer.images` for what they mean. `scorers` add columns
    to the result's `frame()`; without them, pictures of the embedded families are scored with their own CLIP, and others not at all.

    Raises RenderError, before anything is drawn, for a request that cannot be drawn or a model that does not fit.
    """
    from tqdm.auto import tqdm

    settings = {"steps": steps, "guidance": guidance, "sampler": sampler, "negative": negative, "clip_skip": clip_skip}
    asked = requests(prompts, seeds, width=width, height=height, **settings)
    if not isinstance(checkpoints, Mapping) or isinstance(checkpoints, Checkpoint) or not checkpoints:
        raise RenderError('checkpoints must be a mapping of one or more names, as in {"a": checkpoint}')
    for checkpoint in checkpoints.values():
        check_given(checkpoint)
    renderers, lenders = _renderers(checkpoints, renderer, progress)
    asked = _settled(asked, checkpoints, renderers)
    models, images = [], {}
    for name, checkpoint in tqdm(checkpoints.items(), desc="grid", unit="model", delay=2, disable=not progress):
        with renderers[name].lock:
            loaded = renderers[name].load(checkpoint, fallback=lenders[name], progress=progress)
            images[str(name)] = [image for request in asked for image in renderers[name].draw(request, progress=progress)]
        models.append(Drawn.of(str(name), checkpoint, loaded.components))
    if scorers is None:
        scorers = default_scorers(*(each.config for each in renderers.values()))
    wanted = [prompt for request in asked for prompt, _ in request.pictures]
    scores = [score(scorers, drawn, wanted, images) for drawn in images.values()]
    columns = {name: np.concatenate([each[name] for each in scores]) for name in scores[0]}
    return Grid(asked, tuple(models), tuple(image for drawn in images.values() for image in drawn), columns)


def _renderers(
    checkpoints: Mapping[str, Checkpoint], given: Renderer | Mapping[str, Renderer] | None, progress: bool
) -> tuple[dict[str, Renderer], dict[str, Checkpoint | None]]:
    """The renderer of each model, and who lends it what it lacks. Raises RenderError for a model that a mapping has none for."""
    from workbench.render.pipeline import Renderer
    from workbench.render.shared import Renderers

    nobody: dict[str, Checkpoint | None] = dict.fromkeys(checkpoints)
    if isinstance(given, Renderer):
        return dict.fromkeys(checkpoints, given), nobody
    if given is None:
        group = Renderers(checkpoints.values())
        found = {name: group.of(checkpoint, progress=progress) for name, checkpoint in checkpoints.items()}
        return found, {name: group.lender(checkpoint, found[name]) for name, checkpoint in checkpoints.items()}
    if missing := [name for name in checkpoints if name not in given]:
        raise RenderError(f"there is no renderer for {', '.join(map(repr, missing))}: give one for each model, or one for all")
    return {name: given[name] for name in checkpoints}, nobody


def _settled(asked: Sequence[Request], checkpoints: Mapping[str, Checkpoint], renderers: Mapping[str, Renderer]) -> tuple[Request, ...]:
    """The requests with what all models have as their own filled in. Raises RenderError for what a renderer cannot draw."""
    for name, checkpoint in checkpoints.items():
        for request in asked:
            renderers[name].check(checkpoint, request)
    defaults = [renderers[name].defaults(checkpoint) for name, checkpoint in checkpoints.items()]
    return tuple(request.settled(defaults) for request in asked)
