"""Settings of all tests: hypothesis does not time its examples, since machines are noisy. And what several tests share."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from xdist.scheduler import LoadFileScheduling

# Files that take longest, first: one that began last would run alone while the other processes have nothing left to do.
LONG = (
    "browser/test_merge_panel.py",  # before the app, whose kernel imports everything anew: by then the disk's cache has it
    "browser",
    "test_notebooks.py",
    "sweeps/test_distributed.py",
    "sweeps/test_sweep_file.py",
    "conditioning/test_fitting.py",
    "faults",
    "panels/test_spectrum_panel.py",
    "panels/test_merge_panel.py",
    "render/test_every_pipeline.py",
    "searches/test_search.py",
    "sweeps/test_queue.py",
    "panels/test_hard_days.py",
    "panels/test_later.py",
    "sweeps/test_block_map.py",
    "sweeps/test_store.py",
)

_MANY = 500  # tests: some of them will draw

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_configure() -> None:
    gc.disable()  # while the modules of all tests are imported, which stay


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have the garbage collector leave alone what was imported: to go through it again and again took a fifth of the tests' time."""
    if len(session.items) > _MANY:
        from workbench.render.assembly import read_blueprint
        from workbench.render.vocabulary import SHIPPED

        read_blueprint(SHIPPED / "sd1")  # imports what draws
    gc.enable()
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        name = item.path.relative_to(Path(__file__).parent).as_posix()
        return next((i for i, long in enumerate(LONG) if name.startswith(long)), len(LONG))

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadFileScheduling | None:
    """`--dist loadfile`, but one process has all that needs a browser: each would start a JupyterLab, warm kernels and a browser."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "browser" if nodeid.startswith("tests/browser/") else super()._split_scope(nodeid)

    return Together(config, log)


@pytest.fixture
def forgotten(monkeypatch):
    """Operators and sources that a test defines are not known to the next."""
    from workbench.merge import decorator, sources

    for registry in (decorator.registry, sources.registry):
        list(registry)  # our own are for all
        monkeypatch.setattr(registry, "_things", dict(registry._things))
