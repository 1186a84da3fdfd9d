"""Lays labelled pictures out on one white sheet, with Pillow alone. What the pictures mean is in `grid`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

INK, FAINT, LINE, PAPER = "#1f2328", "#6e7781", "#d0d7de", "#ffffff"


@dataclass(frozen=True)
class Heading:
    """A label: what it says, and a fainter second line."""

    text: str
    detail: str = ""


@dataclass(frozen=True)
class Sheet:
    """Pictures in groups of rows and groups of columns, each group with a heading.

    `pictures[row][column]` counts through all groups; every row group holds `len(row_details)` rows and every column
    group `len(column_details)` columns, each with a small label of its own (`"seed 0"`; empty for none). `edge` is the
    width of a picture on the sheet in pixels, and sets the size of everything else.
    """

    pictures: Sequence[Sequence[Image]]
    rows: Sequence[Heading]
    columns: Sequence[Heading]
    row_details: Sequence[str]
    column_details: Sequence[str]
    caption: str
    edge: int

    def draw(self) -> Image:
        """The sheet as one RGB picture."""
        from PIL import Image, ImageDraw

        sheet = Image.new("RGB", (self._width, self._height), PAPER)
        pen = ImageDraw.Draw(sheet)
        self._draw_headings(pen)
        for line, pictures in zip(self._tops, self.pictures, strict=True):
            for left, picture in zip(self._lefts, pictures, strict=True):
                sheet.paste(_resized(picture, self._size), (left, line))
                right, bottom = left + self._size[0], line + self._size[1]
                pen.rectangle((left - 1, line - 1, right, bottom), outline=LINE)  # a white picture needs an edge
        pen.text((self._margin, self._height - self._margin), self.caption, FAINT, self._small, anchor="ls")
        return sheet

    def _draw_headings(self, pen: ImageDraw) -> None:
        width, height = self._size
        for group, heading in enumerate(self.columns):
            centre = (self._lefts[group * self._across] + self._lefts[(group + 1) * self._across - 1] + width) // 2
            top = self._head - (self._small_line if any(self.column_details) else 0)
            self._draw_heading(pen, heading, (centre, top), self._group_width, "bottom")
        for left, detail in zip(self._lefts, list(self.column_details) * len(self.columns), strict=True):
            pen.text((left + width // 2, self._head), detail, FAINT, self._small, anchor="md")
        for group, heading in enumerate(self.rows):
            first, last = self._tops[group * self._down], self._tops[(group + 1) * self._down - 1] + height
            self._draw_heading(pen, heading, (self._margin, (first + last) // 2), self._label_width, "middle")
        for top, detail in zip(self._tops, list(self.row_details) * len(self.rows), strict=True):
            pen.text((self._lefts[0] - self._gap, top + height // 2), detail, FAINT, self._small, anchor="rm")

    def _draw_heading(self, pen: ImageDraw, heading: Heading, at: tuple[int, int], width: int, anchor: str) -> None:
        """Wrapped lines: centred and ending at `at` (`bottom`), or left-aligned and centred on it (`middle`)."""
        lines = self._lines(heading, width)
        height = sum(step for *_, step in lines)
        x, top = at[0], at[1] - (height if anchor == "bottom" else height // 2)
        for text, font, colour, step in lines:
            pen.text((x, top + step // 2), text, colour, font, anchor="mm" if anchor == "bottom" else "lm")
            top += step

    def _lines(self, heading: Heading, width: int) -> list[tuple[str, FreeTypeFont, str, int]]:
        """Text, font, colour and height of each line of a heading."""
        lines = [(line, self._font, INK, self._line) for line in wrapped(heading.text, self._font, width)]
        details = wrapped(heading.detail, self._small, width)
        return lines + [(line, self._small, FAINT, self._small_line) for line in details]

    # ---- sizes, all in pixels and in proportion to a picture's edge

    @property
    def _across(self) -> int:
        return len(self.column_details)

    @property
    def _down(self) -> int:
        return len(self.row_details)

    @cached_property
    def _size(self) -> tuple[int, int]:
        width, height = self.pictures[0][0].size
        return self.edge, max(1, round(self.edge * height / width))

    @cached_property
    def _font(self) -> FreeTypeFont:
        return font(min(40, max(13, round(self.edge * 0.13))))

    @cached_property
    def _small(self) -> FreeTypeFont:
        return font(round(self._font.size * 0.78))

    @property
    def _line(self) -> int:
        return round(self._font.size * 1.25)

    @property
    def _small_line(self) -> int:
        return round(self._small.size * 1.4)

    @property
    def _gap(self) -> int:
        """Between pictures of one group; groups are three times as far apart."""
        return max(3, round(self.edge * 0.05))

    @property
    def _margin(self) -> int:
        return max(12, round(self.edge * 0.2))

    @property
    def _group_width(self) -> int:
        return self._across * self._size[0] + (self._across - 1) * self._gap

    @cached_property
    def _label_width(self) -> int:
        """As wide as the longest prompt, which is wrapped at one and a half pictures."""
        longest = max(self._font.getlength(heading.text) for heading in self.rows)
        return min(round(longest) + 1, max(round(1.5 * self.edge), 10 * round(self._font.size)))

    @cached_property
    def _lefts(self) -> list[int]:
        details = max(self._small.getlength(detail) for detail in self.row_details)
        start = self._margin + self._label_width + 2 * self._gap + (round(details) + 2 * self._gap if details else 0)
        return _spread(start, self._size[0], self._gap, len(self.columns), self._across)

    @cached_property
    def _tops(self) -> list[int]:
        return _spread(self._head + self._gap, self._size[1], self._gap, len(self.rows), self._down)

    @cached_property
    def _head(self) -> int:
        """The bottom of the column headings."""
        tallest = max(sum(step for *_, step in self._lines(heading, self._group_width)) for heading in self.columns)
        return self._margin + tallest + (self._small_line if any(self.column_details) else 0)

    @cached_property
    def _width(self) -> int:
        caption = round(self._small.getlength(self.caption))
        return max(self._lefts[-1] + self._size[0], self._margin + caption) + self._margin

    @cached_property
    def _height(self) -> int:
        return self._tops[-1] + self._size[1] + 3 * self._gap + self._small_line + self._margin


@cache
def font(size: int) -> FreeTypeFont:
    """Pillow's built-in font."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def wrapped(text: str, face: FreeTypeFont, width: int) -> list[str]:
    """`text` in lines of at most `width` pixels: broken at spaces, after `_-/`, or where a longer word must be."""
    lines = [""]
    for piece in re.findall(r"\s*[^\s_/-]*[_/-]*", text.strip()):
        if face.getlength(lines[-1] + piece) <= width:
            lines[-1] += piece
            continue
        lines.append("")
        for letter in piece.lstrip():
            if lines[-1] and face.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return [line for line in lines if line]


def _spread(start: int, size: int, gap: int, groups: int, members: int) -> list[int]:
    """Where each of `groups` x `members` pictures begins."""
    group = members * (size + gap) + 2 * gap
    return [start + index * group + member * (size + gap) for index in range(groups) for member in range(members)]


def _resized(picture: Image, size: tuple[int, int]) -> Image:
    """Whole multiples keep hard pixels, so that nothing is invented; other sizes are smoothed."""
    from PIL.Image import Resampling

    if picture.size == size:
        return picture
    whole = size[0] % picture.width == 0 and size[1] % picture.height == 0
    return picture.resize(size, Resampling.NEAREST if whole else Resampling.LANCZOS)
