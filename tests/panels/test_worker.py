"""The latest request wins."""

from __future__ import annotations

import subprocess
import sys
import threading

from workbench.errors import Cancelled
from workbench.panels.worker import Worker

SECONDS = 10


def test_a_job_is_done():
    done, worker = [], Worker()
    worker.submit(lambda cancelled: done.append(cancelled()))
    assert worker.wait(SECONDS)
    assert done == [False]


def test_a_newer_job_stops_the_one_that_runs_and_replaces_the_one_that_waits():
    begun, seen, worker = threading.Event(), [], Worker()

    def long(cancelled):
        begun.set()
        while not cancelled():
            pass
        seen.append("stopped")
        raise Cancelled("given up")

    worker.submit(long)
    assert begun.wait(SECONDS)
    for name in ("second", "third"):
        worker.submit(lambda cancelled, name=name: seen.append(name))
    assert worker.wait(SECONDS)
    assert seen[0] == "stopped"
    assert seen[-1] == "third"


def test_cancel_leaves_nothing_to_do():
    begun, worker = threading.Event(), Worker()

    def long(cancelled):
        begun.set()
        while not cancelled():
            pass

    worker.submit(long)
    assert begun.wait(SECONDS)
    assert not worker.wait(0.01)
    worker.cancel()
    assert worker.wait(SECONDS)


def test_a_job_that_fails_does_not_end_the_worker(monkeypatch):
    done, told, worker = [], [], Worker()
    monkeypatch.setattr(threading, "excepthook", lambda hook: told.append(hook.exc_type))
    worker.submit(lambda cancelled: 1 / 0)
    assert worker.wait(SECONDS)
    for thread in threading.enumerate():
        if thread.name == "workbench-panel":
            thread.join(SECONDS)
    assert told == [ZeroDivisionError]
    worker.submit(lambda cancelled: done.append(1))
    assert worker.wait(SECONDS)
    assert done == [1]


_ENDS_EARLY = """
import time
from workbench.panels.worker import Worker
def long(cancelled):
    print("begun", flush=True)
    while not cancelled():
        time.sleep(0.01)
    print("stopped", flush=True)
worker = Worker()
worker.submit(long)
while not worker._busy or worker._waiting is not None:
    time.sleep(0.01)
"""


def test_what_is_drawn_when_python_ends_is_stopped_and_not_torn_out():
    ended = subprocess.run([sys.executable, "-c", _ENDS_EARLY], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout.split(), ended.stderr) == (0, ["begun", "stopped"], "")
