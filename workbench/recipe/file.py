"""`Recipe`: reads, writes and builds recipes; from a file, from a merge, or from the header of a merged checkpoint."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import yaml
from pydantic import ValidationError

from workbench import operators
from workbench.checkpoint import Checkpoint, hashing, in_layout
from workbench.checkpoint import open as open_checkpoint
from workbench.checkpoint.hub import is_address, located
from workbench.checkpoint.layouts import Layout
from workbench.checkpoint.view import View
from workbench.checkpoint.writing import replacing
from workbench.errors import CheckpointError, RecipeError
from workbench.merge import Merge, sources
from workbench.merge.call import unique
from workbench.merge.declaration import near
from workbench.merge.node import merge_in
from workbench.merge.rules import Rule
from workbench.recipe.schema import ModelFile, Node, Output, RecipeData

HEADER = "sd_merge_recipe"  # where AUTOMATIC1111 keeps its own, told apart by `type`
TYPE = "workbench"


@final
@dataclass(frozen=True)
class Recipe:
    """A merge as data. `folder` is what relative paths in it are relative to."""

    data: RecipeData
    folder: Path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read a recipe file (YAML or JSON). Raises RecipeError, which names the file and the field."""
        path = Path(path)
        try:
            found = yaml.safe_load(path.read_text())
        except OSError as error:
            raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: is not YAML: {error}") from error
        return cls(_validated(path, found), path.parent)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Recipe:
        """The recipe that a merged checkpoint, a file or a folder, carries in its headers. Raises RecipeError when it carries none."""
        made = open_checkpoint(path)
        try:
            header = json.loads(made.metadata.get(HEADER, "null"))
        except ValueError as error:
            raise RecipeError(f"{path}: the recipe in its header is damaged: {error}") from error
        if not isinstance(header, dict) or header.get("type") != TYPE:
            other = f"; its recipe is of type {header.get('type')!r}" if isinstance(header, dict) else ""
            raise RecipeError(f"{path}: carries no Workbench recipe{other}")
        place = _path(made)
        return cls(_validated(Path(path), header.get("recipe")), place if place.is_dir() else place.parent)

    @classmethod
    def of(cls, checkpoint: Checkpoint, hashes: Mapping[Path, str] | None = None) -> Recipe:
        """The recipe of a merge, as it is or in another layout, with paths as seen from the current folder.

        `hashes` are the sha256 that are known. Raises RecipeError for what is no merge, or made of what lies in no file.
        """
        if (merge := merge_in(checkpoint)) is None:
            raise RecipeError(f"{checkpoint.name} is no merge, and so has no recipe")
        models: dict[str, Checkpoint] = {}
        node = _describe(merge, models, merge.settings.seed)
        files = {name: _model_file(model, hashes or {}) for name, model in models.items()}
        settings = merge.settings
        output = Output(dtype=settings.dtype, layout=_layout(checkpoint))
        data = RecipeData(models=files, merge=node, output=output, precision=settings.precision, seed=settings.seed)
        return cls(data, Path()).relative_to(Path())

    def relative_to(self, folder: Path) -> Recipe:
        """The same recipe with its paths written as seen from `folder`."""
        models = {name: model.model_copy(update={"path": self._seen_from(folder, model.path)}) for name, model in self.data.models.items()}
        merge = _relocated(self.data.merge, lambda path: self._seen_from(folder, path) if (self.folder / path).exists() else path)
        return Recipe(self.data.model_copy(update={"models": models, "merge": merge}), folder)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the recipe file; a recipe of that name is replaced. Raises RecipeError for another suffix than .yaml."""
        path = Path(path)
        if path.suffix not in (".yaml", ".yml"):
            raise RecipeError(f"{path}: a recipe's file name ends in .yaml or .yml")
        with replacing(path) as temporary:
            temporary.write_text(self.relative_to(path.parent).to_yaml())

    def to_yaml(self) -> str:
        """The recipe as it stands in a file."""
        # in the merge, the innermost lists and mappings lie on one line
        return "".join(
            yaml.safe_dump({name: value}, sort_keys=False, default_flow_style=None if name == "merge" else False, allow_unicode=True)
            for name, value in self.to_dict().items()
        )

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain data, without what is default."""
        found = self.data.model_dump(mode="json", exclude_none=True)
        found["merge"] = _without_empty(found["merge"])
        found["models"] = {name: model if len(model) > 1 else model["path"] for name, model in found["models"].items()}
        return found if found["output"] else {name: value for name, value in found.items() if name != "output"}

    def build(self) -> Checkpoint:
        """Open the models and make the merge, in the layout it is to be written in.

        Raises RecipeError for models that are missing or not the same any more, CheckpointError for a layout that they do not have.
        """
        models = {name: self._open(name, model) for name, model in self.data.models.items()}
        merge, layout = self._build(self.data.merge, models, self.data.output.dtype), self.data.output.layout
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
            checkpoint = open_checkpoint(located(model.path, self.folder))
        except CheckpointError as error:
            raise RecipeError(f"model {name!r}: {error}") from error
        if model.sha256:
            _check_hash(name, model, checkpoint)
        checkpoint.name = name
        return in_layout(checkpoint, model.layout) if model.layout else checkpoint

    def _build(self, node: Node, models: Mapping[str, Checkpoint], dtype: str | None) -> Merge:
        def resolve(given: str | Node | list[str | Node]) -> Any:
            if isinstance(given, list):
                return [resolve(one) for one in given]
            if isinstance(given, Node):
                return self._build(given, models, None)
            if given not in models:
                raise RecipeError(f"{node.operator}: there is no model {given!r}{near(given, models)}")
            return models[given]

        seed = self.data.seed if node.seed is None else node.seed
        settings = {"seed": seed, "precision": self.data.precision, "dtype": dtype}
        inputs = {name: resolve(given) for name, given in node.inputs.items()}
        if clash := set(inputs) & set(node.options):
            raise RecipeError(f"{node.operator}: {', '.join(clash)} cannot be an input and an option")
        options = _options(node, lambda path: str(self.folder / path) if (self.folder / path).exists() else path)
        return operators.find(node.operator)(rules=node.rules, **settings, **inputs, **options)


