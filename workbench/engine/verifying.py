"""`verify`: makes a merged file again from its recipe and its parents, and compares every byte. Nothing is written."""

from __future__ import annotations

import html
import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, final

from workbench.checkpoint import Checkpoint
from workbench.checkpoint import open as open_checkpoint
from workbench.checkpoint.files import hashing
from workbench.checkpoint.files.catalogue import Catalogue, Mark
from workbench.checkpoint.files.hub import is_address
from workbench.checkpoint.files.safetensors_file import SafetensorsFile
from workbench.checkpoint.files.writing import safetensors_header
from workbench.engine import header
from workbench.engine.parts import jobs
from workbench.engine.quantising.quantiser import Plain
from workbench.engine.streaming import Findings, stream
from workbench.errors import WorkbenchError
from workbench.recipe import Recipe, preflight
from workbench.recipe.file import HEADER
from workbench.recipe.schema import ModelFile
from workbench.tensors import Calculation, Flat, TensorInfo
from workbench.wording import listed

if TYPE_CHECKING:
    import pandas as pd
    import torch

Verdict = Literal["same", "differs", "cannot"]

_PARENTS, _TITLE, _MERGED = "sd_merge_models", "modelspec.title", "modelspec.merged_from"


@final
@dataclass(frozen=True)
class Verification:
    """Whether a file is what its recipe makes: `same`, `differs` or `cannot` (it could not be made again), and why.

    `parents` maps each model of the recipe to the file it was made from, and what that was told by. `tensors` maps those that
    differ to what is the matter.
    """

    path: Path
    verdict: Verdict
    reason: str
    parents: Mapping[str, tuple[Path, str]] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """What the command exits with: 0, 1 or 2."""
        return {"same": 0, "differs": 1, "cannot": 2}[self.verdict]

    def frame(self) -> pd.DataFrame:
        """A row for each tensor that differs, with what is the matter."""
        import pandas as pd

        return pd.DataFrame(self.tensors.items(), columns=["tensor", "difference"])

    def __str__(self) -> str:
        made = [f"  {name}: {place} (by {by})" for name, (place, by) in self.parents.items()]
        return "\n".join(_printable(line) for line in [f"{self.path}: {self.verdict}: {self.reason}", *made])

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


class _CannotError(WorkbenchError):
    """Why a file cannot be made again."""


def verify(path: str | os.PathLike[str], among: str | os.PathLike[str] | None = None, *, progress: bool = True) -> Verification:
    """Make a merged file again from the recipe in its header, and compare every byte: the tensors', and the header's.

    Parents are looked for where the recipe says, and in the folder `among`: by their sha256, renamed and moved or not. Nothing
    is written, and memory is bounded as in `export`. Where parents were moved the header is compared as it was written then: with
    their old names and places, and with the file's old title. Of a folder of shards the tensors are compared, and what its header says.

    `verdict` of the result is "same"; "differs", with the tensors that do; or "cannot", where there is no recipe, a parent is
    missing (its sha256 is said), or an operator is. Raises CheckpointError for a file that cannot be opened.
    """
    written = open_checkpoint(path)
    place = written.path or Path(path)
    catalogue = None if among is None else Catalogue(among, progress=progress)
    parents: dict[str, tuple[Path, str]] = {}
    try:
        recipe = Recipe.carried_by(written)
        if recipe is None:
            raise _CannotError("its header carries no recipe of Workbench's; `workbench lineage` tells what it says of its parents")
        if header.QUANTISE in written.metadata:
            raise _CannotError(f"it is quantised ({written.metadata[header.QUANTISE]}), which is not made again yet")
        located = _located(recipe, catalogue, parents)
        made = located.build()
        preflight(made).raise_errors()
        differing = _differing(written, made, progress)
        told = "" if differing else _header_differs(written, made, recipe, parents)
    except WorkbenchError as error:
        return Verification(place, "cannot", str(error), parents)
    if differing:
        key, what = next(iter(differing.items()))
        count = len(set(written) | set(made))
        return Verification(place, "differs", f"{len(differing)} of {count} tensors differ, first {key!r}: {what}", parents, differing)
    if told:
        return Verification(place, "differs", f"the tensors are the same, and the header differs: {told}", parents)
    exact = "byte for byte" if isinstance(written, SafetensorsFile) else "every tensor's bytes, and what the header says"
    return Verification(place, "same", f"its recipe makes it again, {exact}", parents)


def _located(recipe: Recipe, catalogue: Catalogue | None, parents: dict[str, tuple[Path, str]]) -> Recipe:
    """The recipe with each model where it lies now; `parents` is filled with them. Raises _CannotError for those that are missing."""
    models, missing = {}, []
    for name, model in recipe.data.models.items():
        if is_address(model.path):
            models[name] = model
            continue
        place, by = _find(recipe.folder / model.path, model, catalogue)
        if place is None:
            missing.append(f"{name!r} ({PurePosixPath(model.path).name}, {by})")
            continue
        parents[name] = (place, by)
        models[name] = model.model_copy(update={"path": str(place)})
    if missing:
        nor = f"nor in {catalogue.folder}" if catalogue else "and no other folder was given to look in (among=, --among)"
        are = "a parent is" if len(missing) == 1 else "parents are"
        raise _CannotError(f"{are} not where the recipe says, {nor}: {'; '.join(missing)}")
    return Recipe(recipe.data.model_copy(update={"models": models}), recipe.folder)


