"""`FileChooser`: the models in a folder, to be filtered, sorted, chosen, page by page. What the browser draws is in `file_chooser.js`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, final, get_args

import anywidget
import traitlets

from workbench.errors import InputError
from workbench.panels.callbacks import on_change, on_message
from workbench.panels.file_families import BROKEN, FileFamilies
from workbench.panels.folder_listing import Column, FolderEntry, FolderListing, list_folder, ordered
from workbench.panels.recent_folders import recent_folders, remember_folder
from workbench.wording import size as size_in_words

_HERE = Path(__file__).parent
PAGE: Final = 100  # rows that the browser has at once


@final
class FileChooser(anywidget.AnyWidget):
    """Tells `add(paths, merge)` which files a person chose, and whether they go into the merge at once, and `again()` to open files anew.

    `folder`, `words` to look for, `below` (models of all folders below it), the column `by` which rows are sorted, `descending`, and
    `start` (the first row of the page) may be set in Python too; what is wrong with a folder is `said`.
    """

    _esm = _HERE / "file_chooser.js"
    _css = _HERE / "file_chooser.css"

    folder = traitlets.Unicode().tag(sync=True)
    words = traitlets.Unicode().tag(sync=True)
    below = traitlets.Bool().tag(sync=True)
    by: traitlets.Enum[Column] = traitlets.Enum(get_args(Column), "name").tag(sync=True)
    descending = traitlets.Bool().tag(sync=True)
    start = traitlets.Int(0, min=0).tag(sync=True)
    page: traitlets.List[Any] = traitlets.List(read_only=True).tag(sync=True)  # what is told of each row
    total = traitlets.Int(read_only=True).tag(sync=True)  # rows that the words find
    recent = traitlets.List(traitlets.Unicode(), read_only=True).tag(sync=True)
    said = traitlets.Unicode(read_only=True).tag(sync=True)

    def __init__(self, folder: Path, add: Callable[[Sequence[Path], bool], None], again: Callable[[], None]) -> None:
        self._add, self._again = add, again
        self._showing = threading.RLock()  # between what a person does and the thread that reads headers
        self._listing = FolderListing(folder)
        self._families = FileFamilies(self._told)
        super().__init__(folder=str(folder.absolute()))
        on_change(self, lambda _: self.list_again(), ["folder", "below"])
        on_change(self, self._filtered, ["words", "by", "descending"])
        on_change(self, lambda _: self._show(), "start")
        on_message(self, self._asked)
        self.list_again()

    @property
    def here(self) -> Path:
        """The folder that is shown."""
        return Path(self.folder).expanduser()

    def list_again(self) -> None:
        """Show what lies in the folder now."""
        with self._showing:
            try:
                self._listing = list_folder(self.here, below=self.below)
                told = self._listing.said
            except (InputError, RuntimeError) as error:  # RuntimeError: the home of nobody
                self._listing, told = FolderListing(Path(self.folder)), str(error)
            self.set_trait("recent", recent_folders())
            self.say(told)
            self._filtered(None)

    def say(self, text: str) -> None:
        """What is wrong with the folder, or with what was chosen."""
        self.set_trait("said", text)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the families of the page are known; returns whether they were within so many seconds."""
        return self._families.wait(timeout)

    def close(self) -> None:
        """Read no headers any more."""
        self._families.close()
        super().close()

    def _filtered(self, _: object) -> None:
        """Other rows are wanted: from the first page on."""
        if self.start:
            self.start = 0
        else:
            self._show()

    def _show(self) -> None:
        with self._showing:
            found = ordered(self._listing.found(self.words), self.by, self.descending, self._family)
            shown = found[self.start : self.start + PAGE]
            with self.hold_sync():
                self.set_trait("total", len(found))
                self.set_trait("page", [self._row(one) for one in shown])
            self._families.ask(self._listing.folder, found if self.by == "family" else shown)

    def _told(self, done: bool) -> None:
        """More families are known; rows that are sorted by them change places once all are."""
        if done and self.by == "family":
            self._show()
            return
        with self._showing:
            named = {one.name: one for one in self._listing.entries}
            self.set_trait("page", [self._row(named[row["name"]]) for row in self.page if row["name"] in named])

    def _family(self, entry: FolderEntry) -> str:
        known = self._families.known(self._listing.folder, entry)
        return known.name if known else ""

    def _row(self, entry: FolderEntry) -> dict[str, Any]:
        known = self._families.known(self._listing.folder, entry)
        return {
            "name": entry.name,
            "kind": entry.kind,
            "size": size_in_words(entry.size) if entry.kind == "file" else "",
            "date": datetime.fromtimestamp(entry.changed).strftime("%Y-%m-%d"),
            "family": "" if entry.kind == "folder" else known.name if known else "…",
            "told": known.told if known else "",
            "broken": known is not None and known.name == BROKEN,
        }

    def _asked(self, content: Mapping[str, Any], _: object) -> None:
        known: dict[str, Callable[..., None]] = {"add": self._chosen, "go": self._go, "up": self._up, "again": self._read_again}
        known[content["do"]](*content.get("with", []))

    def _chosen(self, names: Sequence[str], merge: bool) -> None:
        """Open files of the folder, and put them into the merge, or to the others to choose from."""
        self.say("")
        there = {one.name for one in self._listing.entries if one.kind != "folder"}
        paths = [self._listing.folder / name for name in names if name in there]
        if not paths:
            self.say("Choose a model first: click its row, or its +.")
            return
        self._add(paths, merge)
        remember_folder(self._listing.folder)
        self.set_trait("recent", recent_folders())

    def _go(self, name: str) -> None:
        """Go into a folder of the folder."""
        self.folder = str((self._listing.folder / name).absolute())

    def _up(self) -> None:
        self.folder = os.path.dirname(os.path.abspath(self.here))

    def _read_again(self) -> None:
        self._again()
        self.list_again()
