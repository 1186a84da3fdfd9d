"""Numbers for pictures. A scorer is called with pictures and their prompts and gives columns, one value per picture."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import RenderError
from workbench.places import DATA
from workbench.render.assembly import FAMILY, quiet

if TYPE_CHECKING:
    from PIL.Image import Image

Scorer = Callable[[Sequence["Image"], Sequence[str]], Mapping[str, np.ndarray]]

_BATCH = 64


class ClipScorer:
    """How well pictures fit words, by a CLIP: a transformers folder, or the name of a public one.

    Called as a scorer it gives the column `clip`: 100 x the cosine of picture and prompt.
    """

    def __init__(self, model: str | Path, *, device: str = "cpu") -> None:
        self.model = str(model)
        self.device = device

    def __repr__(self) -> str:
        return f"ClipScorer({self.model!r})"

    def __call__(self, images: Sequence[Image], prompts: Sequence[str]) -> dict[str, np.ndarray]:
        different = list(dict.fromkeys(prompts))
        similarity = self.similarity(images, different)
        return {"clip": similarity[np.arange(len(images)), [different.index(prompt) for prompt in prompts]]}

    def similarity(self, images: Sequence[Image], captions: Sequence[str]) -> np.ndarray:
        """100 x the cosine of every picture with every caption: [pictures, captions], float32."""
        if not len(images) or not len(captions):
            return np.zeros((len(images), len(captions)), np.float32)
        words = self._words(list(captions))
        pictures = [self._pictures(list(images[start : start + _BATCH])) for start in range(0, len(images), _BATCH)]
        return 100 * np.concatenate(pictures) @ words.T

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
            with quiet():
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
        return {self.column: seen, f"{self.column}_right": right}


def default_scorers(config: Path) -> tuple[Scorer, ...]:
    """The CLIP that was trained with the embedded models, for their pipeline; of other pictures it knows nothing."""
    clip = DATA / "shapes-clip"
    return (ClipScorer(clip),) if clip.is_dir() and config.resolve() == FAMILY.resolve() else ()


def score(scorers: Scorer | Sequence[Scorer], images: Sequence[Image], prompts: Sequence[str]) -> dict[str, np.ndarray]:
    """The columns of all scorers together. Raises RenderError for a column of the wrong length or given twice."""
    columns: dict[str, np.ndarray] = {}
    for scorer in [scorers] if callable(scorers) else scorers:
        for name, values in scorer(images, prompts).items():
            if len(values) != len(images):
                raise RenderError(f"{scorer!r}: column {name!r} has {len(values)} values for {len(images)} pictures")
            if name in (*columns, "model", "prompt", "seed"):
                raise RenderError(f"{scorer!r}: there is a column {name!r} already")
            columns[name] = np.asarray(values)
    return columns


def _directions(features: Callable[..., Any], **inputs: Any) -> np.ndarray:
    """Unit vectors [inputs, width], float32."""
    import torch

    with torch.inference_mode():
        vectors = features(**inputs)
        vectors = getattr(vectors, "pooler_output", vectors)  # transformers 5 wraps them
        return (vectors / vectors.norm(dim=-1, keepdim=True)).cpu().numpy()
