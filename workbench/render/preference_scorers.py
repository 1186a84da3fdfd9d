"""Scorers of what people prefer, by the package imscore: ImageReward, HPSv2.1, the LAION aesthetic score and others."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import RenderError
from workbench.render.silence import quiet

if TYPE_CHECKING:
    from PIL.Image import Image

# name, which is the column -> imscore's module and class, and the weights on the hub
PREFERENCES = {
    "hpsv2": ("imscore.hps.model", "HPSv2", "RE-N-Y/hpsv21"),
    "hpsv3": ("imscore.hpsv3.model", "HPSv3", "RE-N-Y/hpsv3"),
    "image_reward": ("imscore.imreward.model", "ImageReward", "RE-N-Y/ImageReward"),
    "mps": ("imscore.mps.model", "MPS", "RE-N-Y/mpsv1"),
    "pick_siglip": ("imscore.preference.model", "SiglipPreferenceScorer", "RE-N-Y/pickscore-siglip"),
    "laion_aesthetic": ("imscore.aesthetic.model", "LAIONAestheticScorer", "RE-N-Y/laion-aesthetic"),
    "shadow_aesthetic": ("imscore.aesthetic.model", "ShadowAesthetic", "RE-N-Y/aesthetic-shadow-v2"),
}
_BATCH = 8


class PreferenceScorer:
    """How much people would prefer pictures, as a model learned it from their choices; `name` is one of `PREFERENCES`.

    Called as a scorer it gives one column, `name`; more is better, and no two of them have the same scale. The package imscore is needed,
    and the weights are fetched from the hub at first use (1 to 16 GB). PickScore needs no package: it is a CLIP,
    `ClipScorer("yuvalkirstain/PickScore_v1", column="pickscore")`. Raises RenderError.
    """

    def __init__(self, name: str, *, device: str = "cpu") -> None:
        if name not in PREFERENCES:
            raise RenderError(f"PreferenceScorer: name must be one of {', '.join(map(repr, PREFERENCES))}, got {name!r}")
        self.number = name
        self.device = device

    def __repr__(self) -> str:
        return f"PreferenceScorer({self.number!r})"

    def __call__(self, images: Sequence[Image], prompts: Sequence[str]) -> dict[str, np.ndarray]:
        import torch

        scores = np.zeros(len(images))
        for size in dict.fromkeys(image.size for image in images):  # a batch has pictures of one size
            alike = [number for number, image in enumerate(images) if image.size == size]
            for start in range(0, len(alike), _BATCH):
                chosen = alike[start : start + _BATCH]
                pixels = np.stack([np.asarray(images[number].convert("RGB"), np.float32) for number in chosen]) / 255
                with torch.inference_mode():
                    given = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device)
                    found = self._model.score(given, [prompts[number] for number in chosen])
                scores[chosen] = found.float().reshape(-1).cpu().numpy()
        return {self.number: scores}

    @cached_property
    def _model(self) -> Any:
        module, kind, weights = PREFERENCES[self.number]
        try:
            found = getattr(importlib.import_module(module), kind)
        except ImportError as error:
            raise RenderError(f"{self!r} needs a package ({error}): pip install 'workbench[scorers]'") from error
        try:
            with quiet():
                return found.from_pretrained(weights).to(self.device).eval()
        except (OSError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise RenderError(f"{weights}: no {self.number} can be loaded from here ({reason})") from error
