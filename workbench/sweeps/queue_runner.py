"""The process that works a queue off, one job after another, until nothing waits. What the jobs do is in `queue_work`."""

from __future__ import annotations

import _thread
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

from workbench.errors import SweepError, WorkbenchError
from workbench.sweeps.drawing import in_words
from workbench.sweeps.queue_folder import QueueFolder, ended
from workbench.sweeps.queue_jobs import DONE, FAILED, STOPPED, QueueJob, read_job, write_results
from workbench.sweeps.queue_work import WORK

_PACE = 0.5  # seconds between two looks at, or notes of, how it goes


def work_off(folder: Path) -> int | None:
    """Do all jobs that wait, and return how many; None where another process does that already.

    A job is stopped as Ctrl-C stops a cell: what is written is whole, or is not there. To be called on the main thread.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process started in the background may ignore it
    queue, count = QueueFolder(folder), 0
    with queue.running() as take:
        if take is None:
            return None
        while (job := take()) is not None:
            _work(queue, job)
            count += 1
    return count


def _work(queue: QueueFolder, job: QueueJob) -> None:
    """Do a job, and note how it ended. Raises SweepError where that cannot be noted, which ends the runner."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            with _stoppable(job):
                state, said = DONE, WORK[job.kind](job, _Noting(queue, job))
        except KeyboardInterrupt:
            if not _unwanted(job):  # Ctrl-C means the runner: the job goes on with the next one
                raise
            state, said = STOPPED, "stopped"
        except Exception as error:  # whatever is wrong with it, the next one is done
            state, said = FAILED, _in_words(error)
    told = dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, UserWarning))
    queue.change(job.id, lambda _: ended(job, state, "; ".join([said, *told])))


@final
class _Noting:
    """Called with how far a job is, and what has come of it: writes that now and then, and at the end."""

    def __init__(self, queue: QueueFolder, job: QueueJob) -> None:
        self._queue, self._job, self._noted = queue, job, 0.0

    def __call__(self, share: float, results: Mapping[str, Any] | None) -> None:
        now = time.monotonic()
        if now - self._noted < _PACE and share < 1:
            return
        self._noted = now
        if results is not None:
            write_results(self._job, results)
        with suppress(SweepError):  # another holds the queue for long: the next note says it as well
            self._queue.change(self._job.id, lambda _: {"share": share})


@contextmanager
def _stoppable(job: QueueJob) -> Iterator[None]:
    """Raise KeyboardInterrupt in the block once somebody wants the job to stop, or its folder is gone."""
    working, alone = threading.Event(), threading.Lock()
    working.set()

    def watch() -> None:
        while working.is_set():
            time.sleep(_PACE)
            with alone:
                if working.is_set() and _unwanted(job):
                    _thread.interrupt_main()
                    return

    threading.Thread(target=watch, name="workbench-queue", daemon=True).start()
    try:
        yield
    finally:
        with alone:
            working.clear()


def _unwanted(job: QueueJob) -> bool:
    with suppress(OSError):
        return read_job(job.folder).stopping
    return not job.folder.is_dir()


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, WorkbenchError) and error.strerror:
        return f"{error.filename or 'the disk'}: {error.strerror}"
    return in_words(error)
