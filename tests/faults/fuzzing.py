"""Damaged and hostile files, in bulk: each is opened, and that ends well or in one of our errors, soon and in little memory."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import torch

import workbench as wb
from workbench.errors import CheckpointError

from . import damage
from .child import outcomes
from .seeds import MARK, Seed, seeds
from .table import Case, Row

_BATCH = 50  # inputs that share a process
_SECONDS, _MEGABYTES = 2.0, 300.0
_RUN = {"os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "pty.spawn"}


def fuzzed(place: Path, count: int, seed: int) -> Iterator[Row]:
    """A row for each kind of file, of as many inputs each."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    kinds = seeds(place)
    _warm(kinds)
    for kind in kinds:
        yield Row(f"fuzzed: {kind.name}").take(_cases(kind, place, max(1, count // len(kinds)), random.Random(f"{seed} {kind.name}")))


def _warm(kinds: list[Seed]) -> None:
    """Load what opening loads, so that no input pays for it."""
    for kind in kinds:
        with suppress(CheckpointError):  # one of them runs something
            kind.open(kind.path)
    sys.addaudithook(_refuse_to_run)


def _refuse_to_run(event: str, given: tuple[object, ...]) -> None:
    if event in _RUN and _judging:
        (_judging[0] / MARK).mkdir(exist_ok=True)


_judging: list[Path] = []


def _cases(kind: Seed, place: Path, count: int, chance: random.Random) -> Iterator[Case]:
    for first in range(0, count, _BATCH):
        made = [(number, *_input(kind, place / "input" / str(number), chance)) for number in range(first, min(first + _BATCH, count))]
        works = [_opening(kind, path, place) for _, path, _ in made]
        for (number, _, how), found in zip(made, outcomes(works, _SECONDS), strict=True):
            problem = ""
            if found.kind not in ("done", "error"):
                problem = found.said
            elif found.seconds > _SECONDS:
                problem = f"took {found.seconds:.1f} s"
            elif found.megabytes > _MEGABYTES:
                problem = f"took {found.megabytes:.0f} MB"
            yield Case(f"number {number}, {how}", problem, found.seconds, found.megabytes)
        if (place / MARK).exists():
            (place / MARK).rmdir()
            yield Case(f"numbers {first} to {first + _BATCH}", "something was run")
        shutil.rmtree(place / "input")


def _input(kind: Seed, folder: Path, chance: random.Random) -> tuple[Path, str]:
    """A damaged copy of the seed, and what was done to it."""
    folder.mkdir(parents=True)
    path = folder / kind.path.name
    if kind.path.is_dir():
        shutil.copytree(kind.path, path)
    else:
        path.write_bytes(kind.path.read_bytes())
    ways = kind.ways if chance.random() < 0.8 else [damage.raw]
    target = path / kind.damaged if kind.damaged else path
    content, how = target.read_bytes(), []
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        way = chance.choice(ways)
        how.append(way.__name__)
        content = way(content, chance)
    target.write_bytes(content)
    return path, " and ".join(how)


def _opening(kind: Seed, path: Path, place: Path) -> Callable[[], str]:
    def work() -> str:
        _judging[:] = [place]
        kind.open(path)
        return ""

    return work


def read_all(path: Path) -> None:
    """Open a checkpoint, and read all of it."""
    found = wb.open(path)
    from workbench.recipe.judgement import describe

    describe(found)
    for key in found:
        tensor = found.read(key)
        assert isinstance(tensor, torch.Tensor)
