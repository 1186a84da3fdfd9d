"""Which program a recipe is of, Workbench or a sibling, and the models that a sibling knows by hash. How each is read is in its module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from workbench.checkpoint import Checkpoint
from workbench.checkpoint import open as open_checkpoint
from workbench.checkpoint.files.catalogue import Catalogue, Mark
from workbench.checkpoint.files.hub import is_address
from workbench.errors import RecipeError, WorkbenchError
from workbench.families import GENERIC
from workbench.merge.schedules import Depth
from workbench.recipe import of_mergekit, of_sd_mecha, of_supermerger, of_webui
from workbench.recipe.translation import Translation
from workbench.untrusted import MOST_BYTES, MOST_LEVELS, Refused, parse_json, parse_yaml
from workbench.wording import few

RECIPE, MODELS, MECHA = "sd_merge_recipe", "sd_merge_models", "mecha_recipe"  # fields of a header
OWN = "workbench"  # the type of ours in the first
_SUPERMERGER = "sd-webui-supermerger"
_MERGERS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Translation]] = {
    "webui": of_webui.of_webui,
    _SUPERMERGER: of_supermerger.read,
    "SDNext": of_webui.of_sdnext,
}


def of_text(text: bytes, folder: Path) -> Translation:
    """The recipe that a file in `folder` holds: ours as it stands, or ours made of another's.

    Raises Refused for what cannot be read, RecipeError for what has no counterpart.
    """
    if text.removeprefix(b"\xef\xbb\xbf").startswith(b"version "):
        return _fitted(of_sd_mecha.read(_decoded(text)), folder)
    found = parse_yaml(text)
    if not isinstance(found, dict) or OWN in found:
        return Translation(found, ())
    if "merge_method" in found:
        return of_mergekit.read(found, lambda path: _exists(folder / path))
    if RECIPE in found:
        return _of_merger(_inner(found[RECIPE]), _inner(found.get(MODELS)), folder)
    return _of_merger(found, {}, folder) if "type" in found else Translation(found, ())


def of_header(metadata: Mapping[str, str], folder: Path) -> Translation | None:
    """The recipe that a checkpoint in `folder` carries of another program; None where it carries none.

    Raises Refused for a damaged one, RecipeError for what has no counterpart.
    """
    if metadata.get(RECIPE, "null") != "null":
        return _of_merger(_inner(metadata[RECIPE]), _inner(metadata.get(MODELS)), folder)
    text = metadata.get(MECHA, "")
    if len(text) > MOST_BYTES:
        raise Refused(f"its {MECHA} has more than {MOST_BYTES:,} characters")
    return _fitted(of_sd_mecha.read(text), folder) if text else None


def _of_merger(recipe: Any, models: Any, folder: Path) -> Translation:
    """What `sd_merge_recipe` and `sd_merge_models` say, by the type that the first has."""
    kind = recipe.get("type") if isinstance(recipe, dict) else None
    if not isinstance(kind, str) or kind not in _MERGERS:
        allowed = f"{', '.join((OWN, *_MERGERS))}, mergekit's YAML and sd-mecha's text"
        raise RecipeError(f"its recipe is of type {kind!r}; what is read: {allowed}")
    entries = {sha256: _inner(entry) for sha256, entry in models.items()} if isinstance(models, dict) else {}
    legacy = {sha256: entry.get("legacy_hash") for sha256, entry in entries.items() if isinstance(entry, dict)}
    told = _placed(_MERGERS[kind](recipe, entries), folder, legacy)
    model = _first(told, folder)
    if kind == _SUPERMERGER and model is not None and model.structure.family is not GENERIC:
        told = _placed(of_supermerger.read(recipe, entries, model.architecture), folder, legacy)
    return _fitted(told, folder)


def _placed(told: Translation, folder: Path, legacy: Mapping[str, Any]) -> Translation:
    """The models that do not lie where they are named, found in the folder by their hash, or by their name where none is told."""
    models, notes = dict(told.data["models"]), [*told.notes]
    lost = {name: model for name, model in models.items() if not is_address(model["path"]) and not _exists(folder / model["path"])}
    if not lost:
        return told
    catalogue = Catalogue(folder)
    for name, model in lost.items():
        sha256 = model.get("sha256", "")  # which costs reading whole files, but for those of another legacy hash
        match = catalogue.find(Mark.of(Path(model["path"]).name, sha256, legacy.get(sha256)))
        if match.path is not None:
            path = match.path.relative_to(catalogue.folder).as_posix()
            models[name] = model | {"path": path}
            notes.append(f"{name}: {path} is taken, found by its {match.by}")
    return replace(told, data=told.data | {"models": models}, notes=tuple(notes))


def _first(told: Translation, folder: Path) -> Checkpoint | None:
    """The first model, if it is there and has a denoiser; what is wrong with it is told when the recipe is built."""
    path = next(iter(told.data["models"].values()))["path"]
    try:
        model = None if is_address(path) else open_checkpoint(folder / path)
    except WorkbenchError:
        return None
    return model if model is not None and model.structure.denoiser in model.components else None


def _fitted(told: Translation, folder: Path) -> Translation:
    """The recipe without numbers for blocks that its first model does not have: in its program they count for nothing."""
    if not any(_mappings(told.data["merge"])) or (model := _first(told, folder)) is None:
        return told
    depth = Depth.of(map(model.structure.location, model))
    gone: dict[str, None] = {}
    for blocks in _mappings(told.data["merge"]):
        for name in [name for name in blocks if name != "default" and not depth.matches(name)]:
            gone[name] = None
            del blocks[name]
    what = "is no block" if len(gone) == 1 else "are no blocks"
    note = f"{few(list(gone))} {what} of {model.name}: what is told for them counts for nothing"
    return replace(told, notes=(*told.notes, note)) if gone else told


def _mappings(node: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every mapping of blocks to values in a merge."""
    yield from (value["blocks"] for value in node.get("options", {}).values() if isinstance(value, dict) and "blocks" in value)
    for given in node["inputs"].values():
        for one in given if isinstance(given, list) else [given]:
            yield from _mappings(one) if isinstance(one, dict) else ()


def _inner(given: Any) -> Any:
    """What JSON within JSON holds. Raises Refused for a damaged or very large one."""
    if not isinstance(given, str):
        return given
    if len(given) > MOST_BYTES:
        raise Refused(f"it has more than {MOST_BYTES:,} characters")
    return parse_json(given, levels=MOST_LEVELS)


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise Refused(str(error)) from error


def _exists(path: Path) -> bool:
    try:
        return path.expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # what no file can be called
        return False
