"""What the tests of all panels wait for: pictures that are drawn, and drawn anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from notebook_page import NotebookPage, until
from playwright.sync_api import Locator, expect

SECONDS = 180_000


def drawn(notebook: NotebookPage) -> None:
    """Wait until every picture is there."""
    until(lambda: notebook.python("panel.wait(0)"), "pictures are still being drawn", 180)
    expect(notebook.page.locator(".wb-stale")).to_have_count(0)


def result(notebook: NotebookPage) -> Locator:
    """The first picture of the merge."""
    return notebook.page.locator(".wb-result img").first


@contextmanager
def redrawn(notebook: NotebookPage) -> Iterator[None]:
    """What happens inside leads to another picture of the merge; waits until all are there."""
    before = result(notebook).get_attribute("src")
    yield
    expect(result(notebook)).not_to_have_attribute("src", before, timeout=SECONDS)
    drawn(notebook)
