"""`Catalogue`: the model files of a folder, found again by the hashes that programs know them by, or by name. No tensor is read."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import Any, final

from tqdm.auto import tqdm

from workbench.checkpoint.files import hashing
from workbench.checkpoint.files.safetensors_file import SafetensorsFile
from workbench.errors import CheckpointError
from workbench.wording import listed

SAFETENSORS = (".safetensors", ".sft")
SUFFIXES = (*SAFETENSORS, ".ckpt", ".pt", ".pth", ".bin", ".gguf")
_WHOLE = 64  # hexadecimal digits of a sha256
_SHORT = 10  # that AUTOMATIC1111 shows
_NOTHING = hashlib.sha256().hexdigest()[:8]  # the legacy hash of every file of 1 MiB or less
_TITLE = re.compile(r"(.+?)\s*\[([0-9a-f]{8,64})\]")  # as AUTOMATIC1111 lists a model: `name.safetensors [0123456789]`


@dataclass(frozen=True)
class Mark:
    """What a program knows a file by: its name, and hashes as hexadecimal digits. Nothing of it is checked.

    `sha256` may be its first digits alone.
    """

    name: str = ""
    sha256: str = ""
    legacy: str = ""

    @classmethod
    def of(cls, name: object = "", sha256: object = "", legacy: object = "") -> Mark:
        """What of it is a name, and what a hash; a hash in the name counts where there is no other."""
        text = name if isinstance(name, str) else ""
        if titled := _TITLE.fullmatch(text):
            text, shown = titled.groups()
            sha256, legacy = (sha256, legacy or shown) if len(shown) < _SHORT else (sha256 or shown, legacy)
        return cls(text, _hexadecimal(sha256, _SHORT), _hexadecimal(legacy, 8)[:8])

    @property
    def hash(self) -> str:
        """The most telling hash there is."""
        return self.sha256 or self.legacy

    @property
    def hashed(self) -> bool:
        """Whether its hash tells it from other files."""
        return bool(self.sha256) or self.legacy not in ("", _NOTHING)


@dataclass(frozen=True)
class Match:
    """The file that a mark is of, and `by` what it was told; or None, and why in `note`."""

    path: Path | None = None
    by: str = ""
    note: str = ""


@final
class Catalogue:
    """The model files in a folder and the folders in it; hidden ones are left out.

    Files are hashed when they are asked for, and once; the user's cache of hashes remembers them beyond. Raises CheckpointError
    for what is no folder.
    """

    def __init__(self, folder: str | os.PathLike[str], *, progress: bool = True) -> None:
        self.folder = absolute(folder)
        if not self.folder.is_dir():
            raise CheckpointError(f"{folder}: is no folder; give the folder in which the parents may lie")
        self.files: tuple[Path, ...] = tuple(_models_below(self.folder))
        self._progress = progress
        self._unread: dict[Path, str] = {}
        self._sha256: dict[Path, str] = {}
        self._old: dict[Path, str] = {}

    def find(self, mark: Mark) -> Match:
        """The file that `mark` is of: by sha256, by AUTOMATIC1111's first hash, or, where no hash is told, by name alone.

        A file of the right name and another hash is another file.
        """
        named = self._named(mark.name)
        if mark.sha256:
            found = self._by_sha256(mark, named)
        elif mark.hashed:
            found = self._by_legacy(mark, named)
        else:
            return self._by_name(mark, named)
        if found.path is None and named and not found.note:
            return Match(note=f"not in {self.folder.name}, where {_shown(named)} has another hash")
        return found if found.path or found.note else Match(note=f"not in {self.folder.name}")

    def _by_sha256(self, mark: Mark, named: Sequence[Path]) -> Match:
        # what has another legacy hash is another file, and costs 64 KiB of reading instead of all of it
        candidates = [path for path in self.files if mark.legacy in ("", _NOTHING) or self._legacy(path) == mark.legacy]
        for path, sha256 in self._hashed(sorted(candidates, key=lambda path: path not in named)):
            if sha256.startswith(mark.sha256):
                return Match(path, "sha256" if len(mark.sha256) == _WHOLE else "short hash")
        for path in self.files:  # the hash of the tensors alone, which a LoRA's header carries: claimed there, and checked here
            if any(claim.startswith(mark.sha256) for claim in self._claims(path)) and self._data(path).startswith(mark.sha256):
                return Match(path, "sshs_model_hash")
        return Match()

    def _by_legacy(self, mark: Mark, named: Sequence[Path]) -> Match:
        found = [path for path in self.files if self._legacy(path) == mark.legacy]
        if len(found) > 1 and (both := [path for path in found if path in named]):
            found = both
        if len(found) > 1:
            return Match(note=f"{_shown(found)} have the legacy hash {mark.legacy}: nothing tells which is meant")
        if not found:  # kohya's own for LoRAs is of a file that is never written; a header may carry it
            found = [path for path in self.files if self._headers.get(path, {}).get("sshs_legacy_hash") == mark.legacy][:1]
            return Match(found[0], "sshs_legacy_hash, as its header says") if found else Match()
        return Match(found[0], "legacy hash")

    def _by_name(self, mark: Mark, named: Sequence[Path]) -> Match:
        if not mark.name:
            return Match(note="neither name nor hash is told")
        named = named or [path for path in self.files if self._headers.get(path, {}).get("modelspec.title") == mark.name]
        if len(named) > 1:
            return Match(note=f"{_shown(named)} have this name: nothing tells which is meant")
        return Match(named[0], "name") if named else Match(note=f"no file of this name in {self.folder.name}")

    def _named(self, name: str) -> list[Path]:
        """The files of a name: with its suffix, else whatever their suffix. Folders in it are another machine's."""
        told = PureWindowsPath(name).name.casefold()
        stem = told.removesuffix(next((suffix for suffix in SUFFIXES if told.endswith(suffix)), ""))
        exact = [path for path in self.files if told and path.name.casefold() == told]
        return exact or [path for path in self.files if stem and path.stem.casefold() == stem]

    def _hashed(self, files: Sequence[Path]) -> Iterator[tuple[Path, str]]:
        """Each file with its sha256, one after the other, under one bar; what cannot be read is left out."""
        sizes = {path: _size(path) for path in files if path not in self._sha256}
        shown: dict[str, Any] = {"unit": "B", "unit_scale": True, "delay": 2, "leave": False, "desc": f"sha256 in {self.folder.name}"}
        with tqdm(total=sum(sizes.values()), disable=not self._progress or not sizes, **shown) as bar:
            done = 0
            for path in files:
                if path not in self._sha256:
                    try:
                        self._sha256[path] = hashing.sha256(path, advance=bar.update)
                    except CheckpointError as error:
                        self._sha256[path], self._unread[path] = "", str(error)
                    done += sizes[path]
                    bar.update(done - bar.n)  # what is remembered is not read
                if sha256 := self._sha256[path]:
                    yield path, sha256

    def _legacy(self, path: Path) -> str:
        if path not in self._old:
            try:
                self._old[path] = hashing.legacy_hash(path)
            except OSError as error:
                self._old[path], self._unread[path] = "", f"{path}: cannot be read: {error.strerror}"
        return self._old[path]

    def _claims(self, path: Path) -> list[str]:
        """The hashes of its tensors that a file's header claims."""
        header = self._headers.get(path, {})
        return [header.get(key, "").removeprefix("0x") for key in ("sshs_model_hash", "modelspec.hash_sha256")]

    def _data(self, path: Path) -> str:
        try:
            return hashing.data_sha256(path)
        except OSError as error:
            self._unread[path] = f"{path}: cannot be read: {error.strerror}"
            return ""

    @property
    def unread(self) -> tuple[str, ...]:
        """Why files could not be asked."""
        return tuple(self._unread.values())

    @cached_property
    def _headers(self) -> dict[Path, dict[str, str]]:
        """What the files' headers say; pickles have none."""
        found = {}
        for path in self.files:
            if path.suffix.lower() in SAFETENSORS:
                try:
                    found[path] = dict(SafetensorsFile(path).metadata)
                except CheckpointError as error:
                    self._unread[path] = str(error)
        return found


def absolute(path: str | os.PathLike[str]) -> Path:
    """A path from the root on, whatever the current folder is later. Raises CheckpointError for one that no file can have."""
    try:
        found = Path(path).expanduser().absolute()
        found.exists()
    except (RuntimeError, ValueError, OSError) as error:  # the home of nobody, a NUL, a name that is too long
        why = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{str(path)[:200]!r}: is no path of a file: {why}") from error
    return found


def _models_below(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith(".") and path.is_file():
                yield path


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _hexadecimal(given: object, least: int) -> str:
    """A hash, in small letters; nothing where it is none (kohya writes NOFILE)."""
    text = given.strip().lower().removeprefix("0x") if isinstance(given, str) and len(given) <= _WHOLE + 2 else ""
    return text if re.fullmatch(f"[0-9a-f]{{{least},{_WHOLE}}}", text) else ""


def _shown(files: Sequence[Path]) -> str:
    return listed([path.name for path in files])
