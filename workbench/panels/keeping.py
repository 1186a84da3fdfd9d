"""A panel's state in a file: recipes, the pictures that were wanted, and paths; never a pickle. No widget is here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import yaml
from pydantic import ValidationError

from workbench.checkpoint import Checkpoint, in_layout
from workbench.checkpoint import open as open_checkpoint
from workbench.checkpoint.files.hub import located
from workbench.checkpoint.files.writing import replacing
from workbench.checkpoint.names.naming import Layout
from workbench.errors import RecipeError, WorkbenchError
from workbench.operators import find
from workbench.panels.state import PanelState, Setup, Wanted
from workbench.panels.viewing import Viewing
from workbench.recipe import Recipe
from workbench.recipe.schema import Node, RecipeData
from workbench.untrusted import parse_yaml, read_bounded

_VERSION = 1
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # many models would be felt at every move of a slider


@final
@dataclass(frozen=True)
class Kept:
    """What a file holds: the state, snapshots, and where the models lie that come from files, with the layouts they were put into."""

    state: PanelState
    snapshots: Mapping[str, PanelState]
    paths: Mapping[str, Path | str]
    layouts: Mapping[str, Layout]
    recipes: Mapping[str, Recipe]  # of results that are used as models

    def open(self, name: str) -> Checkpoint:
        """A model that comes from a file, or from a recipe, as it was. Raises CheckpointError and RecipeError."""
        if name in self.recipes:
            return self.recipes[name].build()
        found = open_checkpoint(self.paths[name])
        return in_layout(found, self.layouts[name]) if name in self.layouts else found


def save(path: Path, state: PanelState, snapshots: Mapping[str, PanelState], checkpoints: Mapping[str, Checkpoint]) -> None:
    """Write a panel's state; paths in it are relative to the file. Each `recipe` in it is one that `workbench merge` takes."""
    told = as_data(path.parent, state, snapshots, checkpoints)
    with replacing(path) as temporary:
        temporary.write_text(yaml.dump(told, Dumper=_DUMPER, sort_keys=False, allow_unicode=True), encoding="utf-8")


def as_data(folder: Path, state: PanelState, snapshots: Mapping[str, PanelState], checkpoints: Mapping[str, Checkpoint]) -> dict[str, Any]:
    """What the file holds, as plain data; paths in it are relative to `folder`."""
    files = {name: _file(one, one.path, folder) for name, one in checkpoints.items() if one.path is not None}
    return {
        "panel": _VERSION,
        "models": [{"name": name} | (files.get(name) or _made(checkpoints[name], folder)) for name in state.models],
        **_told(state, files),
        "snapshots": {name: _told(one, files) for name, one in snapshots.items()},
    }


def load(file: str | os.PathLike[str]) -> Kept:
    """Read it back. Raises RecipeError, which names the file and what is wrong in it."""
    path = Path(file)
    try:
        found = parse_yaml(read_bounded(path))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RecipeError(_no_state(path, error)) from error
    return from_data(path, found)


