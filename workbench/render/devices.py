"""Where pictures are calculated: the device that is best here, how much room it has, and what to do where that is too little."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, final

import torch

from workbench.errors import RenderError

Offload = Literal["model", "sequential"]
OFFLOADS: tuple[Offload, ...] = ("model", "sequential")
DTYPES = ("float32", "bfloat16", "float16")


@final
@dataclass(frozen=True)
class Placement:
    """Where and in which dtype pictures are calculated, as `Renderer` takes it; None is what is best here.

    Raises RenderError for a device that is not here, and for what is no dtype or offload.
    """

    device: str | None = None
    dtype: str | None = None
    offload: Offload | None = None

    def __post_init__(self) -> None:
        here = devices_here()
        if self.device is not None and not {str(chosen_device(self.device)), f"{self.device}:0"} & {*here}:
            raise RenderError(f"device {self.device!r} is not here; there are: {', '.join(here)}")
        if self.dtype is not None:
            dtype_named(self.dtype)
        if self.offload not in (None, *OFFLOADS):
            raise RenderError(f"offload must be one of {', '.join(map(repr, OFFLOADS))}, or None, got {self.offload!r}")


def devices_here() -> tuple[str, ...]:
    """The devices of this machine, the best first."""
    cuda = [f"cuda:{number}" for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return (*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu")


def chosen_device(given: str | torch.device | None) -> torch.device:
    """The device that is given; by default CUDA, else MPS, else the CPU. Raises RenderError for one that is not to be had."""
    if given is None:
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        return torch.device(given)
    except RuntimeError as error:
        raise RenderError(f"device {given!r} is none that torch knows; give 'cpu', 'cuda', 'cuda:1' or 'mps'") from error


def dtype_named(name: str) -> torch.dtype:
    """Raises RenderError for what is no dtype of floats."""
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise RenderError(f"dtype must be 'float32', 'bfloat16' or 'float16', got {name!r}")
    return found


def describe(device: torch.device) -> str:
    """A device by its name: `cuda:0 (NVIDIA H100, 79.2 GB)`."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return str(device)
    properties = torch.cuda.get_device_properties(device)
    return f"{device} ({properties.name}, {properties.total_memory / 1e9:.1f} GB)"


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be had on a device; None where nobody says, as for the CPU."""
    if device.type == "cuda" and torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps" and torch.backends.mps.is_available():
        return int(torch.mps.recommended_max_memory()) - int(torch.mps.current_allocated_memory())
    return None


def release(device: torch.device) -> None:
    """Give memory that is not used any more back to the device; pipelines refer to themselves, and wait for the garbage collector."""
    gc.collect()
    if device.type == "cuda" and torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif device.type == "mps" and torch.backends.mps.is_available():
        torch.mps.empty_cache()


def check_room(device: torch.device, free: int | None, sizes: Mapping[str, int], offload: Offload | None) -> None:
    """Raises RenderError, with the sizes and what would help, for parts that do not go into what is free.

    `sizes` are bytes, by part. Where parts take turns on the device (`"model"`) the largest has to fit; layers (`"sequential"`) always do.
    """
    largest = max(sizes, key=lambda part: sizes[part])
    needed = {None: sum(sizes.values()), "model": sizes[largest], "sequential": 0}[offload]
    if free is None or needed <= free:
        return
    helps = _helps(sizes, free, offload)
    what = "the pipeline takes" if offload is None else f"the {largest} takes"
    raise RenderError(f"{what} {_gb(needed)} on {describe(device)}, where {_gb(free)} are free ({_listed(sizes)}): {helps}")


@contextmanager
def told_where_full(
    what: str, advice: str, device: torch.device, parts: Callable[[], Mapping[str, int]], offload: Offload | None
) -> Iterator[None]:
    """Raises RenderError, with the sizes of the parts and what would help, where a device has no memory left for `what`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        full = error.with_traceback(None)  # which would hold on to what lies on the device
    else:
        return
    release(device)
    free, sizes = free_memory(device) or 0, parts()
    helps = _helps(sizes, free + sum(sizes.values()), offload)
    told = "; ".join(filter(None, (advice, helps)))
    raise RenderError(f"{describe(device)} has no memory left for {what} ({_listed(sizes)}; {_gb(free)} free now): {told}") from full


def _helps(sizes: Mapping[str, int], free: int, offload: Offload | None) -> str:
    """How the parts could take less; empty where they take as little as they can."""
    largest = max(sizes, key=lambda part: sizes[part])
    one = f'offload="model" keeps one of them there at a time ({_gb(sizes[largest])}, the {largest})'
    layers = 'offload="sequential" one layer at a time, which is slow'
    if offload == "sequential":
        return ""
    return f"Renderer(..., {f'{one}, {layers}' if offload is None and sizes[largest] <= free else layers})"


def _listed(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{part} {_gb(size)}" for part, size in sizes.items())


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
