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
_MOST_LINES = 4  # of a note


@dataclass(frozen=True)
class Heading:
    """A label: what it says, and a fainter second line."""

    text: str
    detail: str = ""


@dataclass(frozen=True)
class Sheet:
    """Pictures in groups of rows and groups of columns, each group with a heading.

    `pictures[row][column]` counts through all groups and is the number of a picture in `images`, or None for an empty place;
    `images` are read when they are drawn, and one that is None is drawn as missing. Every row group holds `len(row_details)`
    rows and every column group `len(column_details)` columns, each with a small label of its own (`"seed 0"`; empty for none).
    `notes[row group][column group]` stands below the pictures of both. `edge` is the width of a picture on the sheet in pixels,
    and sets the size of everything else.
    """

    images: Sequence[Image | None]
    pictures: Sequence[Sequence[int | None]]
    shape: tuple[int, int]
    rows: Sequence[Heading]
    columns: Sequence[Heading]
    row_details: Sequence[str]
    column_details: Sequence[str]
    notes: Sequence[Sequence[str]]
    edge: int
    title: str = ""
    caption: str = ""

    def draw(self) -> Image:
        """The sheet as one RGB picture."""
        from PIL import Image, ImageDraw

        sheet = Image.new("RGB", (self._width, self._height), PAPER)
        pen = ImageDraw.Draw(sheet)
        pen.text((self._margin, self._margin), self.title, INK, self._font, anchor="la")
        self._draw_headings(pen)
        for top, pictures in zip(self._tops, self.pictures, strict=True):
            for left, picture in zip(self._lefts, pictures, strict=True):
                if picture is not None:
                    self._draw_picture(sheet, pen, self.images[picture], (left, top))
        self._draw_notes(pen)
        for line, text in enumerate(reversed(self._caption_lines)):
            pen.text((self._margin, self._height - self._margin - line * self._small_line), text, FAINT, self._small, anchor="ls")
        return sheet

    @property
    def across(self) -> int:
        """How many columns a group has."""
        return len(self.column_details)

    @property
    def down(self) -> int:
        """How many rows a group has."""
        return len(self.row_details)

    def group(self, row: int, column: int) -> list[int | None]:
        """The pictures of a row group and a column group, row by row."""
        rows = self.pictures[row * self.down : (row + 1) * self.down]
        return [picture for line in rows for picture in line[column * self.across : (column + 1) * self.across]]

    def _draw_picture(self, sheet: Image, pen: ImageDraw, picture: Image | None, at: tuple[int, int]) -> None:
        (left, top), (width, height) = at, self._size
        if picture is not None:
            sheet.paste(_resized(picture, self._size), at)
        pen.rectangle((left - 1, top - 1, left + width, top + height), outline=LINE)  # a white picture needs an edge
        if picture is None:
            pen.line((left, top, left + width, top + height), LINE)
            pen.line((left, top + height, left + width, top), LINE)

    def _draw_notes(self, pen: ImageDraw) -> None:
        for row, notes in enumerate(self.notes):
            below = self._tops[(row + 1) * self.down - 1] + self._size[1] + self._small_line // 4
            for column, note in enumerate(notes):
                for line, text in enumerate(self._note_lines(note)):
                    at = (self._centre(column), below + line * self._small_line + self._small_line // 2)
                    pen.text(at, text, FAINT, self._small, anchor="mm")

    def _draw_headings(self, pen: ImageDraw) -> None:
        width, height = self._size
        for group, heading in enumerate(self.columns):
            top = self._head - (self._small_line if any(self.column_details) else 0)
            self._draw_heading(pen, heading, (self._centre(group), top), self._group_width, "bottom")
        for left, detail in zip(self._lefts, list(self.column_details) * len(self.columns), strict=True):
            pen.text((left + width // 2, self._head), detail, FAINT, self._small, anchor="md")
        for group, heading in enumerate(self.rows):
            first, last = self._tops[group * self.down], self._tops[(group + 1) * self.down - 1] + height
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

    def _note_lines(self, note: str) -> list[str]:
        lines = wrapped(note, self._small, self._group_width)
        return lines if len(lines) <= _MOST_LINES else [*lines[: _MOST_LINES - 1], "…"]

    # ---- sizes, all in pixels and in proportion to a picture's edge

    @property
    def _size(self) -> tuple[int, int]:
        width, height = self.shape
        return self.edge, max(1, round(self.edge * height / width))

    @cached_property
    def _font(self) -> FreeTypeFont:
        return font(min(40, max(13, round(self.edge * 0.13))))

    @cached_property
    def _small(self) -> FreeTypeFont:
        return font(max(11, round(self._font.size * 0.78)))

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
    def _pictures_width(self) -> int:
        return self.across * self._size[0] + (self.across - 1) * self._inner_gap

    @cached_property
    def _inner_gap(self) -> int:
        """Between the columns of one group, whose labels must not touch."""
        longest = max(self._small.getlength(detail) for detail in self.column_details)
        return max(self._gap, round(longest) + 6 - self.edge)

    @cached_property
    def _group_width(self) -> int:
        """Of a group's pictures, or what the longest word above or below small ones takes."""
        texts = [(heading.text, self._font) for heading in self.columns] + [(note, self._small) for notes in self.notes for note in notes]
        longest = max((face.getlength(word) for text, face in texts for word in _pieces(text)), default=0)
        return max(self._pictures_width, min(round(longest) + 1, 6 * round(self._font.size)))

    def _centre(self, group: int) -> int:
        return self._lefts[group * self.across] + self._pictures_width // 2

    @cached_property
    def _label_width(self) -> int:
        """As wide as the longest prompt, which is wrapped at one and a half pictures."""
        longest = max(self._font.getlength(heading.text) for heading in self.rows)
        return min(round(longest) + 1, max(round(1.5 * self.edge), 10 * round(self._font.size)))

    @cached_property
    def _lefts(self) -> list[int]:
        details = max(self._small.getlength(detail) for detail in self.row_details)
        start = self._margin + self._label_width + 2 * self._gap + (round(details) + 2 * self._gap if details else 0)
        spare = self._group_width - self._pictures_width
        return _spread(start + spare // 2, self._size[0], self._inner_gap, len(self.columns), self.across, spare + 2 * self._gap)

    @cached_property
    def _tops(self) -> list[int]:
        return _spread(self._head + self._gap, self._size[1], self._gap, len(self.rows), self.down, self._below + 2 * self._gap)

    @cached_property
    def _below(self) -> int:
        """Room for the notes under a group of rows."""
        most = max((len(self._note_lines(note)) for notes in self.notes for note in notes), default=0)
        return self._small_line * most + (self._small_line // 2 if most else 0)

    @cached_property
    def _head(self) -> int:
        """The bottom of the column headings."""
        tallest = max(sum(step for *_, step in self._lines(heading, self._group_width)) for heading in self.columns)
        title = 2 * self._line if self.title else 0
        return self._margin + title + tallest + (self._small_line if any(self.column_details) else 0)

    @cached_property
    def _width(self) -> int:
        right = self._lefts[-1] + self._size[0] + (self._group_width - self._pictures_width + 1) // 2
        return max(right, round(self._margin + self._font.getlength(self.title))) + self._margin

    @cached_property
    def _caption_lines(self) -> list[str]:
        return wrapped(self.caption, self._small, self._width - 2 * self._margin)

    @cached_property
    def _height(self) -> int:
        caption = 3 * self._gap + len(self._caption_lines) * self._small_line if self._caption_lines else 0
        return self._tops[-1] + self._size[1] + self._below + caption + self._margin


@cache
def font(size: int) -> FreeTypeFont:
    """Pillow's built-in font."""
    from PIL import ImageFont

    return ImageFont.load_default(size)  # type: ignore[return-value]  # as Pillow's wheels are built


def wrapped(text: str, face: FreeTypeFont, width: int) -> list[str]:
    """`text` in lines of at most `width` pixels: broken at spaces, after `_-/`, or where a longer word must be."""
    lines = [""]
    for piece in _pieces(text):
        if face.getlength(lines[-1] + piece) <= width:
            lines[-1] += piece
            continue
        lines.append("")
        for letter in piece.lstrip():
            if lines[-1] and face.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return [line.replace("\xa0", " ").removesuffix(" ·") for line in lines if line]


def stacked(sheets: Sequence[Image]) -> Image:
    """Sheets below one another on one."""
    from PIL import Image

    whole = Image.new("RGB", (max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets)), PAPER)
    top = 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    return whole


def _pieces(text: str) -> list[str]:
    """Where a line may break: words with the spaces before them (hard spaces do not break), and parts of words that end in `_-/`."""
    return re.findall(r"[^\S\xa0]*(?:[^\s_/-]|\xa0)*[_/-]*", text.strip())


def _spread(start: int, size: int, gap: int, groups: int, members: int, spare: int) -> list[int]:
    """Where each of `groups` x `members` pictures begins, with `spare` more between groups."""
    group = members * (size + gap) + spare
    return [start + index * group + member * (size + gap) for index in range(groups) for member in range(members)]


def _resized(picture: Image, size: tuple[int, int]) -> Image:
    """Whole multiples keep hard pixels, so that nothing is invented; other sizes are smoothed."""
    from PIL.Image import Resampling

    if picture.size == size:
        return picture
    whole = size[0] % picture.width == 0 and size[1] % picture.height == 0
    return picture.resize(size, Resampling.NEAREST if whole else Resampling.LANCZOS)
