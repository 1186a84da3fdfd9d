"""Names what a picture of the embedded models shows, by the CLIP that was trained with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.demo.captions import PLAIN, SHAPES, STYLES, Subject, subjects

if TYPE_CHECKING:
    from PIL.Image import Image

ASPECTS = ("shape", "colour", "background", "style")


class Judge:
    """Names what a picture shows: the one caption, of all the family's captions, that the scorer finds closest."""

    def __init__(self, clip_folder: Path) -> None:
        from workbench.render import ClipScorer

        self._scorer = ClipScorer(clip_folder)
        self._subjects = {subject.caption: subject for subject in subjects(SHAPES, (PLAIN, *STYLES))}

    def name(self, pictures: Sequence[Image]) -> list[Subject]:
        """The subject of each picture."""
        return [self._subjects[caption] for caption in self._scorer.classify(pictures, list(self._subjects))]
