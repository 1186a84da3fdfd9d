"""Prompts as people write them: `{a|b}` stands for either, and a text file is a list of them. No widget is here."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import product
from math import prod
from pathlib import Path

from workbench.errors import InputError, RenderError
from workbench.wording import shortened

MOST_BYTES = 1 << 20  # of a file of prompts
_MOST = 10_000  # prompts, with all alternatives
_TOKEN = re.compile(r"\\[{}|]|[{}|]|[^\\{}|]+|\\")


def expanded(prompts: Sequence[str]) -> tuple[str, ...]:
    r"""Each prompt once for every combination of its alternatives: `a {red|blue} star` is two. `\{` and `\}` are braces.

    Raises RenderError for a brace without its partner, for braces within braces, and for more than 10,000 prompts.
    """
    parsed = [_alternatives(prompt) for prompt in prompts]
    if (found := sum(map(_combinations, parsed))) > _MOST:
        raise RenderError(f"the prompts have {found:,} combinations; at most {_MOST:,} are drawn: take some alternatives out")
    return tuple("".join(chosen) for parts in parsed for chosen in product(*parts))


def count(prompts: Sequence[str]) -> int:
    """How many prompts these are with all their alternatives; none is made. Raises RenderError for braces that cannot be read."""
    return sum(_combinations(_alternatives(prompt)) for prompt in prompts)


def literal(prompt: str) -> str:
    """A prompt as it has to be written so that it stands for itself, whatever is in it."""
    return re.sub(r"[{}]", r"\\\g<0>", prompt)


def prompts_in(file: str | os.PathLike[str]) -> tuple[str, ...]:
    """The prompts in a text file, one on a line; what begins with # is a comment. Raises InputError for what is no such file."""
    path = Path(file).expanduser()
    try:
        with path.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return prompts_of(content, path.name)


def prompts_of(content: bytes, name: str) -> tuple[str, ...]:
    """The prompts in what a text file of this `name` holds. Raises InputError for what is none."""
    if len(content) > MOST_BYTES:
        raise InputError(f"{name}: has more than {MOST_BYTES:,} bytes, which is no list of prompts")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: is no text in UTF-8; a list of prompts has one on each line") from error
    if "\0" in text:
        raise InputError(f"{name}: is no text; a list of prompts has one on each line")
    found = tuple(line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    if not found:
        raise InputError(f"{name}: has no prompts; write one on each line, and # before comments")
    return found


def _alternatives(prompt: str) -> list[list[str]]:
    """The parts of a prompt in order, each with what may stand there."""
    parts, inside = [[""]], False
    for token in _TOKEN.findall(prompt):
        if token == "{" and not inside:
            parts, inside = [*parts, [""]], True
        elif token == "}" and inside:
            parts, inside = [*parts, [""]], False
        elif token in ("{", "}"):
            told = "alternatives within alternatives cannot be read" if inside else "has a } without its {"
            raise RenderError(_fault(prompt, told))
        elif token == "|" and inside:
            parts[-1].append("")
        else:
            plain = token[1:] if token in (r"\{", r"\}") or (token == r"\|" and inside) else token
            parts[-1][-1] += plain
    if inside:
        raise RenderError(_fault(prompt, "has a { without its }"))
    return parts


def _combinations(parts: Sequence[Sequence[str]]) -> int:
    return prod(map(len, parts))


def _fault(prompt: str, told: str) -> str:
    return rf"prompt {shortened(prompt)!r}: {told}; write {{red|blue}} for either, and \{{ or \}} for a brace itself"
