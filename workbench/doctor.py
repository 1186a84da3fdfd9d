"""`doctor`: what this installation has and can do, with a merge that is made, drawn and compared. It changes nothing that stays."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

import workbench as wb
from workbench.checkpoint.views.in_memory import InMemory
from workbench.errors import WorkbenchError
from workbench.families import registry
from workbench.places import DATA
from workbench.render.assembly import draws_pictures
from workbench.render.devices import chosen_device, describe, free_memory
from workbench.render.sources import shipped_folder
from workbench.wording import printable

if TYPE_CHECKING:
    import pandas as pd

_LIBRARIES = ("workbench", "torch", "safetensors", "diffusers", "transformers", "accelerate", "huggingface_hub", "ipywidgets")


@dataclass(frozen=True)
class Symptom:
    """One line: what was looked at, what was found, and whether it works."""

    what: str
    found: str
    ok: bool = True


@dataclass(frozen=True)
class Diagnosis:
    """What a doctor found; printed, a table."""

    lines: tuple[Symptom, ...]

    @property
    def ok(self) -> bool:
        """Whether everything works."""
        return all(line.ok for line in self.lines)

    def frame(self) -> pd.DataFrame:
        """One row per line: `what`, `found`, `ok`."""
        import pandas as pd

        return pd.DataFrame([(line.what, line.found, line.ok) for line in self.lines], columns=["what", "found", "ok"])

    def __str__(self) -> str:
        width = max(len(line.what) for line in self.lines)
        return "\n".join(f"{'ok ' if line.ok else 'BAD'} {line.what:{width}}  {printable(line.found)}" for line in self.lines)


def doctor() -> Diagnosis:
    """Look at versions, devices, memory, disks, caches and families, then merge and draw; nothing is fetched, and nothing stays."""
    checks: dict[str, Callable[[], str]] = {
        "Python": lambda: f"{platform.python_version()} on {platform.platform()}",
        "libraries": _libraries,
        "device": lambda: describe(chosen_device(None)),
        "memory": _memory,
        "disk, here": lambda: _disk(Path.cwd()),
        "disk, temporary": lambda: _disk(Path(tempfile.gettempdir())),
        "cache of hashes": lambda: _folder(platformdirs.user_cache_path("workbench")),
        "cache of the hub": _hub,
        "drawn at once": lambda: ", ".join(name for name in _drawn() if shipped_folder(name, (), "")),
        "drawn with configs": lambda: ", ".join(name for name in _drawn() if not shipped_folder(name, (), "")),
        "a merge": _merge,
        "a picture": _picture,
    }
    return Diagnosis(tuple(_looked(what, look) for what, look in checks.items()))


def _looked(what: str, look: Callable[[], str]) -> Symptom:
    began = time.perf_counter()
    try:
        found = look()
    except Exception as error:  # what is broken is what is looked for
        return Symptom(what, str(error) if isinstance(error, WorkbenchError) else f"{type(error).__name__}: {error}", ok=False)
    seconds = time.perf_counter() - began
    return Symptom(what, found + (f" ({seconds:.1f} s)" if seconds > 1 else ""))


def _libraries() -> str:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError as error:
            raise WorkbenchError(f"{name} is not installed: pip install -e . in the clone") from error
    return ", ".join(f"{name} {number}" for name, number in found.items())


def _memory() -> str:
    try:
        pages = {name: os.sysconf(name) for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES")}
    except (ValueError, OSError, AttributeError):
        return "unknown on this system"
    free, whole = (pages[name] * os.sysconf("SC_PAGE_SIZE") / 1e9 for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"))
    room = free_memory(chosen_device(None))
    return f"{free:.1f} of {whole:.1f} GB free" + ("" if room is None else f", {room / 1e9:.1f} GB on the device")


def _disk(folder: Path) -> str:
    return f"{shutil.disk_usage(folder).free / 1e9:.1f} GB free in {folder}"


def _hub() -> str:
    from huggingface_hub import constants

    return _folder(Path(constants.HF_HUB_CACHE))


def _folder(path: Path) -> str:
    if not path.is_dir():
        return f"{path}, which is not there yet"
    if not os.access(path, os.W_OK):
        raise WorkbenchError(f"{path}: cannot be written; give it to the user who runs this")
    return str(path)


def _drawn() -> list[str]:
    """The families that diffusers, as it is installed, has a text-to-image pipeline for."""
    return [name for name, family in registry().items() if family.is_model and draws_pictures(family)]


def _merge() -> str:
    """Half of one small model and half of another, written and read back."""
    import torch

    models = [InMemory({"weight": torch.full((64, 64), value)}, f"m{value:g}") for value in (1.0, 2.0)]
    with tempfile.TemporaryDirectory() as folder:
        written = wb.export(wb.operators.weighted_average(models), Path(folder) / "merged.safetensors", progress=False).open()
        if not torch.equal(written.read("weight"), torch.full((64, 64), 1.5)):
            raise WorkbenchError("a file that was written holds other numbers than were calculated")
    return "written, and read back bit for bit"


def _picture() -> str:
    """A merge of embedded models, drawn by the pipeline that diffusers makes of them."""
    folder = DATA / "shapes-sd"
    if not folder.is_dir():
        return "not tried: the embedded models come with a clone of the repository"
    merge = wb.operators.weighted_average([wb.open(folder / f"{name}.safetensors") for name in ("base", "heart")])
    renderer = wb.Renderer(merge)
    (picture,) = renderer.images(["a red star on a black background"], [0], steps=8, guidance=3.0, progress=False)
    if max(picture.tobytes()) < 64:
        raise WorkbenchError("a picture that should show a red star is dark")
    return f"{picture.width}x{picture.height}, drawn on {renderer.where}"
