"""Writes the tensors of a checkpoint into the files of a plan, side by side. Where they lie in the end is the caller's."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.files.stopping import held_back
from workbench.checkpoint.files.writing import write_at
from workbench.engine.containers import Container, in_safetensors
from workbench.engine.parts import jobs
from workbench.engine.pool import results
from workbench.engine.quantising.quantiser import Quantiser
from workbench.engine.streaming import Findings, stream
from workbench.tensors import Calculation

Hashes = Mapping[Path, Future[str]]
Known = tuple[tuple[Path, str], ...]  # the parents' sha256
_BEHIND = 0.1  # seconds after which what was written meanwhile is sent to the disk


@dataclass(frozen=True)
class File:
    """One file to be: its place in the output, and the name in it of each of the checkpoint's tensors that it holds."""

    place: Path
    names: Mapping[str, str]


@dataclass(frozen=True)
class Writing:
    """What all files of one export share. `metadata` says what goes into the headers in a folder, given the parents' sha256."""

    checkpoint: Checkpoint
    quantisers: Mapping[str, Quantiser]  # by the checkpoint's names
    metadata: Callable[[Path, Known], Mapping[str, str]]
    hashes: Hashes
    calculation: Calculation
    findings: Findings
    threads: int | None
    progress: bool
    container: Container = in_safetensors

    @cached_property
    def _unknown(self) -> Known:
        # every sha256 has the same length, so the size of a header is known before they are
        return tuple((file, f"{i:064}") for i, file in enumerate(self.hashes))

    def header(self, file: File, known: Known | None = None, length: int = 0) -> tuple[bytes, dict[str, tuple[int, ...]]]:
        """A file's bytes before the data, and where each of a tensor's own begin, by the checkpoint's names."""
        quantisers = {name: self.quantisers[key] for key, name in file.names.items()}
        metadata = self.metadata(file.place.parent, self._unknown if known is None else known)
        header, begins = self.container(quantisers, metadata, length)
        return header, {key: begins[name] for key, name in file.names.items()}

    def size(self, file: File) -> int:
        """Bytes that the file will have."""
        header, begins = self.header(file)
        stored = {key: self.quantisers[key].stored(name).values() for key, name in file.names.items()}
        ends = (begin + info.nbytes for key in stored for begin, info in zip(begins[key], stored[key], strict=True))
        return max(ends, default=len(header))

    def write(self, places: Mapping[Path, File]) -> Known:
        """Write each file at a place that is its own for now; what is known then of the parents is returned."""
        with ExitStack() as stack:
            handles = {place: stack.enter_context(place.open("w+b", buffering=0)).fileno() for place in places}
            headers = {place: self.header(file) for place, file in places.items()}
            starts = {key: (handles[place], begin) for place, (_, begins) in headers.items() for key, begin in begins.items()}
            for place, file in places.items():
                _reserve(handles[place], self.size(file))

            work = jobs(self.checkpoint, [(key, self.quantisers[key]) for key in starts], self.calculation)
            with _written_behind([*handles.values()]) as check:

                def write(key: str, number: int, first: int, data: memoryview) -> None:
                    check()
                    handle, begins = starts[key]
                    write_at(handle, data, begins[number] + first)

                stream(self.checkpoint, work, self.calculation, self.findings, write, threads=self.threads, progress=self.progress)
            with held_back() as deliver:
                known = tuple(zip(self.hashes, results([*self.hashes.values()], deliver), strict=True))
            for place, file in places.items():
                header, _ = self.header(file, known, len(headers[place][0]))
                write_at(handles[place], memoryview(header), 0)
        return known


def _reserve(handle: int, size: int) -> None:
    """Take the disk space now: a full disk shows before an hour of work, and the file lies in one piece."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:
        os.truncate(handle, size)


@contextmanager
def _written_behind(handles: Sequence[int]) -> Iterator[Callable[[], None]]:
    """Have the disk write what is there already while the rest is calculated, instead of all of it at the end.

    What is given raises what went wrong with that: systems tell of a failed write once, so whoever flushes the file next hears nothing.
    """
    done, write_out = threading.Event(), getattr(os, "fdatasync", os.fsync)

    def follow() -> None:
        while not done.wait(_BEHIND):
            for handle in handles:
                if not done.is_set():
                    write_out(handle)

    def check() -> None:
        if writing.done():
            writing.result()

    pool = ThreadPoolExecutor(1, thread_name_prefix="workbench-disk")
    try:
        with held_back():
            writing = pool.submit(follow)
        yield check
    finally:
        with held_back():
            done.set()
            pool.shutdown()
    writing.result()
