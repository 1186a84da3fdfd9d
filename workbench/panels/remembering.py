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
from workbench.sweeps.picture_store import PictureStore

if TYPE_CHECKING:
    from PIL.Image import Image


@final
class Remembering:
    """Keeps pictures in `folder`, which is made with the first one; None keeps none."""

    def __init__(self, folder: str | os.PathLike[str] | None) -> None:
        self._folder = None if folder is None else Path(folder).absolute()
        self._store: PictureStore | None = None

    def keep(self, name: str, model: Checkpoint, request: Request, images: Sequence[Image]) -> None:
        """Keep what a model drew. Warns where that is not possible."""
        if self._folder is None:
            return
        try:
            if self._store is None or not self._folder.is_dir():  # somebody may have deleted it
                self._store = PictureStore(self._folder)
            self._store.keep(images, Drawn.of(name, model, {}), request)
        except SweepError as error:
            warn(f"The pictures are shown, but not kept: {error}", MergeWarning)
