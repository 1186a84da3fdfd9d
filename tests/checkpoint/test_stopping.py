"""Signals that are held back: they come where the block asks for them, or at its end, and never in between."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from workbench.checkpoint.files.stopping import held_back, stoppable

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@pytest.fixture
def heard(request) -> Iterator[list[int]]:
    """The numbers of the signals that the program's own handler, which returns, has been called with."""
    heard: list[int] = []
    before = {number: signal.signal(number, lambda number, _: heard.append(number)) for number in (signal.SIGINT, signal.SIGTERM)}
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


@BOTH
def test_a_signal_is_heard_at_the_end_of_the_block(heard, number):
    with held_back():
        signal.raise_signal(number)
        assert heard == []
    assert heard == [number]


@BOTH
def test_or_where_the_block_asks(heard, number):
    with held_back() as deliver:
        signal.raise_signal(number)
        deliver()
        assert heard == [number]
        deliver()
    assert heard == [number]


def test_the_handlers_are_the_programs_own_again(heard):
    own = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.raises(ZeroDivisionError), held_back():
        raise ZeroDivisionError
    assert {number: signal.getsignal(number) for number in own} == own


def test_ctrl_c_interrupts_at_the_end_of_the_block_and_not_in_it(heard):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    done = []

    def block() -> None:
        with held_back():
            signal.raise_signal(signal.SIGINT)
            done.append("all")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert done


def test_both_signals_are_heard_where_the_first_ends_the_program(heard):
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def block() -> None:
        with held_back():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert heard == [signal.SIGTERM]


def test_in_a_write_sigterm_ends_the_program_after_the_block(heard):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    done = []

    def block() -> None:
        with stoppable(), held_back():
            signal.raise_signal(signal.SIGTERM)
            done.append("all")

    with pytest.raises(SystemExit) as exit:
        block()
    assert done
    assert exit.value.code == 128 + signal.SIGTERM


def test_what_ends_the_program_by_default_or_is_ignored_stays_so(heard):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with held_back():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_handler_that_is_left_in_place_by_an_interrupted_end_does_what_the_programs_own_does(heard):
    with held_back():
        left = signal.getsignal(signal.SIGINT)
    left(signal.SIGINT, None)
    assert heard == [signal.SIGINT]


def test_other_threads_hold_nothing_back(heard):
    own, seen = signal.getsignal(signal.SIGINT), []

    def block() -> None:
        with held_back() as deliver:
            deliver()
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert seen == [own]
