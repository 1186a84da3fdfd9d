"""What a file tells a panel, so that its state comes back: a grid, a picture, a recipe, a panel's state, a model. No widget is here."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, final

from pydantic import ValidationError

from workbench.checkpoint import Checkpoint, in_layout
from workbench.checkpoint import open as open_checkpoint
from workbench.checkpoint.files import hashing
from workbench.checkpoint.files.catalogue import SAFETENSORS, SUFFIXES, Catalogue, Mark
from workbench.checkpoint.files.hub import is_address
from workbench.errors import CheckpointError, InputError, RecipeError, WorkbenchError
from workbench.panels import keeping
from workbench.panels.dropped_model import find_dropped
from workbench.panels.prompts import literal
from workbench.panels.state import PanelState, Wanted
from workbench.recipe import Recipe
from workbench.recipe.schema import ModelFile
from workbench.render.request import SETTINGS
from workbench.render.saved import open_grid
from workbench.untrusted import Refused, parse_yaml, read_bounded

_MOST = 1 << 28  # bytes of what is dropped: a larger file is chosen by its path
_WITHOUT_HEADER = tuple(suffix for suffix in SUFFIXES if suffix not in SAFETENSORS)
_TEXTS, _PNG = (".yaml", ".yml", ".json"), b"\x89PNG"
_KINDS = "the PNG of a grid or of a picture that was kept, a recipe (also mergekit's, sd-mecha's) or a panel's state (.yaml), or a model"


@final
@dataclass(frozen=True)
class Reopened:
    """The `models` that were found, by the names they have in `state`; `said` names what is missing, and what a person would want to know.

    `state` is None where the file tells of no merge; `wanted` are the pictures that it tells of.
    """

    name: str
    models: Mapping[str, Checkpoint]
    state: PanelState | None
    wanted: Mapping[str, Any]
    said: tuple[str, ...]

    def state_after(self, now: PanelState, names: Mapping[str, str]) -> PanelState:
        """The state of a panel that showed `now`; `names` are what the models are called on its shelf."""
        shown = tuple(dict.fromkeys([*now.models, *names.values()]))
        if self.state is None:
            return replace(now, models=shown).with_wanted(**self.wanted)
        called = {name: names.get(name, _gone(name, shown)) for name in self.state.models}
        inputs = {slot: tuple(called[name] for name in used) for slot, used in self.state.inputs.items()}
        rules = self.state.rules and tuple(
            {**rule, "take": called.get(rule["take"], rule["take"])} if "take" in rule else rule for rule in self.state.rules
        )
        moved = replace(self.state, models=(*called.values(),), inputs=inputs, rules=rules, wanted=now.wanted, view=now.view)
        return moved.with_models(shown).with_wanted(**self.wanted)


@dataclass(frozen=True)
class _Told:
    """What a file says, before its models are looked for in and around `folder`."""

    folder: Path
    files: Mapping[str, ModelFile]
    state: PanelState | None = None
    wanted: Mapping[str, Any] = field(default_factory=dict)
    said: tuple[str, ...] = ()


def reopen(
    source: str | os.PathLike[str] | bytes,
    folders: Sequence[Path] = (),
    name: str = "what was dropped",
    size: int | None = None,
    wider: Sequence[Path] = (),
    samples: bytes = b"",
) -> Reopened:
    """What a file, or its bytes (which then have a `name`), tells a panel; of a safetensors file of `size` bytes its header is enough.

    Models are looked for where the file says, then in `folders` and the folders in them: by sha256 where it is told, renamed or not,
    and else by name, which is said; a dropped model without a recipe in `wider` folders, too, by its `samples`, or its name and header.
    Of a grid's merges the first counts.

    Raises InputError for what is nothing of the kind, and RenderError, RecipeError and CheckpointError for what is damaged.
    """
    if isinstance(source, bytes):
        if len(source) > _MOST:
            raise InputError(f"{name}: has {len(source):,} bytes, at most {_MOST:,} can be dropped; give its path instead")
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / (Path(name).name or "dropped")
            place.write_bytes(source)
            if size is not None and size > len(source) and place.suffix.lower() in SAFETENSORS:
                os.truncate(place, size)  # the tensors, which nobody reads
            told = None if place.suffix.lower() in _WITHOUT_HEADER else _told(place)  # of a large one nothing was sent
            if told is None or place.name in (file.path for file in told.files.values()):
                found = find_dropped(place.name, size or len(source), source, [*folders, *wider], samples)
                told = _Told(found.parent, {found.stem: ModelFile(path=found.name)}, said=(f"{place.name} was found at {found}",))
            return _reopened(place, told, folders)
    path = Path(source).expanduser()
    return _reopened(path, _told(path), folders)


def _reopened(path: Path, told: _Told, folders: Sequence[Path]) -> Reopened:
    models, said = {}, [*told.said]
    catalogues = [Catalogue(folder, progress=False) for folder in folders if folder.is_dir()]
    for name, file in told.files.items():
        try:
            place, note = _place(told.folder, file, catalogues)
            found = open_checkpoint(place)
            models[name] = in_layout(found, file.layout) if file.layout else found
            said += [f"{name}: {note}"] if note else []
        except (WorkbenchError, OSError) as error:
            said.append(f"{name} is missing: {error}")
    return Reopened(path.name, models, told.state, told.wanted, tuple(said))


def _told(path: Path) -> _Told:
    """What a file says. Raises WorkbenchError."""
    suffix = path.suffix.lower()
    if suffix == ".png" or (path.is_file() and _begins(path) == _PNG):
        return _of_grid(path)
    if suffix in _TEXTS:
        return _of_text(path)
    if suffix == ".mecha":
        return _of_recipe(path.name, Recipe.load(path))
    if suffix in SUFFIXES or path.is_dir():
        recipe = Recipe.carried_by(open_checkpoint(path))
        return _of_recipe(path.name, recipe) if recipe else _Told(path.parent, {path.stem: ModelFile(path=path.name)})
    if not path.exists():
        raise InputError(f"{path}: there is no such file")
    raise InputError(f"{path.name}: nothing that a panel can reopen; that is {_KINDS}")


def _of_grid(path: Path) -> _Told:
    grid = open_grid(path)
    wanted = _wanted(path.name, grid.settings)
    if not grid.recipes:
        files = {name: ModelFile(path=str(paths[0])) for name, paths in grid.files.items() if len(paths) == 1}
        advice = "the picture has no recipe of it: open or make it as before, or export it"
        made = [f"{name} is made of {len(paths)} files, and {advice}" for name, paths in grid.files.items() if len(paths) > 1]
        return _Told(path.parent, files, wanted=wanted, said=tuple(made))
    name, *others = grid.recipes
    said = f"{path.name} has {len(others) + 1} merges; this is {name}; wb.open_grid({path.name!r}).recipes has all"
    told = _of_recipe(path.name, grid.recipes[name])
    return replace(told, wanted=wanted, said=(said,) if others else ())


def _of_text(path: Path) -> _Told:
    try:
        found = parse_yaml(read_bounded(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except Refused as error:
        raise InputError(f"{path.name}: is not YAML that can be read: {error}") from error
    if not isinstance(found, dict) or "panel" not in found:
        return _of_recipe(path.name, Recipe.load(path))
    kept = keeping.load(path)
    files = {name: ModelFile(path=str(place), layout=kept.layouts.get(name)) for name, place in kept.paths.items()}
    return _Told(path.parent, files, kept.state, vars(kept.state.wanted))


def _of_recipe(name: str, recipe: Recipe) -> _Told:
    try:
        state = keeping.understood({"recipe": recipe.to_dict(), "pictures": {}}, tuple(recipe.data.models))
    except (ValidationError, WorkbenchError, LookupError, TypeError, ValueError) as error:
        raise RecipeError(f"{name}: {error}") from error
    return _Told(recipe.folder, recipe.data.models, state, said=recipe.notes)


def _wanted(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The pictures that a grid tells of; of settings that differ in it the first. Raises InputError for what nobody can draw."""
    first = {key: value[0] if isinstance(value, list) and value else value for key, value in settings.items() if key in SETTINGS}
    given = {key: value for key, value in first.items() if value is not None or key in ("width", "height", "sampler", "clip_skip")}
    try:
        wanted = {
            "prompts": tuple(map(literal, settings["prompts"])),
            "seeds": tuple(settings["seeds"]),
            **given,
            "negative": first.get("negative") or "",
        }
        Wanted(**wanted).request()
    except (LookupError, TypeError, WorkbenchError) as error:
        raise InputError(f"{name}: tells of pictures that nobody can draw: {error}") from error
    return wanted


def _place(folder: Path, file: ModelFile, catalogues: Sequence[Catalogue]) -> tuple[Path | str, str]:
    """Where a model lies, and what to say of that. Raises CheckpointError where it is nowhere."""
    if is_address(file.path):
        return file.path, ""
    place = Path(os.path.abspath(folder / file.path))
    if place.exists() and (file.sha256 is None or (place.is_file() and hashing.sha256(place) == file.sha256)):
        return place, ""
    for catalogue in catalogues:
        match = catalogue.find(Mark(PurePosixPath(file.path).name, file.sha256 or ""))
        if match.path is not None:
            return match.path, "" if file.sha256 else f"taken from {match.path}, found by its name alone"
    known = f" with sha256 {file.sha256[:10]}…" if file.sha256 else ""
    searched = ", ".join(str(one.folder) for one in catalogues)
    raise CheckpointError(f"no {PurePosixPath(file.path).name}{known} where the file says" + (f", nor in {searched}" if searched else ""))


def _gone(name: str, shown: Sequence[str]) -> str:
    """What a model that is missing is called until it is taken out: nothing that is on the shelf."""
    while name in shown:
        name += "'"
    return name


def _begins(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_PNG))
