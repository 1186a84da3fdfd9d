"""`Queue`: what is to be drawn, exported or swept over later, by a process of its own. Jobs on disk are in `queue_folder`."""

from __future__ import annotations

import html
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from workbench.checkpoint import Checkpoint
from workbench.errors import InputError, SweepError
from workbench.recipe import preflight
from workbench.render.axes import plain
from workbench.render.request import Request, requests
from workbench.sweeps.combinations import MOST_CELLS, Options, check_make, combinations
from workbench.sweeps.described import describe, describe_renderer
from workbench.sweeps.drawing import in_words
from workbench.sweeps.picture_store import GALLERY
from workbench.sweeps.queue_folder import LOG, QueueFolder
from workbench.sweeps.queue_jobs import DONE, FAILED, RUNNING, STOPPED, WAITING, QueueJob
from workbench.sweeps.sweep_cells import axes_told, grid_cells
from workbench.wording import enumerated

if TYPE_CHECKING:
    from workbench.render import Renderer

QUEUE = "out/queue"  # seen from the current folder, unless told otherwise
_TAIL = 300  # letters of what a runner wrote last
_started: list[subprocess.Popen[bytes]] = []  # runners of this process, held so that their end is noticed


@final
class Queue:
    """Jobs in `folder`, worked off one after another by a process that goes on when this one ends.

    What a job needs is checked, and told, before it is written. A job that was interrupted goes on with the next runner: pictures of
    sweeps that are there are not drawn again. `start()` begins a runner where there is none, which adding a job does too, unless
    `run=False`; `workbench queue FOLDER` is the same in a terminal.

    Raises SweepError where the folder cannot be used, or a job cannot be described to another process.
    """

    def __init__(self, folder: str | Path = QUEUE, *, run: bool = True) -> None:
        self._folder, self._run = QueueFolder(Path(folder)), run

    @property
    def folder(self) -> Path:
        """Where the jobs lie."""
        return self._folder.path

    @property
    def jobs(self) -> tuple[QueueJob, ...]:
        """All jobs, the first to be done first."""
        return self._folder.jobs

    @property
    def running(self) -> bool:
        """Whether a runner works here now."""
        return self._folder.runs

    @property
    def problem(self) -> str:
        """Why jobs wait and nobody works them off; empty where all is well."""
        ended = [one for one in _started if one.poll() is not None and str(self.folder) in one.args]  # type: ignore[operator]
        if not ended or not ended[-1].returncode or self.running or not any(job.active for job in self.jobs):
            return ""
        try:
            said = (self.folder / LOG).read_text(encoding="utf-8", errors="replace").strip()[-_TAIL:]
        except OSError:
            said = ""
        return f"the runner ended with status {ended[-1].returncode}: {said or 'it said nothing'}"

    def job(self, name: str) -> QueueJob:
        """A job as it is now, by its id. Raises SweepError where there is none."""
        return self._folder.job(name)

    def draw(
        self,
        checkpoint: Checkpoint,
        request: Request,
        *,
        gallery: str | Path = GALLERY,
        renderer: Renderer | None = None,
        lender: Checkpoint | None = None,
        name: str = "result",
    ) -> QueueJob:
        """Draw a checkpoint's pictures into the folder of a gallery. `lender` lends components that it lacks."""
        preflight(checkpoint).raise_errors()
        target, drawn_by = describe(checkpoint, self.folder), describe_renderer(renderer, checkpoint, lender)
        count = len(request.pictures)
        title = f"draw {count} picture{'s' if count > 1 else ''} of {name}"
        where = str(Path(gallery).expanduser().absolute())
        return self._added(
            "draw", title, {"target": target, "asked": request.settings, "renderer": drawn_by, "gallery": where, "name": name}
        )

    def export(self, checkpoint: Checkpoint, path: str | Path, *, overwrite: bool = False) -> QueueJob:
        """Write a checkpoint as a file. Raises InputError for one that is there already, and is not to be replaced."""
        preflight(checkpoint).raise_errors()
        place = Path(path).expanduser().absolute()
        if place.exists() and not overwrite:
            raise InputError(f"{path}: is there already; give another name, or overwrite it")
        if meant := [job.title for job in self.jobs if job.active and job.what.get("path") == str(place)]:
            raise InputError(f"{path}: is what {meant[0]!r} writes already; give another name, or take that out of the queue")
        what: dict[str, Any] = {"target": describe(checkpoint, self.folder), "path": str(place), "overwrite": overwrite}
        return self._added("export", f"export {place.name}", what)

    def sweep(
        self,
        make: Callable[..., Checkpoint],
        over: Mapping[str, Sequence[Any]],
        *,
        prompts: str | Sequence[str],
        seeds: int | Sequence[int] = (0,),
        axes: Sequence[str] = (),
        name: str = "sweep",
        folder: str | Path = "out/sweeps",
        renderer: Renderer | None = None,
        lender: Checkpoint | None = None,
        origin: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> QueueJob:
        """Draw and score the merge of every combination, as `wb.sweep` does, with its arguments; all merges are made now, and none read.

        `axes` are what the sweep's grid shows, in order: options, and of `prompt`, `seed`, `steps`, ... those that are no part of each
        cell; `origin` is plain data that stays with the job.
        A merge that cannot be made is its cell's problem, unless that is so for all of them.
        """
        found = combinations(over) if over else [{}]
        check_make(make, found)
        if len(found) > MOST_CELLS:
            raise SweepError(
                f"a sweep of {len(found):,} cells: at most {MOST_CELLS:,} are queued; take values out of {enumerated([*over])}"
            )
        first_request = requests(prompts, seeds, **settings)[0]
        asked = {"prompts": list(first_request.prompts), "seeds": list(first_request.seeds), **plain(settings)}
        told = axes_told(axes, {name: [plain(value) for value in values] for name, values in over.items()}, asked)
        cells, first = self._cells(make, found)
        what = {
            "cells": cells,
            "asked": asked,
            "axes": told,
            "renderer": describe_renderer(renderer, first, lender),
            "store": [str(Path(folder).expanduser().absolute()), name],
            "origin": plain(origin),
        }
        count = len(grid_cells(what))
        if count > MOST_CELLS:
            raise SweepError(f"a sweep of {count:,} cells: at most {MOST_CELLS:,} are queued; take values out")
        shown = [axis["name"] for axis in what["axes"]]
        return self._added("sweep", f"sweep of {enumerated(shown)}: {count:,} cell{'s' if count > 1 else ''}", what)

    def block_map(
        self,
        base: Checkpoint,
        tuned: Checkpoint,
        *,
        prompts: str | Sequence[str],
        seeds: int | Sequence[int] = (0, 1, 2, 3),
        name: str = "block map",
        folder: str | Path = "out/sweeps",
        renderer: Renderer | None = None,
        lender: Checkpoint | None = None,
        **settings: Any,
    ) -> QueueJob:
        """Find out which block of `tuned` does what, as `wb.block_map` does, with its arguments; how far pictures move is measured."""
        request = Request.of(prompts, seeds, **settings)
        what = {
            "base": describe(base, self.folder),
            "tuned": describe(tuned, self.folder),
            "names": [base.name, tuned.name],
            "asked": {"prompts": list(request.prompts), "seeds": list(request.seeds), **settings},
            "renderer": describe_renderer(renderer, base, lender),
            "store": [str(Path(folder).expanduser().absolute()), name],
        }
        return self._added("block_map", f"which block of {tuned.name} does it?", what)

    def stop(self, name: str) -> QueueJob:
        """End a job by its id: one that waits at once, one that runs within a moment; what it drew is kept."""
        return self._folder.stop(name)

    def again(self, name: str) -> QueueJob:
        """Do a job again that failed or was stopped; what is there of it is not made again."""
        job = self._folder.again(name)
        self.start()
        return job

    def remove(self, name: str) -> None:
        """Take a job out that does not run; what it made stays. Raises SweepError for one that runs."""
        self._folder.remove(name)

    def clear(self) -> None:
        """Take out all jobs that have ended."""
        for job in self.jobs:
            if not job.active:
                self._folder.remove(job.id)

    def up(self, name: str) -> None:
        """Do a job that waits before the one it waits for."""
        self._folder.up(name)

    def start(self) -> None:
        """Have the jobs worked off, by a process of its own that ends when nothing waits any more; where one runs, it is left to."""
        with self._folder.changing():
            if not self._run or self.running or self._starting or not any(job.active for job in self.jobs):
                return
            apart: dict[str, Any] = {"start_new_session": True}
            if sys.platform == "win32":
                apart = {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
            command = [sys.executable, "-m", "workbench", "queue", str(self.folder)]
            with (self.folder / LOG).open("ab") as log:
                _started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **apart))

    def wait(self, seconds: float = 600) -> bool:
        """Wait until no job waits or runs; returns whether that came about in so many seconds. Raises SweepError where nobody works."""
        end = time.monotonic() + seconds
        while any(job.active for job in self.jobs):
            if problem := self.problem:
                raise SweepError(problem)
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def __repr__(self) -> str:
        counts = [f"{sum(job.state == state for job in self.jobs)} {state}" for state in (RUNNING, WAITING, DONE, FAILED, STOPPED)]
        return f"<Queue of {len(self.jobs)} jobs: {', '.join(one for one in counts if not one.startswith('0 ')) or 'none'}; {self.folder}>"

    def _repr_html_(self) -> str:
        cells = [(job.state, job.title, f"{100 * job.share:.0f} %", job.message, job.id) for job in self.jobs]
        rows = "".join("<tr>" + "".join(f"<td>{html.escape(one)}</td>" for one in row) + "</tr>" for row in cells)
        heads = "".join(f"<th>{name}</th>" for name in ("state", "job", "done", "", "id"))
        return f"<p>{html.escape(repr(self).strip('<>'))}</p><table><tr>{heads}</tr>{rows}</table>"

    @property
    def _starting(self) -> bool:
        """Whether a runner was begun from here that has not looked for jobs yet."""
        alive = [one.pid for one in _started if one.poll() is None and str(self.folder) in one.args]  # type: ignore[operator]
        return any(pid != self._folder.runner for pid in alive)

    def _cells(self, make: Callable[..., Checkpoint], found: Sequence[Options]) -> tuple[list[dict[str, Any]], Checkpoint]:
        """Each combination with its merge as data or its problem, and the first merge. Raises what is wrong where there is none."""
        cells: list[dict[str, Any]] = []
        problems: list[Exception] = []
        first: Checkpoint | None = None
        for options in found:
            told = {name: plain(value) for name, value in options.items()}
            try:
                made = make(**options)
                target = describe(made, self.folder)
                if first is None:  # of the others each says in its cell what preflight finds
                    preflight(made).raise_errors()
                    first = made
                cells.append({"options": told, "target": target})
            except Exception as error:  # said in its cell
                problems.append(error)
                cells.append({"options": told, "problem": in_words(error)})
        if first is None:
            raise SweepError(f"none of the {len(found):,} cells can be made; the first says: {in_words(problems[0])}") from problems[0]
        return cells, first

    def _added(self, kind: str, title: str, what: Mapping[str, Any]) -> QueueJob:
        job = self._folder.add(kind, title, what)
        self.start()
        return job
