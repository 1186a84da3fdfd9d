"""What a difference looks like: in words for a terminal, as tables for a notebook. What differs is found elsewhere."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from workbench.analysis.wording import percent
from workbench.checkpoint.matching import listed

if TYPE_CHECKING:
    import pandas as pd

    from workbench.analysis.differences import Difference
    from workbench.analysis.headers import Said

_LONGEST, _WIDE = 60, 32  # letters of a value, and of one in a line of its own
_NUMBERS = ("tensors", "differing", "distance", "largest change", "elements changed")  # columns


def as_text(difference: Difference) -> str:
    """The tables below each other, in letters."""
    parts = [difference.headline]
    for title, table in _tables(difference):
        parts += [f"\n{title}", *(f"  {line}" for line in _aligned(table))]
    return "\n".join(parts)


def as_html(difference: Difference) -> str:
    """The tables below each other."""
    parts = [f"<p><b>{html.escape(difference.headline)}</b></p>"]
    for title, table in _tables(difference):
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
    columns = [[str(name), *map(str, table[name])] for name in table]
    widths = [max(map(len, column)) for column in columns]
    for line in zip(*columns, strict=True):
        cells = zip(table, line, widths, strict=True)
        yield "  ".join(cell.rjust(width) if name in _NUMBERS else cell.ljust(width) for name, cell, width in cells).rstrip()


def _tables(difference: Difference) -> Iterator[tuple[str, pd.DataFrame]]:
    """What there is to show, all in words."""
    import pandas as pd

    first, second = difference.names
    for title, found in (("Kind", difference.kinds), ("Recipe", difference.recipes), ("Metadata", difference.metadata)):
        if found:
            yield title, _said(found, first, second)
    if apart := list(_apart(difference)):
        yield "Tensors", pd.DataFrame(apart, columns=["what", "tensors", "which"])
    most = difference.most()
    if len(most):
        blocks = difference.blocks().reset_index()
        yield "By block", _in_words(blocks[["block", "tensors", "differing", "distance", "max_change", "changed"]])
        yield "Changed most", _in_words(most[["tensor", "block", "distance", "max_change", "changed"]])


def _apart(difference: Difference) -> Iterator[tuple[str, int, str]]:
    """Tensors that are not the same thing in both, by what is the matter."""
    first, second = difference.names
    for status, what in (("only in first", f"only in {first}"), ("only in second", f"only in {second}")):
        if keys := difference.keys(status):
            yield what, len(keys), listed(keys)
    groups: dict[str, list[str]] = {}
    for row in difference.rows:
        one, other = row.infos
        if row.status == "another shape":
            groups.setdefault(f"{list(one.shape)} and {list(other.shape)}", []).append(row.key)
        elif row.status == "not compared":
            groups.setdefault(row.note, []).append(row.key)
        if one and other and one.code != other.code:
            groups.setdefault(f"{one.dtype_name} and {other.dtype_name}", []).append(row.key)
        if row.change is not None and row.change.odd:
            groups.setdefault("NaN or infinity", []).append(row.key)
    for what, keys in groups.items():
        yield what, len(keys), listed(keys)


def _said(found: Sequence[Said], first: str, second: str) -> pd.DataFrame:
    import pandas as pd

    rows = [(said.what, _short(said.first), _short(said.second)) for said in found]
    return pd.DataFrame(rows, columns=["", first, second])


def _short(value: str | None) -> str:
    if value is None:
        return "-"
    return value if len(value) <= _LONGEST else f"{value[: _LONGEST - 4]} ..."


def _in_words(frame: pd.DataFrame) -> pd.DataFrame:
    """The numbers of a table as they are read."""
    styles = {"distance": percent, "max_change": "{:.3g}".format, "changed": percent}
    words = {column: [styles[column](value) for value in frame[column]] for column in styles}
    return frame.assign(**words).rename(columns={"max_change": "largest change", "changed": "elements changed"})
