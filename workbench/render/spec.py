"""What makes a renderer what it is, as data: enough to make another like it, and to tell whether two draw the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.checkpoint.base import Checkpoint
from workbench.errors import RenderError
from workbench.render.configs import Configs
from workbench.render.devices import Offload

if TYPE_CHECKING:
    from workbench.render.pipeline import Renderer


@dataclass(frozen=True)
class Spec:
    """A renderer's settings; `fallback` is the path of the checkpoint that lends what others lack."""

    configs: Configs
    device: str
    dtype: str
    offload: Offload | None
    fallback: Path | None

    @classmethod
    def of(cls, renderer: Renderer) -> Spec:
        """Raises RenderError for a fallback that lies in no file."""
        fallback = renderer.fallback
        path = None if fallback is None else fallback.path
        if fallback is not None and path is None:
            raise RenderError(f"the renderer's fallback {fallback.name!r} lies in no file: export it first, and open the file")
        dtype = str(renderer.dtype).removeprefix("torch.")
        return cls(renderer.configs.absolute(), str(renderer.device), dtype, renderer.offload, path and path.absolute())

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON holds it."""
        elsewhere = [[part, str(folder)] for part, folder in self.configs.elsewhere]
        configs = {"folder": str(self.configs.folder), "fitted": [list(one) for one in self.configs.fitted], "elsewhere": elsewhere}
        fallback = self.fallback and str(self.fallback)
        return {"configs": configs, "device": self.device, "dtype": self.dtype, "offload": self.offload, "fallback": fallback}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Spec:
        """What `to_dict` told."""
        configs = told["configs"]
        fitted = tuple((part, text) for part, text in configs["fitted"])
        elsewhere = tuple((part, Path(folder)) for part, folder in configs["elsewhere"])
        fallback = told["fallback"] and Path(told["fallback"])
        return cls(Configs(Path(configs["folder"]), fitted, elsewhere), told["device"], told["dtype"], told["offload"], fallback)

    def make(self) -> Renderer:
        """A new renderer."""
        from workbench.checkpoint import open as open_checkpoint
        from workbench.render.pipeline import Renderer

        fallback = open_checkpoint(self.fallback) if self.fallback else None
        return Renderer(self.configs, device=self.device, dtype=self.dtype, offload=self.offload, fallback=fallback)

    def lender(self, checkpoint: Checkpoint) -> Path | None:
        """Where the components come from that a checkpoint lacks; None when it lacks none. Raises RenderError when from nowhere."""
        missing = [part for part in self.configs.blueprint.weighted if part not in checkpoint.components]
        if missing and self.fallback is None:
            raise RenderError(
                f"{checkpoint.name!r} has no {' and no '.join(missing)}: "
                "name a checkpoint to borrow from in Renderer(..., fallback=checkpoint)"
            )
        return self.fallback if missing else None

    @property
    def identity(self) -> dict[str, str]:
        """What tells renderers apart whose pictures may differ."""
        return {"config": self.configs.identity, "device": self.device.partition(":")[0], "dtype": self.dtype}
