"""Has cells drawn, here or by an executor's workers: threads, processes, or machines. How one cell is drawn is in `drawing`."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING

import workbench
from workbench.errors import SweepError
from workbench.render.spec import Spec
from workbench.sweeps.drawing import Outcome, draw, in_words
from workbench.sweeps.jobs import Job
from workbench.sweeps.store import kept

if TYPE_CHECKING:
    from workbench.render import Renderer

Jobs = Mapping[int, Job]

_KEEPS = "what is drawn is kept, and the same call goes on where it stopped"

_making = threading.Lock()
_renderers: dict[str, tuple[Spec, Renderer]] = {}  # of this process: device -> its renderer, and what that was made of


def outcomes(jobs: Jobs, renderer: Renderer, executor: Executor | None) -> Iterator[tuple[int, Outcome]]:
    """Every job as it is done: first what is there already, last what another kernel is drawing, which is waited for.

    Raises SweepError when the executor takes no work, loses what it took, or has workers that cannot begin, or keep what they draw.
    """
    there = {number for number, job in jobs.items() if kept(job.folder, job.count)}
    yield from ((number, Outcome()) for number in sorted(there))
    jobs = {number: job for number, job in jobs.items() if number not in there}
    for wait in (False, True):
        busy = {}
        drawn = _by_workers(jobs, executor, wait) if executor else ((number, draw(renderer, job, wait)) for number, job in jobs.items())
        for number, outcome in drawn:
            if outcome.busy:
                busy[number] = jobs[number]
            else:
                yield number, outcome
        jobs = busy


def draw_here(job: Job, wait: bool, version: str) -> Outcome:
    """`draw` with the renderer that this process has for the job's device. Raises SweepError for a caller of another version."""
    where = f"{socket.gethostname()}, process {os.getpid()}"
    if version != workbench.__version__:
        raise SweepError(f"the worker on {where} has Workbench {workbench.__version__}, and the caller {version}: install the same on both")
    try:
        renderer = _renderer_for(job.spec)
    except Exception as error:
        return Outcome(problem=f"worker on {where}: {in_words(error)}", where=where)
    try:
        done = draw(renderer, job, wait)
    except SweepError as error:
        raise SweepError(f"worker on {where}: {error}") from None
    return replace(done, problem=f"worker on {where}: {done.problem}" if done.problem else "", where=where)


def _renderer_for(spec: Spec) -> Renderer:
    """One renderer on each device, however many threads draw there: memory holds one pipeline, and one picture is drawn at a time."""
    with _making:
        made, renderer = _renderers.get(spec.device, (None, None))
        if renderer is None or made != spec:
            _renderers.pop(spec.device, None)  # before there is a second one
            renderer = spec.make()
            _renderers[spec.device] = spec, renderer
        return renderer


def _by_workers(jobs: Jobs, executor: Executor, wait: bool) -> Iterator[tuple[int, Outcome]]:
    futures: dict[Future[Outcome], int] = {}
    done: SimpleQueue[Future[Outcome]] = SimpleQueue()  # `as_completed` waits for ever for what a pool cancels
    try:
        for number, job in jobs.items():
            futures[_submitted(executor, job, wait)] = number
        for future in futures:
            future.add_done_callback(done.put)
        for left in range(len(futures), 0, -1):
            future = done.get()
            yield futures[future], _outcome(future, left)
    finally:  # after Ctrl-C, or an error, nothing new is begun
        for future in futures:
            future.cancel()


def _submitted(executor: Executor, job: Job, wait: bool) -> Future[Outcome]:
    try:
        return executor.submit(draw_here, job, wait, workbench.__version__)
    except Exception as error:  # each kind of executor has its own
        raise SweepError(f"the executor takes no work ({in_words(error)}): make a new one; {_KEEPS}") from error


def _outcome(future: Future[Outcome], left: int) -> Outcome:
    """What a worker says of its cell. Raises SweepError where that concerns those that are `left`, too."""
    try:
        return future.result()
    except SweepError:
        raise
    except CancelledError as error:
        raise SweepError(
            f"the executor gave up {left} cells that were not drawn yet: its scheduler cannot be reached, or somebody shut it down or "
            f"cancelled them. Start it, and connect a new client; {_KEEPS}"
        ) from error
    except BrokenExecutor as error:
        raise SweepError(
            f"a worker process ended in the middle, and with it the executor, {left} cells before the end ({in_words(error)}). Perhaps "
            f"it was killed for its memory: take fewer workers. Make a new executor; {_KEEPS}"
        ) from error
    except Exception as error:
        if _is_lost(error):
            return Outcome(problem=f"every worker that began to draw it ended in the middle, perhaps for its memory: {error}")
        raise SweepError(
            f"a worker could not begin ({in_words(error)}): has it the same Workbench, torch and diffusers as the caller? {_KEEPS}"
        ) from error


def _is_lost(error: Exception) -> bool:
    """Whether dask gave a task up because its workers died one after another."""
    distributed = sys.modules.get("distributed")
    return distributed is not None and isinstance(error, distributed.KilledWorker)
