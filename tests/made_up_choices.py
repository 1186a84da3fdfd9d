"""Choices that nobody made, for tests of what follows from them."""

from __future__ import annotations

from workbench.preferences.choices import Answer, Choice, Side


def chosen(left: str, right: str, answer: Answer, prompt: str = "a star", seed: int = 0) -> Choice:
    """A choice between two candidates, whose names are their keys."""
    return Choice(Side(left, left), Side(right, right), prompt, seed, answer)
