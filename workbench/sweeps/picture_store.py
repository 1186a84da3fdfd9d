"""`PictureStore`: pictures that were drawn, on disk with their recipes, up to a limit; found again by what they are. No widget is here."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from workbench.checkpoint.files.writing import replacing
from workbench.errors import SweepError
from workbench.render.drawn import Drawn
from workbench.render.request import Request
from workbench.render.thumbnails import webp
from workbench.sweeps.carrying import carried
from workbench.sweeps.store import TOLD, StoredPictures, keep, kept, open_store, picture_at

if TYPE_CHECKING:
    from PIL.Image import Image

GALLERY = "out/gallery"  # where panels keep pictures, seen from the current folder, unless told otherwise
LIMIT = 5 * 10**9  # bytes of pictures, unless told otherwise
EDGE = 192  # pixels of a thumbnail's longer edge

_INDEX = "index.sqlite"  # of what lies in the folders, and the only place of stars and notes
_REGRET = 24 * 3600  # seconds in which what was deleted still lies on disk
_TABLE = """
CREATE TABLE IF NOT EXISTS pictures (
    id INTEGER PRIMARY KEY, cell TEXT, number INTEGER, made REAL, model TEXT, models TEXT, method TEXT, prompt TEXT, seed INTEGER,
    star INTEGER DEFAULT 0, note TEXT DEFAULT '', deleted REAL, bytes INTEGER, UNIQUE (cell, number)
);
CREATE INDEX IF NOT EXISTS newest ON pictures (deleted, made);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value INTEGER);
"""
_COLUMNS = "id, cell, number, made, model, models, method, prompt, seed, star, note"


@final
@dataclass(frozen=True)
class KeptPicture:
    """A picture: `model` is what drew it, `models` what that was merged from; `made` counts seconds since 1970."""

    id: int
    path: Path
    made: float
    model: str
    models: tuple[str, ...]
    method: str
    prompt: str
    seed: int
    star: bool
    note: str


@final
class PictureStore:
    """The pictures in `folder`, at most `limit` bytes of them: beyond that the oldest without a star go.

    None is the limit that the folder was last given, at first 5 GB.
    Pictures lie in folders like those of a sweep, and each PNG carries its recipe and settings (`wb.open_grid`). An index beside them
    has stars and notes; without it, it is made anew from the folders. Several panels and kernels may use one folder at once. What is
    deleted can be brought back by `undo`, for a day; then it goes from the disk when the folder is next opened.

    Raises SweepError where the folder cannot be made or its index is damaged.
    """

    def __init__(self, folder: str | Path, limit: int | None = None) -> None:
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise SweepError(f"limit must be a whole number of bytes from 1, got {limit!r}")
        self.folder = open_store(Path(folder).expanduser())
        self._undo: list[list[tuple[str, Any, int]]] = []  # column, value before, picture
        fresh = not (self.folder / _INDEX).exists()
        with self._index() as index:
            index.executescript(_TABLE)
            if limit is not None:
                index.execute("INSERT OR REPLACE INTO settings VALUES ('limit', ?)", [limit])
        if fresh:
            self._index_anew()
        self._purge()

    def __len__(self) -> int:
        return self.count()

    @property
    def limit(self) -> int:
        """The most bytes of pictures that the folder keeps, for all who use it."""
        with self._index() as index:
            row = index.execute("SELECT value FROM settings WHERE name = 'limit'").fetchone()
        return int(row[0]) if row else LIMIT

    @property
    def nbytes(self) -> int:
        """Bytes of all pictures, those that are deleted and can be brought back among them."""
        with self._index() as index:
            return int(index.execute("SELECT coalesce(sum(bytes), 0) FROM pictures").fetchone()[0])

    def keep(self, images: Sequence[Image], model: Drawn, request: Request, circumstances: str = "") -> None:
        """Keep what a model drew, one picture for each prompt and seed; drawn again it is kept once, as the newest.

        `circumstances` are those it was drawn under, by which `drawn` gives it back; without them it never does.

        Raises SweepError when the disk is full or forbids it; nothing else is lost.
        """
        cell = self.folder / _key(model, request, self.folder)
        merge = model.recipe.data if model.recipe else None
        models = list(merge.models) if merge else [path.stem for path in model.files]
        told = {
            "target": model.recipe.to_yaml() if model.recipe else [str(path) for path in model.files],
            "asked": [request.settings],
            "components": dict(model.components),
            "seconds": 0.0,
            "circumstances": circumstances,
            "picture": {"model": model.name, "models": models, "method": merge.merge.operator if merge else ""},
        }
        keep(cell, images, told, carried(model, [request], cell))
        for number, image in enumerate(images):
            _save_thumbnail(cell, number, image)
        self._enter(cell, told)
        self._trim(cell.name)

    def find(
        self, prompt: str = "", model: str = "", method: str = "", *, starred: bool = False, start: int = 0, most: int = 60
    ) -> list[KeptPicture]:
        """Pictures, the newest first: those whose prompt and model (or a model it was merged from) hold these words."""
        where, values = _where(prompt, model, method, starred)
        with self._index() as index:
            rows = index.execute(
                f"SELECT {_COLUMNS} FROM pictures WHERE {where} ORDER BY made DESC, cell, number LIMIT ? OFFSET ?", [*values, most, start]
            ).fetchall()
        return [self._picture(*row) for row in rows]

    def count(self, prompt: str = "", model: str = "", method: str = "", *, starred: bool = False) -> int:
        """How many `find` would find in all."""
        where, values = _where(prompt, model, method, starred)
        with self._index() as index:
            return int(index.execute(f"SELECT count(*) FROM pictures WHERE {where}", values).fetchone()[0])

    def kept(self, model: Drawn, request: Request) -> list[KeptPicture]:
        """The pictures that are here of what a model drew, in the order of the request."""
        with self._index() as index:
            where = "cell = ? AND deleted IS NULL ORDER BY number"
            rows = index.execute(f"SELECT {_COLUMNS} FROM pictures WHERE {where}", [_key(model, request, self.folder)]).fetchall()
        return [self._picture(*row) for row in rows]

    def drawn(self, model: Drawn, request: Request, circumstances: str) -> list[Image] | None:
        """What a model drew under these circumstances, to the bit; None unless all of it is here, whole, and not deleted."""
        cell, count = self.folder / _key(model, request, self.folder), len(request.pictures)
        told = kept(cell, count) if len(self.kept(model, request)) == count else None
        if told is None or not circumstances or told.get("circumstances") != circumstances:
            return None
        return list(StoredPictures(cell, count))

    def picture(self, number: int) -> KeptPicture:
        """A picture by its number. Raises SweepError where there is none."""
        with self._index() as index:
            row = index.execute(f"SELECT {_COLUMNS} FROM pictures WHERE id = ?", [number]).fetchone()
        if row is None:
            raise SweepError(f"{self.folder}: there is no picture {number} any more")
        return self._picture(*row)

    def methods(self) -> list[str]:
        """The methods that pictures were merged by."""
        with self._index() as index:
            found = index.execute("SELECT DISTINCT method FROM pictures WHERE deleted IS NULL AND method != '' ORDER BY method")
            return [name for (name,) in found]

    def thumbnail(self, picture: KeptPicture) -> bytes | None:
        """The picture as a small WebP file; None where its file is gone or damaged."""
        place = _thumbnail(picture.path.parent, int(picture.path.stem))
        with suppress(OSError):
            return place.read_bytes()
        from PIL import Image

        with suppress(OSError), Image.open(picture.path) as image:
            return webp(image, EDGE)
        return None

    def star(self, pictures: Sequence[KeptPicture], star: bool = True) -> None:
        """Give pictures a star, which keeps them whatever the limit, or take it away."""
        self._change("star", [(int(star), one.id) for one in pictures])

    def note(self, picture: KeptPicture, text: str) -> None:
        """Write something down about a picture."""
        self._change("note", [(text, picture.id)])

    def delete(self, pictures: Sequence[KeptPicture]) -> None:
        """Take pictures out; `undo` brings them back."""
        now = time.time()
        self._change("deleted", [(now, one.id) for one in pictures])

    def undo(self) -> bool:
        """Take back the last star, note or deletion that was made here; returns whether there was one."""
        if not self._undo:
            return False
        with self._index() as index:
            for column, value, number in self._undo.pop():
                index.execute(f"UPDATE pictures SET {column} = ? WHERE id = ?", [value, number])
        return True

    def _change(self, column: str, changes: Sequence[tuple[Any, int]]) -> None:
        before = []
        with self._index() as index:
            for value, number in changes:
                row = index.execute(f"SELECT {column} FROM pictures WHERE id = ?", [number]).fetchone()
                before += [(column, row[0], number)] if row else []
                index.execute(f"UPDATE pictures SET {column} = ? WHERE id = ?", [value, number])
        self._undo.append(before)

    def _picture(self, number: int, cell: str, place: int, made: float, model: str, models: str, *rest: Any) -> KeptPicture:
        method, prompt, seed, star, note = rest
        path = picture_at(self.folder / cell, place)
        return KeptPicture(number, path, made, model, tuple(json.loads(models)), method, prompt, seed, bool(star), note)

    def _enter(self, cell: Path, told: dict[str, Any], made: float | None = None) -> None:
        """Put the pictures of a folder into the index, or make them the newest."""
        picture, made = told["picture"], made or time.time()
        asked = [(prompt, seed) for one in told["asked"] for prompt in one["prompts"] for seed in one["seeds"]]
        own = (picture["model"], json.dumps(picture["models"]), picture["method"])
        rows = [
            (cell.name, number, made, *own, prompt, seed, _bytes(cell, number))
            for number, (prompt, seed) in enumerate(asked)
            if picture_at(cell, number).exists()
        ]
        with self._index() as index:
            index.executemany(
                "INSERT INTO pictures (cell, number, made, model, models, method, prompt, seed, bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (cell, number) DO UPDATE SET made = excluded.made, bytes = excluded.bytes, deleted = NULL",
                rows,
            )

    def _index_anew(self) -> None:
        for place in self.folder.glob(f"*/{TOLD}"):
            with suppress(OSError, ValueError, LookupError, TypeError):  # a folder of something else
                self._enter(place.parent, json.loads(place.read_text(encoding="utf-8")), place.stat().st_mtime)

    def _purge(self) -> None:
        """Remove from the disk what was deleted long ago."""
        with self._index() as index:
            gone = index.execute("SELECT id, cell, number FROM pictures WHERE deleted < ?", [time.time() - _REGRET]).fetchall()
        self._remove(gone)

    def _trim(self, newest: str) -> None:
        """Keep within the limit: first what is deleted goes, then the oldest; never a star, nor what has just been drawn."""
        over = self.nbytes - self.limit
        if over <= 0:
            return
        gone = []
        with self._index() as index:
            order = "deleted IS NULL, made, number DESC"
            rows = index.execute(f"SELECT id, cell, number, bytes FROM pictures WHERE star = 0 AND cell != ? ORDER BY {order}", [newest])
            for *row, size in rows:
                if over <= 0:
                    break
                gone.append(row)
                over -= size
        self._remove(gone)

    def _remove(self, rows: Sequence[Sequence[Any]]) -> None:
        for number, name, place in rows:
            cell = self.folder / name
            for path in (picture_at(cell, place), _thumbnail(cell, place)):
                with suppress(OSError):
                    path.unlink()
            if not any(cell.glob("*.png")):
                shutil.rmtree(cell, ignore_errors=True)
            with self._index() as index:
                index.execute("DELETE FROM pictures WHERE id = ?", [number])

    @contextmanager
    def _index(self) -> Iterator[sqlite3.Connection]:
        """The index, for one transaction: threads and kernels wait for one another."""
        place = self.folder / _INDEX
        try:
            with closing(sqlite3.connect(place, timeout=30)) as index, index:
                yield index
        except sqlite3.DatabaseError as error:
            raise SweepError(
                f"{place}: cannot be used ({error}); where the disk is full, make room; where it is damaged, delete it: "
                "it is made anew from the pictures, without stars and notes"
            ) from error


def _key(model: Drawn, request: Request, folder: Path) -> str:
    """What tells pictures apart: recipe and files with their times, what was asked, whose components."""
    recipe = model.recipe.relative_to(folder).to_yaml() if model.recipe else None
    files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in model.files if path.exists()]
    told = [model.name, recipe, files, request.settings, dict(model.components)]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:24]


def _where(prompt: str, model: str, method: str, starred: bool) -> tuple[str, list[Any]]:
    """Conditions of SQL, with their values; case does not count."""
    parts, values = ["deleted IS NULL"], []
    if prompt:
        parts.append("instr(lower(prompt), lower(?)) > 0")
        values.append(prompt)
    if model:
        parts.append("(instr(lower(model), lower(?)) > 0 OR instr(lower(models), lower(?)) > 0)")
        values += [model, model]
    if method:
        parts.append("method = ?")
        values.append(method)
    return " AND ".join([*parts, *(["star = 1"] if starred else [])]), values


def _bytes(cell: Path, number: int) -> int:
    return sum(path.stat().st_size for path in (picture_at(cell, number), _thumbnail(cell, number)) if path.exists())


def _thumbnail(cell: Path, number: int) -> Path:
    return cell / f"{number:04}.webp"


def _save_thumbnail(cell: Path, number: int, image: Image) -> None:
    with suppress(OSError), replacing(_thumbnail(cell, number)) as temporary:  # without it, it is made when it is looked at
        temporary.write_bytes(webp(image, EDGE))
