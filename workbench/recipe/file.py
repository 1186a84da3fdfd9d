"""`Recipe`: reads, writes and builds recipes; from a file, from a merge, or from the header of a merged checkpoint.

How other programs' recipes are read is in `siblings`.
"""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import yaml

from workbench import operators
from workbench.checkpoint import Checkpoint, in_layout
from workbench.checkpoint import open as open_checkpoint
from workbench.checkpoint.base import MOST_MERGES, merges_in
from workbench.checkpoint.files import hashing
from workbench.checkpoint.files.catalogue import SUFFIXES
from workbench.checkpoint.files.hub import is_address, located
from workbench.checkpoint.files.opening import open_input
from workbench.checkpoint.files.writing import failing, replacing
from workbench.errors import CheckpointError, RecipeError
from workbench.merge import Merge
from workbench.merge.call import unique
from workbench.merge.declaration import near
from workbench.recipe import siblings
from workbench.recipe.schema import Input, ModelFile, Node, Output, RecipeData, validated
from workbench.untrusted import MOST_BYTES, MOST_LEVELS, Refused, expanded, parse_json, read_bounded
from workbench.wording import printable

HEADER = siblings.RECIPE  # where AUTOMATIC1111 keeps its own, told apart by `type`
TYPE = siblings.OWN


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML breaks lines at, which PyYAML leaves as it is and reads as a space."""


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if set(text) & {*"\x85\u2028\u2029\ufeff"} else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _quoted)


@final
@dataclass(frozen=True)
class Recipe:
    """A merge as data. `folder` is what relative paths in it are relative to.

    `notes` tell, of a recipe that another program wrote, what has no counterpart here or differs; preflight shows them, and a file has
    them as comments.
    """

    data: RecipeData
    folder: Path
    notes: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read a recipe file (YAML or JSON) of at most 1 MB, or of a checkpoint the recipe that it carries.

        Also mergekit's YAML, sd-mecha's text and the JSON of AUTOMATIC1111, SuperMerger and SD.Next: what has no counterpart is told in
        `notes`, or refused. Raises RecipeError, which names the file and the field.
        """
        with _naming(path, "is not YAML that can be read"):
            path = expanded(path)
            carries = path.suffix.lower() in SUFFIXES and path.is_file()
            told = None if carries else siblings.of_text(read_bounded(path), path.parent)
        return cls.from_file(path) if told is None else cls(validated(path, told.data), path.parent, told.notes)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Recipe:
        """The recipe that a merged checkpoint, a file or a folder, carries in its headers: ours, or another program's as ours.

        Raises RecipeError when it carries none, and for what has no counterpart.
        """
        made = open_checkpoint(path)
        if found := cls.carried_by(made):
            return found
        place = _path(made)
        folder = place if place.is_dir() else place.parent
        with _naming(path, "the recipe in its header is damaged"):
            told = siblings.of_header(made.metadata, folder)
        if told is None:
            raise RecipeError(f"{path}: carries no Workbench recipe, nor one of another program that is read")
        return cls(validated(place, told.data), folder, told.notes)

    @classmethod
    def carried_by(cls, checkpoint: Checkpoint) -> Recipe | None:
        """The recipe in a file's metadata; None where there is none, or another program's. Raises RecipeError for a damaged one."""
        header = _header(checkpoint)
        if not isinstance(header, dict) or header.get("type") != TYPE or checkpoint.path is None:
            return None
        place = _path(checkpoint)
        return cls(validated(place, header.get("recipe")), place if place.is_dir() else place.parent)

    @classmethod
    def of(cls, checkpoint: Checkpoint, hashes: Mapping[Path, str] | None = None) -> Recipe:
        """The recipe of a merge, as it is or in another layout, with paths as seen from the current folder.

        `hashes` are the sha256 that are known. Raises RecipeError for what is no merge, or made of what lies in no file.
        """
        if (merge := checkpoint.merge) is None:
            raise RecipeError(f"{checkpoint.name} is no merge, and so has no recipe")
        if (count := merges_in(checkpoint)) > MOST_MERGES:
            raise RecipeError(
                f"{checkpoint.name}: its recipe would have {count:,} merges, at most {MOST_MERGES:,} are written; export an inner one"
            )
        models: dict[str, Checkpoint] = {}
        node = _describe(merge, models, merge.settings.seed)
        files = {name: _model_file(model, hashes or {}) for name, model in models.items()}
        settings = merge.settings
        output = Output(dtype=settings.dtype, layout=checkpoint.layout)
        data = RecipeData(models=files, merge=node, output=output, precision=settings.precision, seed=settings.seed)
        return cls(data, Path(), merge.notes).relative_to(Path())

    def with_output(self, **changes: str | None) -> Recipe:
        """The same recipe with another `dtype` or `layout` of its result."""
        return replace(self, data=self.data.model_copy(update={"output": self.data.output.model_copy(update=changes)}))

    def relative_to(self, folder: Path) -> Recipe:
        """The same recipe with its paths written as seen from `folder`."""
        models = {name: model.model_copy(update={"path": self._seen_from(folder, model.path)}) for name, model in self.data.models.items()}
        merge = self.data.merge.relocated(lambda path: self._seen_from(folder, path) if os.path.exists(self.folder / path) else path)
        return replace(self, data=self.data.model_copy(update={"models": models, "merge": merge}), folder=folder)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the recipe file; a recipe of that name is replaced. Raises RecipeError for another suffix than .yaml."""
        path = Path(path)
        if path.suffix not in (".yaml", ".yml"):
            raise RecipeError(f"{path}: a recipe's file name ends in .yaml or .yml")
        with failing(path, RecipeError), replacing(path) as temporary:
            temporary.write_text(self.relative_to(path.parent).to_yaml(), encoding="utf-8")

    def to_yaml(self) -> str:
        """The recipe as it stands in a file."""
        # in the merge, the innermost lists and mappings lie on one line
        styles = {name: None if name == "merge" else False for name in RecipeData.model_fields}
        told = "".join(f"# {printable(note)}\n" for note in self.notes)
        return told + "".join(
            yaml.dump({name: value}, Dumper=_Dumper, sort_keys=False, default_flow_style=styles[name], allow_unicode=True)
            for name, value in self.to_dict().items()
        )

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain data, without what is default."""
        found = self.data.model_dump(mode="json")
        return found | {"models": {name: model if len(model) > 1 else model["path"] for name, model in found["models"].items()}}

    def build(self) -> Checkpoint:
        """Open the models and make the merge, in the layout it is to be written in.

        Raises RecipeError for models that are missing or not the same any more, CheckpointError for a layout that they do not have.
        """
        models = {name: self._open(name, model) for name, model in self.data.models.items()}
        merge, layout = self._build(self.data.merge, models, self.data.output.dtype, {}), self.data.output.layout
        merge.notes = self.notes
        return in_layout(merge, layout) if layout else merge

    def __str__(self) -> str:
        return self.to_yaml()

    def _repr_html_(self) -> str:
        return f"<pre style='font-family: monospace'>{html.escape(self.to_yaml())}</pre>"

    def _seen_from(self, folder: Path, path: str) -> str:
        if is_address(path):
            return path
        try:
            return Path(os.path.relpath(self.folder / path, folder)).as_posix()
        except ValueError:  # another drive
            return str((self.folder / path).resolve())

    def _open(self, name: str, model: ModelFile) -> Checkpoint:
        try:
            checkpoint = open_input(located(model.path, self.folder))
        except CheckpointError as error:
            raise RecipeError(f"model {name!r}: {error}") from error
        if model.sha256:
            _check_hash(name, model, checkpoint)
        checkpoint.name = name
        return in_layout(checkpoint, model.layout) if model.layout else checkpoint

    def _build(self, node: Node, models: Mapping[str, Checkpoint], dtype: str | None, built: dict[str, Checkpoint]) -> Checkpoint:
        """The merge of a node; `built` has the inner ones by what their nodes say, for one may be there many times over."""

        def resolve(given: Input) -> Any:
            if isinstance(given, list):
                return [resolve(one) for one in given]
            if isinstance(given, Node):
                said = given.model_dump_json()
                if said not in built:
                    built[said] = self._build(given, models, None, built)
                return built[said]
            if given not in models:
                raise RecipeError(f"{node.operator}: there is no model {given!r}{near(given, models)}")
            return models[given]

        seed = self.data.seed if node.seed is None else node.seed
        settings = {"seed": seed, "precision": self.data.precision, "dtype": dtype}
        inputs = {name: resolve(given) for name, given in node.inputs.items()}
        if clash := set(inputs) & set(node.options):
            raise RecipeError(f"{node.operator}: {', '.join(clash)} cannot be an input and an option")
        here = node.relocated(lambda path: str(self.folder / path) if os.path.exists(self.folder / path) else path)
        made = operators.find(node.operator, node.module)(rules=node.rules, **settings, **inputs, **here.options)
        return in_layout(made, node.layout) if node.layout else made


