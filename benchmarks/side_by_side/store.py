"""What was measured, kept round by round, so that a run goes on where it stopped. Nothing is measured here."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.checkpoint.files.writing import replacing

Measured = Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """Something that is measured in several rounds: its key, the version of what is measured, how often, and how.

    What has taken `enough` seconds is not measured in another round.
    """

    key: str
    by: str
    rounds: int
    run: Callable[[], Measured]
    enough: float = math.inf


class Store:
    """A JSON file of what each job gave in each round; what another version of it gave is measured anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def rounds(self, job: Job) -> list[Measured]:
        """What the job gave, of this version."""
        kept = self._kept.get(job.key, {})
        return list(kept["rounds"]) if kept.get("by") == job.by else []

    def add(self, job: Job, found: Measured) -> None:
        """Keep what a round gave."""
        self._kept[job.key] = {"by": job.by, "rounds": [*self.rounds(job), found]}
        with replacing(self._path) as temporary:
            temporary.write_text(json.dumps(self._kept, indent=1), encoding="utf-8")


def run(jobs: Sequence[Job], store: Store, say: Callable[[str], None]) -> None:
    """All jobs in turn, round after round, so that what disturbs the machine disturbs all of them; what is kept is not done again."""
    for number in range(max((job.rounds for job in jobs), default=0)):
        for job in jobs:
            done = store.rounds(job)
            if len(done) == number < job.rounds and sum(one.get("seconds", 0) for one in done) < job.enough:
                found = job.run()
                store.add(job, found)
                say(f"round {number + 1}, {job.key}: {_told(found)}")


def _told(found: Measured) -> str:
    numbers = {name: f"{value:.2f}" if isinstance(value, float) else str(value) for name, value in found.items()}
    return ", ".join(f"{name} {value}" for name, value in numbers.items())


def version_of(paths: Iterable[Path]) -> str:
    """A short hash of what these files, or the Python files in these folders, hold."""
    digest = hashlib.sha256()
    for path in paths:
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            digest.update(f"{file.relative_to(path)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]
