"""Numbers and names as they stand in a sentence."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import islice
from unicodedata import category

_SHOWN = 3  # names


def percent(share: float) -> str:
    """`6.6 %`, of a share; two digits below ten percent."""
    if math.isnan(share):
        return "undefined"
    if 0 < share < 1e-6:
        return "under 0.0001 %"
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.2g} %"


def size(nbytes: int) -> str:
    """`864 bytes`, `1.5 kB`, `24.0 GB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= factor:
            return f"{nbytes / factor:.1f} {unit}"
    return f"{nbytes} bytes"


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5940 else f"{seconds / 3600:.1f} h"


def few(words: Collection[str], shown: int = _SHOWN) -> str:
    """`a, b, c`, or `a, b, c and 5 more`."""
    more = f" and {len(words) - shown} more" if len(words) > shown else ""
    return ", ".join(islice(words, shown)) + more


def listed(names: Collection[str], shown: int = _SHOWN) -> str:
    """`'a', 'b', 'c' and 5 more`: names of tensors and files, as they are in code."""
    return few([repr(name) for name in names], shown)


def enumerated(words: Sequence[str], shown: int = _SHOWN) -> str:
    """`a, b and c`, or the first few and how many more there are."""
    if len(words) > shown:
        return few(words, shown)
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def shortened(text: str, most: int = 60) -> str:
    """A text as a message quotes it: its beginning, where it is long."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def printable(text: object, keep: str = "") -> str:
    """What others wrote, as it may stand in a terminal: what does not show is escaped, as in `\\x1b`, but for characters to `keep`."""
    told = str(text)
    return told if told.isprintable() else "".join(one if one in keep or _shows(one) else _escaped(one) for one in told)


def _shows(character: str) -> bool:
    return character.isprintable() or category(character) == "Zs"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
