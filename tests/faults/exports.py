"""Exports under accidents, in bulk: each case is judged by every byte in the folder afterwards."""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from workbench.checkpoint.files.writing import replacing
from workbench.errors import CheckpointError, WorkbenchError

from .accidents import Accident, before, failing, filling, interrupt, kill, terminate
from .child import Outcome, ended, outcome, start
from .scenes import Scene, hidden_in, tree
from .table import Case

_NEVER = 1 << 30


def measured(scene: Scene, place: Path) -> int:
    """How many calls of the file system a scene makes; its folder before and after is known then."""
    if scene.calls:
        return scene.calls[0]
    folder, _ = scene.fresh(place)
    scene.trees["before"] = tree(folder)
    found = outcome(lambda: before(folder, _NEVER, kill, lambda: scene.act(folder)))
    assert found.kind == "done", f"{scene.name}: {found.said}"
    scene.trees["after"] = tree(folder)
    assert not hidden_in(folder)
    scene.calls.append(int(found.text))
    return scene.calls[0]


def crash_points(scenes: list[Scene], place: Path, count: int, chance: random.Random) -> Iterator[Case]:
    """The process is killed before each of its calls; where that is less than `count`, and again while what it left is mended."""
    points = [(scene, number) for scene in scenes for number in range(1, measured(scene, place) + 1)]
    chance.shuffle(points)
    for number in range(count):
        scene, point = points[number % len(points)]
        again = None if number < len(points) else chance.randint(1, 40)
        yield _killed(scene, place, point, again)


def _killed(scene: Scene, place: Path, point: int, again: int | None) -> Case:
    folder, own = scene.fresh(place)
    what = f"{scene.name}, killed before call {point}" + (f", and before call {again} of the next try" if again else "")
    outcome(lambda: before(folder, point, kill, lambda: scene.act(folder)))
    if again is not None:
        outcome(lambda: before(folder, again, kill, lambda: _twice(scene, folder)))
    opened = outcome(lambda: scene.open(folder))
    if opened.kind not in ("done", "error"):
        return Case(what, f"opened: {opened.said}")
    if problem := _judged(scene, folder, own):
        return Case(what, f"opened: {problem}")
    after_all = outcome(lambda: _twice(scene, folder))
    if scene.trees["after"] != tree(folder, hidden=True):
        return Case(what, f"exported again ({after_all.said}): {_differs(scene, folder)}, hidden {hidden_in(folder)}")
    return Case(what, _own_moved(folder, own))


def _twice(scene: Scene, folder: Path) -> None:
    """What a person does after a crash: open, and export again, unless it is there."""
    with suppress(CheckpointError):  # there may be none yet
        scene.open(folder)
    try:
        scene.act(folder)
    except WorkbenchError:
        if tree(folder) != scene.trees["after"]:
            raise
        model = folder / scene.model
        for place in [model.parent, *([model] if model.is_dir() else [])]:  # what is whole is not written again: so something else is
            with replacing(place / "other") as temporary:
                temporary.write_text("other")
            (place / "other").unlink()


def disk_errors(scenes: list[Scene], place: Path, count: int, chance: random.Random) -> Iterator[Case]:
    """Each call fails once, or it and all after it do, as on a disk that is full or breaks."""
    kinds: list[tuple[str, Callable[[int], Accident], int, bool]] = [
        ("EIO", failing, errno.EIO, False), ("ENOSPC", filling, errno.ENOSPC, True),
        ("EIO from then on", failing, errno.EIO, True), ("EACCES", failing, errno.EACCES, False),
    ]  # fmt: skip
    points = [(scene, point, kind) for scene in scenes for point in range(1, measured(scene, place) + 1) for kind in kinds]
    chance.shuffle(points)
    for scene, point, (name, make, number, lasts) in points[:count]:
        folder, own = scene.fresh(place)
        last = _NEVER if lasts else point
        found = outcome(lambda: before(folder, point, make(number), lambda: scene.act(folder), last))  # noqa: B023
        yield Case(f"{scene.name}, {name} at call {point}", _ended(scene, folder, own, found, ("done", "error"), failed=True))


