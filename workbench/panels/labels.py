"""Names of models as short as they can be told apart by. No widget is here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from typing import Final

_CUT = "…"
MENU: Final = 40  # letters of a name in a menu


def labels(names: Sequence[str], most: int = 24) -> dict[str, str]:
    """A label for each name, different for different names: without the words that all begin with, and cut in the middle to `most`."""
    begins = "".join(letters[0] for letters in takewhile(lambda one: len(set(one)) == 1, zip(*names, strict=False)))
    dropped = max((begins.rfind(one) + 1 for one in "_-. "), default=0) if len(names) > 1 else 0
    if dropped < 2 or any(len(name) == dropped for name in names):
        dropped = 0
    short = {name: _cut((_CUT if dropped else "") + name[dropped:], most) for name in names}
    shared = {label for label, count in Counter(short.values()).items() if count > 1}
    return {name: name if label in shared else label for name, label in short.items()}


def _cut(name: str, most: int) -> str:
    if len(name) <= most:
        return name
    ends = most - len(_CUT)
    return name[: ends - ends // 2] + _CUT + name[len(name) - ends // 2 :]
