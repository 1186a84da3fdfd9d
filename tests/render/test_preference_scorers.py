"""Scorers of what people prefer, as imscore has them: what they are given, and what is said without the package."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from workbench.errors import RenderError
from workbench.render import ClipScorer, PreferenceScorer


class Redness(torch.nn.Module):
    """Called as imscore's models are: pixels [n, 3, height, width] from 0 to 1, and as many prompts; one number each."""

    @classmethod
    def from_pretrained(cls, weights):
        assert weights == "RE-N-Y/hpsv21"
        return cls()

    def score(self, pixels, prompts):
        assert pixels.ndim == 4
        assert pixels.shape[1] == 3
        assert len(prompts) == len(pixels) <= 8
        assert 0 <= pixels.min() <= pixels.max() <= 1
        return pixels[:, 0].mean((1, 2)) + torch.tensor([float(len(prompt)) for prompt in prompts])


@pytest.fixture
def installed(monkeypatch):
    """As if imscore were there, with this model for HPSv2: the real one cannot be had without a network."""
    module = ModuleType("imscore.hps.model")
    module.HPSv2 = Redness
    for name in ("imscore", "imscore.hps"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "imscore.hps.model", module)


def test_each_picture_is_scored_with_its_own_prompt_whatever_its_size(installed):
    pictures = [Image.new("RGB", (8 + 8 * (number % 2), 8), (number, 0, 0)) for number in range(20)]
    prompts = ["a" * number for number in range(20)]
    (scores,) = PreferenceScorer("hpsv2")(pictures, prompts).values()
    np.testing.assert_allclose(scores, [number + number / 255 for number in range(20)], rtol=1e-6)


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "imscore", None)
    with pytest.raises(RenderError, match=r"PreferenceScorer\('mps'\) needs a package .*pip install 'workbench\[scorers\]'"):
        PreferenceScorer("mps")([Image.new("RGB", (8, 8))], ["a"])


def test_a_name_that_is_none_is_refused():
    with pytest.raises(RenderError, match="must be one of 'hpsv2'"):
        PreferenceScorer("pickscore")


def test_a_clip_of_another_kind_may_have_a_column_of_its_own():
    from workbench.places import DATA

    clip = DATA / "shapes-clip"
    picture, prompts = [Image.new("RGB", (64, 64), "red")], ["a red square"]
    (named,), (plain,) = ClipScorer(clip, column="pickscore")(picture, prompts).items(), ClipScorer(clip)(picture, prompts).items()
    assert (named[0], plain[0]) == ("pickscore", "clip")
    assert named[1] == plain[1]
