"""Where a model lies that was dropped onto a panel: a browser tells its name, size and header, and no path. No widget is here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from workbench.checkpoint.files.catalogue import SAFETENSORS, SUFFIXES
from workbench.errors import InputError
from workbench.panels.folder_listing import list_folder
from workbench.wording import few
from workbench.wording import size as size_in_words


def find_dropped(name: str, size: int, header: bytes, folders: Sequence[Path]) -> Path:
    """The file of `size` bytes that begins with `header`, in one of `folders` or the folders below: of that name if there is such a one.

    Of files with no header, name and size have to do. Raises InputError, which says where it was looked for.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{name}: is no model; those end in {', '.join(SUFFIXES)}")
    headed = suffix in SAFETENSORS
    alike = [path for path in _of_size(size, suffix, folders) if (headed or path.name == name) and _begins(path, header)]
    for path in sorted(alike, key=lambda path: path.name != name):
        return path
    searched = few([str(folder) for folder in folders], 4) or "no folder"
    told = f"{name} ({size_in_words(size)}) was not found in {searched}, or below"
    raise InputError(f"{told}: the browser does not say where it lies; go to its folder in 'models to choose from', or give its path")


def _of_size(size: int, suffix: str, folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        try:
            entries = list_folder(folder, below=True).entries
        except InputError:  # it may be gone since
            continue
        yield from (folder / one.name for one in entries if one.size == size and one.name.lower().endswith(suffix))


def _begins(path: Path, header: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(header)) == header
    except OSError:
        return False
