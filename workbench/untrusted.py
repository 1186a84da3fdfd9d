"""Files and texts that others wrote, read within bounds: regular files only, JSON and YAML of so many nodes and levels. No pickles."""

from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import dataclass
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any

import yaml

MOST_BYTES = 1 << 20  # of a recipe, or another file that a person might have written
MOST_LEVELS = 100  # of lists and mappings in each other
MOST_NODES = 100_000  # of YAML, where each alias counts as much as what it stands for
MOST_MARKS = 1_000_000  # of JSON: commas and brackets, and so values

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times as fast, and not everywhere
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Refused(ValueError):
    """A text that is damaged, or too large or too deep to be read; its message is one line, without the file's name."""


def open_regular(path: Path) -> FileIO:
    """The file, opened to be read. Raises OSError, whose `strerror` says why, for whatever is no regular file; nothing is waited for."""
    try:
        found = stat.S_IFMT(path.stat().st_mode)
        if found not in (stat.S_IFREG, stat.S_IFDIR):  # a folder says so itself
            raise OSError(errno.EINVAL, f"it is {_KINDS.get(found, 'something else')}, and only regular files are opened")
        return path.open("rb", buffering=0)
    except ValueError as error:  # a NUL, or half a character
        raise OSError(errno.EINVAL, f"its name cannot be one of a file ({error})") from error


def read_bounded(path: Path, most: int = MOST_BYTES) -> bytes:
    """What a regular file of at most so many bytes holds. Raises OSError, whose `strerror` says why."""
    with BufferedReader(open_regular(path)) as file:
        found = file.read(most + 1)
    if len(found) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes, which is too much for a file of its kind")
    return found


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with `~` as the person's folder. Raises OSError, whose `strerror` says why."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # there is no such person
        raise OSError(errno.ENOENT, f"{error}; write ./~ for a file whose name begins so") from error


def parse_json(text: bytes | str, *, levels: int | None = None, **settings: Any) -> Any:
    """The value that a JSON text spells; `settings` are those of `json.loads`. Raises Refused."""
    try:
        spelled = text.decode() if isinstance(text, bytes) else text
        if (marks := sum(map(spelled.count, ",[{"))) > MOST_MARKS:
            raise Refused(f"it has {marks:,} commas and brackets, at most {MOST_MARKS:,} are read")
        found = json.loads(spelled, **settings)
    except RecursionError:
        raise Refused("it is nested too deep") from None
    except Refused:
        raise
    except ValueError as error:  # a number of thousands of digits, too
        raise Refused(_line(error)) from error
    if levels is not None and _deeper(found, levels):
        raise Refused(f"it is nested more than {levels} levels deep")
    return found


def parse_yaml(text: bytes | str) -> Any:
    """The value that a YAML text spells. Raises Refused, before anything is built, for what is too large or too deep."""
    try:
        spelled = text.decode() if isinstance(text, bytes) else text
        if len(spelled) > MOST_BYTES:
            raise Refused(f"it has more than {MOST_BYTES:,} characters")
        _check_yaml(spelled)
        return yaml.load(spelled, Loader=_Loader)
    except Refused:
        raise
    except Exception as error:  # what makes numbers and dates of text raises whatever comes
        raise Refused(_line(error)) from error


@dataclass
class _Open:
    """A list or mapping that is being read: the name it can be called by again, the nodes before it, the levels in it."""

    anchor: str | None
    before: int
    levels: int = 0


def _check_yaml(text: str) -> None:
    """Raise Refused for more nodes or levels than are read, aliases followed."""
    known: dict[str, tuple[int, int]] = {}  # anchor -> its nodes and levels
    within: list[_Open] = [_Open(None, 0)]
    nodes = 0
    for event in yaml.parse(text, Loader=_Loader):
        levels = 0
        if isinstance(event, yaml.CollectionStartEvent):
            within.append(_Open(event.anchor, nodes))
            nodes += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            done = within.pop()
            levels = done.levels + 1
            _name(known, done.anchor, nodes - done.before, levels)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in known:
                held = any(one.anchor == event.anchor for one in within)
                raise Refused(f"*{event.anchor} {'stands within itself' if held else 'names nothing'}{_place(event)}")
            more, levels = known[event.anchor]
            nodes += more
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            _name(known, event.anchor, 1, 0)
        within[-1].levels = max(within[-1].levels, levels)
        if len(within) - 1 + levels > MOST_LEVELS:
            raise Refused(f"it is nested more than {MOST_LEVELS} levels deep{_place(event)}")
        if nodes > MOST_NODES:
            raise Refused(f"it has more than {MOST_NODES:,} values, those that aliases stand for counted{_place(event)}")


def _name(known: dict[str, tuple[int, int]], anchor: str | None, nodes: int, levels: int) -> None:
    if anchor is not None:
        known[anchor] = nodes, levels


def _place(event: Any) -> str:
    return f" (line {event.start_mark.line + 1})"


def _deeper(found: Any, levels: int) -> bool:
    """Whether a value of JSON has more levels than so many."""
    row = [found]
    for _ in range(levels):
        row = [one for it in row if isinstance(it, (list, dict)) for one in (it.values() if isinstance(it, dict) else it)]
    return any(isinstance(it, (list, dict)) for it in row)


def _line(error: Exception) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split())[:500] or type(error).__name__
