"""Choices between two pictures as data, and the file that keeps them. What follows from them is in `ranking` and `surrogate`."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

from filelock import FileLock, Timeout

from workbench.checkpoint.files.writing import replacing
from workbench.errors import PreferenceError, WorkbenchError

if TYPE_CHECKING:
    import pandas as pd

Answer = Literal["left", "right", "tie", "neither"]
ANSWERS: tuple[Answer, ...] = ("left", "right", "tie", "neither")

_VERSION = 1  # of the file
_PATIENCE = 10.0  # seconds that another process may hold the file


@final
@dataclass(frozen=True)
class Seen:
    """What was to be seen on one side: `key` says what drew it, whatever its `name`; `point` is where it lies in a space, if in one."""

    key: str
    name: str
    point: Mapping[str, Any] | None = None


@final
@dataclass(frozen=True)
class Comparison:
    """One answer to one pair of pictures; `made` counts seconds since 1970."""

    left: Seen
    right: Seen
    prompt: str
    seed: int
    answer: Answer
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    made: float = field(default_factory=time.time)


@dataclass(frozen=True)
class _Kept:
    version: int
    choices: list[Comparison]


@final
class ChoiceStore:
    """The choices in `folder/choices.json`, which several panels and kernels may use at once.

    The file is replaced, never written into: whoever reads finds all choices before or after one. Raises PreferenceError where the folder
    cannot be made, or the file is damaged or of another version; it is left as it is then.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().absolute()
        self.path = self.folder / "choices.json"
        with _speaking(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / ".choices.lock", timeout=_PATIENCE)
        self.read()

    def read(self) -> list[Comparison]:
        """All choices, the oldest first."""
        from pydantic import TypeAdapter, ValidationError

        with _speaking(self.path):
            try:
                told = json.loads(self.path.read_text(encoding="utf-8"))
            except FileNotFoundError:
                return []
            except (ValueError, RecursionError) as error:
                raise PreferenceError(self._damaged(error)) from error
        version = told.get("version") if isinstance(told, dict) else None
        if version != _VERSION:
            raise PreferenceError(
                f"{self.path}: holds choices of version {version!r}, and this Workbench reads version {_VERSION}; "
                "use the Workbench that wrote it, or give another name="
            )
        try:
            return TypeAdapter(_Kept).validate_python(told).choices
        except ValidationError as error:
            raise PreferenceError(self._damaged(error.errors()[0]["msg"])) from error

    def add(self, choice: Comparison) -> list[Comparison]:
        """Keep one more; returns all there are then."""
        with self._alone():
            return self._write([*self.read(), choice])

    def take_back(self, choice: Comparison) -> list[Comparison]:
        """Take one out, wherever in the file it is by now. Raises PreferenceError where somebody else has done so already."""
        with self._alone():
            choices = self.read()
            rest = [one for one in choices if one.id != choice.id]
            if len(rest) == len(choices):
                raise PreferenceError(f"{self.path}: that choice was taken back already, by another panel of the same name")
            return self._write(rest)

    def to_csv(self, path: Path) -> Path:
        """Write all choices as a table."""
        with _speaking(path), replacing(path) as temporary:
            choices_frame(self.read()).to_csv(temporary, index=False)
        return path

    def _write(self, choices: list[Comparison]) -> list[Comparison]:
        with _speaking(self.path), replacing(self.path) as temporary:
            temporary.write_text(json.dumps(asdict(_Kept(_VERSION, choices)), indent=1), encoding="utf-8")
        return choices

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            with _speaking(self.path), self._lock:
                yield
        except Timeout as error:
            raise PreferenceError(
                f"{self.path}: another process has held it for {_PATIENCE:.0f} seconds; end that one, and try again"
            ) from error

    def _damaged(self, reason: object) -> str:
        return f"{self.path}: is damaged ({reason}); move it away to begin anew, or put back a copy of it"


def choices_frame(choices: Sequence[Comparison]) -> pd.DataFrame:
    """One row per choice: when (UTC), prompt, seed, both sides by name, the answer, both sides by what they are, and their points."""
    import pandas as pd

    rows = [
        {"made": datetime.fromtimestamp(one.made, UTC).isoformat(timespec="milliseconds"), "prompt": one.prompt, "seed": one.seed}
        | {"left": one.left.name, "right": one.right.name, "answer": one.answer, "left_key": one.left.key, "right_key": one.right.key}
        | {f"{name}_point": side.point and json.dumps(side.point) for name, side in (("left", one.left), ("right", one.right))}
        for one in choices
    ]
    columns = ["made", "prompt", "seed", "left", "right", "answer", "left_key", "right_key", "left_point", "right_point"]
    return pd.DataFrame(rows, columns=columns)


@contextmanager
def _speaking(path: Path) -> Iterator[None]:
    try:
        yield
    except WorkbenchError as error:
        raise error if isinstance(error, PreferenceError) else PreferenceError(str(error)) from error
    except Timeout:
        raise
    except OSError as error:
        raise PreferenceError(f"{path}: cannot be read or written ({error.strerror or error}); mend that, and choose again") from error
