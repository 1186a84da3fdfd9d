"""Values as people write them into one line: `0..1 step 0.1`, `0.2, 0.5`, `heart, moon`. What they are for is elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

from workbench.errors import InputError
from workbench.merge.declaration import near

_MOST = 10_000  # values of one range
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?"
_RANGE = re.compile(rf"({_NUMBER})\s*\.\.\s*({_NUMBER})(?:\s+step\s+({_NUMBER}))?")
NUMBERS = "0..1 step 0.1, or 0.2, 0.5"


def numbers(name: str, text: str, *, whole: bool = False) -> tuple[float, ...]:
    """`"0..1 step 0.5, 2"` as 0, 0.5, 1, 2: ends included, each once, as exact as they are written; whole ones as `int`.

    Raises InputError, which names the word that is no number, and `name`.
    """
    found: dict[Decimal, None] = {}
    for part in _parts(text):
        found |= dict.fromkeys(_range(name, part))
    if not found:
        raise InputError(f"{name}: has no values; write {NUMBERS}")
    if whole and (odd := next((one for one in found if one != int(one)), None)) is not None:
        raise InputError(f"{name}: {odd} is no whole number")
    return tuple(int(one) if whole else float(one) for one in found)


def names(name: str, text: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """`"heart, moon"`, each once. Raises InputError, which names the word that is none of those that are allowed."""
    found = tuple(dict.fromkeys(_parts(text)))
    if not found:
        raise InputError(f"{name}: has no values; write some of {', '.join(allowed)}")
    if wrong := next((one for one in found if one not in allowed), None):
        raise InputError(f"{name}: there is no {wrong!r}{near(wrong, allowed)}")
    return found


def several(name: str, text: str, allowed: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """`"heart + moon, heart"` as groups of names. Raises InputError as `names` does."""
    groups = dict.fromkeys(names(name, part.replace("+", ","), allowed) for part in _parts(text))
    if not groups:
        raise InputError(f"{name}: has no values; write groups of models, as in {' + '.join(allowed[:2])}, {allowed[0] if allowed else ''}")
    return tuple(groups)


def lines(name: str, text: str) -> tuple[str, ...]:
    """One value a line, each once. Raises InputError where there is none."""
    found = tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not found:
        raise InputError(f"{name}: has no values; write one on a line")
    return found


def _parts(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"[,;\n]", text) if part.strip()]


def _range(name: str, part: str) -> list[Decimal]:
    """The numbers that one part of a list stands for."""
    if re.fullmatch(_NUMBER, part):
        return [Decimal(part)]
    if not (ends := re.fullmatch(_RANGE, part)):
        raise InputError(f"{name}: {part!r} is no number and no range; write {NUMBERS}")
    if ends[3] is None:
        raise InputError(f"{name}: {part!r} has no step; write {ends[1]}..{ends[2]} step 0.1")
    first, last, step = Decimal(ends[1]), Decimal(ends[2]), abs(Decimal(ends[3]))
    if step == 0:
        raise InputError(f"{name}: {part!r} goes nowhere: a step is more than 0")
    count = int(abs(last - first) / step) + 1
    if count > _MOST:
        raise InputError(f"{name}: {part!r} has {count:,} values; at most {_MOST:,} are taken")
    return [first + number * step * (1 if last >= first else -1) for number in range(count)]
