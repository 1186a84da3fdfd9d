"""Runs jobs on threads: reading, computing and writing overlap, and their tensors share a limited memory.

What a job does is its caller's.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Protocol, TypeVar

from workbench.checkpoint.files.stopping import held_back
from workbench.wording import printable

_LIMIT = 512 << 20  # bytes of tensors that are worked on at once
_GLANCE = 0.1  # seconds between two looks at the progress
_THREADS = 8  # by default at most: more only wait for the disk, and each holds a tensor


class Held(Protocol):
    """What a job must say of itself."""

    @property
    def key(self) -> str:
        """The tensor it works on, for the progress bar."""

    @property
    def held(self) -> int:
        """Bytes of tensors that it takes, about."""


Work = TypeVar("Work", bound=Held)
Made = TypeVar("Made")
Done = Callable[[int], None]  # told of bytes that are done with


class Memory:
    """Lets as many jobs run at once as a limit in bytes allows, and a larger one alone."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used, self._freed = limit, 0, threading.Condition()

    @contextmanager
    def held(self, nbytes: int) -> Iterator[None]:
        with self._freed:
            self._freed.wait_for(lambda: not self._used or self._used + nbytes <= self._limit)
            self._used += nbytes
        if nbytes > self._limit:
            _give_back_freed_memory()
        try:
            yield
        finally:
            with self._freed:
                self._used -= nbytes
                self._freed.notify_all()


def usual_threads() -> int:
    """As many as the process may use cores, up to a limit."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, _THREADS)


def run(
    jobs: Sequence[Work],
    work: Callable[[Work, Done], None],
    *,
    total: int,
    title: str,
    delay: float,
    progress: bool = True,
    threads: int | None = None,
) -> None:
    """Do `work` on every job, on `threads` threads (default: the cores, at most 8), under a bar of `total` bytes.

    The bar comes after `delay` seconds. An error in any thread, or Ctrl-C, stops all of them before it is raised.
    """
    import torch
    from tqdm.auto import tqdm

    _keep_freed_memory()
    threads = threads or usual_threads()
    stop, waiting, lock, finished, latest = threading.Event(), iter(jobs), threading.Lock(), 0, ""
    intra = torch.get_num_threads()
    memory = Memory(_LIMIT)

    def done(nbytes: int) -> None:
        nonlocal finished
        with lock:
            finished += nbytes

    def worker() -> None:
        nonlocal latest
        torch.set_num_threads(1)  # threads over tensors are steadier, and the same bytes on any machine
        while not stop.is_set():
            with lock:
                job = next(waiting, None)
            if job is None:
                return
            with memory.held(job.held):
                latest = job.key
                work(job, done)

    try:
        with (
            held_back() as deliver,
            tqdm(total=total, unit="B", unit_scale=True, delay=delay, disable=not progress, desc=printable(title)) as bar,
            ThreadPoolExecutor(threads) as pool,
        ):
            try:
                running = {pool.submit(worker) for _ in range(threads)}
                # only this thread touches the bar, which blocks the others for good when it cannot be shown; and only a wait
                # that ends by itself hears of Ctrl-C on Windows
                while running:
                    done_with, running = wait(running, _GLANCE, FIRST_COMPLETED)
                    deliver()
                    for future in done_with:
                        future.result()
                    bar.set_postfix_str(latest[-60:], refresh=False)
                    bar.update(finished - bar.n)
            except BaseException:
                stop.set()
                raise
    finally:
        torch.set_num_threads(intra)


def results(futures: Sequence[Future[Made]], deliver: Callable[[], None]) -> list[Made]:
    """What each gives, once all have; meanwhile `deliver` is called. An error, or Ctrl-C, cancels those that have not begun."""
    try:
        while (state := wait(futures, _GLANCE, FIRST_EXCEPTION)).not_done:
            for future in state.done:
                future.result()
            deliver()
        return [future.result() for future in futures]
    except BaseException:
        for future in futures:
            future.cancel()
        raise


def _keep_freed_memory() -> None:
    """Have the C library keep what the threads free for their next part, instead of giving it back to the kernel.

    Fresh pages cost more than all the arithmetic. glibc raises its limit to the largest block that was freed, up to 32 MiB;
    this block is never touched, and so costs nothing, here or elsewhere.
    """
    import torch

    torch.empty((32 << 20) - (64 << 10), dtype=torch.uint8)


def _give_back_freed_memory() -> None:
    """The opposite, for a job that needs it all: glibc gives the kernel what is free. Other C libraries do as they like."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
