"""`Viewing`: how a panel's pictures are looked at: how large, and what lies across. What they show, and the widgets, are elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from workbench.errors import OptionError

if TYPE_CHECKING:
    from PIL.Image import Image

AUTOMATIC, WHOLE = "automatic", "full size"
SIZES = (64, 96, 128, 192, 256, 384, 512, 768, 1024)  # that are offered; any other from 32 to 4096 may be given
ACROSS = {
    "models": "models across",
    "seeds": "seeds across, by model",
    "prompts": "prompts across, by model",
}
_LEAST, _MOST = 32, 4096
_LARGE = 256  # pixels of an edge beyond which a picture is shown larger
_FINE = 2  # pixels of a screen of fine pixels for one of what is shown


@final
@dataclass(frozen=True)
class Viewing:
    """`size` is of a picture's longer edge, in CSS pixels, or "full size", or "automatic": 128, and 256 for pictures above 256 pixels.

    `across` is "models": a column for each model, prompts and seeds down; or "seeds" or "prompts": a block for each model, the result's
    first. Raises OptionError for anything else.
    """

    size: int | str = AUTOMATIC
    across: str = "models"

    def __post_init__(self) -> None:
        whole = isinstance(self.size, int) and not isinstance(self.size, bool)
        if not (_LEAST <= int(self.size) <= _MOST if whole else self.size in (AUTOMATIC, WHOLE)):
            raise OptionError(
                f"view: size must be {AUTOMATIC!r}, {WHOLE!r} or a whole number of pixels in [{_LEAST}, {_MOST}], got {self.size!r}"
            )
        if self.across not in ACROSS:
            raise OptionError(f"view: across must be one of {', '.join(map(repr, ACROSS))}, got {self.across!r}")

    def edge(self, images: Sequence[Image]) -> int:
        """CSS pixels of a picture's longer edge, where these are shown."""
        largest = max((max(image.size) for image in images), default=1)
        if self.size == WHOLE:
            return largest
        return int(self.size) if self.size != AUTOMATIC else 256 if largest > _LARGE else 128

    def travelling(self, images: Sequence[Image]) -> int:
        """Pixels of the longer edge that travel to the browser at most."""
        return self.edge(images) * (1 if self.size == WHOLE else _FINE)

    @classmethod
    def understood(cls, found: Any) -> Viewing:
        """A view as a file tells it; one that tells nothing, or nothing that there is, is the first."""
        try:
            return cls(**found)
        except (TypeError, OptionError):
            return cls()
