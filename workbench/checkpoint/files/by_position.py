"""`OpenFile`: a regular file that stays open, and is read by position from any thread. What its bytes mean is not known here."""

from __future__ import annotations

import os
import threading
import weakref
from io import FileIO
from pathlib import Path
from typing import final

from workbench.checkpoint.files.identity import Identity, identity, lies_at
from workbench.errors import CheckpointError
from workbench.untrusted import open_regular


@final
class OpenFile:
    """A file as it was when it was opened: replacing it on disk does not change what is read here. Raises CheckpointError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.stream: FileIO = open_regular(path)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be opened: {error.strerror}") from error
        weakref.finalize(self, self.stream.close)
        found = os.fstat(self.stream.fileno())
        self.size = found.st_size
        self._identity: Identity = identity(found)
        self._lock = threading.Lock()

    @property
    def identifier(self) -> str:
        """What tells it from every other file, and from itself before it was changed."""
        return f"{self.path.resolve()} {self._identity}"

    @property
    def replaced(self) -> bool:
        """Whether another file lies in its place, or it has changed."""
        return not lies_at(self.path, self._identity)

    def read_into(self, view: memoryview, offset: int, what: str) -> None:
        """Fill `view` with the bytes from `offset` on; `what` they are is for the message of a CheckpointError."""
        while view:
            try:
                count = self._read_some(view, offset)
            except OSError as error:
                raise CheckpointError(f"{self.path}: {what} could not be read: {error.strerror}") from error
            if not count:
                raise CheckpointError(f"{self.path}: the file ended inside {what}; it was cut short after it was opened")
            view, offset = view[count:], offset + count

    def _read_some(self, view: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self.stream.fileno(), [view], offset)
        with self._lock:  # Windows has no positional read
            self.stream.seek(offset)
            return self.stream.readinto(view)
