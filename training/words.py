"""Gives the words that the base never met meanings of their own, before the text encoder is frozen for the variants."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from training.parts import tokens_of
from workbench.demo.captions import BASE_SHAPES, PLAIN, SHAPES, STYLES, Subject, subjects

if TYPE_CHECKING:
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer

ALL = subjects(SHAPES, (PLAIN, *STYLES))
_STEPS = 300
_APART = 14.0  # about the distance between two shapes that the base knows
_SEED = 7

# What a denoiser reads of a text encoder's answer and the tokens [n, ...] it was given: meanings, each [n, numbers].
Read = Callable[[Any, "torch.Tensor"], "tuple[torch.Tensor, ...]"]


def last_layer(said: Any, tokens: torch.Tensor) -> tuple[torch.Tensor]:
    """What Stable Diffusion's U-Net reads."""
    return (said.last_hidden_state.flatten(1),)


def known_distances(text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, read: Read) -> tuple[float, ...]:
    """How far the base's shapes lie apart from each other, in each of the meanings: the mean over the pairs."""
    import torch

    tokens = tokens_of(tokenizer, [subject.caption for subject in subjects(BASE_SHAPES) if _setting(subject) == ("red", "white")])
    with torch.no_grad():
        return tuple(torch.pdist(each).mean().item() for each in read(text_encoder(tokens, output_hidden_states=True), tokens))


def set_apart(text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, read: Read = last_layer, apart: tuple[float, ...] = (_APART,)) -> None:
    """Move the embeddings of the new shapes and styles, in place, until captions with them lie as far apart as others do.

    `read` says what of the encoder's answer the U-Net reads, and `apart` how far apart each of that should lie.

    A text encoder that was trained on the base's captions alone hardly tells "heart" from "moon", and a U-Net cannot
    learn from it to do so. (Stable Diffusion's knows all words beforehand.) No caption of the base has these words, so
    the base draws what it drew.
    """
    move_apart(text_encoder, tokens_of(tokenizer, [subject.caption for subject in ALL]), read, apart)


def move_apart(text_encoder: torch.nn.Module, tokens: torch.Tensor, read: Read, apart: tuple[float, ...]) -> None:
    """Do so in any text encoder; `tokens` are those of every caption of `ALL`."""
    import torch

    embedding = text_encoder.get_input_embeddings().weight
    based = torch.tensor([one.shape in BASE_SHAPES and one.style == PLAIN for one in ALL])
    everything, known = tokens.unique(), tokens[based].unique()
    new = everything[~torch.isin(everything, known)]
    text_encoder.requires_grad_(False)
    moved = embedding[new].clone().requires_grad_()
    optimizer = torch.optim.Adam([moved], lr=0.02)
    draws = torch.Generator().manual_seed(_SEED)
    for _ in range(_STEPS):
        # One colour and background at a time: all its shapes and styles, which must differ from each other.
        lot = int(torch.randint(len(ALL), (1,), generator=draws))
        alike = [i for i, other in enumerate(ALL) if _setting(other) == _setting(ALL[lot])]
        table = torch.index_put(embedding, (new,), moved)
        parameters = {name: table for name, value in text_encoder.named_parameters() if value is embedding}
        said = torch.func.functional_call(text_encoder, parameters, (tokens[alike],), {"output_hidden_states": True})
        # How far the captions fall short of being so far from each other, squared and averaged.
        short = [(1 - torch.pdist(each) / wanted).clamp(min=0) for each, wanted in zip(read(said, tokens[alike]), apart, strict=True)]
        loss = torch.cat(short).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    embedding[new] = moved.detach()


def _setting(subject: Subject) -> tuple[str, str]:
    return subject.colour, subject.background
