"""Pictures on disk that survive a restart: a folder for each cell, whole once its `cell.json` is there, claimed by whoever draws it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from filelock import FileLock, Timeout

from workbench.checkpoint.files.writing import replacing
from workbench.errors import SweepError
from workbench.untrusted import Refused, parse_json

if TYPE_CHECKING:
    from PIL.Image import Image

TOLD = "cell.json"

_MARK = "store.json"  # in a store; one without it is of version 1
_VERSION = 1  # of how a store is laid out; to be raised when an older Workbench would misread it, and this one an older store
_LATE = 60.0  # seconds after which a folder on a network is known to show what another machine has written there


class StoredPictures(Sequence["Image"]):
    """The pictures of a cell, each read when it is asked for."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder, self._count = folder, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Image: ...
    @overload
    def __getitem__(self, index: slice) -> list[Image]: ...
    def __getitem__(self, index: int | slice) -> Image | list[Image]:
        numbers = range(self._count)[index]
        return [self._read(number) for number in numbers] if isinstance(numbers, range) else self._read(numbers)

    def _read(self, number: int) -> Image:
        from PIL import Image

        path = picture_at(self._folder, number)
        try:
            with Image.open(path) as picture:
                return picture.convert("RGB")
        except OSError as error:
            raise SweepError(f"{path}: the picture cannot be read ({error}); run the sweep again, and it is drawn again") from error


def open_store(folder: Path) -> Path:
    """The folder of a sweep, made when it is not there. Raises SweepError when it cannot be, or is of another version."""
    with _speaking(folder):
        folder.mkdir(parents=True, exist_ok=True)
        mark = folder / _MARK
        if not mark.exists() and not any(folder.iterdir()):
            with replacing(mark) as temporary:
                temporary.write_text(json.dumps({"workbench_store": _VERSION}), encoding="utf-8")
        found = mark.read_bytes() if mark.exists() else None
    _check_version(mark, found)
    return folder.absolute()


def _check_version(mark: Path, found: bytes | None) -> None:
    """Raises SweepError for the mark of another version; a store without one is of the first."""
    if found is None:
        return
    try:
        version = parse_json(found)["workbench_store"]
    except (Refused, LookupError, TypeError) as error:
        raise SweepError(
            f"{mark}: does not say which version of a store this is ({error}); remove it, or choose another folder="
        ) from error
    if version != _VERSION:
        raise SweepError(
            f"{mark.parent}: is a store of version {version!r}, and this Workbench reads version {_VERSION}: use the Workbench that "
            "made it, or choose another name= or folder=, where everything is drawn anew"
        )


def kept(folder: Path, count: int) -> dict[str, Any] | None:
    """What is told of a cell whose `count` pictures are all there and whole; None when it must be drawn."""
    try:
        told = json.loads((folder / TOLD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or not {"components", "seconds"} <= set(told):
        return None
    return told if all(_is_whole(picture_at(folder, number)) for number in range(count)) else None


def awaited(folder: Path, count: int) -> dict[str, Any] | None:
    """`kept`, of a cell that another machine has drawn: a folder on a network may show that late. None when it never does."""
    until = time.monotonic() + _LATE
    while True:
        with suppress(OSError):
            os.listdir(folder)  # asks the server anew, where looking for a file would be answered from memory
        if (told := kept(folder, count)) or time.monotonic() > until:
            return told
        time.sleep(min(1.0, _LATE / 10))


def keep(folder: Path, images: Sequence[Image], told: Mapping[str, Any], carried: Sequence[str] = ()) -> None:
    """Write a cell: its pictures, each with the text it carries, and last what is told of it.

    Raises SweepError when the disk is full or forbids it.
    """
    from PIL.PngImagePlugin import PngInfo

    with _speaking(folder):
        folder.mkdir(exist_ok=True)
        for number, (image, text) in enumerate(zip(images, carried or [""] * len(images), strict=True)):
            chunks = PngInfo()
            if text:
                chunks.add_text("workbench", text)
            with replacing(picture_at(folder, number)) as temporary:
                image.save(temporary, "PNG", pnginfo=chunks)
        with replacing(folder / TOLD) as temporary:
            temporary.write_text(json.dumps(told, indent=1), encoding="utf-8")


@contextmanager
def claimed(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Whether the cell is this caller's to draw; with `wait`, once whoever draws it now has ended, however it ended."""
    lock = FileLock(folder / ".claim")  # the system takes it from a process that was killed
    with _speaking(folder):
        folder.mkdir(exist_ok=True)
        with suppress(Timeout):
            lock.acquire(blocking=wait)
    try:
        yield lock.is_locked
    finally:
        lock.release()


def _is_whole(picture: Path) -> bool:
    """Whether a PNG is as it was written, by the checksums that are in it; its pixels are not unpacked."""
    from PIL import Image

    try:
        with Image.open(picture, formats=["PNG"]) as found:
            found.verify()
    except Exception:  # whatever is wrong with it, it is to be drawn again
        return False
    return True


def picture_at(folder: Path, number: int) -> Path:
    """Where a picture of a cell lies."""
    return folder / f"{number:04}.png"


@contextmanager
def _speaking(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise SweepError(f"{folder}: cannot be written ({reason}); mend that, and the same call goes on where it stopped") from error
