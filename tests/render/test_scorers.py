from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from workbench.errors import RenderError
from workbench.render import ClipChoice, ClipScorer
from workbench.render.scorers import score

CAPTIONS = ["a red star on a black background", "a blue circle on a white background"]


@pytest.fixture(scope="module")
def clip(family) -> ClipScorer:
    return ClipScorer(family.parent / "shapes-clip")


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue", "white")]


class Told(ClipScorer):
    """A scorer whose similarities are given by the caption alone, to test what is made of them."""

    def __init__(self, best: str) -> None:
        super().__init__("nowhere")
        self.best = best

    def similarity(self, images, captions):
        return np.array([[float(self.best in caption) for caption in captions]] * len(images))


def test_clip_gives_a_hundred_times_the_cosine_of_each_picture_and_its_prompt(clip, pictures):
    prompts = [CAPTIONS[0], CAPTIONS[1], CAPTIONS[0]]
    similarity = clip.similarity(pictures, CAPTIONS)
    assert similarity.shape == (3, 2)
    assert np.abs(similarity).max() <= 100.001
    assert clip(pictures, prompts)["clip"] == pytest.approx([similarity[0, 0], similarity[1, 1], similarity[2, 0]], abs=1e-4)


def test_a_score_does_not_depend_on_the_other_pictures(clip, pictures):
    assert clip(pictures, CAPTIONS[:1] * 3)["clip"][1] == pytest.approx(clip(pictures[1:2], CAPTIONS[:1])["clip"][0], abs=1e-3)


def test_classify_gives_the_caption_with_the_largest_similarity(clip, pictures):
    best = clip.similarity(pictures, CAPTIONS).argmax(axis=1)
    assert clip.classify(pictures, CAPTIONS) == [CAPTIONS[index] for index in best]
    with pytest.raises(RenderError, match="at least one caption"):
        clip.classify(pictures, [])


def test_choice_asks_which_word_of_the_prompt_is_seen(pictures):
    choice = ClipChoice(Told("heart"), "shape", ["circle", "star", "heart"])
    columns = choice(pictures, ["a red heart, outline", "a red star", "nothing at all"])
    assert list(columns["shape"]) == ["heart", "heart", None]
    assert columns["shape_right"] == pytest.approx([1.0, 0.0, np.nan], nan_ok=True)


def test_choice_replaces_whole_words_only(pictures):
    columns = ClipChoice(Told("circle"), "shape", ["circle", "star"])(pictures[:1], ["a starfish"])
    assert list(columns["shape"]) == [None]


def test_choice_of_one_word_is_refused():
    with pytest.raises(RenderError, match=r"shape: a choice needs two or more different words, got \['star'\]"):
        ClipChoice(Told("star"), "shape", ["star"])


def test_columns_of_several_scorers_stand_together_and_clashes_are_refused(pictures):
    def bright(images, prompts):
        return {"bright": np.array([np.asarray(image).mean() for image in images])}

    assert list(score(bright, pictures, CAPTIONS)) == ["bright"]
    with pytest.raises(RenderError, match="a column 'bright' already"):
        score([bright, bright], pictures, CAPTIONS)
    with pytest.raises(RenderError, match="column 'short' has 1 values for 3 pictures"):
        score(lambda images, prompts: {"short": np.zeros(1)}, pictures, CAPTIONS)


def test_a_folder_without_clip_says_so(tmp_path, pictures):
    with pytest.raises(RenderError, match="no CLIP can be loaded from here"):
        ClipScorer(tmp_path)(pictures, CAPTIONS[:1] * 3)
