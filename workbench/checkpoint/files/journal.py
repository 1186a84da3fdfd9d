"""How the files of a folder are exchanged for others, and how that is taken back where it did not end. Only files that it names are moved.

The new files lie in a hidden folder inside, each at its place. A journal beside them names them and the old ones; the old ones are moved
to the hidden folder, the new ones out of it, and with the journal all can be taken back, by whoever finds it. Without it, it is done.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from workbench.checkpoint.files.folders import CONFIG, PIPELINE, is_index
from workbench.checkpoint.files.temporary import LOCK, flush, folder_locked, is_temporary, locked
from workbench.errors import CheckpointError

NEW, OLD, JOURNAL = Path("new"), Path("old"), Path("journal.json")
_LARGEST = 1 << 20  # bytes of a journal; a pipeline's has a few thousand


def exchange(stage: Path, old: Iterable[Path], new: Iterable[Path]) -> None:
    """In the folder that `stage` lies in, put files from it in the place of `old` ones, all given as seen from the folder.

    What goes wrong leaves the journal, and `take_back` has everything as it was.
    """
    folder = stage.parent
    old, new = sorted(old), sorted(new, key=_told_last)
    made = sorted({above for place in new for above in place.parents if above in old or not (folder / above).is_dir()})
    told = {"new": new, "old": old, "made": made}
    _write(stage / JOURNAL, json.dumps({name: [place.as_posix() for place in places] for name, places in told.items()}))
    for place in old:
        _put_aside(folder / place, stage / OLD / place)
    for place in new:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        settle(stage / NEW / place, folder / place)
    for changed in {(folder / place).parent for place in (*old, *new)}:
        flush(changed)
    (stage / JOURNAL).unlink()
    for above in sorted({above for place in old for above in place.parents if above.parts}, reverse=True):
        with suppress(OSError):  # something lies in it that stays
            (folder / above).rmdir()


def take_back(stage: Path) -> None:
    """Have everything in the folder as it was before an exchange that did not end. Raises OSError; then it can be tried again."""
    folder, told = stage.parent, _read(stage)
    for place in told["new"]:
        waits = place in told["old"] and not os.path.lexists(stage / OLD / place)  # the old one still has, or again, its place
        if not waits and _is_real(folder, place) and _has_left(stage / NEW / place, folder / place):
            (folder / place).unlink(missing_ok=True)
    for place in reversed(told["made"]):
        if not (folder / place).is_symlink():
            with suppress(OSError):
                (folder / place).rmdir()
    for place in told["old"]:
        if os.path.lexists(stage / OLD / place):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (stage / OLD / place).replace(folder / place)
    (stage / JOURNAL).unlink(missing_ok=True)


def discard(stage: Path) -> None:
    """Remove a hidden folder, once what was moved into it is back. Raises OSError where that cannot be done."""
    if os.path.lexists(stage / JOURNAL):
        take_back(stage)
    with suppress(FileNotFoundError):
        shutil.rmtree(stage, ignore_errors=os.name == "nt")  # there the lock is still open, and stays until the next time


def heal(folder: Path) -> None:
    """Have a model as it was, where an export was killed while it replaced it. Raises CheckpointError where that cannot be."""
    if not _half_done(folder):
        return
    try:
        with folder_locked(folder):  # an exchange that goes on takes milliseconds
            take_all_back(folder)
    except OSError as error:
        told = "an export was killed while it replaced the model, and what it moved to a hidden folder inside cannot be put back"
        raise CheckpointError(f"{folder}: {told} ({error.strerror or error}); open it where the folder can be written") from error


def take_all_back(folder: Path) -> None:
    """`take_back` for every exchange in a folder whose process has ended; raises CheckpointError for one that goes on."""
    for stage in _half_done(folder):
        with locked(stage / LOCK, os.O_CREAT) as mine:
            if not mine:
                raise CheckpointError(f"{folder}: is being replaced by another export; try again when that has ended")
            discard(stage)


def settle(source: Path, target: Path) -> None:
    """Give a file of one's own the name `target`, whole and at once. Raises FileExistsError where that is somebody's."""
    if os.name == "nt":
        source.rename(target)  # refuses what is there
        return
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a disk without links
        os.close(os.open(target, os.O_CREAT | os.O_EXCL))
        try:
            source.replace(target)
        except BaseException:
            target.unlink()
            raise
    else:
        with suppress(OSError):  # the file has its place, and the other name is hidden
            source.unlink()


def _half_done(folder: Path) -> list[Path]:
    """The hidden folders of exchanges that go on in a folder, or were killed."""
    try:
        with os.scandir(folder) as entries:
            found = [Path(entry.path) for entry in entries if is_temporary(entry.name) and entry.is_dir(follow_symlinks=False)]
    except (OSError, ValueError):  # no folder, or a name that cannot be one
        return []
    return [stage for stage in found if os.path.lexists(stage / JOURNAL)]


def _told_last(place: Path) -> tuple[bool, bool, Path]:
    return place.name in (CONFIG, PIPELINE), is_index(place.name), place


def _put_aside(source: Path, target: Path) -> None:
    if source.is_dir() and not source.is_symlink():
        raise IsADirectoryError(errno.EISDIR, "a folder lies where a file is to be", str(source))
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


def _has_left(staged: Path, settled: Path) -> bool:
    """Whether a new file has its place: it is there alone, or under both names just now."""
    if not os.path.lexists(staged):
        return True
    return os.path.lexists(settled) and os.path.samestat(staged.lstat(), settled.lstat())


def _is_real(folder: Path, place: Path) -> bool:
    """Whether a place is really inside the folder: no exchange goes through a link."""
    return not any((folder / above).is_symlink() for above in place.parents)


def _write(journal: Path, text: str) -> None:
    with journal.open("x", encoding="utf-8") as file:
        file.write(text)
    flush(journal)
    flush(journal.parent)


def _read(stage: Path) -> Mapping[str, Sequence[Path]]:
    """What was to be moved; nothing where the journal is not finished, for it is before anything is moved.

    The folder may come from anywhere, with a journal that somebody has made: one that names anything outside is an OSError.
    """
    nothing: dict[str, list[Path]] = {"new": [], "old": [], "made": []}
    journal = stage / JOURNAL
    if not stat.S_ISREG(journal.lstat().st_mode) or journal.lstat().st_size > _LARGEST:
        raise OSError(errno.EINVAL, "it is no journal", str(journal))
    try:
        told = json.loads(journal.read_text(encoding="utf-8"))
        places = {name: [Path(place) for place in told[name]] for name in nothing}
    except (ValueError, TypeError, LookupError, RecursionError):
        return nothing
    for place in (place for some in places.values() for place in some):
        if place.is_absolute() or ".." in place.parts or not place.parts:
            raise OSError(errno.EINVAL, f"the journal names {str(place)[:100]!r}, which lies outside", str(journal))
    for place in places["old"]:
        if not (_is_real(stage.parent, place) and _is_real(stage, OLD / place)):
            raise OSError(errno.EINVAL, f"a link leads from {str(place)[:100]!r} outside", str(journal))
    return places
