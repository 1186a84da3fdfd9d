"""Keeps what a panel draws in a folder of pictures; what goes wrong with that is a warning, and the panel draws on. No widget is here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

from workbench.checkpoint import Checkpoint
from workbench.errors import MergeWarning, SweepError, warn
from workbench.render.drawn import Drawn
from workbench.render.request import Request
from workbench.sweeps.described import told_by_files
from workbench.sweeps.picture_store import PictureStore

if TYPE_CHECKING:
    from PIL.Image import Image


@final
class Remembering:
    """Keeps pictures in `folder`, which is made with the first one; None keeps none."""

    def __init__(self, folder: str | os.PathLike[str] | None) -> None:
        self._folder = None if folder is None else Path(folder).absolute()
        self._store: PictureStore | None = None

    def keep(self, name: str, model: Checkpoint, request: Request, images: Sequence[Image], circumstances: str = "") -> None:
        """Keep what a model drew, under circumstances that `drawn` is asked for. Warns where that is not possible."""
        if self._folder is None:
            return
        try:
            told = circumstances if told_by_files(model) else ""
            self._opened().keep(images, Drawn.of(name, model, {}), request, told)
        except SweepError as error:
            warn(f"The pictures are shown, but not kept: {error}", MergeWarning)

    def drawn(self, name: str, model: Checkpoint, request: Request, circumstances: str) -> list[Image] | None:
        """What a model drew under the same circumstances, in this process or another; None where that is not here, or not sure."""
        if self._folder is None or not self._folder.is_dir() or not told_by_files(model):
            return None
        try:
            return self._opened().drawn(Drawn.of(name, model, {}), request, circumstances)
        except SweepError:  # it can be drawn
            return None

    def stars(self, name: str, model: Checkpoint, request: Request) -> set[int]:
        """The numbers, from 0, of the pictures among those that a model drew that have a star; none where that cannot be found out."""
        if self._folder is None or not self._folder.is_dir():
            return set()
        try:
            store = self._opened()
            if not store.count(starred=True):  # which is quick: that of most folders, most of the time
                return set()
            return {int(one.path.stem) for one in store.kept(Drawn.of(name, model, {}), request) if one.star}
        except SweepError:  # whoever keeps or stars a picture is told
            return set()

    def star(self, name: str, model: Checkpoint, request: Request, images: Sequence[Image], number: int, star: bool) -> None:
        """Give one of the pictures that a model drew a star, or take it away; what is not there any more is kept again.

        Raises SweepError where pictures are not kept, or that is not possible.
        """
        if self._folder is None:
            raise SweepError("this panel keeps no pictures, so that none can have a star: make it with gallery=a folder")
        store, drawn = self._opened(), Drawn.of(name, model, {})
        if star and all(int(one.path.stem) != number for one in store.kept(drawn, request)):
            store.keep(images, drawn, request)
        store.star([one for one in store.kept(drawn, request) if int(one.path.stem) == number], star)

    def _opened(self) -> PictureStore:
        folder = self._folder or Path()
        if self._store is None or not folder.is_dir():  # somebody may have deleted it
            self._store = PictureStore(folder)
        return self._store
