"""`make app`: the page that Voila makes of the merge panel comes up, with nothing from outside and no complaint."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from notebook_page import HEIGHT, WIDTHS, changed, move
from playwright.sync_api import expect
from servers import free_port, running

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def app(watched, tmp_path, monkeypatch):
    """The page, as the Makefile's own command serves it."""
    ((folder, path, notebook),) = re.findall(
        r"^\tcd (\S+) && JUPYTER_PATH=(\S+) \S+/voila (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    monkeypatch.setenv("JUPYTER_PATH", path)
    monkeypatch.chdir(ROOT / folder)
    port = free_port()
    command = [sys.executable, "-m", "voila", notebook, "--no-browser", "--Voila.ip=127.0.0.1", f"--port={port}"]
    with running(command, tmp_path / "settings", f"http://127.0.0.1:{port}", "/voila/static/voila.js"):
        watched.page.goto(f"http://127.0.0.1:{port}/", timeout=60_000)
        yield watched.page
        watched.page.goto("about:blank")  # before the server goes


def test_the_app_comes_up_and_draws_with_the_result_in_sight(app, shots):
    result = app.locator(".wb-result:not(.wb-stale) img")
    expect(result.first).to_be_visible(timeout=90_000)
    expect(app.locator(".wb-empty")).to_have_count(0, timeout=60_000)
    for width in WIDTHS:
        app.set_viewport_size({"width": width, "height": HEIGHT})
        box = result.first.bounding_box()
        assert box["x"] + box["width"] <= width, "the result is out of sight"
        app.screenshot(path=shots / f"app-{width}.png", full_page=True)
    weight = app.locator(".widget-slider .noUi-handle").first
    with changed(app.locator(".wb-result")):
        move(weight, 0.5)
