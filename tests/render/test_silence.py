"""Who hears which warning while several threads draw: each its own, and in the end everything is as it was."""

from __future__ import annotations

import threading
import warnings

from workbench.render.silence import heard, quiet


def test_two_threads_hear_what_they_are_warned_of_whoever_leaves_first():
    before, shown = list(warnings.filters), warnings.showwarning
    both, first_left, found = threading.Barrier(2), threading.Event(), {}

    def draw(name: str, waits: bool) -> None:
        with heard() as said:
            both.wait(10)
            if waits:
                assert first_left.wait(10)
            with quiet():
                for _ in range(2):
                    warnings.warn(f"of {name}", UserWarning, stacklevel=1)  # an error here, if the one who left had ended it
        found[name] = said
        first_left.set()

    threads = [threading.Thread(target=draw, args=given) for given in (("one", False), ("other", True))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == {"one": ["of one"] * 2, "other": ["of other"] * 2}
    assert (warnings.filters, warnings.showwarning) == (before, shown)


def test_what_others_are_warned_of_meanwhile_is_not_heard():
    begun, end, found = threading.Event(), threading.Event(), []

    def draw() -> None:
        with heard() as said:
            begun.set()
            end.wait(10)
        found.extend(said)

    thread = threading.Thread(target=draw)
    with warnings.catch_warnings(record=True) as shown:
        thread.start()
        assert begun.wait(10)
        warnings.warn("of a cell", UserWarning, stacklevel=1)
        end.set()
        thread.join(10)
    assert [str(one.message) for one in shown] == ["of a cell"]
    assert found == []
