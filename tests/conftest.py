"""Settings of all tests: hypothesis does not time its examples, since machines are noisy. And what several tests share."""

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def forgotten(monkeypatch):
    """Operators and sources that a test defines are not known to the next."""
    from workbench.merge import decorator, sources

    for registry in (decorator.registry, sources.registry):
        list(registry)  # our own are for all
        monkeypatch.setattr(registry, "_things", dict(registry._things))
