"""What tables about two checkpoints look like: below each other in letters for a terminal, as HTML for a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from workbench.wording import printable

if TYPE_CHECKING:
    import pandas as pd

_WIDE = 32  # letters of a value in a line of its own
_NUMBERS = ("tensors", "differing", "distance", "largest change", "elements changed")  # columns


def as_text(headline: str, tables: Mapping[str, pd.DataFrame]) -> str:
    """The tables below each other under their titles, in letters."""
    parts = [printable(headline)]
    for title, table in tables.items():
        parts += [f"\n{printable(title)}", *(f"  {line}" for line in _aligned(table))]
    return "\n".join(parts)


def as_html(headline: str, tables: Mapping[str, pd.DataFrame]) -> str:
    """The tables below each other under their titles."""
    parts = [f"<p><b>{html.escape(headline)}</b></p>"]
    for title, table in tables.items():
        rows = "".join(f"<tr>{_cells(table, row, 'td')}</tr>" for row in table.itertuples(index=False))
        head = f"<tr>{_cells(table, table.columns, 'th')}</tr>"
        parts.append(
            f"<p style='margin: 1em 0 0'>{html.escape(title)}</p><table style='border-spacing: 0; font-size: 13px'>{head}{rows}</table>"
        )
    return f"<div style='font-size: 13px'>{''.join(parts)}</div>"


def _cells(table: pd.DataFrame, values: Iterable[object], tag: str) -> str:
    """A row of a table: numbers to the right, words to the left, long ones in several lines."""
    told = []
    for name, value in zip(table, map(str, values), strict=True):
        wrap = "overflow-wrap: anywhere" if len(value) > _WIDE else "white-space: nowrap"
        side = "right" if name in _NUMBERS else "left"
        told.append(f"<{tag} style='text-align: {side}; {wrap}; padding: 1px 12px 1px 0'>{html.escape(value)}</{tag}>")
    return "".join(told)


def _aligned(table: pd.DataFrame) -> Iterator[str]:
    """The lines of a table: numbers to the right, words to the left."""
    columns = [[*map(printable, (name, *table[name]))] for name in table]
    widths = [max(map(len, column)) for column in columns]
    for line in zip(*columns, strict=True):
        cells = zip(table, line, widths, strict=True)
        yield "  ".join(cell.rjust(width) if name in _NUMBERS else cell.ljust(width) for name, cell, width in cells).rstrip()
