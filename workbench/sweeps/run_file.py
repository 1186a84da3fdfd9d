"""What files of long runs have in common: a recipe, what is drawn and where, who draws it; read, checked, and made of. No run is here."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, JsonValue, StrictInt, StrictStr, ValidationError, model_validator

from workbench.checkpoint import Checkpoint
from workbench.checkpoint import open as open_checkpoint
from workbench.checkpoint.files.hub import local, located
from workbench.errors import SweepError
from workbench.merge.declaration import near
from workbench.operators import find
from workbench.recipe import Recipe
from workbench.recipe.schema import Strict, complaints, validated
from workbench.render.devices import Offload
from workbench.render.scorers import ClipChoice, ClipScorer, ParentDistance, Scorer
from workbench.untrusted import Refused, expanded, parse_yaml, read_bounded

if TYPE_CHECKING:
    from workbench.merge.declaration import Declaration
    from workbench.render import Renderer

_PATIENCE = 15  # seconds in which a scheduler answers


def listed(given: Any) -> Any:
    """One value stands for a list of one."""
    return given if isinstance(given, list) else [given]


Texts = Annotated[list[StrictStr], BeforeValidator(listed), Field(min_length=1)]
Seeds = Annotated[list[Annotated[StrictInt, Field(ge=0)]], BeforeValidator(listed), Field(min_length=1)]
OneOrMore = int | float | str | None | list[int | float | str | None]


class ChoiceFields(Strict):
    """What `ClipChoice` takes: a CLIP, the column, and the words."""

    clip: str
    column: str
    words: list[str]


class ScorerFields(Strict):
    """One scorer: `clip` with a CLIP's folder or name, `choice` of words, or `distance` to a model of the recipe.

    `device` is where a CLIP looks at pictures: one of the machine that scores, which is the one that reads the file.
    """

    clip: str | None = None
    choice: ChoiceFields | None = None
    distance: str | None = None
    device: str = "cpu"

    @model_validator(mode="after")
    def _one(self) -> ScorerFields:
        if len(self.model_fields_set & {"clip", "choice", "distance"}) != 1:
            raise ValueError("a scorer is one of clip:, choice: or distance:, as in `score: {clip: shapes-clip}`")
        return self

    def made(self, folder: Path) -> Scorer | ParentDistance:
        """The scorer, its paths being as seen from `folder`. Raises RenderError."""
        if self.distance is not None:
            return ParentDistance(self.distance)
        if self.choice is not None:
            return ClipChoice(ClipScorer(_clip(self.choice.clip, folder), device=self.device), self.choice.column, self.choice.words)
        return ClipScorer(_clip(str(self.clip), folder), device=self.device)


class RendererFields(Strict):
    """What draws, where that is not the best device here: `device` may be one that only the workers have."""

    config: str | None = None
    device: str | None = None
    dtype: str | None = None
    offload: Offload | None = None
    fallback: str | None = None


class ExecutorFields(Strict):
    """Who draws: so many processes of this machine, or the workers of a dask scheduler."""

    processes: Annotated[StrictInt, Field(ge=1, le=256)] | None = None
    dask: str | None = None

    @model_validator(mode="after")
    def _one(self) -> ExecutorFields:
        if len(self.model_fields_set) != 1:
            raise ValueError("an executor is processes: or dask:, as in `executor: {dask: tcp://scheduler:8786}`")
        return self


class RunFields(Strict):
    """The fields that every such file has."""

    recipe: str
    prompts: Texts
    seeds: Seeds = Field(default=[0])
    steps: OneOrMore = None
    guidance: OneOrMore = None
    sampler: OneOrMore = None
    negative: OneOrMore = None
    width: OneOrMore = None
    height: OneOrMore = None
    clip_skip: OneOrMore = None
    renderer: RendererFields | None = None
    executor: ExecutorFields | None = None
    name: str | None = None
    folder: str | None = None


Fields = TypeVar("Fields", bound=RunFields)


@dataclass(frozen=True)
class Varied:
    """The merge of a recipe with other options."""

    recipe: Recipe
    path: Path

    def __call__(self, **options: JsonValue) -> Checkpoint:
        """Raises RecipeError and OptionError for values that the operator does not take."""
        told = self.recipe.data.model_dump(mode="json")
        told["merge"]["options"] = told["merge"].get("options", {}) | options
        return Recipe(validated(self.path, told), self.recipe.folder, self.recipe.notes).build()

    @cached_property
    def declaration(self) -> Declaration:
        """That of the operator whose options are varied. Raises UnknownOperatorError."""
        node = self.recipe.data.merge
        return find(node.operator, node.module).declaration

    def check(self, names: Mapping[str, Any], where: str) -> None:
        """Raises SweepError for what the operator has no option for; `where` names the file and the field that ask."""
        for name in names:
            if name not in self.declaration.options:
                there = self.declaration.options
                raise SweepError(f"{where}: {self.declaration.name} has no option {name!r}{near(name, there)}; it has {', '.join(there)}")


def varied(fields: RunFields, path: Path) -> Varied:
    """The merge that a file is about. Raises RecipeError."""
    recipe = path.parent / local(fields.recipe)
    return Varied(Recipe.load(recipe), recipe)


def found_at(path: str | os.PathLike[str]) -> Path:
    """Where a file lies, seen from wherever. Raises SweepError for `~` of nobody."""
    try:
        return expanded(path).absolute()
    except OSError as error:
        raise SweepError(f"{path}: cannot be read: {error.strerror}") from error


def read(path: Path, kind: type[Fields]) -> Fields:
    """What a file says. Raises SweepError, which names the file and the fields."""
    try:
        found = parse_yaml(read_bounded(path))
        return kind.model_validate(found)
    except OSError as error:
        raise SweepError(f"{path}: cannot be read: {error.strerror}") from error
    except Refused as error:
        raise SweepError(f"{path}: is not YAML that can be read: {error}") from error
    except ValidationError as error:
        nested = (RendererFields, ExecutorFields, ScorerFields, ChoiceFields)
        fields = [name for model in (kind, *nested) for name in model.model_fields]
        raise SweepError(f"{path}: {complaints(error, fields, 'the file')}") from error


def shared(fields: RunFields, path: Path, make: Varied) -> dict[str, Any]:
    """The arguments that these fields are to a sweep or a search, but who draws. Raises RenderError for what cannot draw."""
    names = ("prompts", "seeds", "steps", "guidance", "sampler", "negative", "width", "height", "clip_skip")
    folder = path.parent / (fields.folder or "out/sweeps")
    asked = {name: getattr(fields, name) for name in names} | {"name": fields.name or path.stem, "folder": folder}
    return asked | ({"renderer": _renderer(fields.renderer, path.parent, make())} if fields.renderer else {})


@contextmanager
def executor_of(fields: ExecutorFields | None) -> Iterator[Executor | None]:
    """Who draws, for as long as it is needed; None is this process. Raises SweepError where it cannot be had."""
    if fields is None:
        yield None
    elif fields.dask is not None:
        with _client(fields.dask) as client:
            yield client.get_executor()
    else:
        count = int(fields.processes or 1)
        spawn = multiprocessing.get_context("spawn")  # what has used CUDA, or threads, does not fork
        pool = ProcessPoolExecutor(count, mp_context=spawn, initializer=_begin, initargs=(max(1, (os.cpu_count() or 1) // count),))
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(threads: int) -> None:
    """A process shares the cores with the others; Ctrl-C is for the one that has them, and what is being drawn is finished."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)


def _client(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError as error:
        raise SweepError("an executor of dask needs dask.distributed: pip install 'workbench[distributed]'") from error
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what it logs as a traceback ends the run with an error
    connect: Any = Client  # of no types
    try:
        return connect(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise SweepError(
            f"executor.dask: no scheduler answers at {address!r} ({error}): start one with `dask scheduler`, and workers with "
            f"`dask worker {address}`"
        ) from error


def _renderer(fields: RendererFields, folder: Path, first: Checkpoint) -> Renderer:
    """A renderer of the recipe's own kind; its device need not be here, for workers make one like it."""
    from workbench.render.configs import find_configs
    from workbench.render.pipeline import Renderer

    configs = find_configs(first, located(fields.config, folder) if fields.config else None)
    fallback = open_checkpoint(located(fields.fallback, folder)) if fields.fallback else None
    return Renderer(configs, device=fields.device, dtype=fields.dtype, offload=fields.offload, fallback=fallback)


def _clip(named: str, folder: Path) -> str:
    """A folder as seen from the file's; what is none is the name of a public CLIP."""
    return str(folder / named) if (folder / named).exists() else named
