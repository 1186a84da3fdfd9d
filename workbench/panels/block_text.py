"""Block weights as people share them: rows of 12 to 26 numbers, presets by name, curves; read and written. No widget is here.

The order and the meaning are those of SuperMerger (25 or 26 numbers for SD 1.x, 19 or 20 for SDXL; `time_embed` and `label_emb` go
with IN00, `out` with the last block) and of LoRA Block Weight (17 and 12: of the blocks that have attention; the others get 0).
Presets are those of Merge Block Weighted GUI's list (csv/preset.tsv), but for curves of which only pictures are published.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from workbench.errors import OptionError
from workbench.merge.declaration import near
from workbench.merge.schedules import Depth

DEFAULT: Final = "default"  # what BASE is in a mapping of block weights

_MODULES = {"time_embed": 0, "label_emb": 0, "out": -1}  # whose weight they get, of the blocks in order


def _blocks(inputs: Sequence[int], outputs: Sequence[int]) -> tuple[str, ...]:
    return (*(f"IN{i:02}" for i in inputs), "MID", *(f"OUT{i:02}" for i in outputs))


_SD1, _SDXL = _blocks(range(12), range(12)), _blocks(range(9), range(9))
_LORAS = {_SD1: _blocks((1, 2, 4, 5, 7, 8), range(3, 12)), _SDXL: _blocks((4, 5, 7, 8), range(6))}


def _between(*spans: tuple[int, int], value: float = 1.0) -> Callable[[int], float]:
    """One value from each first to each last block, else 0."""
    return lambda i: value * any(first <= i <= last for first, last in spans)


def _soft_ring(i: int) -> float:
    return 0.5 * (_between((5, 9), (15, 19))(i) + _between((6, 8), (16, 18))(i))


def _cosine(i: int) -> float:
    return (1 + math.cos(math.pi * i / 24)) / 2


def _wrapped(ends: int) -> Callable[[int], float]:
    return lambda i: float(i < ends or i >= 25 - ends)


def _smooth(i: int) -> float:
    return (i / 24) ** 2 * (3 - 2 * i / 24)


_NAMED: dict[str, Callable[[int], float]] = {  # of SD 1.x's 25 blocks
    "ALL_A": lambda i: 0.0,
    "ALL_B": lambda i: 1.0,
    "FLAT_25": lambda i: 0.25,
    "FLAT_75": lambda i: 0.75,
    "GRAD_A": lambda i: 1 - abs(i - 12) / 12,
    "GRAD_V": lambda i: abs(i - 12) / 12,
    "WRAP08": _wrapped(4),
    "WRAP12": _wrapped(6),
    "WRAP14": _wrapped(7),
    "WRAP16": _wrapped(8),
    "MID12_50": _between((5, 18), value=0.5),
    "OUT07": lambda i: float(i >= 18),
    "OUT12": lambda i: float(i >= 13),
    "OUT12_5": lambda i: 0.5 * ((i >= 12) + (i >= 13)),
    "RING08_SOFT": _soft_ring,
    "RING08_5": _between((6, 9), (15, 18)),
    "RING10_5": _between((5, 9), (15, 19)),
    "RING10_3": _between((6, 10), (14, 18)),
    "SMOOTHSTEP": _smooth,
    "REVERSE_SMOOTHSTEP": lambda i: 1 - _smooth(i),
    "COSINE": _cosine,
    "REVERSE_COSINE": lambda i: 1 - _cosine(i),
}


def read_weights(text: str, depth: Depth) -> dict[str, float]:
    """A weight for each block of a model, by name; for modules beside the blocks and for BASE (`default`) where the text has them.

    `text` is a row of numbers, `0..1..0` for a line through these values from the first block to the last, or a preset's name.
    Raises OptionError, which says how many numbers these blocks take.
    """
    words = [word for word in re.split(r"[,;\s]+", text.strip()) if word]
    if ".." in text:
        return _curve([_number(one) for one in text.split("..")], depth)
    if len(words) == 1 and words[0][0].isalpha():
        return _preset(words[0].upper().replace("-", "_"), depth)
    return _row([_number(word) for word in words], depth)


def presets_of(depth: Depth) -> list[str]:
    """The names of the presets that these blocks take: none but on SD 1.x's."""
    return list(_NAMED) if depth.names and _has_presets(depth) else []


def write_weights(weights: Mapping[str, float], depth: Depth) -> str:
    """A row of numbers with BASE first: 26 for SD 1.x, 20 for SDXL, one more than its blocks for any other model."""
    return ", ".join(f"{round(weights[name], 6):g}" for name in (DEFAULT, *depth.names))


def _row(numbers: Sequence[float], depth: Depth) -> dict[str, float]:
    for names, based in _forms(depth):
        if len(numbers) == len(names) + based:
            given = dict(zip([DEFAULT, *names] if based else names, numbers, strict=True))
            attention = names in _LORAS.values()
            modules = {} if names not in _LORAS else {name: numbers[based:][at] for name, at in _MODULES.items() if name in depth.modules}
            blocks = {name: given.get(name, 0.0) if attention else given[name] for name in depth.names}
            return blocks | modules | ({DEFAULT: given[DEFAULT]} if based else {})
    counts = " or ".join(dict.fromkeys(str(len(names) + based) for names, based in _forms(depth)))
    raise OptionError(f"{len(numbers)} numbers are no weights of these {len(depth.names)} blocks, which take {counts}")


def _forms(depth: Depth) -> list[tuple[tuple[str, ...], bool]]:
    """The rows that a model takes: whose numbers they are in order, and whether BASE comes first."""
    names = tuple(depth.names)
    known = _SDXL if names == _SDXL or "label_emb" in depth.modules else _SD1
    shared = [(known, True), (known, False), (_LORAS[known], True)] if names and set(names) <= set(known) else []
    return [*shared, (names, True), (names, False)]


def _curve(points: Sequence[float], depth: Depth) -> dict[str, float]:
    last = max(len(depth.names) - 1, 1)

    def at(i: int) -> float:
        place = i / last * (len(points) - 1)
        left = min(int(place), len(points) - 2)
        return points[left] + (points[left + 1] - points[left]) * (place - left)

    return {name: at(i) for i, name in enumerate(depth.names)}


def _preset(name: str, depth: Depth) -> dict[str, float]:
    if name not in _NAMED:
        raise OptionError(f"there is no preset {name!r}{near(name, list(_NAMED))}")
    if not _has_presets(depth):
        raise OptionError(f"{name} is a preset of the 25 blocks of SD 1.x, and these are others: {', '.join(depth.names)}")
    return _row([_NAMED[name](i) for i in range(25)], depth)


def _has_presets(depth: Depth) -> bool:
    return set(depth.names) <= set(_SD1) and "label_emb" not in depth.modules


def read_number(text: str) -> float:
    """A number as people type it, with a point or a comma. Raises OptionError for what is none."""
    return _number(text.replace(",", ".", 1))


def _number(word: str) -> float:
    try:
        found = float(word)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise OptionError(f"{word.strip()!r} is no number; write numbers with commas between, 0..1..0 for a curve, or a preset's name")
    return found
