"""CLIP's vocabulary, made from the merges that ship with the package, and the tokenizer that reads prompts with it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

SHIPPED = Path(__file__).parent / "shipped"

_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"  # what ends a word is another token than the same letters inside one
_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")
_LENGTH = 77  # positions that CLIP's text models have


def clip_tokenizer(settings: Mapping[str, Any]) -> CLIPTokenizer:
    """The tokenizer that `tokenizer_config.json`'s `settings` describe, with CLIP's vocabulary of 49,408 tokens.

    Its special tokens and `model_max_length` are those of the settings; what they lack is as OpenAI's CLIP has it.
    """
    from transformers import CLIPTokenizer

    special = {"bos_token": _START, "eos_token": _END, "unk_token": _END, "pad_token": _END}
    special |= {name: _content(settings[name]) for name in _TOKENS if settings.get(name)}
    length = settings.get("model_max_length", _LENGTH)
    return CLIPTokenizer(vocab=dict(clip_vocabulary()), merges=list(clip_merges()), model_max_length=length, **special)


@cache
def clip_merges() -> tuple[tuple[str, str], ...]:
    """The 48,894 pairs of tokens that are merged, the most frequent first."""
    lines = (SHIPPED / "clip_merges.txt").read_text(encoding="utf-8").split("\n")[1:]  # `splitlines` would split at tokens
    pairs = (line.partition(" ") for line in lines if line)
    return tuple((first, second) for first, _, second in pairs)


@cache
def clip_vocabulary() -> Mapping[str, int]:
    """Every token's number: the bytes, the bytes that end a word, what is merged of them, and the two that stand around a prompt."""
    letters = _letters()
    tokens = [*letters, *(letter + _WORD_END for letter in letters), *map("".join, clip_merges()), _START, _END]
    return {token: number for number, token in enumerate(tokens)}


def _letters() -> list[str]:
    """A visible character for each of the 256 bytes, in the order of their tokens: those that are visible come first."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [*map(chr, shown), *(chr(256 + number) for number in range(256 - len(shown)))]


def _content(token: Any) -> str:
    """A token, written as a string or with how it is told in text."""
    return str(token["content"] if isinstance(token, Mapping) else token)
