"""Small measurements that explain the engine's choices and its least memory: pages, pieces, threads, hashing, reading, writing, imports."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.processes import run_python
from benchmarks.side_by_side.files import MODELS, Files
from benchmarks.side_by_side.store import Job

_ELEMENTS = 1 << 25  # of the tensor that is cast and mixed: 128 MB in float32
_PIECES = (1 << 13, 1 << 15, 1 << 17, 1 << 19, 1 << 21)
_BUFFERS = (64 << 10, 256 << 10, 1 << 20, 4 << 20)
_GOES = 3
_RUN = "import sys; from benchmarks.side_by_side.micro import run; run(sys.argv[1], sys.argv[2:])"

_IMPORTED = {  # what an export imports, and loads before its first number, each after those before it
    "NumPy": "import numpy",
    "torch": "import torch",
    "numba": "import numba",
    "what exports": "import workbench.engine.exporting",
    "the first compiled loop": "from workbench.kernels import mixtures; t = torch.ones(2).half(); mixtures.weighted_sum(t, [t], [1.0])",
}

Measure = Callable[[list[Path]], dict[str, float]]


def jobs(where: Files, rounds: int) -> Iterator[Job]:
    """Each in a process of its own, for memory that was used once is not fresh again."""
    paths = [str(where.path("large", model)) for model in MODELS]
    for name, one in MEASURES.items():
        yield Job(f"micro/{name}", one.__doc__ or name, rounds, partial(_in_process, name, [*paths, str(where.folder / "written.bin")]))


def _in_process(name: str, paths: list[str]) -> dict[str, float]:
    out = Path(paths[-1]).with_suffix(".json")
    run_python(["-c", _RUN, name, *paths, str(out)])
    found: dict[str, float] = json.loads(out.read_text(encoding="utf-8"))
    out.unlink()
    return found


def run(name: str, arguments: list[str]) -> None:
    """One measurement, written as JSON to the last of the paths."""
    *paths, out = map(Path, arguments)
    out.write_text(json.dumps(MEASURES[name](paths)), encoding="utf-8")


def _best(work: Callable[[], object]) -> float:
    """Seconds of the fastest of some goes."""
    times = []
    for _ in range(_GOES):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def fresh_pages(paths: list[Path]) -> dict[str, float]:
    """seconds per thousand million elements, one thread: float16 into float32"""
    torch.set_num_threads(1)
    halves, kept = torch.ones(_ELEMENTS, dtype=torch.float16), torch.zeros(_ELEMENTS)
    piece = torch.zeros(_PIECES[2])

    def in_pieces() -> None:
        for start in range(0, _ELEMENTS, len(piece)):
            piece.copy_(halves[start : start + len(piece)])

    ways: dict[str, Callable[[], object]] = {
        "into a new tensor": halves.float,
        "into a tensor that is kept": lambda: kept.copy_(halves),
        "in pieces of 2^17 into one that is kept": in_pieces,
    }
    return {way: _best(work) * 1e9 / _ELEMENTS for way, work in ways.items()}


def pieces_and_threads(paths: list[Path]) -> dict[str, float]:
    """seconds per thousand million elements: a float16 average by way of float32, in pieces"""
    torch.set_num_threads(1)
    first, second, out = (torch.ones(_ELEMENTS, dtype=torch.float16) for _ in range(3))

    def mixed(begin: int, end: int, size: int) -> None:
        one, other = torch.empty(size), torch.empty(size)
        for start in range(begin, end, size):
            place = slice(start, start + size)
            one.copy_(first[place])
            other.copy_(second[place])
            out[place] = one.lerp_(other, 0.7)

    found = {}
    for size in _PIECES:
        found[f"2^{size.bit_length() - 1}, one thread"] = _best(partial(mixed, 0, _ELEMENTS, size))
        with ThreadPoolExecutor(2) as pool:
            half = _ELEMENTS // 2
            both = partial(pool.map, mixed, (0, half), (half, _ELEMENTS), (size, size))
            found[f"2^{size.bit_length() - 1}, two threads"] = _best(lambda both=both: list(both()))  # type: ignore[misc]
    return {name: seconds * 1e9 / _ELEMENTS for name, seconds in found.items()}


def sha256(paths: list[Path]) -> dict[str, float]:
    """GB in a second: hashing files that are in the page cache"""
    two = paths[:2]
    total = sum(path.stat().st_size for path in two) / 1e9

    def hashed(path: Path) -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def one_after_another() -> list[str]:
        return [hashed(path) for path in two]

    def together() -> list[str]:
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(hashed, two))

    hashed(two[0]), hashed(two[1])
    return {"two files, one thread": total / _best(one_after_another), "two files, a thread each": total / _best(together)}


def read_buffers(paths: list[Path]) -> dict[str, float]:
    """GB in a second: reading a file that is in the page cache"""
    size = paths[0].stat().st_size / 1e9

    def read(buffer: memoryview) -> None:
        with paths[0].open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    read(memoryview(bytearray(_BUFFERS[-1])))
    found = {f"into {length >> 10} KB that are kept": size / _best(partial(read, memoryview(bytearray(length)))) for length in _BUFFERS}
    return {**found, "all of it into new memory": size / _best(lambda: np.fromfile(paths[0], np.uint8))}


def written(paths: list[Path]) -> dict[str, float]:
    """GB in a second, fsync included: writing a new file"""
    *_, out = paths
    length = paths[0].stat().st_size

    def write(piece: int, preallocated: bool) -> float:
        out.unlink(missing_ok=True)
        os.sync()
        data = memoryview(bytearray(piece))
        began = time.perf_counter()
        with out.open("wb", buffering=0) as file:
            if preallocated:
                os.posix_fallocate(file.fileno(), 0, length)
            for start in range(0, length, piece):
                file.write(data[: length - start])
            os.fsync(file.fileno())
        return time.perf_counter() - began

    found = {}
    for piece in _BUFFERS[1:]:
        for preallocated in (True, False):
            name = f"pieces of {piece >> 10} KB, {'preallocated' if preallocated else 'growing'}"
            found[name] = length / 1e9 / min(write(piece, preallocated) for _ in range(_GOES))
    out.unlink()
    return found


def imports(paths: list[Path]) -> dict[str, float]:
    """MB of anonymous memory of a process that has loaded this, and all above it"""
    found, done = {}, ["import time"]
    for name, step in _IMPORTED.items():
        done.append(step)
        found[name] = run_python(["-c", "; ".join([*done, "time.sleep(0.2)"])])[1]  # for as long, somebody looks
    return found


MEASURES: dict[str, Measure] = {one.__name__: one for one in (fresh_pages, pieces_and_threads, sha256, read_buffers, written, imports)}
