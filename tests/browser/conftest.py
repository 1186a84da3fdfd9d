"""JupyterLab in a real browser, in one page for all of these tests; each test has a notebook and a kernel of its own.

A test of a notebook that comes with the project:

    def test_the_panel_follows_its_slider(lab):
        notebook = lab("05_panel.ipynb").run_all()
        with changed(notebook.find("img", "result")):
            move(notebook.slider("density"), 0.8)
        notebook.screenshots("panel", notebook.find(".wb-merge"))

`lab([source, ...])` makes a notebook of these cells instead. `changed`, `move`, `pixels` and `until` are imported from
`notebook_page`. Whatever the test does, it fails if a request leaves the machine or the console shows an error.
Without chromium these tests are skipped, and the summary says so.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest
from notebook_page import NotebookPage, Watched
from playwright.sync_api import Browser, sync_playwright
from servers import KERNEL, Lab, jupyterlab

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = ("gpu", "quic", "background-networking", "component-update", "sync")
ARGUMENTS = ["--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in QUIET)]


@pytest.fixture(scope="package")  # what drives it leaves an event loop running, which tests elsewhere must not find
def chromium() -> Iterator[Browser]:
    """A browser. Skips, in words, when there is none."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("NOT TESTED IN A BROWSER: there is no chromium; install one (apt-get install chromium) and test again")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def served(tmp_path_factory) -> Iterator[Lab]:
    """JupyterLab in a copy of the notebooks and the models, which tests may change."""
    folder = tmp_path_factory.mktemp("lab")
    for name in ("notebooks", "data"):
        shutil.copytree(ROOT / name, folder / name)
    with jupyterlab(folder, tmp_path_factory.mktemp("settings")) as running:
        yield running


@pytest.fixture
def watched(chromium) -> Iterator[Watched]:
    """A page with nobody's past; fails the test for console errors and for requests that leave the machine."""
    with _watched(chromium) as page:
        yield page
        assert not page.complaints


@pytest.fixture(scope="package")
def desk(chromium) -> Iterator[Callable[[], AbstractContextManager[Watched]]]:
    """Lends the page in which tests open their notebooks (another takes seconds); after one that left it in disorder there is another."""
    with ExitStack() as held:
        free: list[Watched] = []

        @contextmanager
        def page() -> Iterator[Watched]:
            lent = free.pop() if free else held.enter_context(_watched(chromium))
            yield lent
            assert not lent.complaints
            if not lent.page.locator(".jp-Dialog").count():
                free.append(lent)

        yield page


@contextmanager
def _watched(chromium: Browser) -> Iterator[Watched]:
    context = chromium.new_context()
    try:
        yield Watched(context)
    finally:
        context.close()


@pytest.fixture
def shots() -> Path:
    """Where screenshots go."""
    folder = ROOT / "out" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def lab(desk, served, shots) -> Iterator[Callable[[str | list[str]], NotebookPage]]:
    """Opens a notebook by its name in notebooks/, or one made of the cells that are given."""
    import nbformat  # seconds, which the processes that run other tests save

    opened = []

    def open_notebook(notebook: str | list[str]) -> NotebookPage:
        if not isinstance(notebook, str):
            cells = [nbformat.v4.new_code_cell(source) for source in notebook]
            notebook = "made.ipynb"
            metadata = {"kernelspec": {"name": KERNEL, "display_name": KERNEL}}
            nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), served.folder / "notebooks" / notebook)
        opened.append(NotebookPage(watched, served, f"notebooks/{notebook}", shots))
        return opened[-1]

    with desk() as watched:
        yield open_notebook
        for page in opened:
            page.close()
