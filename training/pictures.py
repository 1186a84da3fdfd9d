"""Draws the family's captioned pictures, 64x64 RGB, with Pillow; the captions are in `workbench.demo.captions`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from workbench.demo.captions import Subject

SIZE = 64
_SCALE = 4  # drawn this much larger, then averaged down: smooth edges
_STROKE = 5.0  # pixels; thinner lines do not survive the 8x8 latents
_STRIPE = 4  # pixels; stripes lie on the picture's own grid, so that one latent cell holds one period
_STRIPE_SHADE = 0.4

# Far apart from each other on every background, in lightness or in hue.
PALETTE = {
    "red": (224, 24, 32),
    "green": (0, 176, 60),
    "blue": (32, 72, 224),
    "yellow": (252, 220, 16),
    "purple": (140, 36, 180),
    "orange": (252, 128, 8),
}
PASTELS = {
    "red": (240, 140, 132),
    "green": (150, 214, 160),
    "blue": (146, 176, 240),
    "yellow": (250, 240, 150),
    "purple": (196, 156, 228),
    "orange": (250, 192, 128),
}
BACKDROPS = {"white": (255, 255, 255), "black": (0, 0, 0), "gray": (128, 128, 128), "pink": (255, 196, 216)}


def ink(subject: Subject) -> tuple[int, int, int]:
    """The main colour of the shape, as RGB."""
    return (PASTELS if subject.style == "pastel" else PALETTE)[subject.colour]


def _ring(count: int, radius: float | Sequence[float], start: float = -np.pi / 2) -> np.ndarray:
    angles = start + np.arange(count) * 2 * np.pi / count
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.reshape(radius, (-1, 1))


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    across = 16 * np.sin(t) ** 3
    up = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([across, -up - 2.5], axis=1) / 15.5


def _moon() -> np.ndarray:
    """A crescent: a disc less another disc that lies to its right."""
    offset, inner = 0.52, 0.86
    meet = (1 + offset**2 - inner**2) / (2 * offset)
    outer_angle, inner_angle = np.arccos(meet), np.arctan2(np.sqrt(1 - meet**2), meet - offset)
    a = np.linspace(outer_angle, 2 * np.pi - outer_angle, 60)
    b = np.linspace(2 * np.pi - inner_angle, inner_angle, 60)
    crescent = np.concatenate([np.stack([np.cos(a), np.sin(a)], 1), np.stack([offset + inner * np.cos(b), inner * np.sin(b)], 1)])
    return crescent * 1.08 + (0.18, 0)


# Outlines for a radius of 1, of roughly equal area; y points down.
_OUTLINES = {
    "circle": _ring(72, 0.92),
    "square": _ring(4, 1.2, start=-np.pi / 4),
    "triangle": _ring(3, 1.25) + np.array([0, 0.2]),
    "star": _ring(10, np.tile([1.22, 0.5], 5)) + np.array([0, 0.05]),
    "heart": _heart(),
    "moon": _moon(),
}


def _place(shape: str, rng: np.random.Generator) -> np.ndarray:
    """The outline at a drawn size, angle and position, in supersampled pixels."""
    radius = rng.uniform(18, 24)
    angle = np.deg2rad(rng.uniform(-12, 12))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    outline = _OUTLINES[shape] @ turn * radius
    # Anywhere it fits, but near the middle.
    low = np.maximum(2 - outline.min(axis=0), SIZE / 2 - 8)
    high = np.minimum(SIZE - 2 - outline.max(axis=0), SIZE / 2 + 8)
    centre = np.where(low < high, rng.uniform(np.minimum(low, high), np.maximum(low, high)), (low + high) / 2)
    return (outline + centre) * _SCALE


def draw(subject: Subject, rng: np.random.Generator) -> Image.Image:
    """A picture of the subject, its size, angle and position drawn from `rng`."""
    outline = [tuple(point) for point in _place(subject.shape, rng)]
    size = (SIZE * _SCALE, SIZE * _SCALE)
    mask = Image.new("L", size)
    pen = ImageDraw.Draw(mask)
    if subject.style == "outline":
        pen.line([*outline, *outline[:2]], fill=255, width=round(_STROKE * _SCALE), joint="curve")
    else:
        pen.polygon(outline, fill=255)
    colours = Image.new("RGB", size, ink(subject))
    if subject.style == "stripes":
        band, shade = _STRIPE * _SCALE, tuple(round(value * _STRIPE_SHADE) for value in ink(subject))
        for top in range(0, size[1], 2 * band):
            colours.paste(shade, (0, top, size[0], top + band))
    picture = Image.new("RGB", size, BACKDROPS[subject.background])
    picture.paste(colours, mask=mask)
    return picture.reduce(_SCALE)


def sample(subjects: Sequence[Subject], count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` pictures [n, 64, 64, 3] uint8 of the subjects in turn, and the index [n] of each one's subject."""
    rng = np.random.default_rng(seed)
    which = np.arange(count) % len(subjects)
    return np.stack([np.asarray(draw(subjects[index], rng)) for index in which]), which
