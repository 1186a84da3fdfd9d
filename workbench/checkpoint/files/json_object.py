"""Parses the JSON that checkpoints carry: one object, every name once, all of it text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from workbench.errors import CheckpointError
from workbench.untrusted import MOST_LEVELS, parse_json, read_bounded

_MOST = 1 << 24  # bytes: the index of a model of a hundred thousand tensors


def parse_object(path: Path, what: str, text: bytes) -> dict[str, Any]:
    """The object that `text` spells. Raises CheckpointError, which says of `what` in `path` why it is none."""
    try:
        found = parse_json(text, levels=MOST_LEVELS, object_pairs_hook=_unique)
        if b"\\u" in text:
            json.dumps(found, ensure_ascii=False).encode()  # half a character, escaped, could not be written again
    except ValueError as error:
        raise CheckpointError(f"{path}: {what} is not JSON ({error}); the file is damaged, fetch it again") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: {what} is a JSON {type(found).__name__}, not an object; the file is damaged, fetch it again")
    return found


def read_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds. Raises CheckpointError."""
    try:
        text = read_bounded(path, _MOST)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_object(path, "the file", text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} occurs twice")
    return found
