"""sha256 of files, remembered per user by path, size, times of change and inode, so that a file is read for it once."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import platformdirs
from tqdm.auto import tqdm

from workbench.checkpoint.files.identity import identity
from workbench.errors import CheckpointError
from workbench.untrusted import open_regular
from workbench.wording import printable

_CHUNK = 1 << 20
_SETTLED = 2.0  # seconds after which every file system gives a changed file another time
_LEGACY = (0x100000, 0x10000)  # AUTOMATIC1111's first hash: where it begins, how many bytes it takes


def sha256(path: Path, stop: Event | None = None, advance: Callable[[int], object] | None = None) -> str:
    """The sha256 of a file, in hexadecimal; raises CheckpointError when it cannot be read, changes meanwhile, or at `stop`.

    With `stop` it runs beside something else, whose progress is shown, and `advance` is told of every byte that is read; alone
    it shows its own progress.
    """
    try:
        return _sha256(path, stop, advance)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def _sha256(path: Path, stop: Event | None, advance: Callable[[int], object] | None) -> str:
    place, found, began = _place(path), identity(path.stat()), time.time()
    if known := _recall(place):
        return known
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    shown: dict[str, Any] = {"unit": "B", "unit_scale": True, "delay": 2, "leave": False, "desc": f"sha256 of {printable(path.name)}"}
    bar = tqdm(total=path.stat().st_size, disable=stop is not None or advance is not None, **shown)
    with open_regular(path) as file, bar:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            (advance or bar.update)(count)
            if stop is not None and stop.is_set():
                raise CheckpointError(f"{path}: hashing was stopped")
    if identity(path.stat()) != found:
        raise CheckpointError(f"{path}: the file changed while it was read; try again when it is complete")
    if found[1] / 1e9 < began - _SETTLED and _place(path) == place:  # a new link to a file is no change of it, but of its place
        _remember(place, digest.hexdigest())
    return digest.hexdigest()


def legacy_hash(path: Path) -> str:
    """The short hash by which AUTOMATIC1111 first knew models: of 64 KiB at 1 MiB."""
    begin, length = _LEGACY
    with path.open("rb") as file:
        file.seek(begin)
        return hashlib.sha256(file.read(length)).hexdigest()[:8]


def data_sha256(path: Path) -> str:
    """The sha256 of a safetensors file without its header, which kohya calls `sshs_model_hash` and ModelSpec `hash_sha256`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(int.from_bytes(file.read(8), "little"), os.SEEK_CUR)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _place(path: Path) -> Path:
    """Where the hash of the file as it is now would be remembered."""
    found = path.stat()
    identity = f"{path.resolve()}\0{found.st_size}\0{found.st_mtime_ns}\0{found.st_ctime_ns}\0{found.st_ino}"
    return platformdirs.user_cache_path("workbench") / "sha256" / hashlib.sha256(identity.encode()).hexdigest()


def _recall(place: Path) -> str | None:
    try:
        found = place.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return found if re.fullmatch("[0-9a-f]{64}", found) else None  # a full disk or a lost current may have left anything


def _remember(place: Path, value: str) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=place.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(value)
        Path(temporary).replace(place)
    except OSError:
        pass  # without a cache the next export reads the file again, and nothing else is lost
