"""The settings of a hyper-merge in a YAML file, with the fields of the original program. What is done with them is not decided here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from workbench.checkpoint.files.hub import local
from workbench.errors import RecipeError
from workbench.recipe.schema import Strict
from workbench.tensors import SavedDtype
from workbench.untrusted import Refused, parse_yaml, read_bounded


class HyperConfig(Strict):
    """What to merge, and how; relative paths are seen from the file's folder."""

    name: Annotated[str, Field(min_length=1, pattern=r"^[^/\\]+$")]
    models: Annotated[tuple[str, ...], Field(min_length=2)]
    device: str = "cpu"
    dtype: SavedDtype = "float16"
    iterations: Annotated[int, Field(ge=1, strict=True)] = 6
    ranks: Annotated[tuple[Annotated[int, Field(ge=1, strict=True)], ...], Field(min_length=1)] = (128, 64, 32)


def load(path: Path) -> HyperConfig:
    """Read the file. Raises RecipeError, which names it and every field that is unknown, missing or wrong."""
    try:
        found = parse_yaml(read_bounded(path))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    except Refused as error:
        raise RecipeError(f"{path}: is not YAML that can be read: {error}") from error
    try:
        config = HyperConfig.model_validate(found)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'the file'}: {_said(one['type'], one['msg'])}" for one in error.errors())
        raise RecipeError(f"{path}: {told}; the fields are {', '.join(HyperConfig.model_fields)}") from None
    models = tuple(str(path.parent / local(model)) for model in config.models)
    return config.model_copy(update={"models": models})


def _said(kind: str, text: str) -> str:
    return "there is no such field" if kind == "extra_forbidden" else text