def _find(told: Path, model: ModelFile, catalogue: Catalogue | None) -> tuple[Path | None, str]:
    """Where a model lies now and what that is told by; or None, and what it is known by."""
    place = Path(os.path.abspath(told))
    if model.sha256 is None:
        return (place, "its place alone: the recipe has no sha256 of it") if place.exists() else (None, "without a sha256 in the recipe")
    if place.is_file() and hashing.sha256(place) == model.sha256:
        return place, "sha256"
    found = catalogue.find(Mark(place.name, model.sha256)) if catalogue else None
    return (found.path, found.by) if found and found.path else (None, f"sha256 {model.sha256}")


def _differing(written: Checkpoint, made: Checkpoint, progress: bool) -> dict[str, str]:
    """The tensors whose bytes are not those of the file, with what is the matter, in the file's order."""
    infos = {key: made.info(key) for key in made}
    found = {key: "is in the file, and not in what its recipe makes" for key in written if key not in infos}
    found |= {key: "is not in the file" for key in infos if key not in written}
    found |= {key: _other(written.info(key), infos[key]) for key in written if key in infos and written.info(key) != infos[key]}
    first: dict[str, int] = {}
    lock = threading.Lock()

    def compare(key: str, number: int, start: int, data: memoryview) -> None:
        size = infos[key].itemsize
        there = written.read(key, Flat(start // size, (start + len(data)) // size))
        if (at := _first_difference(there, data)) is not None:
            with lock:
                first[key] = min(first.get(key, (start + at) // size), (start + at) // size)

    findings = Findings(False)
    calculation = Calculation(made.precision, "cpu", findings.nonfinite)
    work = jobs(made, [(key, Plain.of(info)) for key, info in infos.items() if key not in found and info.numel], calculation)
    stream(made, work, calculation, findings, compare, threads=None, progress=progress)
    found |= {key: f"other values, the first at element {at}" for key, at in first.items()}
    return {key: found[key] for key in [*written, *infos] if key in found}


def _first_difference(there: torch.Tensor, data: memoryview) -> int | None:
    """The first byte in which a tensor and what was made differ."""
    import numpy as np
    import torch

    unlike = np.flatnonzero(there.contiguous().view(-1).view(torch.uint8).numpy() != np.frombuffer(data, np.uint8))
    return int(unlike[0]) if len(unlike) else None


def _other(there: TensorInfo, made: TensorInfo) -> str:
    return f"is {there.dtype_name} {list(there.shape)}, and its recipe makes {made.dtype_name} {list(made.shape)}"


def _header_differs(written: Checkpoint, made: Checkpoint, recipe: Recipe, parents: Mapping[str, tuple[Path, str]]) -> str:
    """How the header that the recipe makes is not the file's; nothing where every byte is the same."""
    place = written.path
    assert place is not None
    title = written.metadata.get(_TITLE, place.stem)
    hashes = {source: hashing.sha256(source) for source in made.sources()}
    again = header.metadata(made, place if place.is_dir() else place.parent, title, hashes)
    again = _as_it_was(again, written.metadata, recipe)
    if keys := [key for key in dict.fromkeys([*written.metadata, *again]) if written.metadata.get(key) != again.get(key)]:
        return f"{listed(keys)} {'is' if len(keys) == 1 else 'are'} not what its recipe makes"
    if not isinstance(written, SafetensorsFile):
        return ""
    there = written.head()
    text, _ = safetensors_header({key: made.info(key) for key in made}, again, len(there))
    return "" if text == there else "its order or spelling is another, as of a file that another program has written again"


def _as_it_was(again: Mapping[str, str], there: Mapping[str, str], recipe: Recipe) -> dict[str, str]:
    """What a header made now would have said when the parents lay where the recipe says, and were called so."""
    said = dict(again)
    made = json.loads(said[HEADER])
    told = recipe.to_dict()["models"]
    for name, model in made["recipe"]["models"].items():
        if name in told:
            made["recipe"]["models"][name] = model | {"path": told[name]["path"]} if isinstance(model, dict) else told[name]
    said[HEADER] = json.dumps(made)
    names = dict(_names(there))
    entries = json.loads(said[_PARENTS])
    renamed = {key: one | {"name": names[key]} for key, one in entries.items() if key in names and isinstance(one, dict)}
    said[_PARENTS] = json.dumps(entries | renamed)
    if _MERGED in said:
        said[_MERGED] = ", ".join(Path(model.path).stem for model in recipe.data.models.values())
    return said


def _names(there: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What the models in a header were called, by their sha256."""
    try:
        entries = json.loads(there.get(_PARENTS, "null"))
    except (ValueError, RecursionError):
        return
    for key, one in entries.items() if isinstance(entries, dict) else ():
        if isinstance(one, dict) and isinstance(one.get("name"), str):
            yield key, one["name"]


def _printable(line: str) -> str:
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in line)
