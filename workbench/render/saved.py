"""`open_grid`: what a saved grid says of itself, its recipes and settings, read back from the PNG."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from workbench.errors import RenderError
from workbench.recipe import Recipe
from workbench.recipe.schema import RecipeData
from workbench.render.png_text import text_in
from workbench.untrusted import MOST_LEVELS, expanded, parse_json, parse_yaml


@final
@dataclass(frozen=True)
class SavedGrid:
    """A saved grid by model: its `recipes`, the `files` of models that are no merges, and their `options`.

    `settings` is what was asked of every model (prompts, seeds, steps, guidance, sampler, negative), as `ab_grid` takes it.
    """

    path: Path
    recipes: Mapping[str, Recipe]
    files: Mapping[str, tuple[Path, ...]]
    options: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"<SavedGrid {self.path.name}: {len(self.recipes)} recipes, {len(self.files)} other models>"

    def _repr_html_(self) -> str:
        asked = ", ".join(f"{name}: {value}" for name, value in self.settings.items())
        shown = "".join(
            f"<details><summary>{html.escape(name)}</summary>{recipe._repr_html_()}</details>" for name, recipe in self.recipes.items()
        )
        files = "".join(
            f"<div>{html.escape(name)}: {', '.join(map(html.escape, map(str, paths)))}</div>" for name, paths in self.files.items()
        )
        return f"<div><b>{html.escape(self.path.name)}</b> {html.escape(asked)}</div>{files}{shown}"


def open_grid(path: str | Path) -> SavedGrid:
    """The recipes and settings that a grid's PNG carries; `opened.recipes[name].build()` makes a merge of it again.

    Paths are taken as seen from the PNG. Raises RenderError for a file that is no PNG, or that carries no grid.
    """
    try:
        path = expanded(path)
        told = parse_json(text_in(path, "workbench") or "null", levels=MOST_LEVELS)
        models, folder = told.pop("models"), path.parent
        told.pop("workbench")
        return SavedGrid(
            path,
            {
                model["name"]: Recipe(RecipeData.model_validate(parse_yaml(model["recipe"])), folder)
                for model in models
                if "recipe" in model
            },
            {model["name"]: tuple(folder / file for file in model["files"]) for model in models if "recipe" not in model},
            {model["name"]: model.get("options", {}) for model in models},
            told,
        )
    except OSError as error:
        raise RenderError(f"{path}: cannot be opened as a grid: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RenderError(f"{path}: carries no grid; open a PNG that Grid.save wrote, as it was written") from error
