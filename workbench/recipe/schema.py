"""The recipe as data: the pydantic models by which it is read and written, and which say what it may hold. See docs for the format."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    StrictInt,
    StrictStr,
    StringConstraints,
    Tag,
    ValidationError,
    model_serializer,
    with_config,
)
from typing_extensions import TypedDict  # pydantic takes Python's own only from 3.12

from workbench.checkpoint.names.naming import Layout
from workbench.errors import RecipeError
from workbench.merge import sources
from workbench.merge.rules import Rule
from workbench.tensors import Precision, SavedDtype

Seed = Annotated[int, Field(ge=0, lt=2**64)]


class Strict(BaseModel):
    """Unknown fields are errors; nothing changes after it was made; a field that says nothing is not written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_serializer(mode="wrap")
    def _told(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        return {name: value for name, value in dump(self).items() if fields[name].is_required() or value not in (None, {})}


class ModelFile(Strict):
    """Where a model lies, the sha256 it must have (checked when given), and the layout to see it in, if another than its own."""

    path: str
    layout: Layout | None = None
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None


def _from_path(given: Any) -> Any:
    return {"path": given} if isinstance(given, str) else given


Model = Annotated[ModelFile, BeforeValidator(_from_path)]


def _by_name(given: Any) -> Any:
    """A pattern that YAML takes for a number is a name all the same."""
    return {str(name): value for name, value in given.items()} if isinstance(given, Mapping) else given


@with_config(ConfigDict(extra="forbid"))
class BlocksOption(TypedDict):
    """Values by block pattern, and by `default` for all other tensors."""

    blocks: Annotated[dict[str, JsonValue], BeforeValidator(_by_name)]


@with_config(ConfigDict(extra="forbid"))
class Ends(TypedDict):
    """The values a ramp begins and ends with, in which blocks, and the one for tensors in no block."""

    start: JsonValue
    end: JsonValue
    first: NotRequired[StrictInt | StrictStr | None]
    last: NotRequired[StrictInt | StrictStr | None]
    elsewhere: NotRequired[JsonValue]


@with_config(ConfigDict(extra="forbid"))
class RampOption(TypedDict):
    """Values from one block to another."""

    ramp: Ends


@with_config(ConfigDict(extra="forbid"))
class LinesEnds(TypedDict):
    """The value in the first block and in none, and how much more it is in the last."""

    alpha: JsonValue
    beta: JsonValue


@with_config(ConfigDict(extra="forbid"))
class LinesOption(TypedDict):
    """LiNeS: values that grow evenly with depth."""

    lines: LinesEnds


Source = dict[str, JsonValue]  # where the numbers of a vector come from: the arguments of one of `merge.sources`


def _form(given: Any) -> str:
    if not isinstance(given, Mapping):
        return "<value>"
    return {("blocks",): "<blocks>", ("ramp",): "<ramp>", ("lines",): "<lines>"}.get(tuple(given), "<source>")


Option = Annotated[
    Annotated[JsonValue, Tag("<value>")]
    | Annotated[BlocksOption, Tag("<blocks>")]
    | Annotated[RampOption, Tag("<ramp>")]
    | Annotated[LinesOption, Tag("<lines>")]
    | Annotated[Source, Tag("<source>")],
    Discriminator(_form),
]


def _kind(given: Any) -> str:
    return "<list>" if isinstance(given, list) else "<node>" if isinstance(given, (Node, Mapping)) else "<name>"


class Node(Strict):
    """One operator with its inputs: each a model's name, another node, or a list of these.

    `module` is where an operator is defined that is not Workbench's own; `layout` the one to see an inner node's result in.
    """

    operator: str
    module: str | None = None
    inputs: Mapping[str, Input]
    options: Mapping[str, Option] = {}
    rules: list[Rule] | None = None
    seed: Seed | None = None  # only where it differs from the recipe's
    layout: Layout | None = None

    def relocated(self, moved: Callable[[str], str]) -> Node:
        """The same node, and those inside it, with the files that sources of numbers name under their new names."""

        def inside(given: One) -> One:
            return given.relocated(moved) if isinstance(given, Node) else given

        inputs = {name: [inside(one) for one in given] if isinstance(given, list) else inside(given) for name, given in self.inputs.items()}
        options = {name: sources.relocated(value, moved) for name, value in self.options.items()}
        return self.model_copy(update={"inputs": inputs, "options": options})


One = Annotated[Annotated[str, Tag("<name>")] | Annotated[Node, Tag("<node>")], Discriminator(_kind)]
Input = Annotated[
    Annotated[str, Tag("<name>")] | Annotated[Node, Tag("<node>")] | Annotated[list[One], Tag("<list>")], Discriminator(_kind)
]


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
    seed: Seed = 0


def validated(path: Path, found: Any) -> RecipeData:
    """The recipe that plain data of a file spells. Raises RecipeError, which names the file and the fields."""
    try:
        return RecipeData.model_validate(found)
    except ValidationError as error:
        fields = [*RecipeData.model_fields, *ModelFile.model_fields, *Node.model_fields, *Output.model_fields, *Ends.__annotations__]
        raise RecipeError(f"{path}: is no recipe: {complaints(error, fields, 'recipe')}") from error


def complaints(error: ValidationError, fields: Sequence[str], whole: str) -> str:
    """The first errors of pydantic: where, what, and which of the fields may have been meant; `whole` is what has no fields yet."""
    return "; ".join(_complaint(one, fields, whole) for one in error.errors()[:5])


def _complaint(error: Mapping[str, Any], fields: Sequence[str], whole: str) -> str:
    place = ".".join(str(part) for part in error["loc"] if not str(part).startswith("<")) or whole
    guess = difflib.get_close_matches(str(error["loc"][-1]), fields, 1) if error["type"] == "extra_forbidden" else ()
    return f"{place}: {error['msg'].removeprefix('Value error, ')}" + (f"; did you mean {guess[0]!r}?" if guess else "")
