"""Pictures as they are stored or sent where a small one will do. Full pictures are PNGs, elsewhere."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def webp(image: Image, edge: int | None = None, quality: int = 80) -> bytes:
    """A picture as a WebP file, with no edge longer than `edge` pixels if that is given; the picture stays as it is."""
    small = image.convert("RGB")
    if edge is not None:
        small.thumbnail((edge, edge))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=quality)
    return buffer.getvalue()
