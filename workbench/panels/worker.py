"""One thread that does the latest job it was given; an earlier one is told to stop. What the jobs do does not matter here."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from functools import partial
from typing import final
from weakref import WeakSet

from workbench.errors import Cancelled

Job = Callable[[Callable[[], bool]], None]  # is given a function that says whether the job is not wanted any more

_PATIENCE = 10.0  # seconds in which a job has to stop when Python ends
_workers: WeakSet[Worker] = WeakSet()  # those that there are


@final
class Worker:
    """Runs one job at a time, always the latest: one that waits is forgotten, one that runs is cancelled.

    A job reports its own errors; Cancelled is no error.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: Job | None = None
        self._latest = 0  # counts what was submitted
        self._busy = False
        _workers.add(self)

    def submit(self, job: Job) -> None:
        """Do this now, and nothing that was asked before."""
        with self._changed:
            self._latest += 1
            self._waiting = job
            if not self._busy:
                self._busy = True
                threading.Thread(target=self._run, name="workbench-panel", daemon=True).start()

    def cancel(self) -> None:
        """Stop what runs, and forget what waits."""
        with self._changed:
            self._latest += 1
            self._waiting = None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to do; returns whether that came about in so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy, timeout)

    def _is_outdated(self, number: int) -> bool:
        return number != self._latest

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            job, number = taken
            try:
                job(partial(self._is_outdated, number))
            except Cancelled:
                pass
            except BaseException:
                self._stop()
                raise

    def _stop(self) -> None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()

    def _take(self) -> tuple[Job, int] | None:
        with self._changed:
            job, self._waiting = self._waiting, None
            if job is None:
                self._busy = False
                self._changed.notify_all()
                return None
            return job, self._latest


@atexit.register
def _end() -> None:
    """Have all jobs stopped while Python is whole: a thread that is torn out of a calculation takes the process down with it."""
    for worker in [*_workers]:
        worker.cancel()
    for worker in [*_workers]:
        worker.wait(_PATIENCE)
