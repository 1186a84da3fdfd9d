"""Servers that the browser tests visit: JupyterLab, Voila; each in a folder of its own, with settings of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

TOKEN = "browser-tests"
KERNEL = "warm" if sys.platform == "linux" else "python3"  # elsewhere a process that has imported so much does not fork safely
_WARM = [sys.executable, str(Path(__file__).with_name("warm_kernels.py"))]
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
    page = settings / "labconfig" / "page_config.json"
    page.parent.mkdir()
    page.write_text(json.dumps({"buildCheck": False}))  # every page would have node look for extensions to build
    port = free_port()
    server = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", f"--ServerApp.root_dir={folder}"]
    command = [sys.executable, "-m", "jupyterlab", *server, f"--IdentityProvider.token={TOKEN}", "--expose-app-in-browser"]
    with warm_kernels(settings), running(command, settings, f"http://127.0.0.1:{port}", "/api/status"):
        yield Lab(f"http://127.0.0.1:{port}", folder, settings / "runtime")


@contextmanager
def warm_kernels(settings: Path) -> Iterator[None]:
    """Kernels that start warm, for notebooks that name the kernel `warm`; nothing where `KERNEL` is another."""
    if KERNEL != "warm":
        yield
        return
    file = settings / "data" / "kernels" / "warm" / "kernel.json"
    file.parent.mkdir(parents=True)
    log = settings.with_name(f"{settings.name}-kernels.log")
    with socket.create_server(("127.0.0.1", 0)) as listening:  # here, so that who asks first need not find the server started
        argv = [*_WARM, str(listening.getsockname()[1]), "{connection_file}"]
        file.write_text(json.dumps({"argv": argv, "display_name": "warm", "language": "python", "interrupt_mode": "message"}))
        with process([*_WARM, str(listening.fileno())], settings, log, inherits=[listening.fileno()]):
            yield


@contextmanager
def running(command: list[str], settings: Path, address: str, ready: str) -> Iterator[None]:
    """A server process, from the moment it answers `ready`; what it writes goes to a file beside `settings`."""
    log = settings.with_suffix(".log")
    with process(command, settings, log) as server:
        _wait(server, address + ready, log)
        yield


@contextmanager
def process(command: list[str], settings: Path, log: Path, inherits: Sequence[int] = ()) -> Iterator[subprocess.Popen]:
    """A process with nobody's settings but those in `settings`, from its start to its end; it `inherits` files by their numbers."""
    folders = {"CONFIG": settings, "DATA": settings / "data", "RUNTIME": settings / "runtime"}
    jupyter = {f"JUPYTER_{name}_DIR": str(path) for name, path in folders.items()}
    rest = {
        "IPYTHONDIR": str(settings / "ipython"),
        "WORKBENCH_QUICK": "1",
        "OMP_NUM_THREADS": "1",
        "XDG_CONFIG_HOME": str(settings / "config"),
    }
    with log.open("w") as output:
        environment = os.environ | jupyter | rest
        started = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, pass_fds=inherits)
        try:
            yield started
        finally:
            started.terminate()
            try:
                started.wait(10)
            except subprocess.TimeoutExpired:  # JupyterLab now and then, when a page leaves as it ends
                started.kill()
                started.wait()


def _wait(process: subprocess.Popen, url: str, log: Path) -> None:
    end = time.monotonic() + 180
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
