"""What the readers of other programs' recipes share: the models these name, values that differ by block, refusals. No format is here."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, NoReturn, final

from workbench.checkpoint.files.catalogue import SUFFIXES
from workbench.errors import RecipeError
from workbench.merge.call import unique
from workbench.merge.declaration import near

Value = Any  # a number, or {"blocks": {...}} or {"ramp": {...}} of numbers
_ENDS = ("start", "end", "elsewhere")
DIGITS = 12  # of a weight that is calculated: 1 - 0.1 - 0.2 is 0.7


@dataclass(frozen=True)
class Translation:
    """Another program's recipe as plain data of ours, with notes on what was left out or differs."""

    data: dict[str, Any]
    notes: tuple[str, ...]


@final
class Draft:
    """A recipe of ours in the making: models by unique names, notes, and refusals that name the program."""

    def __init__(self, program: str) -> None:
        self.program = program
        self._models: dict[str, dict[str, str]] = {}
        self._notes: list[str] = []

    def model(self, path: str, sha256: str | None = None, name: str | None = None) -> str:
        """The name under which a file is in the recipe; one file has one."""
        asked = {"path": path} | ({"sha256": sha256} if sha256 else {})
        known = next((known for known, model in self._models.items() if model == asked), None)
        known = known or unique(name or stem(path), self._models)
        self._models[known] = asked
        return known

    def note(self, text: str) -> None:
        """Something to tell, once."""
        if (told := f"{self.program}: {text}") not in self._notes:
            self._notes.append(told)

    def refuse(self, what: str, instead: str) -> NoReturn:
        """Raise RecipeError: what has no counterpart, and what to do."""
        raise RecipeError(f"{self.program}: {what}; {instead}")

    def only(self, given: Mapping[str, Any], allowed: Collection[str], where: str = "the recipe") -> None:
        """Raise RecipeError for a key that is not known: what it means might decide the result."""
        for key in given:
            if key not in allowed:
                self.refuse(f"{where} has the key {key!r}{near(str(key), list(allowed))}", "mend it, or leave it out if it decides nothing")

    def number(self, given: Any, key: str) -> float:
        """A finite number, as a number or as text of one."""
        try:
            found = math.nan if isinstance(given, bool) else float(given)
        except (TypeError, ValueError, OverflowError):
            found = math.nan
        if not math.isfinite(found):
            self.refuse(f"{key} must be a number, got {_shown(given)}", "write the number that was meant")
        return given if isinstance(given, (int, float)) else found

    def flag(self, given: Any, key: str) -> bool:
        """true or false, nothing else."""
        if not isinstance(given, bool):
            self.refuse(f"{key} must be true or false, got {given!r}", "write what was meant")
        return given

    def finish(self, merge: dict[str, Any], dtype: str | None = None) -> Translation:
        """The whole recipe."""
        data: dict[str, Any] = {"models": self._models, "merge": merge}
        return Translation(data | ({"output": {"dtype": dtype}} if dtype else {}), tuple(self._notes))


def node(operator: str, inputs: Mapping[str, Any], rules: Sequence[Mapping[str, Any]] = (), **options: Any) -> dict[str, Any]:
    """One operator of a recipe as plain data."""
    made: dict[str, Any] = {"operator": operator, "inputs": dict(inputs)}
    made |= {"options": options} if options else {}
    return made | ({"rules": [dict(rule) for rule in rules]} if rules else {})


def stem(path: str) -> str:
    """A file's or repository's name without its suffix, whatever machine wrote the path."""
    name = PureWindowsPath(path).name if "\\" in path else PurePosixPath(path).name
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")
    return name.partition("@")[0].removesuffix(suffix) if not suffix else name[: -len(suffix)] or name


def unet_blocks(count: int) -> list[str]:
    """The blocks of a U-Net of Stable Diffusion in order: 25 of SD 1.x and 2.x, 19 of SDXL."""
    side = (count - 1) // 2
    return [*(f"IN{at:02}" for at in range(side)), "MID", *(f"OUT{at:02}" for at in range(side))]


def by_block(values: Mapping[str, float], default: float) -> Value:
    """A value for each block that is named; those that have the default anyhow are not written."""
    differing = {pattern: value for pattern, value in values.items() if value != default}
    return {"blocks": {**differing, "default": default}} if differing else default


def together(change: Callable[..., Any], *values: Value) -> Value:
    """What `change` makes of several values, place by place. Raises ValueError for a ramp beside a mapping of blocks."""
    ramps = [value["ramp"] for value in values if isinstance(value, dict) and "ramp" in value]
    mappings = [value["blocks"] for value in values if isinstance(value, dict) and "blocks" in value]
    if ramps and mappings:
        raise ValueError("a ramp over the blocks and values by block cannot be combined")
    if not ramps and not mappings:
        return _tidy(change(*values))

    def at(value: Value, place: str) -> Any:
        if not isinstance(value, dict):
            return value
        inside = value["ramp"] if "ramp" in value else value["blocks"]
        return inside.get(place, inside.get("default"))

    places = _ENDS if ramps else [*dict.fromkeys(name for one in mappings for name in one if name != "default"), "default"]
    made = {place: _tidy(change(*(at(value, place) for value in values))) for place in places}
    return {"ramp": made} if ramps else {"blocks": made}


def _tidy(found: Any) -> Any:
    return [_tidy(one) for one in found] if isinstance(found, list) else round(found, DIGITS)


def _shown(given: Any) -> str:
    """What stands in the place of a number; there are integers too long to be shown."""
    return "one that is too large" if isinstance(given, int) and not isinstance(given, bool) else repr(given)
