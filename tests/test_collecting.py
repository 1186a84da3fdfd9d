"""The garbage collector waits while modules are imported, and then goes on as before."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref

import pytest

from workbench.collecting import uncollected


class Ring:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.own = self


def test_it_waits_for_the_last_of_several_threads_and_goes_on():
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with uncollected():
            inside.set()
            leave.wait(60)

    other = threading.Thread(target=stay)
    with uncollected():
        other.start()
        assert inside.wait(60)
        assert not gc.isenabled()
    assert not gc.isenabled(), "the other is still inside"
    leave.set()
    other.join()
    assert gc.isenabled()


@pytest.fixture
def _unfrozen():
    gc.unfreeze()  # what tests/conftest.py froze
    yield
    gc.freeze()


@pytest.mark.usefixtures("_unfrozen")
def test_what_came_meanwhile_is_old_and_still_collected_once_it_is_garbage():
    with uncollected():
        ring = Ring()
        ring.others = [Ring() for _ in range(20_000)]
    assert any(one is ring for one in gc.get_objects(generation=2))
    assert gc.get_freeze_count() == 0
    gone = weakref.ref(ring)
    del ring
    gc.collect()
    assert gone() is None


def test_who_has_switched_it_off_finds_it_off():
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_imports_of_a_panel_and_of_what_draws_are_not_searched():
    program = """
import gc
searched = []  # beyond the youngest, of which there are few
gc.callbacks.append(lambda phase, told: phase == "start" and told["generation"] and searched.append(told))
import workbench as wb
del searched[:]
wb.MergePanel
print(len(searched))
from workbench.places import DATA
from workbench.render.assembly import read_blueprint
del searched[:]
read_blueprint(DATA / "shapes-sd" / "config")
print(len(searched), gc.isenabled())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["0", "0", "True"], done.stderr
