"""Models on the Hugging Face hub: fetches the files that an address needs into the hub's own cache. What they hold is read elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from glob import escape
from pathlib import Path, PurePath, PurePosixPath
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from workbench.checkpoint.files.folders import CONFIG, INDICES, PIPELINE, is_index, is_small, no_weights, weights_among
from workbench.checkpoint.files.joined import weight_map_of
from workbench.checkpoint.files.json_object import read_object
from workbench.errors import CheckpointError
from workbench.untrusted import expanded
from workbench.wording import few

if TYPE_CHECKING:
    from huggingface_hub import HfUri
    from tqdm import tqdm

_SCHEME = "hf:/"  # with one slash, since pathlib makes one of two
_SHOWN = 8  # files that a message names
SETTINGS = ("*.json", "*.txt", "*.model", "*.jinja")  # of a pipeline: configs, and all that tokenizers are made of


@dataclass(frozen=True)
class Fetched:
    """Where an address lies on this disk now, the address with the commit it was fetched from, and a name for the model."""

    path: Path
    address: str
    name: str


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether this names something on the hub, and no file: `hf://org/repo@revision/path`."""
    return _text(path).startswith(_SCHEME)


def located(path: str, folder: Path) -> Path | str:
    """What a file in `folder` means by a path: an address is one wherever it stands. Raises CheckpointError for `~` of nobody."""
    return path if is_address(path) else folder / local(path)


