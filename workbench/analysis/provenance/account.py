"""What a header says of how a file was made, whichever program wrote it: a graph of files and steps. Nothing of it is checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.checkpoint.files.catalogue import Mark

ROOT = ""  # the member that is the file itself
LONGEST = 16_000_000  # letters of metadata that are read; ComfyUI's largest graphs have a tenth
_VALUE, _TEXT = 60, 240  # letters of a value and of a description that are shown


@dataclass(frozen=True)
class Link:
    """Something that a member was made of: the member's key, what it was there for, and how much of it, as told."""

    to: str
    role: str = ""
    weight: str = ""


@dataclass(frozen=True)
class Member:
    """A file, or a step whose result was never a file: how it was made, and of what."""

    mark: Mark = field(default_factory=Mark)
    method: str = ""
    links: tuple[Link, ...] = ()
    is_file: bool = True


@dataclass(frozen=True)
class Account:
    """What one field of a header says: `source` is the program and the field. A link may lead in a circle, or nowhere."""

    source: str
    members: Mapping[str, Member]
    notes: tuple[str, ...] = ()

    @property
    def root(self) -> Member:
        """The file whose header it is."""
        return self.members.get(ROOT, Member())

    @property
    def telling(self) -> bool:
        """Whether it says anything of parents."""
        return bool(self.root.links)


def json_in(metadata: Mapping[str, str], key: str) -> Any:
    """What JSON a field holds; None where it holds none, or more than is read."""
    text = metadata.get(key, "")
    return parsed(text) if len(text) <= LONGEST else None


def parsed(given: Any) -> Any:
    """A value that may be JSON text itself; None for text that is none."""
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except (ValueError, RecursionError):
        return None


def mapping(given: Any) -> Mapping[str, Any]:
    """An object of JSON, or JSON text of one; empty where it is anything else."""
    found = parsed(given)
    return found if isinstance(found, dict) else {}


def described(values: Iterable[tuple[str, Any]]) -> str:
    """`multiplier=0.3, calcmode=normal`: settings as told, without those that are off or empty."""
    told = (f"{name}={_short(value)}" for name, value in values if value not in (None, False, "", [], {}))
    return cut(", ".join(told), _TEXT)


def cut(text: str, longest: int) -> str:
    """A text of another's, at most so long."""
    return text if len(text) <= longest else f"{text[: longest - 4]} ..."


def number(given: Any) -> float | None:
    """A number, if it is one."""
    return float(given) if isinstance(given, (int, float)) and not isinstance(given, bool) and abs(given) < 1e9 else None


def shown(value: float) -> str:
    """`0.7`, and not 0.30000000000000004."""
    return f"{value:.6g}"


def _short(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return cut(_flat(value), _VALUE)
    return shown(value) if isinstance(value, float) else cut(str(value) if not isinstance(value, int) else _digits(value), _VALUE)


def _flat(value: Any) -> str:
    try:
        return json.dumps(value, separators=(", ", ": "), ensure_ascii=False)
    except (ValueError, RecursionError):
        return "..."


def _digits(value: int) -> str:
    return str(value) if abs(value) < 10**18 else "a very large number"
