"""The words that the family's tokenizers know; those of the captions come from `workbench.demo.captions`."""

from __future__ import annotations

from workbench.demo.captions import PLAIN, SHAPES, STYLES, subjects

# Spare words, so that prompts people type (and later variants) meet tokens of their own.
SPARE_WORDS = (
    "and",
    "the",
    "an",
    "in",
    "with",
    "of",
    "two",
    "picture",
    "shape",
    "small",
    "large",
    "cross",
    "ring",
    "diamond",
    "brown",
    "dark",
    "light",
)


def vocabulary() -> list[str]:
    """Every word that must be one token."""
    words = {word for subject in subjects(SHAPES, (PLAIN, *STYLES)) for word in subject.caption.replace(",", " ,").split()}
    return sorted(words | {*SPARE_WORDS, PLAIN})
