"""Settings of all tests: hypothesis does not time its examples, since machines are noisy. And what several tests share."""

from pathlib import Path

import pytest
from hypothesis import settings

# Files that take longest, first: one that began last would run alone while the other processes have nothing left to do.
LONG = (
    "test_notebooks.py",
    "browser",
    "sweeps/test_distributed.py",
    "sweeps/test_sweep_file.py",
    "conditioning/test_fitting.py",
    "faults",
    "panels/test_merge_panel.py",
    "sweeps/test_store.py",
    "searches/test_search.py",
)

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        name = item.path.relative_to(Path(__file__).parent).as_posix()
        return next((i for i, long in enumerate(LONG) if name.startswith(long)), len(LONG))

    items.sort(key=place)


@pytest.fixture
def forgotten(monkeypatch):
    """Operators and sources that a test defines are not known to the next."""
    from workbench.merge import decorator, sources

    for registry in (decorator.registry, sources.registry):
        list(registry)  # our own are for all
        monkeypatch.setattr(registry, "_things", dict(registry._things))
