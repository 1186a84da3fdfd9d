"""`make app`: the page that Voila makes of the merge panel and its gallery, with nothing from outside and no complaint."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from notebook_page import HEIGHT, WIDTHS, changed, move, until
from playwright.sync_api import Locator, Page, expect
from servers import free_port, running

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def address(tmp_path, monkeypatch):
    """Where the Makefile's own command serves the page; what the app keeps goes beside a copy of its notebook."""
    ((folder, path, notebook),) = re.findall(
        r"^\tcd (\S+) && JUPYTER_PATH=(\S+) \S+/voila (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    monkeypatch.setenv("JUPYTER_PATH", path)
    shutil.copytree(ROOT / folder, tmp_path / folder)
    monkeypatch.chdir(tmp_path / folder)
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
    watched.page.goto(address, timeout=180_000)
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


def drawn(app: Page) -> None:
    """Wait until the page is there, and every picture."""
    expect(app.locator(".wb-result:not(.wb-stale) img").first).to_be_visible(timeout=180_000)
    expect(app.locator(".wb-stale")).to_have_count(0, timeout=180_000)
    expect(app.locator(".wb-status", has_text=re.compile("Drawn (in|before)")).first).to_be_visible(timeout=180_000)
    expect(app.locator(".wb-empty")).to_have_count(0)


def weight(app: Page) -> Locator:
    return app.locator(".widget-slider .noUi-handle:visible").first


def looked_at(app: Page, name: str, shots: Path) -> None:
    """Narrow, then wide, with nothing out of sight."""
    for width in WIDTHS:
        app.set_viewport_size({"width": width, "height": HEIGHT})
        until(lambda: app.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), f"{name}: wider than the window", 5)
        app.screenshot(path=shots / f"{name}-{width}.png", full_page=True)


def test_the_app_draws_gives_back_states_from_its_gallery_and_is_the_same_after_a_reload(app, address, shots, tmp_path):
    drawn(app)
    expect(app).to_have_title("Workbench: merge image models")
    hint, result = app.locator(".wb-newcomer"), app.locator(".wb-result img").first
    expect(hint.locator("p")).to_have_count(3)
    for width in WIDTHS:
        app.set_viewport_size({"width": width, "height": HEIGHT})
        box = result.bounding_box()
        assert box["x"] + box["width"] <= width, "the result is out of sight"
    looked_at(app, "app", shots)
    before = weight(app).get_attribute("aria-valuenow")
    with changed(app.locator(".wb-result")):
        move(weight(app), 0.5)
    drawn(app)
    moved = weight(app).get_attribute("aria-valuenow")
    assert moved != before

    app.get_by_role("tab", name="Gallery").click()
    gallery = app.locator(".wb-pictures-kept")
    gallery.locator("input[type=search]").nth(1).fill("result")
    kept = gallery.locator("figure .open")
    expect(kept).to_have_count(4)  # two prompts, before and after
    looked_at(app, "app-gallery", shots)
    kept.last.click()
    expect(gallery).to_be_hidden()
    expect(weight(app)).to_have_attribute("aria-valuenow", before)
    with changed(app.locator(".wb-result")):
        app.get_by_title("Undo").or_(app.get_by_role("button", name="Undo")).first.click()
    expect(weight(app)).to_have_attribute("aria-valuenow", moved)

    prompt = app.locator("textarea[placeholder='one prompt per line']")
    prompt.fill("a {red|blue} star on a white background")
    prompt.blur()
    labels = app.locator(".wb-prompts div[title]")
    expect(labels).to_have_text(["a red star on a white background", "a blue star on a white background"])
    more = app.locator(".wb-more .jupyter-widget-Collapse-header")
    expect(more).to_have_text("more: 12 steps, guidance 3")
    more.click()
    size = app.locator("input[placeholder='own']")
    size.fill("96")
    size.press("Enter")
    expect(more).to_have_text("more: 12 steps, guidance 3, 96 x 96")
    looked_at(app, "app-more", shots)
    more.click()
    expect(size).to_be_hidden()
    app.get_by_role("button", name="Put away").click()
    expect(hint).to_be_hidden()
    drawn(app)

    app.goto(address.partition("?token=")[0] + "?theme=dark", timeout=180_000)  # the token is remembered
    drawn(app)
    expect(weight(app)).to_have_attribute("aria-valuenow", moved)
    expect(prompt).to_have_value("a {red|blue} star on a white background")
    expect(more).to_have_text("more: 12 steps, guidance 3, 96 x 96")
    expect(hint).to_be_hidden()
    assert not app.locator(".wb-words .wb-warning, .wb-words .wb-error").all_inner_texts()
    looked_at(app, "app-dark", shots)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["app.hint-put-away", "app.yaml", "gallery"]
