"""A small picture of error against rank, both logarithmic, with the rank that is chosen. Plain SVG: it is drawn anew at every move."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

_WIDTH, _HEIGHT = 520, 190
_LEFT, _RIGHT, _ABOVE, _BELOW = 52, 16, 12, 34
_TICKS = [step * 10**power for power in range(-6, 1) for step in (1, 2, 5)]
_INK, _FAINT = "var(--jp-ui-font-color2, #666)", "var(--jp-border-color2, #ccc)"
_BRAND = "var(--jp-brand-color1, #1976d2)"


def error_chart(ranks: Sequence[int], errors: Sequence[float], chosen: int) -> str:
    """An SVG element: a line through the errors (relative, above 0) over the ranks, and a mark at the chosen one."""
    low = max(min(errors), 1e-6) / 1.15
    high = max(1.0, *errors)

    def x(rank: int) -> float:
        ends = math.log(ranks[0]), math.log(ranks[-1])
        return _LEFT + (math.log(rank) - ends[0]) / max(ends[1] - ends[0], 1e-9) * (_WIDTH - _LEFT - _RIGHT)

    def y(error: float) -> float:
        return _ABOVE + (math.log(high) - math.log(max(error, low))) / (math.log(high) - math.log(low)) * (_HEIGHT - _ABOVE - _BELOW)

    bottom = _HEIGHT - _BELOW
    parts = []
    for tick in (tick for tick in _TICKS if low <= tick <= high):
        parts.append(_line(_LEFT, y(tick), _WIDTH - _RIGHT, y(tick)) + _text(_LEFT - 8, y(tick) + 4, f"{tick:.4g}", "end"))
    parts += [_line(x(rank), _ABOVE, x(rank), bottom) + _text(x(rank), bottom + 15, str(rank), "middle") for rank in ranks]
    points = " ".join(f"{x(rank):.1f},{y(error):.1f}" for rank, error in zip(ranks, errors, strict=True))
    parts.append(f'<polyline points="{points}" fill="none" stroke="{_BRAND}" stroke-width="2"/>')
    for rank, error in zip(ranks, errors, strict=True):
        look = f'r="7" class="wb-chosen" fill="{_BRAND}"' if rank == chosen else f'r="3" fill="{_BRAND}"'
        parts.append(f'<circle cx="{x(rank):.1f}" cy="{y(error):.1f}" {look}><title>rank {rank}: misses {error:.2%}</title></circle>')
    parts.append(_text(_WIDTH - _RIGHT, _HEIGHT - 3, "rank", "end"))
    told = html.escape(f"relative error against rank; rank {chosen} is chosen")
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" style="max-width:{_WIDTH}px"'
    return f'<svg class="wb-error" role="img" aria-label="{told}" {size}>{"".join(parts)}</svg>'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{_FAINT}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="11" fill="{_INK}">{html.escape(text)}</text>'
