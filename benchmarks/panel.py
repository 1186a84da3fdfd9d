"""From a fresh kernel to the first pictures, and from a move of a slider to the next, in a browser: what a person waits for.

`python -m benchmarks.panel --rounds 20` needs chromium, and drives JupyterLab as the browser tests do. It says first, without a
browser, what the seconds of a fresh kernel go into.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat

if TYPE_CHECKING:
    from notebook_page import NotebookPage

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "browser"))

_CELL = """import workbench as wb
panel = wb.MergePanel()
panel.show(panel.state.with_operator("{operator}"))
panel.wait()
panel"""
# from the key that moves the slider to the frame that shows another picture
_MEASURE = """() => { window.measured = new Promise((resolve) => {
  const panel = document.querySelector(".wb-panel"), column = panel.querySelector(".wb-result");
  const drawn = () => [...panel.querySelectorAll(".wb-status")].some((said) => said.textContent.trim().startsWith("Drawn in"));
  const before = column.querySelector("img").src;
  let began;
  document.addEventListener("keydown", () => { began = performance.now(); }, { capture: true, once: true });
  const observer = new MutationObserver(async () => {
    const image = column.querySelector("img");
    if (image.src === before || !drawn()) return; // a preview, while it takes long
    observer.disconnect();
    await image.decode();
    requestAnimationFrame(() => resolve((performance.now() - began) / 1000));
  });
  observer.observe(panel, { subtree: true, childList: true, attributes: true, characterData: true });
}); }"""

_FIRST = """import workbench as wb
panel = wb.MergePanel()
panel"""
# the same imports that the panel makes, one after the other: what they take, and what the drawing takes without them
_STAGES = """import time
began = time.perf_counter()
def lap(name):
    global began
    print(name, time.perf_counter() - began, flush=True)
    began = time.perf_counter()
import ipykernel.kernelapp, ipywidgets
lap("kernel")
from workbench.collecting import uncollected
with uncollected():
    import torch
    lap("torch")
    from workbench.panels.merge_panel import MergePanel
    lap("panel imported")
panel = MergePanel(gallery=None)
panel.stop()
lap("panel made")
panel.wait()
from workbench.places import DATA
from workbench.render.assembly import read_blueprint
read_blueprint(DATA / "shapes-sd" / "config")
lap("diffusers and transformers")
panel.show(panel.state.with_wanted(seeds=[1]))
panel.wait()
lap("all pictures")
"""
# from the command that runs the cell, in a fresh kernel, to the frames with the panel, with a picture of the merge, with all of them
_PAINTS = """() => { window.painted = new Promise((resolve) => {
  const began = performance.now(), found = {};
  const said = () => [...document.querySelectorAll(".wb-status")].some((one) => one.textContent.trim().startsWith("Drawn"));
  const there = { panel: () => document.querySelector(".wb-panel")?.offsetHeight > 0,
    picture: () => [...document.querySelectorAll(".wb-result img")].some((one) => one.naturalWidth > 1), all: said };
  const look = () => {
    for (const [name, test] of Object.entries(there)) {
      if (!(name in found) && test()) found[name] = (performance.now() - began) / 1000;
    }
    "all" in found ? resolve(found) : requestAnimationFrame(look);
  };
  look();
}); }"""


@contextmanager
def opened(cell: str) -> Iterator[Callable[[], AbstractContextManager[NotebookPage]]]:
    """A notebook of one cell in JupyterLab, in a browser: opens it, each time with a fresh kernel, before it runs."""
    from conftest import ARGUMENTS, NAMES
    from notebook_page import NotebookPage, Watched
    from playwright.sync_api import sync_playwright
    from servers import jupyterlab

    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as settings, sync_playwright() as playwright:
        nbformat.write(_notebook(cell), Path(folder) / "panel.ipynb")
        with jupyterlab(Path(folder), Path(settings) / "settings") as lab:
            browser = playwright.chromium.launch(executable_path=_chromium(NAMES), args=ARGUMENTS)
            watched = Watched(browser.new_context())
            yield lambda: closing(NotebookPage(watched, lab, "panel.ipynb", Path(folder)))
            browser.close()


def seconds(operator: str, rounds: int) -> list[float]:
    """Seconds from slider to picture, once for each of so many moves of an operator's first slider."""
    with opened(_CELL.format(operator=operator)) as fresh, fresh() as notebook:
        notebook.run_all()
        return [_move(notebook.page) for _ in range(rounds)]


def stages() -> dict[str, float]:
    """Seconds of a fresh kernel, by what they go into."""
    done = subprocess.run([sys.executable, "-c", _STAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name: float(told) for name, told in (line.rsplit(maxsplit=1) for line in done.stdout.splitlines())}


def first() -> tuple[dict[str, float], dict[str, float]]:
    """Seconds from a fresh kernel to the panel, to a picture of its merge, to all pictures; and in the next kernel, from the gallery."""
    with opened(_FIRST) as fresh:
        return _painted(fresh), _painted(fresh)


def _painted(fresh: Callable[[], AbstractContextManager[NotebookPage]]) -> dict[str, float]:
    with fresh() as notebook:
        notebook.page.evaluate(_PAINTS)
        notebook.run_all()
        found: dict[str, float] = notebook.page.evaluate("() => window.painted")
        notebook.python("panel.wait()")  # until what was drawn is kept
        return found


def _move(page) -> float:
    handle = page.locator(".wb-left .noUi-handle:visible").first
    handle.scroll_into_view_if_needed()
    page.evaluate(_MEASURE)
    handle.press("ArrowLeft")
    return page.evaluate("() => window.measured")


def _notebook(cell: str) -> nbformat.NotebookNode:
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)], metadata=metadata)


def _chromium(names: tuple[str, ...]) -> str:
    import shutil

    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise SystemExit(f"none of {', '.join(names)} is installed")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--operators", nargs="+", default=["task_arithmetic", "ties"])
    given = parser.parse_args()
    print(", ".join(f"{name} {took:.2f} s" for name, took in stages().items()), flush=True)
    for when, paints in zip(("first", "again"), first(), strict=True):
        print(when, ", ".join(f"{name} after {paints[name]:.1f} s" for name in ("panel", "picture", "all")), flush=True)
    for operator in given.operators:
        found = seconds(operator, given.rounds)
        print(f"{operator}: median {statistics.median(found):.2f} s of {len(found)}, from {min(found):.2f} to {max(found):.2f} s")


if __name__ == "__main__":
    main()
