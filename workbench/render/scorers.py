"""Numbers for pictures. A scorer is called with pictures and their prompts and gives columns, one value per picture.

How scores are summed up over pictures and seeds is here too; where they are shown is elsewhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import RenderError
from workbench.places import DATA
from workbench.render.assembly import BUILDING
from workbench.render.silence import quiet

if TYPE_CHECKING:
    from PIL.Image import Image

Scorer = Callable[[Sequence["Image"], Sequence[str]], Mapping[str, np.ndarray] | Sequence[float]]

TAKEN = ("model", "prompt", "seed", "steps", "guidance")  # columns that say what a picture is

_BATCH = 64


class ClipScorer:
    """How well pictures fit words, by a CLIP: a transformers folder, or the name of a public one.

    Called as a scorer it gives one column: 100 x the cosine of picture and prompt. PickScore is a CLIP, trained on people's choices:
    `ClipScorer("yuvalkirstain/PickScore_v1", column="pickscore")`.
    """

    def __init__(self, model: str | Path, *, column: str = "clip", device: str = "cpu") -> None:
        self.model = str(model)
        self.number = column  # the column of numbers that it gives
        self.device = device

    def __repr__(self) -> str:
        return f"ClipScorer({self.model!r})"

    def __call__(self, images: Sequence[Image], prompts: Sequence[str]) -> dict[str, np.ndarray]:
        different = list(dict.fromkeys(prompts))
        similarity = self.similarity(images, different)
        return {self.number: similarity[np.arange(len(images)), [different.index(prompt) for prompt in prompts]]}

    def similarity(self, images: Sequence[Image], captions: Sequence[str]) -> np.ndarray:
        """100 x the cosine of every picture with every caption: [pictures, captions], float32."""
        if not len(images) or not len(captions):
            return np.zeros((len(images), len(captions)), np.float32)
        words = self._words(list(captions))
        pictures = [self._pictures(list(images[start : start + _BATCH])) for start in range(0, len(images), _BATCH)]
        found: np.ndarray = 100 * np.concatenate(pictures) @ words.T
        return found

    def classify(self, images: Sequence[Image], captions: Sequence[str]) -> list[str]:
        """The caption that fits each picture best (zero-shot classification)."""
        if not len(captions):
            raise RenderError("classify needs at least one caption to choose from")
        return [captions[best] for best in self.similarity(images, captions).argmax(axis=1)]

    def _words(self, captions: list[str]) -> np.ndarray:
        model, processor = self._parts
        tokens = processor.tokenizer(captions, padding=True, truncation=True, return_tensors="pt").to(self.device)
        return _directions(model.get_text_features, **tokens)

    def _pictures(self, images: list[Image]) -> np.ndarray:
        model, processor = self._parts
        pixels = processor.image_processor(images=images, return_tensors="pt").to(self.device)
        return _directions(model.get_image_features, **pixels)

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        """Model and processor, on first use; a folder is never looked up on the network."""
        import torch
        from transformers import CLIPModel, CLIPProcessor

        local = Path(self.model).exists()
        try:
            with BUILDING, quiet():
                model = CLIPModel.from_pretrained(self.model, local_files_only=local, dtype=torch.float32)
                return model.to(self.device).eval(), CLIPProcessor.from_pretrained(self.model, local_files_only=local)
        except (OSError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise RenderError(f"{self.model}: no CLIP can be loaded from here ({reason})") from error


class ClipChoice:
    """Which of several words a picture shows, where its prompt holds one of them: does it draw a heart?

    `ClipChoice(clip, "shape", ["circle", "heart"])` compares a picture of "a red heart" with "a red circle" and "a red
    heart". Called as a scorer it gives two columns: `shape`, the word whose caption fits best, and `shape_right`, 1.0
    where that is the prompt's own word and 0.0 elsewhere. A prompt that holds none of the words has None and NaN.
    """

    def __init__(self, clip: ClipScorer, column: str, words: Sequence[str]) -> None:
        if len(words) < 2 or len(set(words)) < len(words):
            raise RenderError(f"{column}: a choice needs two or more different words, got {list(words)!r}")
        self.clip, self.column, self.words = clip, column, tuple(words)
        longest_first = sorted(map(re.escape, words), key=len, reverse=True)
        self._pattern = re.compile(rf"(?<!\w)({'|'.join(longest_first)})(?!\w)")

    @property
    def number(self) -> str:
        """The column of numbers that it gives."""
        return f"{self.column}_right"

    def __call__(self, images: Sequence[Image], prompts: Sequence[str]) -> dict[str, np.ndarray]:
        seen = np.full(len(images), None, object)
        right = np.full(len(images), np.nan)
        for prompt in dict.fromkeys(prompts):
            if not (asked := self._pattern.search(prompt)):
                continue
            where = [index for index, other in enumerate(prompts) if other == prompt]
            captions = [self._pattern.sub(word, prompt, count=1) for word in self.words]
            best = self.clip.similarity([images[index] for index in where], captions).argmax(axis=1)
            seen[where] = [self.words[index] for index in best]
            right[where] = [float(self.words[index] == asked[0]) for index in best]
        return {self.column: seen, self.number: right}


class ParentDistance:
    """How far pictures are from a parent's of the same prompt, seed and settings: root mean square of pixels, 0 (same) to 1.

    `ParentDistance("heart")` is a scorer that gives the column `from_heart`. The parent is named as in the grid; in a sweep,
    as in the recipes of its merges.
    """

    def __init__(self, parent: str) -> None:
        self.parent = parent
        self.number = f"from_{parent}"  # the column of numbers that it gives

    def __repr__(self) -> str:
        return f"ParentDistance({self.parent!r})"

    def __call__(self, images: Sequence[Image], parents: Sequence[Image]) -> dict[str, np.ndarray]:
        pairs = zip(images, parents, strict=True)
        return {self.number: np.array([_distance(image, parent) for image, parent in pairs])}


def default_scorers(*configs: Path) -> tuple[Scorer, ...]:
    """The CLIP that was trained with the embedded models, for their pipelines; of other pictures it knows nothing."""
    clip = DATA / "shapes-clip"
    return (ClipScorer(clip),) if clip.is_dir() and all(DATA.resolve() in config.resolve().parents for config in configs) else ()


def score(
    scorers: Scorer | ParentDistance | Sequence[Scorer | ParentDistance],
    images: Sequence[Image],
    prompts: Sequence[str],
    parents: Mapping[str, Sequence[Image]] | None = None,
) -> dict[str, np.ndarray]:
    """The columns of all scorers together; `parents` has the pictures of models that distances are taken to.

    Raises RenderError for a column of the wrong length or given twice, and for a parent that is not there.
    """
    columns: dict[str, np.ndarray] = {}
    for scorer in listed(scorers):
        found = scorer(images, _parent(scorer, parents or {}) if isinstance(scorer, ParentDistance) else prompts)
        for name, values in (found if isinstance(found, Mapping) else {column_of(scorer): found}).items():
            if np.ndim(values) != 1 or len(values) != len(images):
                got = f"{len(values)} values" if np.ndim(values) == 1 else "no list of values"
                raise RenderError(f"{scorer!r}: column {name!r} has {got} for {len(images)} pictures")
            if name in (*columns, *TAKEN):
                raise RenderError(f"{scorer!r}: there is a column {name!r} already")
            columns[name] = np.asarray(values, float if np.asarray(values).dtype == bool else None)
    return columns


def listed(scorers: Any) -> list[Any]:
    """One scorer, or several, as a list."""
    return [scorers] if callable(scorers) else list(scorers)


def column_of(scorer: Any) -> str:
    """The column of a scorer that gives bare numbers: its own name, or `score`."""
    name = getattr(scorer, "__name__", "score")
    return "score" if name == "<lambda>" else name


def spread(values: Sequence[float] | np.ndarray, seeds: Sequence[int]) -> tuple[float, float]:
    """Mean over seeds of each seed's mean, and the standard deviation between seeds (NaN for one). What is NaN is left out."""
    numbers, groups = np.asarray(values, float), np.asarray(seeds)
    means = [numbers[(groups == seed) & np.isfinite(numbers)] for seed in dict.fromkeys(seeds)]
    each = [float(found.mean()) for found in means if len(found)]
    mean = float(np.mean(each)) if each else math.nan
    return mean, float(np.std(each, ddof=1)) if len(each) > 1 else math.nan


