"""The inputs of merges, kept on the device that draws: a slider then reads nothing, and moves nothing but what it changes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import final

import torch


@final
class Residents:
    """Tensors of files on a device, in their own dtype, up to a number of bytes.

    Where there is no more room, those go that were not used for longest, but none that the present load has used.
    """

    def __init__(self, device: torch.device, room: int) -> None:
        self._device, self.room = device, room
        self._tensors: OrderedDict[str, tuple[torch.Tensor, int]] = OrderedDict()
        self._load = 0
        self.nbytes = 0

    def begin(self) -> None:
        """Another load begins."""
        self._load += 1

    def tensor(self, fingerprint: str, read: Callable[[], torch.Tensor]) -> torch.Tensor:
        """A tensor on the device, read when it is new; one that finds no room is not kept."""
        known = self._tensors.pop(fingerprint, None)
        tensor = read().to(self._device) if known is None else known[0]
        if known is None and not self._made_room(tensor.nbytes):
            return tensor
        self._tensors[fingerprint] = (tensor, self._load)
        return tensor

    def clear(self) -> None:
        """Let all of them go, and keep none until there is room again."""
        self._tensors.clear()
        self.nbytes = self.room = 0

    def _made_room(self, size: int) -> bool:
        while self._tensors and self.nbytes + size > self.room:
            fingerprint, (oldest, load) = next(iter(self._tensors.items()))
            if load == self._load:
                break
            del self._tensors[fingerprint]
            self.nbytes -= oldest.nbytes
        fits = self.nbytes + size <= self.room
        self.nbytes += size if fits else 0
        return fits
