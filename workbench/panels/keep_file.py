"""`KeepFile`: the file of `keep=`, which several panels may have at once. What is in it is in `keeping`; no widget is here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import final

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.files.writing import replacing
from workbench.errors import RecipeError
from workbench.panels import keeping
from workbench.panels.keeping import Kept
from workbench.panels.state import PanelState


@final
class KeepFile:
    """A panel's state on disk. The panel that changes last has the file; what another one kept in it meanwhile goes beside it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._known: bytes | None = None  # what the file held when this panel last read or wrote it

    @property
    def beside(self) -> Path:
        """Where goes what another panel kept."""
        return self.path.with_name(f"{self.path.stem}.other{self.path.suffix}")

    def load(self) -> Kept | None:
        """What was kept; None where there is no file. Raises RecipeError for a damaged one."""
        self._known = self._content()
        if self._known is None and not self.path.exists():
            return None
        try:
            return keeping.load(self.path)
        except RecipeError as error:
            raise RecipeError(f"{error}; delete it, or give another name") from error

    def save(self, state: PanelState, snapshots: Mapping[str, PanelState], checkpoints: Mapping[str, Checkpoint]) -> str:
        """Keep a state; returns what to say: of a disk that does not take it, or of another panel that kept one in the same file."""
        try:
            return self._save(state, snapshots, checkpoints)
        except OSError as error:
            return f"{self.path}: the panel's state could not be kept: {error.strerror}"

    def _save(self, state: PanelState, snapshots: Mapping[str, PanelState], checkpoints: Mapping[str, Checkpoint]) -> str:
        found = self._content()
        others = found is not None and found != self._known
        if others and found is not None:
            with replacing(self.beside) as temporary:
                temporary.write_bytes(found)
        keeping.save(self.path, state, snapshots, checkpoints)
        self._known = self._content()
        if not others:
            return ""
        return (
            f"{self.path} was written by another page or notebook meanwhile: what that kept is now in {self.beside} "
            "(drop it onto a panel to have it), and this panel's state is in the file"
        )

    def set_aside(self) -> Path:
        """Give a file that cannot be read another name beside its own, and return that. Raises OSError."""
        numbers = range(1, 10_000)
        places = (self.path.with_name(f"{self.path.stem}.unread-{number}{self.path.suffix}") for number in numbers)
        place = next(place for place in places if not place.exists())
        self.path.rename(place)
        return place

    def _content(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except OSError:
            return None
