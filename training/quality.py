"""Judges pictures: what the scorer, and the bare pixels, see in them; which models are asked is in `measure`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from training.pictures import BACKDROPS, PALETTE, PASTELS, sample
from workbench.demo.captions import PLAIN, SHAPES, STYLES, Subject, subjects
from workbench.demo.judge import ASPECTS, Judge

if TYPE_CHECKING:
    import pandas as pd

_UNLIKE = 60  # RGB distance from the background at which a pixel counts as the shape's


def pixel_background(picture: Image.Image) -> str:
    """The background most of the picture's rim is nearest to."""
    pixels = np.asarray(picture)
    rim = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return _most_frequent(rim, BACKDROPS)


def pixel_colour(picture: Image.Image, style: str = PLAIN) -> str:
    """The palette colour that most of the pixels unlike the background are nearest to; no model is asked."""
    pixels = np.asarray(picture).reshape(-1, 3).astype(float)
    backdrop = np.array(BACKDROPS[pixel_background(picture)])
    shape = pixels[np.linalg.norm(pixels - backdrop, axis=1) > _UNLIKE]
    if not len(shape):
        return "none"
    if style == "stripes":  # of light and dark stripes, the light ones have the palette's colours
        lightness = shape.max(axis=1)
        shape = shape[lightness >= 0.75 * np.percentile(lightness, 90)]
    return _most_frequent(shape, PASTELS if style == "pastel" else PALETTE)


def _most_frequent(pixels: np.ndarray, palette: dict[str, tuple[int, int, int]]) -> str:
    names = list(palette)
    distances = np.linalg.norm(pixels[:, None].astype(float) - np.array([palette[name] for name in names]), axis=2)
    return names[np.bincount(distances.argmin(axis=1), minlength=len(names)).argmax()]


def compare(asked: Sequence[Subject], pictures: Sequence[Image.Image], judge: Judge) -> pd.DataFrame:
    """One line per picture: what was asked, what the scorer names, what the pixels say."""
    import pandas as pd

    lines = []
    for subject, seen, picture in zip(asked, judge.name(pictures), pictures, strict=True):
        line = {}
        for aspect in ASPECTS:
            line |= {aspect: getattr(subject, aspect), f"seen_{aspect}": getattr(seen, aspect)}
        line |= {"pixel_colour": pixel_colour(picture, subject.style), "pixel_background": pixel_background(picture)}
        lines.append(line)
    return pd.DataFrame(lines)


def summary(judged: pd.DataFrame) -> pd.DataFrame:
    """Shares that are right, one line per model and request."""
    right = judged[["model", "asked"]].copy()
    for aspect in ASPECTS:
        right[aspect] = judged[aspect] == judged[f"seen_{aspect}"]
    right["colour (pixels)"] = judged["colour"] == judged["pixel_colour"]
    right["background (pixels)"] = judged["background"] == judged["pixel_background"]
    grouped = right.groupby(["model", "asked"], sort=False)
    table = grouped.mean()
    table.insert(0, "pictures", grouped.size())
    return table.reset_index()


def weakest_pairs(judged: pd.DataFrame, count: int = 5) -> pd.DataFrame:
    """The pairs of attributes with the lowest share of pictures in which shape, colour and background are all right."""
    import pandas as pd

    right = judged.assign(right=np.logical_and.reduce([judged[a] == judged[f"seen_{a}"] for a in ("shape", "colour", "background")]))
    tables = []
    for pair in (["colour", "background"], ["shape", "colour"], ["shape", "background"]):
        shares = right.groupby(pair)["right"].mean()
        shares.index = [" ".join(names) for names in shares.index]
        tables.append(shares)
    return pd.concat(tables).sort_values().head(count).rename_axis("pair").reset_index()


def held_out(judge: Judge, count: int = 2304, seed: int = 2026) -> pd.DataFrame:
    """The scorer on drawn pictures it was not trained on, in the form of `compare`, with columns for `summary`."""
    wanted = subjects(SHAPES, (PLAIN, *STYLES))
    pictures, which = sample(wanted, count, seed)
    asked = [wanted[index] for index in which]
    compared = compare(asked, [Image.fromarray(picture) for picture in pictures], judge)
    return compared.assign(model="drawn pictures", asked=compared["style"])
