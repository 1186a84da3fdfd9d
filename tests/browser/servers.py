"""Servers that the browser tests visit: JupyterLab, Voila; each in a folder of its own, with settings of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

TOKEN = "browser-tests"
_SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},  # cells out of sight stay in the page
    "docmanager-extension/plugin": {"autosave": False},
}


@dataclass(frozen=True)
class Lab:
    """A JupyterLab that runs: where it answers, what it serves, and where its kernels leave their connection files."""

    address: str
    folder: Path
    runtime: Path


@contextmanager
def jupyterlab(folder: Path, settings: Path) -> Iterator[Lab]:
    """JupyterLab rooted in `folder`, with nobody's settings but the tests'."""
    for name, content in _SETTINGS.items():
        file = settings / "lab" / "user-settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    port = free_port()
    server = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", f"--ServerApp.root_dir={folder}"]
    command = [sys.executable, "-m", "jupyterlab", *server, f"--IdentityProvider.token={TOKEN}", "--expose-app-in-browser"]
    with running(command, settings, f"http://127.0.0.1:{port}", "/api/status"):
        yield Lab(f"http://127.0.0.1:{port}", folder, settings / "runtime")


@contextmanager
def running(command: list[str], settings: Path, address: str, ready: str) -> Iterator[None]:
    """A server process, from the moment it answers `ready`; what it writes goes to a file beside `settings`."""
    log = settings.with_suffix(".log")
    folders = {"JUPYTER_CONFIG_DIR": settings, "JUPYTER_RUNTIME_DIR": settings / "runtime", "IPYTHONDIR": settings / "ipython"}
    environment = os.environ | {name: str(path) for name, path in folders.items()} | {"WORKBENCH_QUICK": "1", "OMP_NUM_THREADS": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            _wait(process, address + ready, log)
            yield
        finally:
            process.terminate()
            process.wait(30)


def _wait(process: subprocess.Popen, url: str, log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        try:
            return ask(url)
        except (URLError, ConnectionError):
            time.sleep(0.1)
    raise RuntimeError(f"{process.args}: does not answer at {url}; it wrote:\n{log.read_text()}")


def ask(url: str, method: str = "GET") -> object:
    """What a server's REST address answers."""
    with urlopen(Request(url, headers={"Authorization": f"token {TOKEN}"}, method=method), timeout=60) as answer:
        content = answer.read()
    return json.loads(content) if "json" in answer.headers.get("Content-Type", "") else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
