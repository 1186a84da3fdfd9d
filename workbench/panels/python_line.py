"""A recipe as the line of Python that makes its merge."""

from __future__ import annotations

from typing import Any

from workbench.recipe import Recipe
from workbench.recipe.schema import Node


def python_line(recipe: Recipe) -> str:
    """An expression on one line; paths are as in the recipe, so it goes for the folder that they are relative to."""
    data = recipe.data
    files = {name: _laid(f"wb.open({model.path!r})", model.layout) for name, model in data.models.items()}
    settings = {"seed": data.seed or None, "precision": data.precision if data.precision != "float32" else None, "dtype": data.output.dtype}
    return _laid(_call(data.merge, files, settings), data.output.layout)


def _laid(written: str, layout: str | None) -> str:
    return f"wb.in_layout({written}, {layout!r})" if layout else written


def _call(node: Node, files: dict[str, str], settings: dict[str, Any]) -> str:
    def spell(given: str | Node | list[str | Node]) -> str:
        if isinstance(given, list):
            return f"[{', '.join(map(spell, given))}]"
        return _call(given, files, {"seed": settings["seed"]}) if isinstance(given, Node) else files[given]

    own = settings if node.seed is None else settings | {"seed": node.seed or None}
    named = {**node.options, "rules": node.model_dump().get("rules"), **own}
    written = [f"{name}={value!r}" for name, value in named.items() if value is not None or name in node.options]
    return _laid(f"wb.operators.{node.operator}({', '.join([*map(spell, node.inputs.values()), *written])})", node.layout)
