"""The full picture travels when it is looked at, and none that is not there."""

from __future__ import annotations

import io

from PIL import Image

from workbench.panels.full_size import FullSize


def test_the_picture_that_is_looked_at_travels_whole_and_goes_again():
    shown = FullSize(lambda name: [Image.new("RGB", (900, 700))] * 2 if name == "result" else [])
    assert shown.full == b""
    shown.looked_at = ["result", 1]
    assert Image.open(io.BytesIO(shown.full)).size == (900, 700)
    assert shown.said == "result · 900 × 700 pixels"
    shown.looked_at = []
    assert shown.full == b""


def test_what_is_not_there_is_not_shown():
    shown = FullSize(lambda name: [])
    for place in (["gone", 0], ["result", 7], ["result", -1], ["result", None]):
        shown.looked_at = place
        assert shown.full == b""
