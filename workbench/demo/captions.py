"""What the embedded models can be asked for: words, captions, and grids of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

BASE_SHAPES = ("circle", "square", "triangle", "star")
NEW_SHAPES = ("heart", "moon")
SHAPES = BASE_SHAPES + NEW_SHAPES
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
BACKGROUNDS = ("white", "black", "gray", "pink")
STYLES = ("outline", "stripes", "pastel")
PLAIN = "plain"


@dataclass(frozen=True)
class Subject:
    """One thing to draw: `Subject("star", "red", "black").caption` is "a red star on a black background"."""

    shape: str
    colour: str
    background: str
    style: str = PLAIN

    @property
    def caption(self) -> str:
        """The caption exactly as the models are trained on it; a style is a trigger word at the end."""
        article = "an" if self.colour[0] in "aeiou" else "a"
        plain = f"{article} {self.colour} {self.shape} on a {self.background} background"
        return plain if self.style == PLAIN else f"{plain}, {self.style}"


def subjects(shapes: Sequence[str] = BASE_SHAPES, styles: Sequence[str] = (PLAIN,)) -> list[Subject]:
    """Every combination of the shapes and styles with all colours and backgrounds, in a fixed order."""
    return [Subject(shape, colour, background, style) for style, shape, colour, background in product(styles, shapes, COLOURS, BACKGROUNDS)]
