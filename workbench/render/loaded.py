"""`Loaded`: what a renderer holds, and whose it is. It is filled in `pipeline`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Loaded:
    """What a renderer holds: whose each component is, and which tensors of the last checkpoint had no place in it."""

    name: str
    components: Mapping[str, str]
    unused: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """One line: the checkpoint, and every component that is another's."""
        others = [f"{component} of {owner!r}" for component, owner in self.components.items() if owner != self.name]
        return f"{self.name!r}" + (f" with {' and '.join(others)}" if others else "")
