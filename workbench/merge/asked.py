"""What an operator may ask for beside tensors and options, by annotating a keyword-only parameter: a name, random numbers, a state."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench import kernels

if TYPE_CHECKING:
    import torch

_PER_STEP = 8  # float32 numbers that one step of Philox's counter gives


class TensorName(str):
    """The name of the tensor in the result."""


@dataclass(frozen=True)
class Random:
    """Random numbers addressed by element: any part, on any number of threads and any device, gets its own numbers.

    They are those of NumPy's Philox generator, keyed by the seed, the tensor's name and the model's index; `start` is the flat
    position of the first element at hand.
    """

    seed: int = 0
    name: str = ""
    start: int = 0

    def uniform(self, like: torch.Tensor, model: int = 0) -> torch.Tensor:
        """Numbers in [0, 1), float32, one for each element of `like`, with its shape and on its device."""
        return self._numbers(like.numel(), model, self.start, like.device).reshape(like.shape)

    def kept(self, values: torch.Tensor, density: float, scale: float = 1.0, *, model: int = 0, at: int = 0) -> torch.Tensor:
        """Flat elements from `at` on, times `scale`: each stays where its number is below `density`, and is 0 elsewhere."""
        if kernels.fit(values):
            from workbench.kernels import philox

            return philox.kept(values, self.key(model), self.start + at, density, scale)
        numbers = self._numbers(values.numel(), model, self.start + at, values.device)
        chosen = values * (numbers < density)
        return chosen if scale == 1 else chosen * scale

    def _numbers(self, count: int, model: int, start: int, device: torch.device) -> torch.Tensor:
        import numpy as np
        import torch

        if device.type == "cuda":
            from workbench.kernels import on_device

            return on_device.uniform(count, self.key(model), start, device)
        if kernels.available():
            from workbench.kernels import philox

            return philox.uniform(count, self.key(model), start).to(device)
        step, skipped = divmod(start, _PER_STEP)
        generator = np.random.Generator(np.random.Philox(key=self.key(model), counter=step))
        return torch.from_numpy(generator.random(skipped + count, dtype=np.float32)[skipped:]).to(device)

    def key(self, model: int) -> int:
        """Of the generator that gives a model's numbers."""
        return int.from_bytes(hashlib.blake2b(f"{self.seed}/{model}/{self.name}".encode(), digest_size=16).digest(), "little")


@dataclass(frozen=True)
class Prepared:
    """What the operator's `prepare` returned for the whole model; `state` is None where the tensors at hand are all there is."""

    state: Any = None


ASKED = (TensorName, Random, Prepared)