def from_data(path: Path, found: Any) -> Kept:
    """What `as_data` told of the file at `path`. Raises RecipeError, which names the file and what is wrong in it."""
    try:
        if not isinstance(found, dict) or found.get("panel") != _VERSION:
            newer = isinstance(found, dict) and isinstance(found.get("panel"), int) and found["panel"] > _VERSION
            raise RecipeError("a newer Workbench wrote it" if newer else f"it does not say 'panel: {_VERSION}'")
        names = tuple(model["name"] for model in found["models"])
        paths = {model["name"]: located(model["path"], path.parent) for model in found["models"] if "path" in model}
        layouts = {model["name"]: model["layout"] for model in found["models"] if "layout" in model}
        snapshots = {name: understood(one, names) for name, one in found["snapshots"].items()}
        told = {model["name"]: RecipeData.model_validate(model["recipe"]) for model in found["models"] if "recipe" in model}
        recipes = {name: Recipe(data, path.parent) for name, data in told.items()}
        return Kept(understood(found, names), snapshots, paths, layouts, recipes)
    except (ValidationError, WorkbenchError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise RecipeError(_no_state(path, error)) from error


def _no_state(path: Path, error: Exception) -> str:
    return f"{path}: holds no panel's state: {error}"


def _made(model: Checkpoint, folder: Path) -> dict[str, Any]:
    """How a merge that is used as a model is made; nothing for what lies in no file, which cannot be found again."""
    try:
        return {"recipe": Recipe.of(model).relative_to(folder).to_dict()} if model.merge is not None else {}
    except RecipeError:
        return {}


def _merge(operator: str, used: Setup) -> dict[str, Any]:
    """A method with what it is used with, as a recipe says it."""
    declaration = find(operator).declaration
    many = declaration.many
    inputs = {slot: list(names) if many and slot == many.name else names[0] for slot, names in used.inputs.items() if names}
    own = {"operator": operator} | ({} if declaration.module is None else {"module": declaration.module})
    rules = {} if used.rules is None else {"rules": [dict(rule) for rule in used.rules]}
    return own | {"inputs": inputs, "options": dict(used.options)} | rules


def _told(state: PanelState, files: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    recipe = {
        "workbench": 1,
        "models": {name: files[name] if len(files[name]) > 1 else files[name]["path"] for name in state.used if name in files},
        "merge": _merge(state.operator, Setup(state.inputs, state.options, state.rules)),
        "output": {"dtype": state.dtype, "layout": state.layout},
        "seed": state.seed,
    }
    wanted = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(state.wanted).items()}
    stack = {"loras": list(state.loras), "strengths": state.strengths, "alone": state.alone} if state.loras else {}
    setups = [_merge(operator, used) for operator, used in state.setups.items()]
    return {"recipe": recipe, **stack, "pictures": wanted, "view": asdict(state.view), "setups": setups}


def understood(found: Mapping[str, Any], models: tuple[str, ...]) -> PanelState:
    """The state that a recipe and the pictures wanted tell. Raises RecipeError for merges inside the merge, which no panel shows."""
    data = RecipeData.model_validate(found["recipe"])
    given = data.merge.inputs.values()
    if any(isinstance(one, Node) for inputs in given for one in (inputs if isinstance(inputs, list) else [inputs])):
        raise RecipeError("its merge has other merges as inputs, which a panel cannot show; Recipe.load(...).build() makes it")
    used = _setup(data.merge)
    pictures = {name: tuple(value) if isinstance(value, list) else value for name, value in found["pictures"].items()}
    state = PanelState(
        models,
        data.merge.operator,
        used.inputs,
        used.options,
        used.rules,
        data.seed,
        data.output.dtype,
        data.output.layout,
        Wanted(**pictures),
        _setups(found.get("setups", ())),
        tuple(found.get("loras", ())),
        found.get("strengths", 1.0),
        bool(found.get("alone")),
        Viewing.understood(found.get("view", {})),
    )
    for name, value in state.options.items():  # an option that is no more would have no control
        state = state.with_option(name, value)
    return state


def _setups(found: Sequence[Any]) -> dict[str, Setup]:
    """What methods were used with, of those that there still are; files of 0.1 have none."""
    setups = {}
    for one in map(Node.model_validate, found):
        with suppress(WorkbenchError):  # a method of a notebook that was not run yet
            setups[one.operator] = _setup(one)
    return setups


def _setup(merge: Node) -> Setup:
    named = {slot: (name,) if isinstance(name, str) else tuple(name) for slot, name in merge.inputs.items()}
    inputs = {slot.name: named.get(slot.name, ()) for slot in find(merge.operator, merge.module).declaration.inputs}
    rules = None if merge.rules is None else tuple(rule.model_dump() for rule in merge.rules)
    return Setup(inputs, dict(merge.options), rules)


def _file(model: Checkpoint, path: Path, folder: Path) -> dict[str, str]:
    """Where a model lies, and the layout it was put into, as a recipe says it."""
    return {"path": model.address or _relative(path, folder)} | ({"layout": model.layout} if model.layout else {})


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path, folder.absolute())).as_posix()
    except ValueError:  # on another drive
        return str(path)
