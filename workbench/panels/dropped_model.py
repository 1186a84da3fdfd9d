"""Where a model lies that was dropped onto a panel: a browser tells its name, size and some bytes, and no path. No widget is here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from workbench.checkpoint.files.catalogue import SUFFIXES
from workbench.errors import InputError
from workbench.panels.folder_listing import list_folder
from workbench.wording import few
from workbench.wording import size as size_in_words

SAMPLES: Final = 16
SAMPLE: Final = 4096  # bytes


def find_dropped(name: str, size: int, header: bytes, folders: Sequence[Path], samples: bytes = b"") -> Path:
    """The file of `size` bytes that begins with `header` and has these `samples`, in one of `folders` or the folders below.

    Samples are of 4096 bytes each, at 1/32, 3/32, ... 31/32 of the file; without them the name has to be the same, since models of one
    family have equal headers. Raises InputError, which says where it was looked for.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{name}: is no model; those end in {', '.join(SUFFIXES)}")
    alike = [path for path in _of_size(size, suffix, folders) if samples or path.name == name]
    for path in sorted(alike, key=lambda path: path.name != name):
        if _has(path, size, header, samples):
            return path
    searched = few([str(folder) for folder in folders], 4) or "no folder"
    told = f"{name} ({size_in_words(size)}) was not found in {searched}, or below"
    raise InputError(f"{told}: the browser does not say where it lies; go to its folder in 'models to choose from', or give its path")


def sampled(file: BinaryIO, size: int) -> bytes:
    """The samples of a file."""
    found = b""
    for i in range(SAMPLES):
        file.seek(size * (2 * i + 1) // (2 * SAMPLES))
        found += file.read(SAMPLE)
    return found


def _of_size(size: int, suffix: str, folders: Sequence[Path]) -> Iterator[Path]:
    for folder in dict.fromkeys(folders):
        try:
            entries = list_folder(folder, below=True).entries
        except InputError:  # it may be gone since
            continue
        yield from (folder / one.name for one in entries if one.size == size and one.name.lower().endswith(suffix))


def _has(path: Path, size: int, header: bytes, samples: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(header)) == header and (not samples or sampled(file, size) == samples)
    except OSError:
        return False
