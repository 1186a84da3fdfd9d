"""The part of a panel that shows its queue: each job with a bar, what it says, the time left, and buttons. Nothing is worked off here."""

from __future__ import annotations

import html
import math
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import final

import ipywidgets as widgets

from workbench.errors import SweepError
from workbench.panels.callbacks import on_click
from workbench.panels.controls import heading
from workbench.panels.polling import Polling
from workbench.sweeps import Queue, QueueJob
from workbench.sweeps.queue_jobs import ACTIVE, DONE, FAILED, RUNNING, STOPPED, WAITING
from workbench.wording import duration

_SHOWN = 8  # jobs; older ones are counted
_SHOWS = {"sweep": ("Show", "th", "Show its grid"), "block_map": ("Show", "bar-chart", "Show which block does what")}


@final
class QueueView:
    """Shows the jobs of a folder as they are on disk, and looks again while one of them waits or runs.

    `seen(jobs)` is called with all of them after each look, `shown(job)` when a person wants to see what came of one.
    """

    def __init__(self, queue: Queue, seen: Callable[[tuple[QueueJob, ...]], None], shown: Callable[[QueueJob], None]) -> None:
        self._queue, self._seen, self._shown = queue, seen, shown
        self._alone = threading.RLock()  # between the threads of the kernel and the one that looks
        self._rows: dict[str, _JobRow] = {}
        self._said = widgets.HTML().add_class("wb-hint")
        self._go_on = _button("Go on", "play", "Nobody works these off: begin again", lambda: self._does(queue.start))
        self._clear = _button(
            "Remove ended", "times", "Take all out that have ended; what they made stays", lambda: self._does(queue.clear)
        )
        head = widgets.HBox([heading("queue", "Goes on when the notebook is closed"), self._go_on, self._clear]).add_class("wb-row")
        self._list = widgets.VBox().add_class("wb-column")
        self.widget = widgets.VBox([head, self._list, self._said]).add_class("wb-column").add_class("wb-queue")
        self._polling = Polling(self._look)
        self.refresh()

    def refresh(self) -> None:
        """Show the jobs as they are now."""
        if self._look():
            self._polling.start()

    def close(self) -> None:
        """Look no more; the jobs go on."""
        self._polling.stop()

    def _look(self) -> bool:
        """Show what there is; returns whether it may change."""
        with self._alone:
            try:
                jobs = self._queue.jobs
                runs = self._queue.running
                self._present(jobs, runs)
                self._seen(jobs)
            except Exception as error:  # on a thread of its own nobody else would hear of it
                self._said.value = html.escape(f"The queue cannot be shown: {error}")
                return False
            return any(job.active for job in jobs)

    def _present(self, jobs: tuple[QueueJob, ...], runs: bool) -> None:
        gone = bool(self._rows) and not self._queue.folder.is_dir()
        ordered = [*(job for job in jobs if job.state in ACTIVE), *reversed([job for job in jobs if job.state not in ACTIVE])]
        shown = ordered[:_SHOWN]
        if [job.id for job in shown] != list(self._rows):
            self._rows = {job.id: self._rows.get(job.id) or _JobRow(self._pressed, job) for job in shown}
            self._list.children = [row.widget for row in self._rows.values()]
        for job in shown:
            self._rows[job.id].show(job, runs)
        idle = any(job.active for job in jobs) and not runs
        self._go_on.layout.display = "" if idle else "none"
        self._clear.layout.display = "" if any(not job.active for job in jobs) else "none"
        self._said.value = html.escape(self._words(jobs, gone))
        self.widget.layout.display = "" if jobs or gone else "none"

    def _words(self, jobs: tuple[QueueJob, ...], gone: bool) -> str:
        if gone:
            return f"{self._queue.folder}: the queue's folder is gone, and its jobs with it; what they drew is where it was."
        more = len(jobs) - _SHOWN
        return " ".join(filter(None, [self._queue.problem, f"{more} more in {self._queue.folder}" if more > 0 else ""]))

    def _pressed(self, what: str, job: QueueJob) -> None:
        known: Mapping[str, Callable[[], object]] = {
            "up": partial(self._queue.up, job.id),
            "stop": partial(self._queue.stop, job.id),
            "again": partial(self._queue.again, job.id),
            "remove": partial(self._queue.remove, job.id),
            "show": lambda: self._shown(self._queue.job(job.id)),
        }
        self._does(known[what])

    def _does(self, what: Callable[[], object]) -> None:
        problem = ""
        try:
            what()
        except SweepError as error:  # a job that is gone, or has begun meanwhile
            problem = str(error)
        self.refresh()
        if problem:
            self._said.value = html.escape(problem)


class _JobRow:
    """One job; `pressed(what, job)` tells which button."""

    def __init__(self, pressed: Callable[[str, QueueJob], None], job: QueueJob) -> None:
        self._job = job
        self._title, self._far = widgets.HTML().add_class("wb-job"), widgets.HTML().add_class("wb-far")
        self._bar = widgets.FloatProgress(min=0, max=1, layout=widgets.Layout(width="110px", flex="0 0 auto"))
        text, icon, told = _SHOWS.get(job.kind, ("", "", ""))
        given = {
            "show": (text, icon, told),
            "up": ("", "arrow-up", "Do this before the one above"),
            "stop": ("", "stop", "Stop; what is drawn is kept"),
            "again": ("", "repeat", "Do it again; what is there of it is not made again"),
            "remove": ("", "times", "Take it out; what it made stays"),
        }
        self._buttons = {what: _button(*one, partial(self._press, pressed, what)) for what, one in given.items()}
        self.widget = widgets.HBox([self._title, self._bar, self._far, *self._buttons.values()]).add_class("wb-row").add_class("wb-job-row")

    def show(self, job: QueueJob, runs: bool) -> None:
        """Show how it is; `runs` says whether anybody works the queue off."""
        self._job = job
        state = "interrupted" if job.state == RUNNING and not runs else job.state
        message = html.escape(job.message if job.message != state else "")
        said = f'<span class="wb-message wb-of-{job.state}" title="{message}">{message}</span>' if message else ""
        self._title.value = f'<span class="wb-title-of-job" title="{html.escape(job.id)}">{html.escape(job.title)}</span>{said}'
        self._far.value = f'<span class="wb-{job.state}">{html.escape(_far(job, state))}</span>'
        self._bar.value = job.share
        self._bar.layout.display = "" if job.state == RUNNING else "none"
        there = {
            "show": job.kind in _SHOWS and (job.kind == "sweep" or job.state == DONE),
            "up": job.state == WAITING,
            "stop": job.active,
            "again": bool(job.what) and (job.state in (FAILED, STOPPED) or (job.state == DONE and job.kind in _SHOWS)),
            "remove": not job.active,
        }
        for what, button in self._buttons.items():
            button.layout.display = "" if there[what] else "none"

    def _press(self, pressed: Callable[[str, QueueJob], None], what: str) -> None:
        pressed(what, self._job)


def _far(job: QueueJob, state: str) -> str:
    if state != RUNNING:
        return state
    left = "" if math.isnan(job.left) else f", {duration(job.left)} left"
    return f"{100 * job.share:.0f} %{left}"


def _button(text: str, icon: str, told: str, pressed: Callable[[], None]) -> widgets.Button:
    layout = widgets.Layout(width="auto" if text else "34px", flex="0 0 auto")
    button = widgets.Button(description=text, icon=icon, tooltip=told, layout=layout)
    on_click(button, pressed)
    return button
