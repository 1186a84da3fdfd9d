"""What travels to the browser: small pictures to the bit, large ones as thumbnails."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
from PIL import Image

from workbench.panels.picture_columns import PictureColumns
from workbench.render.request import Request


def travelled(columns):
    """The pictures in the last column, as the browser has them."""
    html = columns.widget.children[-1].value
    return [Image.open(io.BytesIO(base64.b64decode(found))) for found in re.findall(r"base64,([^\"]+)", html)]


def shown(image):
    columns = PictureColumns()
    columns.arrange([], Request(("a",), (0,)))
    columns.show("result", [image])
    return columns


def test_a_small_picture_travels_to_the_bit():
    image = Image.effect_noise((64, 64), 50).convert("RGB")
    assert np.array_equal(*map(np.asarray, (travelled(shown(image))[0], image)))


def test_a_large_picture_travels_as_a_thumbnail_and_stays_whole_in_the_kernel():
    image = Image.effect_noise((1024, 768), 50).convert("RGB")
    columns = shown(image)
    assert travelled(columns)[0].size == (512, 384)
    assert columns.images["result"][0].size == (1024, 768)


def test_sixteen_pictures_of_1024_pixels_are_less_than_three_megabytes_of_widgets():
    smooth = Image.linear_gradient("L").resize((1024, 1024))
    noise = Image.effect_noise((1024, 1024), 12)
    image = Image.blend(smooth, noise, 0.3).convert("RGB")  # about as hard to pack as a photograph
    assert 16 * len(shown(image).widget.children[-1].value) < 3e6