def local(path: str | os.PathLike[str]) -> Path:
    """The path of a file on this disk, with `~` as the person's folder. Raises CheckpointError."""
    try:
        return expanded(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be opened: {error.strerror}") from error


def fetched(path: str | os.PathLike[str]) -> Fetched:
    """Fetch what an address needs, and nothing that is in the hub's cache: a file; of a folder, its weights and its configs.

    With the hub's token and progress bars. Raises CheckpointError when there is no such thing, no access, or no connection.
    """
    uri = _parsed(_text(path))
    with _told(uri):
        from huggingface_hub import resolve_revision, snapshot_download

        commit = resolve_revision(uri.id, revision=uri.revision).resolved
        start = f"{escape(uri.path_in_repo)}/" if uri.path_in_repo else ""
        indices = [escape(uri.path_in_repo), *(f"{start}{name}" for name in (PIPELINE, CONFIG, INDICES))]
        snapshot = Path(snapshot_download(uri.id, revision=commit, allow_patterns=[one for one in indices if one]))
        needed = _needed(uri, _listing(uri.id, commit, snapshot), snapshot)
        if missing := [escape(name) for name in needed if not (snapshot / name).is_file()]:
            snapshot_download(uri.id, revision=commit, allow_patterns=missing)
    local = snapshot / uri.path_in_repo
    name = local.stem if local.is_file() else PurePosixPath(uri.id).name
    return Fetched(local, f"hf://{uri.id}@{commit}" + (f"/{uri.path_in_repo}" if uri.path_in_repo else ""), name)


def fetched_settings(path: str | os.PathLike[str], progress: bool) -> Path:
    """The folder of an address with its configs and tokenizers, never its weights: as the hub's cache has it, or else fetched into that.

    Raises CheckpointError when there is no such thing, no access, or no connection.
    """
    uri = _parsed(_text(path))
    with _told(uri):
        from huggingface_hub import resolve_revision, snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        start = f"{escape(uri.path_in_repo)}/" if uri.path_in_repo else ""
        patterns = [f"{start}{pattern}" for pattern in SETTINGS]
        fetch = partial(snapshot_download, uri.id, allow_patterns=patterns, ignore_patterns=[INDICES], tqdm_class=_bars(progress))
        try:
            kept = Path(fetch(revision=uri.revision, local_files_only=True)) / uri.path_in_repo
        except LocalEntryNotFoundError:
            kept = None
        if kept is not None and _has_its_parts(kept):
            return kept
        return Path(fetch(revision=resolve_revision(uri.id, revision=uri.revision).resolved)) / uri.path_in_repo


def _bars(progress: bool) -> type[tqdm[NoReturn]] | None:
    """The library's own progress bars, which heed its settings; or some that never show."""
    from tqdm import tqdm

    class Quiet(tqdm):  # type: ignore[type-arg]  # its stub alone takes one
        def __init__(self, *given: Any, **settings: Any) -> None:
            super().__init__(*given, **settings | {"disable": True})

    return None if progress else Quiet


def _has_its_parts(folder: Path) -> bool:
    """Whether a pipeline's folder has something of every part that its index names: older libraries left no list of the files."""
    if not (folder / PIPELINE).is_file():
        return False
    index = read_object(folder / PIPELINE)
    parts = [part for part, kind in index.items() if not part.startswith("_") and isinstance(kind, list) and kind[:1] != [None]]
    return all(any((folder / part).glob("*.json")) for part in parts)


def _text(path: str | os.PathLike[str]) -> str:
    return path.as_posix() if isinstance(path, PurePath) else os.fspath(path)


def _parsed(text: str) -> HfUri:
    from huggingface_hub import parse_hf_uri
    from huggingface_hub.errors import HfUriError

    try:
        uri = parse_hf_uri("hf://" + text.removeprefix(_SCHEME).strip("/"))
    except HfUriError as error:
        raise CheckpointError(f"{text}: is no address on the hub, {error.msg} Write hf://org/repo, with @revision and /path") from error
    if uri.type != "model":
        raise CheckpointError(f"{text}: names a {uri.type}; only models are opened, hf://org/repo")
    return uri


def _listing(repo: str, commit: str, snapshot: Path) -> list[str]:
    """Every file of a commit; without the hub's list of them, those that are on this disk."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        return [file.path for file in get_cached_repo_tree(repo, revision=commit)]
    except CachedRepoTreeNotFoundError:
        return [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()]


def _needed(uri: HfUri, names: Iterable[str], snapshot: Path) -> list[str]:
    """The files to fetch. Raises CheckpointError where there is nothing to open."""
    address, wanted = f"hf://{uri.id}/{uri.path_in_repo}".rstrip("/"), uri.path_in_repo
    folders: dict[str, dict[str, str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        folders.setdefault(folder, {})[file] = name
    parent, _, file = wanted.rpartition("/")
    if file in folders.get(parent, {}):
        beside = folders[parent]
        shards = _shards(snapshot, beside, wanted) if is_index(file) else []
        return [wanted, *shards, *([beside[CONFIG]] if CONFIG in beside else [])]
    there = folders.get(wanted)
    if there is None:
        known = sorted({name.removeprefix(f"{parent}/") for name in folders if name} | set(folders.get("", {})))
        raise CheckpointError(f"{address}: there is no such file or folder; {uri.id} has {few(known, _SHOWN)}")
    if PIPELINE not in there:
        return _component(address, there, snapshot) + ([there[CONFIG]] if CONFIG in there else [])
    parts = [part for part in read_object(snapshot / there[PIPELINE]) if not part.startswith("_")]
    inside = [folders[where] for part in parts if (where := f"{wanted}/{part}".lstrip("/")) in folders]
    weights = [name for files in inside if weights_among(files) for name in _component(address, files, snapshot)]
    return [there[PIPELINE], *weights, *(name for files in inside for file, name in files.items() if is_small(file))]


def _component(address: str, files: Mapping[str, str], snapshot: Path) -> list[str]:
    """The weights of a component's folder, given as file name -> name in the repository."""
    weights = weights_among(files)
    if weights is None:
        raise CheckpointError(no_weights(address, files))
    return [files[weights], *(_shards(snapshot, files, files[weights]) if is_index(weights) else [])]


def _shards(snapshot: Path, files: Mapping[str, str], index: str) -> list[str]:
    """The shards that a fetched index names, those that the repository has; opening says which are missing."""
    named = dict.fromkeys(weight_map_of(snapshot / index, read_object(snapshot / index)).values())
    return [files[name] for name in named if name in files]


@contextmanager
def _told(uri: HfUri) -> Iterator[None]:
    """Turn what the hub's library raises into a CheckpointError that says what to do."""
    from huggingface_hub import constants, errors

    login = "log in with `hf auth login`, or set HF_TOKEN"
    page = f"{constants.ENDPOINT}/{uri.id}"
    cause: Exception
    try:
        yield
        return
    except errors.GatedRepoError as error:
        told, cause = f"is gated; accept its terms at {page}, then {login}", error
    except errors.RepositoryNotFoundError as error:
        told, cause = f"is not there, or private; see {page}; if it is private, {login}", error
    except errors.RevisionNotFoundError as error:
        told, cause = f"has no revision {uri.revision!r}; give a branch, a tag or a commit (see {page}/commits), or none", error
    except (errors.LocalEntryNotFoundError, errors.RevisionResolutionError, errors.OfflineModeIsEnabled) as error:
        told, cause = f"cannot be reached at {constants.ENDPOINT}, and is not whole in the cache; {_offline(constants)}", error
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # of the library beneath it
        told, cause = f"could not be fetched: {str(error).strip().splitlines()[0]}; try again, or see {page}", error
    except OSError as error:
        told, cause = f"could not be kept in {constants.HF_HUB_CACHE}: {error.strerror or error}", error
    raise CheckpointError(f"hf://{uri.id}: {told}") from cause


def _offline(constants: ModuleType) -> str:
    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set: unset it to fetch the model"
    return "go online once, and it is kept for later"