def interrupts(scenes: list[Scene], place: Path, count: int, chance: random.Random) -> Iterator[Case]:
    """Ctrl-C, or SIGTERM, right before a call."""
    points = [(scene, point) for scene in scenes for point in range(1, measured(scene, place) + 1)]
    chance.shuffle(points)
    for scene, point in points[:count]:
        accident = chance.choice([interrupt, terminate])
        folder, own = scene.fresh(place)
        found = outcome(lambda: before(folder, point, accident, lambda: scene.act(folder)))  # noqa: B023
        # what is not being written when SIGTERM comes ends by it at once, as any program does
        allowed = ("done", "stopped", "killed") if accident is terminate else ("done", "stopped")
        yield Case(f"{scene.name}, {accident.__name__} before call {point}", _ended(scene, folder, own, found, allowed))


def signals(scenes: list[Scene], place: Path, count: int, chance: random.Random) -> Iterator[Case]:
    """SIGINT, SIGTERM or SIGKILL from outside, at any moment."""
    times = {}
    for scene in scenes:
        measured(scene, place)
        folder, _ = scene.fresh(place)
        times[scene.name] = outcome(lambda: scene.act(folder)).seconds  # noqa: B023
    for _ in range(count):
        scene, number = chance.choice(scenes), chance.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
        folder, own = scene.fresh(place)
        process, here = start(lambda: scene.act(folder), 30)  # noqa: B023
        time.sleep(chance.uniform(0, 1.2 * times[scene.name]))
        os.kill(process, number)
        found = ended(process, here)
        what = f"{scene.name}, {number.name} from outside"
        if number is signal.SIGKILL:
            outcome(lambda: _twice(scene, folder))  # noqa: B023
            found = Outcome("stopped")
        yield Case(what, _ended(scene, folder, own, found, ("done", "stopped", "killed")))


def pairs(scenes: list[Scene], place: Path, count: int, chance: random.Random) -> Iterator[Case]:
    """Two processes write to one name at once: without `overwrite` one of them says that it did not."""
    for scene in scenes:
        measured(scene, place)
    for number in range(count):
        scene = scenes[number % len(scenes)]
        folder, own = scene.fresh(place)
        begun = [start(lambda: scene.act(folder), 30)]  # noqa: B023
        time.sleep(chance.uniform(0, 0.02))
        begun.append(start(lambda: scene.act(folder), 30))  # noqa: B023
        both = [ended(*one) for one in begun]
        problem = _ended(scene, folder, own, both[0], ("done", "error")) or _ended(scene, folder, own, both[1], ("done", "error"))
        if not problem and tree(folder) != scene.trees["after"]:
            problem = "neither has written"
        if not problem and not scene.trees["before"] and "recipe" not in scene.name and [one.kind for one in both].count("done") != 1:
            problem = f"{' | '.join(one.said for one in both)} where one of two should be refused"
        yield Case(f"{scene.name}, by two processes", problem)


def _ended(scene: Scene, folder: Path, own: dict[str, int], found: Outcome, allowed: tuple[str, ...], failed: bool = False) -> str:
    """What is wrong after an accident that the process could see."""
    if found.kind not in allowed:
        return found.said
    if failed:  # what cannot be put back while the disk fails, the next open does
        outcome(lambda: scene.open(folder))
    if problem := _judged(scene, folder, own):
        return f"{found.said}: {problem}"
    left = hidden_in(folder)
    if found.kind == "error" and "nothing was left behind" in found.text and (left or tree(folder) != scene.trees["before"]):
        return f"says that nothing was left behind, and it was: {left} {found.text}"
    if not left:
        return ""
    if found.kind in ("done", "error") and failed:  # a disk that does not let go of it, so that the next export has to
        outcome(lambda: _twice(scene, folder))
        left = hidden_in(folder)
    return f"{found.said}: left {left}" if left else ""


def _judged(scene: Scene, folder: Path, own: dict[str, int]) -> str:
    if scene.name == "sweep" or scene.name.startswith("recipe"):  # pictures are replaced one by one, and a cell says when it is whole
        return "" if all(set(tree(folder)) <= set(known) for known in scene.trees.values()) else f"has {sorted(tree(folder))}"
    return _own_moved(folder, own) or ("" if tree(folder) in scene.trees.values() else _differs(scene, folder))


def _own_moved(folder: Path, own: dict[str, int]) -> str:
    moved = [name for name, inode in own.items() if not (folder / name).is_file() or (folder / name).stat().st_ino != inode]
    return f"own files gone or moved: {moved}" if moved else ""


def _differs(scene: Scene, folder: Path) -> str:
    now = tree(folder)
    states = {"before": scene.trees["before"], "after": scene.trees["after"]}
    return "; ".join(f"not as {when}: {sorted(n for n in {*now, *known} if now.get(n) != known.get(n))}" for when, known in states.items())
