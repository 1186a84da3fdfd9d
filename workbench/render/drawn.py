"""A model of a grid: what it is called there, where it comes from, and where its pictures lie. They are in `grid`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.checkpoint.base import Checkpoint
from workbench.errors import RecipeError
from workbench.render.axes import plain, told

if TYPE_CHECKING:
    from workbench.recipe import Recipe


@dataclass(frozen=True)
class Drawn:
    """A model of a grid: its name there, its recipe or its files, and whose components it was drawn with.

    `options` are axes of its own (`density`), beside its name; a `problem` says why it has no pictures.
    """

    name: str
    recipe: Recipe | None = None
    files: tuple[Path, ...] = ()
    components: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""

    @classmethod
    def of(cls, name: str, checkpoint: Checkpoint, components: Mapping[str, str]) -> Drawn:
        """A checkpoint, drawn with these components: a merge by its recipe, all else by its files."""
        try:
            recipe = checkpoint.recipe if checkpoint.parents else None  # a file is itself, whatever it carries
        except RecipeError:  # a merge of what lies in no file
            recipe = None
        return cls(name, recipe, checkpoint.sources(), components)

    def described(self, folder: Path) -> dict[str, Any]:
        """As plain data; files are named as seen from `folder`, so that the picture can move with them."""
        files = {"files": [_relative(path, folder) for path in self.files]}
        origin = {"recipe": self.recipe.relative_to(folder).to_yaml()} if self.recipe else files
        options = {"options": {name: plain(value) for name, value in self.options.items()}} if self.options else {}
        return {"name": self.name, **origin, **options, "components": dict(self.components)}

    @property
    def coordinates(self) -> dict[str, Any]:
        """Where its pictures lie on the axes that are its own."""
        return {"model": self.name} | {name: told(value) for name, value in self.options.items()}


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # on another drive
        return path.as_posix()
