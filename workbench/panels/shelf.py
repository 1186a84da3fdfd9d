"""The checkpoints that a panel can merge, by name, and what lies in a folder. No widget is here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import final

from tqdm.auto import tqdm

from workbench.checkpoint import Checkpoint, in_layout
from workbench.checkpoint import open as open_checkpoint
from workbench.checkpoint.files.catalogue import SUFFIXES
from workbench.checkpoint.files.folders import PIPELINE
from workbench.errors import InputError, WorkbenchError
from workbench.merge.call import unique
from workbench.places import DATA, in_clone
from workbench.tensors import Space

RESULT = "result"  # what no model is called, since the result of the merge is
FAMILY = DATA / "shapes-sd"

Given = Mapping[str, Checkpoint | str | os.PathLike[str]] | Sequence[Checkpoint | str | os.PathLike[str]] | str | os.PathLike[str]


@final
class Shelf:
    """Checkpoints by name, in order.

    `given` is a mapping from names, a list of checkpoints and paths, or a folder, of which what cannot be opened is left out, and is in
    `problems`; None is the family that comes with the project. Raises InputError for anything else, CheckpointError for a file that
    cannot be opened, and NotInCloneError where the family is not there.
    """

    def __init__(self, given: Given | None = None) -> None:
        self.checkpoints: dict[str, Checkpoint] = {}
        self.problems: list[str] = []
        given = in_clone(FAMILY, "give a list of your own checkpoints, or their folder") if given is None else given
        if isinstance(given, (str, os.PathLike)):
            self._add_all(Path(given))
            return
        if isinstance(given, Checkpoint) or not isinstance(given, (Mapping, Sequence)):
            raise InputError(f"checkpoints must be a mapping from names, a list, or a folder; got {given!r}: put it into a list")
        named = given.items() if isinstance(given, Mapping) else [(None, one) for one in given]
        for name, one in named:
            self.add(one, name)

    def _add_all(self, folder: Path) -> None:
        """Everything in a folder that can be opened."""
        for path in tqdm(models_in(folder), desc="opening models", unit="file", delay=2):  # few are opened at once
            try:
                self.add(path)
            except (WorkbenchError, OSError) as error:
                self.problems.append(str(error))

    def add(self, one: Checkpoint | str | os.PathLike[str], name: str | None = None) -> str:
        """Put a checkpoint, or the file at a path, on the shelf; returns its name there. The same file is added once."""
        checkpoint = one if isinstance(one, Checkpoint) else open_checkpoint(one)
        known = self.name_of(checkpoint)
        if known is not None and name in (None, known):
            return known
        name = unique(name or checkpoint.name, {**self.checkpoints, RESULT: None})
        self.checkpoints[name] = checkpoint
        return name

    def name_of(self, checkpoint: Checkpoint) -> str | None:
        """What a checkpoint, or another of the same file, is called here."""
        return next((key for key, other in self.checkpoints.items() if _same(checkpoint, other)), None)

    def changes_among(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of some models that are LoRAs, or other changes of models."""
        return tuple(name for name in names if name in self.checkpoints and self.checkpoints[name].space is Space.DELTA)

    @property
    def folders(self) -> list[Path]:
        """The folders that the checkpoints lie in."""
        return list(dict.fromkeys(one.path.parent for one in self.checkpoints.values() if one.path is not None))

    def free_name(self, old: str, new: str) -> str:
        """The name that a checkpoint may be given. Raises InputError for one that is taken, or none."""
        new = new.strip()
        if new != old and (not new or new == RESULT or new in self.checkpoints):
            raise InputError(f"{old} cannot be called {new!r}: {'another model is' if new else 'that is no name'}")
        return new

    def alike(self) -> tuple[str, ...]:
        """The models that can be merged with the first one: of its family, and models rather than changes."""
        models = {name: one for name, one in self.checkpoints.items() if one.space is Space.WEIGHT}
        family = next((one.structure.family for one in models.values()), None)
        return tuple(name for name, one in models.items() if one.structure.family is family)

    def rename(self, old: str, new: str) -> None:
        """Give a checkpoint another name, at its place."""
        for name in list(self.checkpoints):
            self.checkpoints[new if name == old else name] = self.checkpoints.pop(name)

    def open_again(self) -> list[str]:
        """Open anew every file that changed; returns what to say of those that cannot be opened any more."""
        return [f"{path} is gone" for name in list(self.checkpoints) for path in self._open_again(name)]

    def _open_again(self, name: str) -> list[Path]:
        checkpoint = self.checkpoints[name]
        if not checkpoint.replaced():
            return []
        if checkpoint.path is None:  # a result that is used as a model
            if (made := checkpoint.recipe) is not None and all(path.exists() for path in checkpoint.replaced()):
                self.checkpoints[name] = made.build()
            return [path for path in checkpoint.replaced() if not path.exists()]
        if not checkpoint.path.exists():
            return [checkpoint.path]
        fresh = open_checkpoint(checkpoint.path)
        fresh.name = checkpoint.name
        self.checkpoints[name] = in_layout(fresh, checkpoint.layout) if checkpoint.layout else fresh
        return []


def checkpoint_files(folder: Path) -> list[Path]:
    """The checkpoints in a folder, by name. Raises InputError when it is no folder."""
    if not folder.expanduser().is_dir():
        raise InputError(f"{folder}: is no folder; give the folder in which the checkpoints lie, or a list of files")
    return sorted(path for path in folder.expanduser().iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def models_in(folder: Path) -> list[Path]:
    """The models in a folder, by name: files, and pipeline folders with weights; or the folder itself, if it is such a one."""
    files = checkpoint_files(folder)
    if is_pipeline(folder.expanduser()):
        return [folder]
    return sorted([*files, *(path for path in subfolders(folder.expanduser()) if is_pipeline(path))])


def is_pipeline(folder: Path) -> bool:
    """Whether a folder is a diffusers pipeline's, with weights in it."""
    return (folder / PIPELINE).is_file() and next(folder.glob("*/*.safetensors"), None) is not None


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, by name, but for hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _same(one: Checkpoint, other: Checkpoint) -> bool:
    alike = one.path is not None and (one.path, one.layout) == (other.path, other.layout)
    return one is other or (alike and not other.replaced())
