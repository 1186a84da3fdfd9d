"""`make app`: the page that Voila makes of the merge panel comes up, with nothing from outside and no complaint."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from notebook_page import HEIGHT, WIDTHS, changed, move
from playwright.sync_api import expect
from servers import free_port, running

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def address(tmp_path, monkeypatch):
    """Where the Makefile's own command serves the page."""
    ((folder, path, notebook),) = re.findall(
        r"^\tcd (\S+) && JUPYTER_PATH=(\S+) \S+/voila (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    monkeypatch.setenv("JUPYTER_PATH", path)
    monkeypatch.chdir(ROOT / folder)
    port = free_port()
    command = [sys.executable, "-m", "voila", notebook, f"--port={port}"]
    with running(command, tmp_path / "settings", f"http://127.0.0.1:{port}", "/voila/static/voila.js"):
        yield address_in(tmp_path / "settings.log")


def address_in(log: Path) -> str:
    """The address that Voila prints."""
    (found,) = re.findall(r"http://127\.0\.0\.1:\d+/\?token=\w+", log.read_text())
    return found


@pytest.fixture
def app(address, watched):
    """The page at the address that is printed."""
    watched.page.goto(address, timeout=60_000)
    yield watched.page
    watched.page.goto("about:blank")  # before the server goes


def status(address: str, **headers: str) -> tuple[int, str]:
    """What is answered, and where from after redirections."""
    try:
        with urlopen(Request(address, headers=headers), timeout=30) as answer:
            return answer.status, answer.url
    except HTTPError as error:
        return error.code, address


def test_nothing_runs_without_the_token_or_under_another_name(address):
    page, _, token = address.partition("?token=")
    assert len(token) >= 16
    assert "/login" in status(page)[1]
    assert "/login" in status(f"{page}?token={'0' * len(token)}")[1]
    kernel = "00000000-0000-0000-0000-000000000000"
    assert status(f"{page}api/kernels/{kernel}")[0] == 403
    socket = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "A" * 22 + "=="}
    assert status(f"{page}api/kernels/{kernel}/channels", **socket)[0] == 403
    assert status(address, Host="evil.example:80")[0] == 403, "a name that somebody else points here"


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
