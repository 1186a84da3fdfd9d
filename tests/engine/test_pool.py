"""Waiting for what threads make: an error, or Ctrl-C, does not wait for the rest."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from workbench.engine.pool import results


def test_all_is_given_in_order():
    with ThreadPoolExecutor(2) as pool:
        assert results([pool.submit(pow, number, 2) for number in range(5)], lambda: None) == [0, 1, 4, 9, 16]


def test_after_an_error_nothing_begins_and_what_still_runs_is_not_waited_for():
    running, begun = threading.Event(), []
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(running.wait, 60)
        jobs = [waiting, pool.submit(int, "none"), *(pool.submit(begun.append, number) for number in range(20))]
        with pytest.raises(ValueError, match="none"):
            results(jobs, lambda: None)
        assert not waiting.done()
        running.set()
    assert sum(job.cancelled() for job in jobs) == 20 - len(begun)


def test_what_is_delivered_meanwhile_ends_the_wait():
    running = threading.Event()

    def interrupt() -> None:
        raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as pool:
        jobs = [pool.submit(running.wait, 60), pool.submit(int)]
        with pytest.raises(KeyboardInterrupt):
            results(jobs, interrupt)
        running.set()
    assert jobs[1].cancelled()