def in_words(column: str, mean: float, deviation: float) -> str:
    """`clip 27.1 ± 0.4`, which no line break parts; columns of right and wrong as a share."""
    name = column.removesuffix("_right")
    style = ".0%" if name != column else ".1f" if abs(mean) >= 10 else ".2f" if abs(mean) >= 1 else ".3f"
    told = f"{name} {mean:{style}}" + (f" ± {deviation:{style}}" if math.isfinite(deviation) else "")
    return told.replace(" ", "\xa0").replace("_", "\xa0")


def _parent(scorer: ParentDistance, parents: Mapping[str, Sequence[Image]]) -> Sequence[Image]:
    if scorer.parent not in parents:
        there = ", ".join(map(repr, parents)) or "none"
        raise RenderError(f"{scorer!r}: there are no pictures of {scorer.parent!r} to compare with; there are those of {there}")
    return parents[scorer.parent]


def _directions(features: Callable[..., Any], **inputs: Any) -> np.ndarray:
    """Unit vectors [inputs, width], float32."""
    import torch

    with torch.inference_mode():
        vectors = features(**inputs)
        vectors = getattr(vectors, "pooler_output", vectors)  # transformers 5 wraps them
        found: np.ndarray = (vectors / vectors.norm(dim=-1, keepdim=True)).cpu().numpy()
        return found


def _distance(image: Image, parent: Image) -> float:
    difference = np.asarray(image, np.float32) - np.asarray(parent, np.float32)
    return float(np.sqrt(np.mean(difference**2)) / 255)
