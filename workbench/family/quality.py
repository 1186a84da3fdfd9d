"""Judges pictures: what the scorer, and the bare pixels, see in them; which models are asked is in `measure`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workbench.family.captions import BASE_SHAPES, PLAIN, SHAPES, STYLES, Subject, subjects
from workbench.family.pictures import BACKDROPS, PALETTE, PASTELS, sample

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from diffusers import StableDiffusionPipeline

STEPS = 12
GUIDANCE = 4.0
_ASPECTS = ("shape", "colour", "background", "style")


class Judge:
    """Names what a picture shows: the one caption, of all the family's captions, that the scorer finds closest."""

    def __init__(self, clip_folder: Path) -> None:
        import torch
        from transformers import CLIPModel, CLIPProcessor

        self.subjects = subjects(SHAPES, (PLAIN, *STYLES))
        self._processor = CLIPProcessor.from_pretrained(clip_folder, local_files_only=True)
        self._clip = CLIPModel.from_pretrained(clip_folder, local_files_only=True, dtype=torch.float32).eval()
        words = self._processor(
            text=[subject.caption for subject in self.subjects], padding="max_length", return_tensors="pt"
        )
        with torch.no_grad():
            self._captions = _direction(self._clip.get_text_features(input_ids=words.input_ids))

    def name(self, pictures: np.ndarray) -> list[Subject]:
        """The subject of each picture; pictures are uint8 [n, 64, 64, 3]."""
        import torch

        images = self._processor(images=list(pictures), return_tensors="pt").pixel_values
        with torch.no_grad():
            seen = _direction(self._clip.get_image_features(pixel_values=images))
        return [self.subjects[index] for index in (seen @ self._captions.T).argmax(dim=1).tolist()]


def _direction(features: object) -> torch.Tensor:
    features = getattr(features, "pooler_output", features)  # transformers 5 wraps the features
    return features / features.norm(dim=-1, keepdim=True)


def pixel_background(picture: np.ndarray) -> str:
    """The background most of the picture's rim is nearest to."""
    rim = np.concatenate(
        [
            picture[:2].reshape(-1, 3),
            picture[-2:].reshape(-1, 3),
            picture[:, :2].reshape(-1, 3),
            picture[:, -2:].reshape(-1, 3),
        ]
    )
    return _most_frequent(rim, BACKDROPS)


def pixel_colour(picture: np.ndarray, style: str = PLAIN) -> str:
    """The palette colour that most of the pixels unlike the background are nearest to; no model is asked."""
    pixels = picture.reshape(-1, 3).astype(float)
    backdrop = np.array(BACKDROPS[pixel_background(picture)])
    shape = pixels[np.linalg.norm(pixels - backdrop, axis=1) > 60]
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


def generate(pipeline: StableDiffusionPipeline, wanted: Sequence[Subject], seeds: int, batch: int = 48) -> np.ndarray:
    """uint8 pictures [seeds * subjects, 64, 64, 3], seed after seed; every picture has noise of its own."""
    import torch

    jobs = [(subject.caption, 1000 * seed + index) for seed in range(seeds) for index, subject in enumerate(wanted)]
    pictures = []
    for start in range(0, len(jobs), batch):
        captions, lots = zip(*jobs[start : start + batch], strict=True)
        made = pipeline(
            list(captions),
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=[torch.Generator().manual_seed(lot) for lot in lots],
            output_type="np",
        ).images
        pictures.append((made * 255).round().astype(np.uint8))
    return np.concatenate(pictures)


@dataclass(frozen=True)
class Row:
    """One line of the table: a model asked for some subjects."""

    model: str
    asked: str
    wanted: tuple[Subject, ...]

    @property
    def seeds(self) -> int:
        """As many as make at least 200 pictures."""
        return -(-200 // len(self.wanted))


def rows_of(model: str) -> list[Row]:
    """What a model is asked for: the base's subjects, and whatever else it should, or should not, know."""
    base = Row(model, "base shapes", tuple(subjects(BASE_SHAPES)))
    new = {shape: Row(model, shape, tuple(subjects([shape]))) for shape in ("heart", "moon")}
    styled = {style: Row(model, style, tuple(subjects(BASE_SHAPES, [style]))) for style in STYLES}
    if model in ("base", "heart + moon, average", "heart + moon, sum of deltas"):
        return [base, *new.values()]
    if model == "outline + stripes, average":
        return [base, styled["outline"], styled["stripes"]]
    if model == "base + stripes LoRA":
        return [base, styled["stripes"]]
    return [base, (new | styled)[model]]


def judge_row(row: Row, pictures: np.ndarray, judge: Judge) -> pd.DataFrame:
    """One line per picture: what was asked, what the scorer names, what the pixels say."""
    import pandas as pd

    wanted = list(row.wanted) * row.seeds
    lines = []
    for asked, seen, picture in zip(wanted, judge.name(pictures), pictures, strict=True):
        line = {"model": row.model, "asked": row.asked}
        for aspect in _ASPECTS:
            line |= {aspect: getattr(asked, aspect), f"seen_{aspect}": getattr(seen, aspect)}
        line |= {"pixel_colour": pixel_colour(picture, asked.style), "pixel_background": pixel_background(picture)}
        lines.append(line)
    return pd.DataFrame(lines)


def summary(judged: pd.DataFrame) -> pd.DataFrame:
    """Shares that are right, one line per model and request."""
    right = judged[["model", "asked"]].copy()
    for aspect in _ASPECTS:
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

    right = judged.assign(
        right=np.logical_and.reduce([judged[a] == judged[f"seen_{a}"] for a in ("shape", "colour", "background")])
    )
    tables = []
    for pair in (["colour", "background"], ["shape", "colour"], ["shape", "background"]):
        shares = right.groupby(pair)["right"].mean()
        shares.index = [" ".join(names) for names in shares.index]
        tables.append(shares)
    return pd.concat(tables).sort_values().head(count).rename_axis("pair").reset_index()


def held_out(judge: Judge, count: int = 2304, seed: int = 2026) -> pd.DataFrame:
    """The scorer on drawn pictures it was not trained on, per style."""
    wanted = subjects(SHAPES, (PLAIN, *STYLES))
    pictures, which = sample(wanted, count, seed)
    asked = [wanted[index] for index in which]
    import pandas as pd

    seen = judge.name(pictures)
    lines = [
        {"style": a.style} | {aspect: getattr(a, aspect) == getattr(s, aspect) for aspect in _ASPECTS}
        for a, s in zip(asked, seen, strict=True)
    ]
    return pd.DataFrame(lines)
