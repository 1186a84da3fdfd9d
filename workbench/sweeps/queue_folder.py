"""The folder of a queue: which jobs lie in it, who may change them, and whether somebody works them off. Nothing is computed here."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

from filelock import FileLock, Timeout

from workbench.errors import SweepError
from workbench.sweeps.queue_jobs import FAILED, RUNNING, STOPPED, WAITING, QueueJob, change_job, new_job, read_job

LOG = "runner.log"
_CHANGING, _RUNNER = ".changing", ".runner"  # locks, which the system takes from a process that was killed
_PID = ".runner-pid"
_PATIENCE = 10.0  # seconds; whoever changes a job is done in a fraction of one
_GLANCE = 2.0  # seconds in which a runner waits for another that may only be looked for


@final
class QueueFolder:
    """Jobs by order. The folder is made with the first job; several kernels and one runner may use it at once.

    Raises SweepError where the folder cannot be written, or is gone with the job that is meant.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()

    @property
    def jobs(self) -> tuple[QueueJob, ...]:
        """All jobs, the next first; none where there is no folder."""
        found = []
        with suppress(OSError):
            for folder in [one for one in self.path.iterdir() if one.is_dir() and not one.name.startswith(".")]:
                with suppress(FileNotFoundError):
                    found.append(read_job(folder))
        return tuple(sorted(found, key=lambda job: (job.order, job.id)))

    def job(self, name: str) -> QueueJob:
        """A job by its id."""
        try:
            return read_job(self.path / name)
        except FileNotFoundError:
            raise SweepError(f"{self.path}: there is no job {name} any more") from None

    @property
    def runs(self) -> bool:
        """Whether a runner works here now."""
        if not self.path.is_dir():
            return False
        lock = FileLock(self.path / _RUNNER)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return True
        except OSError:
            return False
        lock.release()
        return False

    @property
    def runner(self) -> int | None:
        """The process that was the last to work here, whether it still does or not."""
        try:
            return int((self.path / _PID).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def add(self, kind: str, title: str, what: Mapping[str, Any]) -> QueueJob:
        """Put a job at the end."""
        with self.changing(make=True):
            return new_job(self.path, kind, title, what)

    def change(self, name: str, change: Callable[[QueueJob], Mapping[str, Any]]) -> QueueJob:
        """Change a job by what `change` says of it as it is then."""
        with self.changing():
            job = self.job(name)
            changes = change(job)
            return change_job(job, **changes) if changes else job

    def stop(self, name: str) -> QueueJob:
        """End a job: one that waits at once, one that runs as soon as its runner hears of it."""

        def stopped(job: QueueJob) -> Mapping[str, Any]:
            if job.state == WAITING or (job.state == RUNNING and not self.runs):
                return {"state": STOPPED, "message": "stopped", "ended": time.time()}
            return {"stopping": True, "message": "is being stopped"} if job.state == RUNNING else {}

        return self.change(name, stopped)

    def again(self, name: str) -> QueueJob:
        """Have a job that ended done again, after those that wait; what was drawn of it is not drawn again."""
        fresh = {"state": WAITING, "message": "", "stopping": False, "order": time.time()}
        return self.change(name, lambda job: {} if job.active else fresh)

    def remove(self, name: str) -> None:
        """Take a job that does not run out of the queue; what it made stays where it is."""
        with self.changing():
            job = self.job(name)
            if job.state == RUNNING and self.runs:
                raise SweepError(f"{job.title}: runs; stop it first")
            shutil.rmtree(job.folder, ignore_errors=True)

    def up(self, name: str) -> None:
        """Do a job that waits before the one it waits for."""
        with self.changing():
            waiting = [job for job in self.jobs if job.state == WAITING]
            place = next((number for number, job in enumerate(waiting) if job.id == name), 0)
            if place:
                before, job = waiting[place - 1], waiting[place]
                change_job(job, order=before.order)
                change_job(before, order=job.order)

    @contextmanager
    def running(self) -> Iterator[Callable[[], QueueJob | None] | None]:
        """Be the one runner: gives a function that takes the next job, or None where there is another runner."""
        with self.changing(make=True):
            pass
        lock = FileLock(self.path / _RUNNER)
        try:
            lock.acquire(timeout=_GLANCE)
        except Timeout:
            yield None
            return
        (self.path / _PID).write_text(str(os.getpid()), encoding="utf-8")
        try:
            yield lambda: self._next(lock)
        finally:
            lock.release()

    def _next(self, lock: FileLock) -> QueueJob | None:
        """The next job, which runs from now on; where there is none, the runner is none any more before anybody can add one."""
        with self.changing():
            for interrupted in [job for job in self.jobs if job.state == RUNNING]:  # by a runner that was killed
                if interrupted.stopping:  # which nobody was there to hear
                    change_job(interrupted, state=STOPPED, message="stopped", stopping=False, ended=time.time())
                else:
                    change_job(interrupted, state=WAITING, message="was interrupted, and goes on")
            job = next((job for job in self.jobs if job.state == WAITING), None)
            if job is None:
                lock.release()
                return None
            return change_job(job, state=RUNNING, stopping=False, began=time.time(), ended=float("nan"), share=0.0)

    @contextmanager
    def changing(self, make: bool = False) -> Iterator[None]:
        """Be the only one who changes jobs."""
        try:
            if make:
                self.path.mkdir(parents=True, exist_ok=True)
            elif not self.path.is_dir():
                raise SweepError(f"{self.path}: the queue's folder is gone, and its jobs with it")
            with FileLock(self.path / _CHANGING, timeout=_PATIENCE):
                yield
        except Timeout:
            raise SweepError(f"{self.path}: another process has held the queue for {_PATIENCE:.0f} s; try again") from None
        except OSError as error:
            raise SweepError(f"{self.path}: the queue cannot be written ({error.strerror or error})") from error


def ended(job: QueueJob, state: str, message: str) -> dict[str, Any]:
    """The changes of a job that has ended so."""
    return {
        "state": state,
        "message": message,
        "stopping": False,
        "ended": time.time(),
        **({} if state in (FAILED, STOPPED) else {"share": 1.0}),
    }
