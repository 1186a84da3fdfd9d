"""Tensors on their way to a GPU and back, beside the work there. On other devices nothing here does anything."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from workbench import tensors

if TYPE_CHECKING:
    import torch

_ON_A_GPU = 1 << 22  # elements: enough for it to be busy between two calls
_mine = threading.local()


def at_once(device: str) -> int:
    """Elements that are worked on at once."""
    return tensors.PIECE if device == "cpu" else _ON_A_GPU


def moved(tensor: torch.Tensor, device: str, dtype: torch.dtype) -> torch.Tensor:
    """A tensor on a device, in a dtype that it gets there: it travels in its own, by pinned memory, and nobody waits for it."""
    if tensor.device.type == "cpu" and device.startswith("cuda"):
        tensor = tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device).to(dtype)


def fetched(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor on the CPU, contiguous."""
    import torch

    if not tensor.is_cuda:
        return tensor.cpu().contiguous()
    there = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return there.copy_(tensor.contiguous())  # waits for this stream alone


@contextmanager
def own_stream(device: str) -> Iterator[None]:
    """On a GPU, have this thread's work wait for none but what came before: threads copy in, calculate and copy out side by side."""
    if not device.startswith("cuda"):
        yield
        return
    import torch

    streams = _mine.__dict__.setdefault("streams", {})
    stream = streams.get(device) or streams.setdefault(device, torch.cuda.Stream(device))  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.default_stream(device))  # what was prepared there
    with torch.cuda.stream(stream):
        yield
