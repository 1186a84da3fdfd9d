"""`Lineage`: a family tree as a frame, a figure, and lines. What others wrote into headers is bounded and escaped where it is shown."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.analysis.provenance.account import cut
from workbench.figures.results import Result
from workbench.wording import percent

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_NAME, _HASH, _DRAWN = 90, 10, 120  # letters of a name, digits of a hash; rows of a figure


class Basis(Enum):
    """What a row of the tree rests on."""

    FILE = "the file itself"
    HASH = "found by hash"
    NAME = "found by name only"
    MEASURED = "measured"
    TOLD = "told, not found"
    STEP = "a step, no file"


@dataclass(frozen=True)
class Ancestor:
    """A file or step in the tree, below the row `parent`: what it was there for and how much, how it was made itself, and who says so."""

    name: str
    depth: int = 0
    parent: int | None = None
    role: str = ""
    weight: str = ""
    method: str = ""
    source: Basis = Basis.TOLD
    told_by: str = ""  # who tells of its parents
    hash: str = ""
    file: Path | None = None
    found_by: str = ""
    residual: float = math.nan
    note: str = ""

    @property
    def title(self) -> str:
        """`primary 0.7: a.safetensors [0123456789]`, in letters that are safe to print."""
        hashed = f" [{self.hash[:_HASH]}]" if self.hash and not self.name.startswith(self.hash[:_HASH]) else ""
        role = f"{plain(self.role)} {plain(self.weight)}".strip()
        name = plain(self.name if self.source is not Basis.STEP else self.method, _NAME)
        return f"{role}: {name}{hashed}" if role else f"{name}{hashed}"

    def detail(self, folder: Path | None) -> str:
        """How it was made, which file it is, what is not known."""
        measured = "" if math.isnan(self.residual) or self.depth else f"residual {percent(self.residual)}"
        method = "" if self.source is Basis.STEP and len(self.method) <= _NAME else plain(self.method, 240)
        made = ", ".join(filter(None, [method, f"says {plain(self.told_by)}" if self.told_by else ""]))
        return "; ".join(filter(None, [made, self._where(folder), measured, plain(self.note, 400)]))

    def _where(self, folder: Path | None) -> str:
        if self.file is None or not self.depth:
            return ""
        seen = self.file.relative_to(folder) if folder and self.file.is_relative_to(folder) else self.file
        by = "by name only" if self.source is Basis.NAME else f"by {self.found_by}"
        return f"is {plain(str(seen))} ({'measured' if self.source is Basis.MEASURED else by})"


@dataclass(frozen=True, repr=False)
class Lineage(Result):
    """The family tree of a file. `rows` are depth first, each with the row that it is a parent of; the first is the file."""

    rows: tuple[Ancestor, ...]
    among: Path | None = None
    notes: tuple[str, ...] = ()

    def frame(self) -> pd.DataFrame:
        """A row for each file and step, depth first; `parent` is the row of what it was made into, `source` what the row rests on.

        Columns: `name`, `depth`, `parent`, `role`, `weight` and `method` (how it was made itself) as told, `source`, `told_by` (who
        tells of its parents), `hash` as told, `found_by` and `file` (which file it is, told by what), `residual`, `note`.
        """
        import pandas as pd

        cells = [vars(row) | {"source": row.source.value, "file": None if row.file is None else str(row.file)} for row in self.rows]
        frame = pd.DataFrame(cells, columns=list(Ancestor.__dataclass_fields__))
        frame["source"] = pd.Categorical(frame["source"], [source.value for source in Basis], ordered=True)
        return frame.astype({"parent": "Int64"})

    @property
    def headline(self) -> str:
        """How many parents are known, and what that rests on."""
        file, name = self.rows[0], plain(self.rows[0].name)
        files = [row for row in self.rows[1:] if row.source is not Basis.STEP]
        if not files:
            return f"{name}: {plain(file.note, 600) or 'parents unknown'}"
        if files[0].source is Basis.MEASURED:
            return f"{name}: {plain(file.note, 600)}"
        counts = [(sum(row.source is source for row in files), source.value) for source in (Basis.HASH, Basis.NAME, Basis.TOLD)]
        told = ", ".join(f"{count} {what}" for count, what in counts if count)
        return f"{name}: {len(files)} ancestor{'s' * (len(files) != 1)} by {plain(file.told_by)}: {told}"

    def plot(self) -> go.Figure:
        """The tree, a line for each file and step, coloured by what it rests on."""
        from workbench import figures

        rows = self.rows[:_DRAWN]
        lines = [figures.Branch(row.depth, row.parent, row.title, row.detail(self.among), row.source.value) for row in rows]
        left = f"; the first {_DRAWN} of {len(self.rows)} are drawn" if len(self.rows) > _DRAWN else ""
        title = f"What {plain(self.rows[0].name, 60)} was made of"
        return figures.family_tree(lines, [source.value for source in Basis], title=title, told=self.headline + left)

    def __str__(self) -> str:
        return "\n".join([*self._lines(), *map(plain, self.notes)])

    def _lines(self) -> Iterator[str]:
        for row, before in zip(self.rows, _guides(self.rows), strict=True):
            detail = row.detail(self.among)
            yield f"{before}{row.title}{f': {detail}' if detail else ''}"

    def _repr_html_(self) -> str:
        style = "font-size: 13px; line-height: 1.5"
        rows = "".join(
            f"<div style='padding-left: {24 * row.depth}px'><b>{html.escape(row.title)}</b> "
            f"<span style='opacity: 0.7'>{html.escape(row.detail(self.among))}</span></div>"
            for row in self.rows
        )
        notes = "".join(f"<p>{html.escape(plain(note, 400))}</p>" for note in self.notes)
        return f"<div style='{style}'>{rows}{notes}</div>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/html": self._repr_html_(), "text/plain": str(self)}


def plain(text: str, longest: int = _NAME) -> str:
    """Somebody's text in one line of letters that a terminal only prints."""
    kept = "".join(letter if letter.isprintable() else "\ufffd" for letter in text[: 2 * longest])
    return cut(kept if len(text) <= 2 * longest else kept + "...", longest)


def _guides(rows: Sequence[Ancestor]) -> list[str]:
    """The lines that lead to each row, as `tree` draws them."""
    last: dict[int | None, int] = {row.parent: at for at, row in enumerate(rows)}
    found = []
    for at in range(len(rows)):
        parts, here = [], at
        while (parent := rows[here].parent) is not None:
            ends = last[parent] == here
            parts.append(("└─ " if ends else "├─ ") if here == at else ("   " if ends else "│  "))
            here = parent
        found.append("".join(reversed(parts)))
    return found
