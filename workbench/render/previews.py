"""What a picture will look like, while it is drawn: a colour for each latent, fitted to the pictures that a VAE made before."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

_RIDGE = 1e-3  # of the mean square of a channel: keeps channels apart that hardly vary


class LatentColours:
    """A linear map from the channels of a latent to RGB, by least squares over finished pictures.

    It needs no table for a family: latents may be of any VAE, packed or not; what it has not seen a picture of it cannot show.
    """

    def __init__(self) -> None:
        self._products: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # channels -> X'X, X'Y

    @property
    def learnt(self) -> bool:
        """Whether it has seen a picture."""
        return bool(self._products)

    def learn(self, latents: torch.Tensor, pixels: np.ndarray) -> None:
        """Take in finished pictures: latents [n, channels, h, w] or [n, tokens, channels], and pixels [n, height, width, 3] in [0, 1]."""
        for one, picture in zip(latents, pixels, strict=True):
            cells = _cells(one, picture.shape[1] / picture.shape[0])
            if cells is None or not np.isfinite(cells).all():
                continue
            rows, columns, channels = cells.shape
            known = np.concatenate([cells.reshape(-1, channels), np.ones((rows * columns, 1))], axis=1)
            seen = _averaged(picture, rows, columns).reshape(-1, 3)
            products, targets = self._products.get(channels, (0.0, 0.0))
            self._products[channels] = products + known.T @ known, targets + known.T @ seen

    def show(self, latents: torch.Tensor, width: int, height: int) -> list[Image] | None:
        """What latents on their way look like, a pixel for each, enlarged to the size of the pictures; None before any was learnt."""
        from PIL import Image

        shown = []
        for one in latents:
            cells = _cells(one, width / height)
            if cells is None or (known := self._products.get(cells.shape[2])) is None:
                return None
            products, targets = known
            ridge = _RIDGE * np.trace(products) / len(products) * np.eye(len(products))
            colours = np.linalg.solve(products + ridge, targets)
            pixels = np.nan_to_num(cells @ colours[:-1] + colours[-1])
            small = Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))
            shown.append(small.resize((width, height), Image.Resampling.BICUBIC))
        return shown


def _cells(latents: torch.Tensor, aspect: float) -> np.ndarray | None:
    """Latents of one picture as [rows, columns, channels]; None for a shape that is no picture's."""
    values = latents.detach().float().cpu().numpy()
    if values.ndim == 4 and 1 in values.shape[:2]:  # of a VAE for videos: one frame
        values = values.squeeze(0 if values.shape[0] == 1 else 1)
    if values.ndim == 3:
        return values.transpose(1, 2, 0)
    if values.ndim != 2:
        return None
    rows = round(math.sqrt(len(values) / aspect))
    return values.reshape(rows, -1, values.shape[1]) if rows and len(values) % rows == 0 else None


def _averaged(picture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """A picture's mean colours in a grid of cells."""
    height, width = picture.shape[0] // rows, picture.shape[1] // columns
    cut = picture[: rows * height, : columns * width]
    means: np.ndarray = cut.reshape(rows, height, columns, width, 3).mean(axis=(1, 3), dtype=np.float64)
    return means
