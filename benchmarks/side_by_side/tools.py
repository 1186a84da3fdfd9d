"""The peers: which there are, the environment that they are installed into, and their merges of the same files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.processes import ProcessFailed, run_process
from benchmarks.side_by_side import references
from benchmarks.side_by_side.files import Files
from benchmarks.side_by_side.floor import floor
from benchmarks.side_by_side.ours import OPERATIONS, Operation, wrong
from benchmarks.side_by_side.store import Job, version_of

ENOUGH = 30.0  # seconds of one peer's operation, after which there are no more rounds
_SCRIPTS = Path(__file__).resolve().parent / "peers"


@dataclass(frozen=True)
class Tool:
    """A peer: its name, the script that runs it, its package and version in the index, and which operations it has."""

    name: str
    script: str
    package: str
    operations: tuple[str, ...]

    def version(self, installed: Mapping[str, str]) -> str:
        """Of the package, of what runs and judges it, and whether it is installed: what is measured anew when it changes."""
        how = version_of([_SCRIPTS / self.script, Path(references.__file__)])
        return f"{self.package}{' missing' * bool(installed.get(self.package))} {how}"


TOOLS = (
    Tool("load_file, float32, save_file", "by_loop.py", "safetensors==0.8.0", ("average",)),
    Tool("sd-mecha", "by_sd_mecha.py", "sd-mecha==1.1.8", ("average", "slerp", "ties", "dare_ties")),
    Tool("mergekit", "by_mergekit.py", "mergekit==0.1.5", ("average", "slerp", "ties", "dare_ties")),
    Tool("PEFT", "by_peft.py", "peft==0.21.2", ("ties", "dare_ties")),
    Tool("svd_lowrank(niter=2) loop", "by_loop.py", "safetensors==0.8.0", ("extract",)),
    Tool("LyCORIS", "by_lycoris.py", "lycoris-lora==4.1.3", ("extract",)),
)


class Environment:
    """A virtual environment of the peers alone, with the torch that Workbench has."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._kept = folder, folder / "installed.json"

    def install(self, tools: Sequence[Tool], say: Any) -> Mapping[str, str]:
        """Install what is not there; of each package "", or why it is not. Raises ProcessFailed if not even torch can be installed."""
        found: dict[str, str] = json.loads(self._kept.read_text(encoding="utf-8")) if self._kept.exists() else {}
        if not self._kept.exists():
            say(f"the peers' environment: {self._folder}")
            shutil.rmtree(self._folder, ignore_errors=True)
            run_process([sys.executable, "-m", "venv", str(self._folder)])
            run_process(self._pip(f"torch=={torch.__version__}"))  # its own wheel is here already; another one may take gigabytes
        for package in dict.fromkeys(tool.package for tool in tools):
            if package not in found:
                found[package] = self._failure(package)
                say(f"{package}: {found[package] or 'installed'}")
                self._kept.write_text(json.dumps(found, indent=1), encoding="utf-8")
        return found

    @property
    def python(self) -> str:
        return str(self._folder / "bin" / "python")

    def _pip(self, package: str) -> list[str]:
        return [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]

    def _failure(self, package: str) -> str:
        """Install a package and leave torch as it is; "" or pip's last line."""
        command = [*self._pip(package), f"torch=={torch.__version__}", "numpy", "pyyaml"]
        made = subprocess.run(command, capture_output=True, text=True)
        return _last(made.stderr) or f"pip ended with {made.returncode}" if made.returncode else ""


def jobs(where: Files, environment: Environment, tools: Sequence[Tool], installed: Mapping[str, str], rounds: int) -> Iterator[Job]:
    """Every operation by every peer that has it."""
    for operation in OPERATIONS:
        for tool in tools:
            if operation.name in tool.operations:
                run = partial(_merged, tool, operation, where, environment.python, installed.get(tool.package, ""))
                yield Job(f"peer/{operation.name}/{tool.name}", tool.version(installed), rounds, run, ENOUGH)


def run_tool(tool: Tool, operation: str, out: Path, inputs: Sequence[Path], python: str) -> dict[str, Any]:
    """Seconds and peak of its process; or `failed`, with its last line."""
    try:
        seconds, peak = run_process([python, str(_SCRIPTS / tool.script), operation, str(out), *map(str, inputs)])
    except ProcessFailed as error:
        return {"failed": _last(str(error))}
    return {"seconds": seconds, "peak": peak}


def _merged(tool: Tool, operation: Operation, where: Files, python: str, missing: str) -> dict[str, Any]:
    if missing:
        return {"failed": f"cannot be installed here: {missing}"}
    out = where.folder / "by-peer.safetensors"
    remove(out)
    copied, *read = (where.path(operation.files, model) for model in operation.inputs)
    least = floor([copied], read, where.folder / "floor.bin")
    try:
        found = run_tool(tool, operation.name, out, [copied, *read], python)
        if "failed" in found:
            return found
        written = sorted(out.glob("*.safetensors")) if out.is_dir() else [out]
        return {"floor": least, **found, "wrong": wrong(operation, written, where)}
    finally:
        remove(out)


def remove(path: Path) -> None:
    """A file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _last(text: str) -> str:
    """The last line that says something, short enough for a table."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].replace("|", "/")[:200] if lines else ""