def _options(node: Node, moved: Callable[[str], str]) -> dict[str, Any]:
    """A node's options, with the files that sources of numbers name under their new names."""
    return {name: sources.relocated(value, moved) for name, value in node.options.items()}


def _relocated(node: Node, moved: Callable[[str], str]) -> Node:
    """A node, and those inside it, with those files under their new names."""

    def inside(given: Any) -> Any:
        if isinstance(given, list):
            return [inside(one) for one in given]
        return _relocated(given, moved) if isinstance(given, Node) else given

    inputs = {name: inside(given) for name, given in node.inputs.items()}
    return node.model_copy(update={"inputs": inputs, "options": _options(node, moved)})


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


def _validated(path: Path, found: Any) -> RecipeData:
    try:
        return RecipeData.model_validate(found)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'recipe'}: {one['msg']}" for one in error.errors()[:5])
        raise RecipeError(f"{path}: is no recipe: {told}") from error


def _describe(merge: Merge, models: dict[str, Checkpoint], seed: int) -> Node:
    """A merge as a node; the files it reads are added to `models` by unique names."""

    def name_of(model: Checkpoint) -> str | Node:
        if isinstance(model, Merge):
            return _describe(model, models, seed)
        asked = (_path(model), _layout(model))
        same = (name for name, other in models.items() if (_path(other), _layout(other)) == asked)
        known = next(same, None) or unique(model.name, models)
        models.setdefault(known, model)
        return known

    call = merge.call
    named = [name_of(model) for model in call.inputs]
    inputs = {slot.name: _pick(named, call.slots[slot.name], slot.many) for slot in call.operator.inputs}
    rules = [_describe_rule(rule, list(call.models)) for rule in merge.rules]
    return Node(
        operator=call.operator.name,
        inputs=inputs,
        options=json.loads(json.dumps(merge.options)),
        rules=rules if rules or call.operator.rules else None,
        seed=None if merge.settings.seed == seed else merge.settings.seed,
    )


def _pick(named: list[str | Node], positions: range, many: bool) -> Any:
    return [named[i] for i in positions] if many else named[positions[0]]


def _without_empty(node: dict[str, Any]) -> dict[str, Any]:
    """A node, and those inside it, without options where there are none."""

    def clean(given: Any) -> Any:
        if isinstance(given, list):
            return [clean(one) for one in given]
        return _without_empty(given) if isinstance(given, dict) else given

    inputs = {name: clean(given) for name, given in node["inputs"].items()}
    return {name: inputs if name == "inputs" else value for name, value in node.items() if name != "options" or value}


def _path(model: Checkpoint) -> Path:
    if model.path is None:
        raise RecipeError(f"{model.name} lies in no file, so no recipe can name it; export it first")
    return model.path


def _model_file(model: Checkpoint, hashes: Mapping[Path, str]) -> ModelFile:
    path = _path(model)
    return ModelFile(path=model.address or os.path.abspath(path), sha256=hashes.get(path), layout=_layout(model))


def _layout(model: Checkpoint) -> Layout | None:
    """The layout that a model was put into; None where it is its own."""
    return model.layout if isinstance(model, View) else None


def _describe_rule(rule: Rule, slots: list[str]) -> dict[str, Any]:
    which = {name: value for name, value in (("match", rule.match), ("component", rule.component)) if value is not None}
    if rule.take is not None:
        return which | {"take": slots[rule.take]}
    return which | ({"skip": True} if rule.skip else {"merge": True})