@contextmanager
def _naming(path: str | os.PathLike[str], damaged: str) -> Iterator[None]:
    """Every error in reading a recipe as a RecipeError that names the file."""
    try:
        yield
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    except Refused as error:
        raise RecipeError(f"{path}: {damaged}: {error}") from error
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error


def _header(checkpoint: Checkpoint) -> Any:
    """What stands where recipes do in a checkpoint's metadata. Raises RecipeError for what is no JSON."""
    text = checkpoint.metadata.get(HEADER, "null")
    try:
        if len(text) > MOST_BYTES:
            raise Refused(f"it has more than {MOST_BYTES:,} characters")
        return parse_json(text, levels=MOST_LEVELS)
    except Refused as error:
        raise RecipeError(f"{checkpoint.path or checkpoint.name}: the recipe in its header is damaged: {error}") from error


def _check_hash(name: str, model: ModelFile, checkpoint: Checkpoint) -> None:
    """Raise RecipeError unless this is the one file that the recipe was made with."""
    file, *others = checkpoint.sources()
    if others:
        raise RecipeError(
            f"model {name!r}: {model.path} has {1 + len(others)} files, and no sha256 of the whole; take it out of the recipe"
        )
    if (found := hashing.sha256(file)) != model.sha256:
        raise RecipeError(
            f"model {name!r}: {file} is not the file the recipe was made with: its sha256 is {found}, the recipe's {model.sha256}; "
            "find the right file, or take the sha256 out of the recipe"
        )


