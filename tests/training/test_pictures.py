"""The drawn pictures show what their captions say, and the tokenizer knows every word of them."""

import numpy as np
from PIL import Image

from training.parts import build_tokenizer, tokens_of
from training.pictures import draw, sample
from training.quality import pixel_background, pixel_colour
from training.vocabulary import vocabulary
from workbench.demo.captions import PLAIN, SHAPES, STYLES, Subject, subjects

EVERYTHING = subjects(SHAPES, (PLAIN, *STYLES))


def test_the_caption_is_the_pinned_sentence():
    assert Subject("star", "red", "black").caption == "a red star on a black background"
    assert Subject("moon", "orange", "gray", "outline").caption == "an orange moon on a gray background, outline"


def test_the_same_seed_draws_the_same_pictures():
    first, which = sample(EVERYTHING, 24, seed=1)
    again, _ = sample(EVERYTHING, 24, seed=1)
    other, _ = sample(EVERYTHING, 24, seed=2)
    assert first.shape == (24, 64, 64, 3)
    assert first.dtype == np.uint8
    assert which.tolist() == list(range(24))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_every_picture_has_the_colours_of_its_caption():
    pictures, which = sample(EVERYTHING, len(EVERYTHING), seed=3)
    for pixels, subject in zip(pictures, (EVERYTHING[index] for index in which), strict=True):
        picture = Image.fromarray(pixels)
        assert pixel_background(picture) == subject.background, subject.caption
        assert pixel_colour(picture, subject.style) == subject.colour, subject.caption


def test_the_shape_lies_inside_the_picture():
    for seed in range(40):
        picture = np.asarray(draw(Subject(SHAPES[seed % len(SHAPES)], "red", "white"), np.random.default_rng(seed)))
        assert (picture[[0, -1]] == 255).all()
        assert (picture[:, [0, -1]] == 255).all()


def test_every_word_is_one_token(tmp_path):
    tokenizer = build_tokenizer(tmp_path)
    assert [word for word in vocabulary() if len(tokenizer.tokenize(word)) != 1] == []
    captions = [subject.caption for subject in EVERYTHING]
    assert len({tuple(row) for row in tokens_of(tokenizer, captions).tolist()}) == len(captions)
