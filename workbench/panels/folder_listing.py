"""What lies in a folder, as a chooser of models shows it: models and folders, with size and date. No file is opened, no widget is here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, Literal, final

from workbench.checkpoint.files.catalogue import SUFFIXES
from workbench.checkpoint.files.folders import INDICES, PIPELINE
from workbench.errors import InputError
from workbench.wording import listed

Kind = Literal["folder", "model", "file"]
Column = Literal["name", "size", "date", "family"]

MOST_FOLDERS: Final = 5000  # that are gone through for one listing


@final
@dataclass(frozen=True)
class FolderEntry:
    """A folder, a folder that is a model, or a file; `name` is where it lies below the folder that is listed.

    `size` is in bytes, 0 for folders; `changed` in seconds since 1970.
    """

    name: str
    kind: Kind
    size: int
    changed: float


@final
@dataclass(frozen=True)
class FolderListing:
    """What a folder holds, and what is to be said of it."""

    folder: Path
    entries: tuple[FolderEntry, ...] = ()
    said: str = ""

    def found(self, words: str) -> list[FolderEntry]:
        """The entries with all of these words in their names, in capitals or not."""
        wanted = words.casefold().split()
        return [one for one in self.entries if all(word in one.name.casefold() for word in wanted)]


def list_folder(folder: Path, *, below: bool = False) -> FolderListing:
    """The models and folders in a folder; with `below` also the models in all folders below it, and no folders.

    Hidden ones are left out. Raises InputError for what is no folder, or cannot be read.
    """
    try:
        if not folder.is_dir():
            raise InputError(
                f"{folder}: {'is no folder' if folder.exists() else 'is not there (any more)'}; give a folder with models in it"
            )
        os.scandir(folder).close()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{str(folder)[:200]}: cannot be read: {reason}") from error
    unread: list[str] = []
    entries, whole = _below(folder, unread) if below else (list(_in(folder, "", unread)), True)
    told = [f"{listed(unread)} cannot be read"] if unread else []
    told += [] if whole else [f"only the first {MOST_FOLDERS:,} folders were searched"]
    return FolderListing(folder, tuple(entries), "; ".join(told))


def ordered(entries: Sequence[FolderEntry], column: Column, descending: bool, family: Callable[[FolderEntry], str]) -> list[FolderEntry]:
    """Entries by a column, folders before files; what has no family yet comes last."""
    keys: dict[str, Callable[[FolderEntry], Any]] = {
        "name": lambda one: one.name.casefold(),
        "size": attrgetter("size"),
        "date": attrgetter("changed"),
        "family": lambda one: (family(one) or "\uffff").casefold(),
    }
    by_name = sorted(entries, key=keys["name"])
    return sorted(sorted(by_name, key=keys[column], reverse=descending), key=lambda one: one.kind != "folder")


def _below(folder: Path, unread: list[str]) -> tuple[list[FolderEntry], bool]:
    """All models below a folder, in folders that are links, too, each once; and whether every folder was gone through."""
    entries: list[FolderEntry] = []
    waiting, seen = [""], set[tuple[int, int]]()
    while waiting and len(seen) < MOST_FOLDERS:
        inside = waiting.pop()
        try:
            place = os.stat(folder / inside)
        except OSError:
            unread.append(inside)
            continue
        if (place.st_dev, place.st_ino) in seen:
            continue
        seen.add((place.st_dev, place.st_ino))
        for one in _in(folder, inside, unread):
            if one.kind == "folder":
                waiting.append(one.name)
            else:
                entries.append(one)
    return entries, not waiting


def _in(folder: Path, inside: str, unread: list[str]) -> Iterator[FolderEntry]:
    """The models and folders in one folder below `folder`."""
    try:
        with os.scandir(folder / inside) as found:
            here = [one for one in found if not one.name.startswith(".")]
    except OSError:
        unread.append(inside or str(folder))
        return
    for one in here:
        if entry := _entry(one, f"{inside}/{one.name}" if inside else one.name):
            yield entry


def _entry(found: os.DirEntry[str], name: str) -> FolderEntry | None:
    """A model or a folder; None for any other file, and for a link to nothing."""
    try:
        if found.is_dir():
            return FolderEntry(name, "model" if _is_model(found.path) else "folder", 0, found.stat().st_mtime)
        if found.name.lower().endswith(SUFFIXES) and found.is_file():
            told = found.stat()
            return FolderEntry(name, "file", told.st_size, told.st_mtime)
    except OSError:
        return None
    return None


def _is_model(folder: str) -> bool:
    """Whether a folder is a pipeline, or a model in shards."""
    try:
        with os.scandir(folder) as found:
            return any(one.name == PIPELINE or fnmatch(one.name, INDICES) for one in found)
    except OSError:
        return False
