"""`Ticks`: pictures that are held as they were when they were ticked, whatever is drawn since. No widget is here."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, final

from workbench.checkpoint import Checkpoint
from workbench.errors import InputError
from workbench.panels.shelf import RESULT
from workbench.render.request import Request

if TYPE_CHECKING:
    from PIL.Image import Image


@final
@dataclass(frozen=True)
class Shown:
    """A picture that is shown: the `number`-th, from 0, of what a model drew; `change` is what led to the state it belongs to."""

    name: str
    number: int
    image: Image
    model: Checkpoint
    request: Request
    change: str

    @property
    def prompt(self) -> str:
        return self.request.pictures[self.number][0]

    @property
    def seed(self) -> int:
        return self.request.pictures[self.number][1]

    @property
    def label(self) -> str:
        """What tells it apart in one line; of a result also what it came of."""
        return " · ".join([self.name, *([self.change] if self.name == RESULT and self.change else []), f"seed {self.seed}"])

    @property
    def title(self) -> str:
        """All that is known of it, line by line."""
        return f"{self.label}\n{self.prompt}\n{self.image.width} x {self.image.height} pixels"


@final
class Ticks:
    """Ticked pictures by number, in order. The same picture is ticked once."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self.held: dict[int, Shown] = {}

    def number_of(self, shown: Shown) -> int | None:
        """The number under which this very picture is held."""
        return next((number for number, one in self.held.items() if one.image is shown.image), None)

    def toggle(self, shown: Shown) -> None:
        """Hold a picture, or let it go if it is held."""
        number = self.number_of(shown)
        if number is None:
            self.held[next(self._numbers)] = shown
        else:
            del self.held[number]

    def untick(self, number: int) -> None:
        """Let go of one. Raises InputError where there is none of this number."""
        if self.held.pop(number, None) is None:
            raise InputError(f"no picture is ticked under {number}; there are: {', '.join(map(str, self.held)) or 'none'}")

    def named(self, exactly: int | None = None) -> dict[str, Image]:
        """The ticked pictures by labels that differ. Raises InputError unless there are two or more, or `exactly` so many."""
        if len(self.held) != exactly if exactly else len(self.held) < 2:
            raise InputError(f"tick {exactly or 'two or more'} pictures first; {len(self.held)} are ticked")
        labels = [one.label for one in self.held.values()]
        unique = [label if labels.count(label) == 1 else f"{label} ({place})" for place, label in enumerate(labels, 1)]
        return dict(zip(unique, (one.image for one in self.held.values()), strict=True))