def _describe(merge: Merge, models: dict[str, Checkpoint], seed: int) -> Node:
    """A merge as a node; the files it reads are added to `models` by unique names."""

    def name_of(model: Checkpoint) -> str | Node:
        if model.merge is not None:
            return _describe(model.merge, models, seed).model_copy(update={"layout": model.layout})
        asked = (_path(model), model.layout)
        same = (name for name, other in models.items() if (_path(other), other.layout) == asked)
        known = next(same, None) or unique(model.name, models)
        models.setdefault(known, model)
        return known

    call = merge.call
    named = [name_of(model) for model in call.inputs]
    inputs = {slot.name: _pick(named, call.slots[slot.name], slot.many) for slot in call.operator.inputs}
    return Node(
        operator=call.operator.name,
        module=call.operator.module,
        inputs=inputs,
        options=json.loads(json.dumps(merge.options)),
        rules=list(merge.rules) if merge.rules or call.operator.rules else None,
        seed=None if merge.settings.seed == seed else merge.settings.seed,
    )


def _pick(named: list[str | Node], positions: range, many: bool) -> Any:
    return [named[i] for i in positions] if many else named[positions[0]]


def _path(model: Checkpoint) -> Path:
    if model.path is None:
        raise RecipeError(f"{model.name} lies in no file, so no recipe can name it; export it first")
    return model.path


def _model_file(model: Checkpoint, hashes: Mapping[Path, str]) -> ModelFile:
    path = _path(model)
    return ModelFile(path=model.address or os.path.abspath(path), sha256=hashes.get(path), layout=model.layout)
