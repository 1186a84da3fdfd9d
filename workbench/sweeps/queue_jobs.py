"""`QueueJob`: one job of a queue, as it lies in a folder of its own. What jobs do, and who works them off, is elsewhere."""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, final

from workbench.checkpoint.files.writing import replacing

WAITING, RUNNING, DONE, FAILED, STOPPED = "waiting", "running", "done", "failed", "stopped"
ACTIVE = (WAITING, RUNNING)
DAMAGED = "damaged"  # the kind of a job whose files cannot be read

_TOLD, _STATE, _CELLS = "job.json", "state.json", "cells.json"
_SURE = 0.05  # the share that has to be done before it is said how long the rest takes


@final
@dataclass(frozen=True)
class QueueJob:
    """What is to be done, and how far it is; times are seconds since 1970, `share` goes from 0 to 1.

    `what` is plain data, and never changes; the rest does, in a file of its own. `order` says who is next.
    """

    folder: Path
    kind: str
    title: str
    what: Mapping[str, Any] = field(repr=False)
    added: float
    state: str = WAITING
    order: float = 0.0
    share: float = 0.0
    message: str = ""
    stopping: bool = False  # somebody wants it to end
    began: float = math.nan
    ended: float = math.nan

    @property
    def id(self) -> str:
        """Its name in the queue: when it was added, and a few letters."""
        return self.folder.name

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ACTIVE

    @property
    def left(self) -> float:
        """The seconds that it still takes, as far as it is known; else NaN."""
        if self.state != RUNNING or self.share < _SURE:
            return math.nan
        return (time.time() - self.began) * (1 - self.share) / self.share

    @property
    def results(self) -> dict[str, Any]:
        """What has come of it so far, as plain data; empty where nothing has."""
        try:
            found = json.loads((self.folder / _CELLS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


_CHANGING = ("state", "order", "share", "message", "stopping", "began", "ended")


def new_job(queue: Path, kind: str, title: str, what: Mapping[str, Any]) -> QueueJob:
    """Write a job into a queue's folder, as the last. Raises OSError."""
    now = time.time()
    folder = queue / f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}-{secrets.token_hex(2)}"
    job = QueueJob(folder, kind, title, what, now, order=now)
    folder.mkdir()
    _write(folder / _STATE, _changing(job))
    _write(folder / _TOLD, {"kind": kind, "title": title, "added": now, "what": what})  # last: with it the job is there
    return job


def read_job(folder: Path) -> QueueJob:
    """A job as it is now; one whose files are damaged is `damaged`, and failed. Raises FileNotFoundError where there is none."""
    try:
        told = _told(folder / _TOLD, (folder / _TOLD).stat().st_mtime_ns)
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        known = {one.name for one in fields(QueueJob)}
        now = {name: state[name] for name in _CHANGING if name in known}
        times = {name: math.nan if now[name] is None else float(now[name]) for name in ("began", "ended")}
        return QueueJob(folder, str(told["kind"]), str(told["title"]), dict(told["what"]), float(told["added"]), **now | times)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, LookupError, TypeError) as error:
        return QueueJob(folder, DAMAGED, folder.name, {}, 0.0, FAILED, message=f"its files cannot be read ({error}); remove it")


def change_job(job: QueueJob, **changes: Any) -> QueueJob:
    """The job after a change, which is written. Raises OSError."""
    changed = replace(job, **changes)
    _write(job.folder / _STATE, _changing(changed))
    return changed


def write_results(job: QueueJob, results: Mapping[str, Any]) -> None:
    """Keep what has come of a job so far. Raises OSError."""
    _write(job.folder / _CELLS, results)


@lru_cache(maxsize=64)
def _told(path: Path, changed: int) -> Any:
    """What a job is, which is looked at every second and may be long, and never changes."""
    return json.loads(path.read_text(encoding="utf-8"))


def _changing(job: QueueJob) -> dict[str, Any]:
    told = {name: getattr(job, name) for name in _CHANGING}
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in told.items()}


def _write(path: Path, told: Mapping[str, Any]) -> None:
    """A reader finds the old file or the new one, whole."""
    if not path.parent.is_dir():
        raise FileNotFoundError(2, "the folder is gone", str(path.parent))
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(told, indent=1), encoding="utf-8")
