"""Of which family the models in files are, as their headers tell: read on a thread, of what is asked for, and remembered."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from workbench.checkpoint import Checkpoint
from workbench.checkpoint import open as open_checkpoint
from workbench.families import GENERIC
from workbench.panels.callbacks import in_words
from workbench.panels.folder_listing import FolderEntry
from workbench.panels.worker import Worker
from workbench.tensors import Space

Key = tuple[str, int, float]

_MOST = 20_000  # files that are remembered
_BATCH = 20  # files after which is told what is known by then
UNKNOWN: Final = "?"
BROKEN: Final = "broken"


@final
@dataclass(frozen=True)
class FileFamily:
    """A family's name as a chooser shows it, and what else there is to say of the file."""

    name: str
    told: str = ""


_remembered: OrderedDict[Key, FileFamily] = OrderedDict()  # of this process: by path, size and date
_remembering = threading.Lock()


@final
class FileFamilies:
    """Tells `changed(done)` on a thread of its own whenever more is known of what was asked for last; `done` when all of it is."""

    def __init__(self, changed: Callable[[bool], None]) -> None:
        self._changed = changed
        self._worker = Worker()

    def known(self, folder: Path, entry: FolderEntry) -> FileFamily | None:
        """The family of a file, if it is known by now."""
        return _remembered.get(_key(folder, entry))

    def ask(self, folder: Path, entries: Sequence[FolderEntry]) -> None:
        """Find out about these, and nothing that was asked before."""
        missing = [one for one in entries if one.kind != "folder" and _key(folder, one) not in _remembered]
        if missing:
            self._worker.submit(lambda cancelled: self._read(folder, missing, cancelled))
        else:
            self._worker.cancel()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is read any more; returns whether that came about in so many seconds."""
        return self._worker.wait(timeout)

    def close(self) -> None:
        """Read nothing any more."""
        self._worker.cancel()

    def _read(self, folder: Path, entries: Sequence[FolderEntry], cancelled: Callable[[], bool]) -> None:
        for count, entry in enumerate(entries, 1):
            if cancelled():
                return
            found = family_of(folder / entry.name)
            with _remembering:
                _remembered[_key(folder, entry)] = found
                while len(_remembered) > _MOST:
                    _remembered.popitem(last=False)
            if (count % _BATCH == 0 or count == len(entries)) and not cancelled():
                self._changed(count == len(entries))


def family_of(path: Path) -> FileFamily:
    """The family of the model in a file or folder, by its header alone; what cannot be opened is broken, and says why."""
    try:
        model = open_checkpoint(path)
        return _of(model)
    except Exception as error:  # any file may lie there
        return FileFamily(BROKEN, in_words(error))


def _of(model: Checkpoint) -> FileFamily:
    told = model.architecture if model.space is Space.DELTA else model.structure.family.name
    known = "" if told in (GENERIC.name, "unknown") else told
    parts = f"{len(model):,} tensors" if model.space is Space.WEIGHT else f"changes {len(model):,} tensors"
    if model.space is Space.DELTA:
        return FileFamily(f"LoRA {known}".strip(), f"A LoRA{f' for {known}' if known else ''}; {parts}")
    return FileFamily(known or UNKNOWN, f"{known or 'Of no family that is known'}; {parts}")


def _key(folder: Path, entry: FolderEntry) -> Key:
    return str(folder / entry.name), entry.size, entry.changed
