"""The recipe as data: the pydantic models that say what a recipe file may hold. See docs for the format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from workbench.checkpoint.layouts import Layout
from workbench.tensors import Precision, SavedDtype


class Strict(BaseModel):
    """Unknown fields are errors; nothing changes after it was made."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelFile(Strict):
    """Where a model lies, the sha256 it must have (checked when given), and the layout to see it in, if another than its own."""

    path: str
    layout: Layout | None = None
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None


def _from_path(given: Any) -> Any:
    return {"path": given} if isinstance(given, str) else given


Model = Annotated[ModelFile, BeforeValidator(_from_path)]


class Node(Strict):
    """One operator with its inputs: each a model's name, another node, or a list of these."""

    operator: str
    inputs: Mapping[str, Input | list[Input]]
    options: Mapping[str, Any] = {}
    rules: list[Mapping[str, Any]] | None = None
    seed: int | None = None  # only where it differs from the recipe's


Input = str | Node


class Output(Strict):
    """How the result is written; without a dtype, each tensor in that of the first input that holds it (of fp8 Flux, bfloat16).

    Without a layout, in that of the first input.
    """

    dtype: SavedDtype | None = None
    layout: Layout | None = None


class RecipeData(Strict):
    """A whole recipe file."""

    workbench: Literal[1] = 1
    models: Mapping[str, Model]
    merge: Node
    output: Output = Output()
    precision: Precision = "float32"
    seed: Annotated[int, Field(ge=0, lt=2**64)] = 0
