"""What is measured of Workbench's merges: every operator in a running kernel, and as a whole process."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import workbench
from benchmarks.processes import run_python
from benchmarks.side_by_side import references
from benchmarks.side_by_side.cases import WANTED, Case, cases
from benchmarks.side_by_side.files import Files
from benchmarks.side_by_side.floor import floor
from benchmarks.side_by_side.kernel import Kernel
from benchmarks.side_by_side.store import Job, version_of

_WANTED_ROUNDS = 5  # of what is held to a multiple of the floor, at least
_DECIDING = ("cases.py", "files.py", "floor.py", "planted.py", "references.py")
_ENOUGH = 6.0  # seconds of what is not held to one, after which there are no more rounds
_BUILD = """import workbench as wb
recipe, out, tiny = map(__import__("pathlib").Path, {places!r})
wb.export(wb.Recipe.load(tiny).build(), out, overwrite=True, progress=False)  # imports, and what compiles
out.unlink()
merge = wb.Recipe.load(recipe).build()
"""
_EXPORT = "wb.export(merge, out, progress=False)"


@dataclass(frozen=True)
class Operation:
    """A merge that peers make too: ours, the files, and what is right."""

    name: str
    operator: str
    files: str
    inputs: tuple[str, ...]
    right: references.Reference


OPERATIONS = (
    Operation("average", "weighted_average", "large", ("first", "second"), references.average),
    Operation("slerp", "slerp", "large", ("first", "second"), references.slerp),
    Operation("ties", "ties", "small", ("base", "first", "second"), references.ties),
    Operation("dare_ties", "dare_ties", "small", ("base", "first", "second"), references.dare_ties),
)


def wrong(operation: Operation, written: Sequence[Path], where: Files) -> dict[str, Any]:
    """What is wrong with the files that a tool wrote."""
    inputs = [where.path(operation.files, model) for model in operation.inputs]
    return dataclasses.asdict(references.differences(written, inputs, operation.right))


def version() -> str:
    """Of the package, and of what decides how it is measured."""
    here = Path(__file__).parent
    return version_of([Path(workbench.__file__).parent, *(here / name for name in _DECIDING)])


def jobs(where: Files, kernel: Kernel, rounds: int, operators: Sequence[str]) -> Iterator[Job]:
    """Every case in the kernel, and its peak of memory as a process; those that peers make too as a process in all rounds."""
    by = version()
    compared = {operation.operator: operation for operation in OPERATIONS}
    for case in cases():
        if operators and case.operator not in operators:
            continue
        wanted, files = case.name in WANTED, case.files
        often = max(rounds, _WANTED_ROUNDS) if wanted and rounds > 1 else rounds
        run = partial(_in_kernel, case, where, files, kernel)
        yield Job(f"kernel/{files}/{case.name}", by, often, run, math.inf if wanted else _ENOUGH)
        if operation := compared.get(case.name):
            run = partial(_as_process, case, where, operation.files, operation)
            yield Job(f"process/{operation.files}/{case.name}", by, rounds, run)
        if operation is None or operation.files != files:
            yield Job(f"process/{files}/{case.name}", by, 1, partial(_as_process, case, where, files, None))
        if case.name == "weighted_average":
            yield Job(f"first/{files}/{case.name}", by, rounds, partial(_as_process, case, where, files, None, first=True))


def _in_kernel(case: Case, where: Files, files: str, kernel: Kernel) -> dict[str, float]:
    """Seconds of an export to a new file, the parents' hashes known, and of the floor right before it."""
    out = where.folder / "merged.safetensors"
    out.unlink(missing_ok=True)
    copied, *read = case.paths(where, files)
    least = floor([copied], read, where.folder / "floor.bin")
    places = [str(place) for place in (case.recipe(where, files), out, case.recipe(where, "tiny"))]
    try:
        return {"floor": least, "seconds": kernel.seconds(_BUILD.format(places=places), _EXPORT)}
    finally:
        out.unlink(missing_ok=True)


def _as_process(case: Case, where: Files, files: str, operation: Operation | None, *, first: bool = False) -> dict[str, Any]:
    """The same of `workbench merge` with Python's start, and its peak of anonymous memory; `first` hashes the parents too."""
    out = where.folder / "merged.safetensors"
    out.unlink(missing_ok=True)
    copied, *read = case.paths(where, files)
    least = floor([copied], read, where.folder / "floor.bin")
    environment = {"XDG_CACHE_HOME": str(where.folder / "no-cache")} if first else {}
    try:
        command = ["-m", "workbench", "merge", str(case.recipe(where, files)), "--out", str(out)]
        seconds, peak = run_python(command, **environment)
        found = {"wrong": wrong(operation, [out], where)} if operation else {}
    finally:
        out.unlink(missing_ok=True)
        if first:
            shutil.rmtree(where.folder / "no-cache")
    return {"floor": least, "seconds": seconds, "peak": peak, **found}
