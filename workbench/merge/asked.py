"""What an operator may ask for beside tensors and options, by annotating a keyword-only parameter: a name, random numbers, a state."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
        import numpy as np
        import torch

        key = int.from_bytes(hashlib.blake2b(f"{self.seed}/{model}/{self.name}".encode(), digest_size=16).digest(), "little")
        step, skipped = divmod(self.start, _PER_STEP)
        generator = np.random.Generator(np.random.Philox(key=key, counter=step))
        numbers = generator.random(skipped + like.numel(), dtype=np.float32)[skipped:]
        return torch.from_numpy(numbers).reshape(like.shape).to(like.device)


@dataclass(frozen=True)
class Prepared:
    """What the operator's `prepare` returned for the whole model; `state` is None where the tensors at hand are all there is."""

    state: Any = None


ASKED = (TensorName, Random, Prepared)
