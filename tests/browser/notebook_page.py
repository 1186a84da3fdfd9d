"""A notebook in a real browser: run it, find its widgets, move them by keyboard, look at the pixels."""

from __future__ import annotations

import ast
import base64
import io
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from jupyter_client import BlockingKernelClient
from PIL import Image
from playwright.sync_api import BrowserContext, Locator, expect
from servers import TOKEN, Lab, ask

THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
WIDTHS, HEIGHT = (900, 1600), 1000
_RUN = "() => { window.ran = undefined; window.jupyterapp.commands.execute('notebook:run-all-cells').then((ok) => (window.ran = ok)) }"
# JupyterLab takes seconds to come up, a notebook in one that is there does not; what was in it is left unsaved
_LEAVE = """() => {
  document.activeElement?.blur(); // what is typed is told while there is a kernel to be told
  const { shell } = window.jupyterapp;
  for (const document of [...shell.widgets("main")]) {
    if (document.context) document.context.model.dirty = false;
    document.dispose();
  }
}"""
_OPEN = "(path) => window.jupyterapp.commands.execute('docmanager:open', { path, factory: 'Notebook' }).then(() => undefined)"
_ERRORS = '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"], .jp-OutputArea-output[data-mime-type$="stderr"]'


class Watched:
    """A fresh page, and what went wrong in it."""

    def __init__(self, context: BrowserContext) -> None:
        self.page = context.new_page()
        self.page.set_viewport_size({"width": WIDTHS[-1], "height": HEIGHT})
        self.page.set_default_timeout(20_000)
        self.complaints: list[str] = []
        self.page.on("console", lambda said: said.type == "error" and self.complaints.append(f"console: {said.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))
        self.page.on("request", lambda request: self._check(request.url))
        self.page.on("websocket", lambda socket: self._check(socket.url))

    def _check(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1":
            self.complaints.append(f"request: {url} leaves the machine")


class NotebookPage:
    """A notebook of the server's folder, open in JupyterLab; `page` is Playwright's, for what is not here."""

    def __init__(self, watched: Watched, lab: Lab, path: str, shots: Path) -> None:
        self.page, self.path, self.shots = watched.page, path, shots
        self._address, self._runtime = lab.address, lab.runtime
        self.page.set_viewport_size({"width": WIDTHS[-1], "height": HEIGHT})
        if self.page.url.startswith(lab.address):
            self.page.evaluate(_LEAVE)
            self.page.evaluate(_OPEN, path)
        else:
            self.page.goto(f"{lab.address}/doc/tree/{path}?reset&token={TOKEN}")
        until(lambda: any(self._is_ready(session) for session in self._sessions()), "the kernel is not ready", 180)
        self.page.wait_for_function("() => window.jupyterapp?.commands.hasCommand('notebook:run-all-cells')")

    def _sessions(self) -> list[dict]:
        return [session for session in ask(f"{self._address}/api/sessions") if session["path"] == self.path]

    def _is_ready(self, session: dict) -> bool:
        return session["kernel"]["execution_state"] == "idle" and session["kernel"]["connections"] > 0

    def run_all(self, seconds: float = 180) -> NotebookPage:
        """Run every cell, to the end; a cell that raises, or writes to stderr, fails the test in its own words."""
        self.page.evaluate(_RUN)
        self.page.wait_for_function("() => window.ran !== undefined", timeout=1000 * seconds)
        assert not self.page.locator(_ERRORS).all_inner_texts()
        return self

    def python(self, expression: str) -> object:
        """What an expression comes to in the notebook's kernel, for plain data; while a cell runs it waits."""
        asked = self._kernel.execute("", user_expressions={"asked": expression})
        answer = self._kernel.get_shell_msg(timeout=60)
        assert answer["parent_header"]["msg_id"] == asked
        found = answer["content"]["user_expressions"]["asked"]
        assert found["status"] == "ok", found
        return ast.literal_eval(found["data"]["text/plain"])

    @cached_property
    def _kernel(self) -> BlockingKernelClient:
        """The notebook's kernel, beside the page's own connection to it."""
        (session,) = self._sessions()
        client = BlockingKernelClient(connection_file=str(self._runtime / f"kernel-{session['kernel']['id']}.json"))
        client.load_connection_file()
        client.start_channels(iopub=False, stdin=False, hb=False, control=False)
        return client

    def find(self, selector: str, text: str | None = None) -> Locator:
        """The one visible part of the outputs that matches, and holds the text if one is given; of a button it is the whole text."""
        held = re.compile(rf"^\s*{re.escape(text)}\s*$") if text and selector == "button" else text
        found = self.page.locator(f".jp-OutputArea-output {selector}", has_text=held)
        expect(found).to_have_count(1)
        found.scroll_into_view_if_needed()
        return found

    def slider(self, label: str) -> Locator:
        """The slider of that label: an ipywidgets one, or an HTML range."""
        own = f'.widget-slider:has(> label:text-is("{label}")) .noUi-handle'
        return self.find(f'{own}, label:has(> span:text-is("{label}")) input[type=range]')

    def menu(self, label: str) -> Locator:
        """The menu of that label: an ipywidgets one, or an HTML select."""
        return self.find(f'.widget-dropdown:has(> label:text-is("{label}")) select, label:has(> span:text-is("{label}")) select')

    def theme(self, name: str) -> None:
        """Turn the page `light` or `dark`."""
        self.page.evaluate("(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", THEMES[name])
        expect(self.page.locator(f'body[data-jp-theme-light="{str(name == "light").lower()}"]')).to_be_attached()
        expect(self.page.locator("#jupyterlab-splash")).to_have_count(0)

    def screenshots(self, name: str, part: Locator) -> list[Path]:
        """Pictures of one part, light and narrow, dark and wide, in out/screenshots; to be looked at by people."""
        pairs = zip(THEMES, WIDTHS, strict=True)
        return [self._screenshot(f"{name}-{theme}-{width}.png", part, theme, width) for theme, width in pairs]

    def _screenshot(self, file: str, part: Locator, theme: str, width: int) -> Path:
        self.theme(theme)
        self.page.set_viewport_size({"width": width, "height": HEIGHT})
        until(lambda: fits(part), f"{file}: cut off, or wider than its cell", 5)
        part.screenshot(path=self.shots / file)
        return self.shots / file

    def close(self) -> None:
        """Leave the notebook, and end its kernel."""
        self.page.evaluate(_LEAVE)
        if "_kernel" in vars(self):
            self._kernel.stop_channels()
        for session in self._sessions():
            ask(f"{self._address}/api/sessions/{session['id']}", "DELETE")


def value(slider: Locator) -> float:
    """Where a slider stands."""
    return float(slider.get_attribute("aria-valuenow") or slider.input_value())


def move(slider: Locator, target: float) -> None:
    """Move a slider by keyboard until it stands at `target`, or at the first step beyond."""
    up = value(slider) < target

    def there() -> bool:
        return value(slider) >= target - 1e-9 if up else value(slider) <= target + 1e-9

    def step() -> bool:
        if not there():
            slider.press("ArrowRight" if up else "ArrowLeft")
        return there()

    until(step, f"the slider does not come to {target}")


@contextmanager
def changed(part: Locator, seconds: float = 30) -> Iterator[None]:
    """What happens inside changes what `part` shows; waits until it does."""
    before = part.screenshot()
    yield
    until(lambda: part.screenshot() != before, "nothing changed in the picture", seconds)


def pixels(part: Locator) -> np.ndarray:
    """What a part shows, as numbers: rows, columns, red green blue. A canvas is read itself, without what lies over it."""
    drawn = part.evaluate("(part) => part.toDataURL?.()")
    content = base64.b64decode(drawn.partition(",")[2]) if drawn else part.screenshot()
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), int)


def fits(part: Locator) -> bool:
    """Nothing inside is wider than the room it has."""
    return part.evaluate("(part) => part.scrollWidth <= part.clientWidth + 1 && part.getBoundingClientRect().right <= innerWidth")


def until(true: Callable[[], bool], otherwise: str, seconds: float = 30) -> None:
    """Wait until something holds; AssertionError with `otherwise` when it does not."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{otherwise} (waited {seconds} s)"
        time.sleep(0.05)
