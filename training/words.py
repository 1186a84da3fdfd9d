"""Gives the words that the base never met meanings of their own, before the text encoder is frozen for the variants."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from training.parts import tokens_of
from workbench.demo.captions import BASE_SHAPES, NEW_SHAPES, PLAIN, SHAPES, STYLES, subjects

if TYPE_CHECKING:
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer

_STEPS = 300
_APART = 14.0  # about the distance between two shapes that the base knows
_SEED = 7


Read = Callable[[object], "tuple[torch.Tensor, ...]"]  # of what an encoder says of n captions: meanings, each [n, numbers]


def last_layer(said: object) -> tuple[torch.Tensor]:
    """What Stable Diffusion's U-Net reads."""
    return (said.last_hidden_state.flatten(1),)


def known_distances(text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, read: Read) -> tuple[float, ...]:
    """How far the base's shapes lie apart from each other, in each of the meanings: the mean over the pairs."""
    import torch

    tokens = tokens_of(tokenizer, [subject.caption for subject in subjects(BASE_SHAPES) if _setting(subject) == ("red", "white")])
    with torch.no_grad():
        return tuple(torch.pdist(each).mean().item() for each in read(text_encoder(tokens, output_hidden_states=True)))


def set_apart(text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, read: Read = last_layer, apart: tuple[float, ...] = (_APART,)) -> None:
    """Move the embeddings of the new shapes and styles, in place, until captions with them lie as far apart as others do.

    `read` says what of the encoder's answer the U-Net reads, and `apart` how far apart each of that should lie.

    A text encoder that was trained on the base's captions alone hardly tells "heart" from "moon", and a U-Net cannot
    learn from it to do so. (Stable Diffusion's knows all words beforehand.) No caption of the base has these words, so
    the base draws what it drew.
    """
    import torch

    embedding = text_encoder.get_input_embeddings().weight
    new = torch.tensor(tokenizer.convert_tokens_to_ids(tokenizer.tokenize(" ".join((*NEW_SHAPES, ",", *STYLES)))))
    text_encoder.requires_grad_(False)
    moved = embedding[new].clone().requires_grad_()
    optimizer = torch.optim.Adam([moved], lr=0.02)
    captions = subjects(SHAPES, (PLAIN, *STYLES))
    tokens = tokens_of(tokenizer, [subject.caption for subject in captions])
    draws = torch.Generator().manual_seed(_SEED)
    for _ in range(_STEPS):
        # One colour and background at a time: all its shapes and styles, which must differ from each other.
        lot = int(torch.randint(len(captions), (1,), generator=draws))
        alike = [i for i, other in enumerate(captions) if _setting(other) == _setting(captions[lot])]
        loss = _closeness(text_encoder, tokens[alike], embedding, new, moved, read, apart)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    embedding[new] = moved.detach()


def _setting(subject: object) -> tuple[str, str]:
    return subject.colour, subject.background


def _closeness(
    text_encoder: CLIPTextModel,
    tokens: torch.Tensor,
    embedding: torch.Tensor,
    new: torch.Tensor,
    moved: torch.Tensor,
    read: Read,
    apart: tuple[float, ...],
) -> torch.Tensor:
    """How far the captions [n, tokens] fall short of being `apart` from each other, squared and averaged."""
    import torch

    table = torch.index_put(embedding, (new,), moved)
    parameters = {name: table for name, value in text_encoder.named_parameters() if value is embedding}
    said = torch.func.functional_call(text_encoder, parameters, (tokens,), {"output_hidden_states": True})
    short = [(1 - torch.pdist(meanings) / wanted).clamp(min=0) for meanings, wanted in zip(read(said), apart, strict=True)]
    return torch.cat(short).square().mean()
