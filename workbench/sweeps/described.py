"""Checkpoints and renderers as plain data for another process, and back; what cannot be had there is an error here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from workbench.checkpoint import Checkpoint, in_layout
from workbench.checkpoint import open as open_checkpoint
from workbench.checkpoint.files.hub import located
from workbench.errors import RecipeError, SweepError
from workbench.recipe import Recipe
from workbench.recipe.schema import ModelFile, Node, RecipeData
from workbench.render.spec import Spec

if TYPE_CHECKING:
    from workbench.render import Renderer


def describe(checkpoint: Checkpoint, folder: Path) -> dict[str, Any]:
    """A checkpoint as data, with paths as seen from `folder`, and the size and time of each of its files.

    Raises SweepError for a method that only this process knows, and RecipeError for a model that lies in no file.
    """
    files = {str(path.resolve()): _stamp(path) for path in checkpoint.sources()}
    if checkpoint.merge is not None:
        recipe = Recipe.of(checkpoint)
        if own := next((node.operator for node in _nodes(recipe.data.merge) if node.module == "__main__"), None):
            raise SweepError(f"{own} is defined in this notebook, which the queue's own process does not see: put it into a module")
        return {"recipe": recipe.relative_to(folder).to_dict(), "files": files}
    if checkpoint.path is None:
        raise SweepError(f"{checkpoint.name!r} lies in no file, so it cannot be queued; export it first")
    file = ModelFile(path=checkpoint.address or str(checkpoint.path.absolute()), layout=checkpoint.layout)
    return {"file": file.model_dump(exclude_none=True), "name": checkpoint.name, "files": files}


def told_by_files(checkpoint: Checkpoint) -> bool:
    """Whether files and Workbench's own methods say all of its numbers; the code of other methods may change between two processes."""
    try:
        nodes = None if checkpoint.merge is None else [*_nodes(Recipe.of(checkpoint).data.merge)]
    except RecipeError:  # a model that lies in no file
        return False
    return checkpoint.path is not None if nodes is None else all(node.module is None for node in nodes)


def opened(told: Mapping[str, Any], folder: Path) -> Checkpoint:
    """The checkpoint. Raises SweepError when a file is not what it was, and what opening raises."""
    for name, stamp in told["files"].items():
        path = Path(name)
        if not path.exists():
            raise SweepError(f"{path}: is gone since this was queued; put it back, and do it again")
        if _stamp(path) != stamp:
            raise SweepError(f"{path}: has changed since this was queued; queue it anew")
    try:
        if "recipe" in told:
            return Recipe(RecipeData.model_validate(told["recipe"]), folder).build()
        file = ModelFile.model_validate(told["file"])
    except ValidationError as error:
        raise SweepError(f"the job's recipe is damaged: {error}; remove it") from error
    found = open_checkpoint(located(file.path, folder))
    found.name = told["name"]
    return in_layout(found, file.layout) if file.layout else found


def describe_renderer(renderer: Renderer | None, checkpoint: Checkpoint, lender: Checkpoint | None = None) -> dict[str, Any]:
    """What draws a checkpoint, as data: `renderer`, or that of its kind; `lender` lends what the checkpoint lacks.

    Raises SweepError for a renderer that is not this package's own, and RenderError where something is missing.
    """
    from workbench.render import Renderer
    from workbench.render.shared import renderer_for

    if renderer is not None and type(renderer) is not Renderer:
        raise SweepError(f"{renderer!r} cannot be described to the queue's own process: only a plain wb.Renderer can")
    spec = Spec.of(renderer or renderer_for(checkpoint, progress=False))
    if spec.fallback is None and lender is not None and lender.path is not None:
        spec = replace(spec, fallback=lender.path.absolute())
    spec.lender(checkpoint)
    return spec.to_dict()


def _stamp(path: Path) -> list[int]:
    """What a file's changing shows in: bytes and time."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _nodes(node: Node) -> Iterator[Node]:
    """A merge, and those inside it."""
    yield node
    for given in node.inputs.values():
        for one in given if isinstance(given, list) else [given]:
            if isinstance(one, Node):
                yield from _nodes(one)
