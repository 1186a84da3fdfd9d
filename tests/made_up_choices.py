"""Choices that nobody made, for tests of what follows from them."""

from __future__ import annotations

from workbench.preferences.choices import Answer, Comparison, Seen


def chosen(left: str, right: str, answer: Answer, prompt: str = "a star", seed: int = 0) -> Comparison:
    """A choice between two candidates, whose names are their keys."""
    return Comparison(Seen(left, left), Seen(right, right), prompt, seed, answer)
