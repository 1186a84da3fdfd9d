"""`Run`: how far a fit has come, kept in a file so that it can go on; the steps themselves are in `fitting`."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from workbench.checkpoint.files.writing import replacing
from workbench.conditioning.hypernetworks import Hypernetwork
from workbench.errors import HypernetworkError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass
class Run:
    """How far a fit has come."""

    network: Hypernetwork
    optimizer: torch.optim.Optimizer
    of: str  # what is fitted, as a hash
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    pictures: list[tuple[int, Image]] = field(default_factory=list)

    def resume(self, path: str | os.PathLike[str] | None) -> None:
        """Go on from a file, if it is there. Raises HypernetworkError for another fit's."""
        if path is None or not Path(path).exists():
            return
        try:
            found = torch.load(path, weights_only=True)
            of = found["of"]
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError) as error:
            raise HypernetworkError(f"{path}: is no state of a fit ({type(error).__name__}); name another file, or remove it") from error
        if of != self.of:
            raise HypernetworkError(
                f"{path}: is the state of another fit (models, prompts, options or settings differ); name another file, or remove it"
            )
        self.put_back(found)

    def snapshot(self) -> dict[str, Any]:
        """All that it takes to go on, as a copy."""
        import numpy as np

        pictures = [(step, torch.from_numpy(np.array(picture))) for step, picture in self.pictures]
        own = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        return copy.deepcopy({"of": self.of, "step": self.step, "history": self.history, "pictures": pictures, **own})

    def put_back(self, found: Mapping[str, Any]) -> None:
        """Be as a snapshot was."""
        from PIL import Image

        self.network.load_state_dict(found["network"])
        self.optimizer.load_state_dict(found["optimizer"])
        self.step, self.history = found["step"], list(found["history"])
        self.pictures = [(step, Image.fromarray(picture.numpy())) for step, picture in found["pictures"]]

    def save(self, path: str | os.PathLike[str] | None) -> None:
        """Write what `resume` reads, whole or not at all; nothing without a path."""
        if path is not None:
            with replacing(Path(path)) as temporary:
                torch.save(self.snapshot(), temporary)
