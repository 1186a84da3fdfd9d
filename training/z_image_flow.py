"""Trains the small Z-Image as a rectified flow: its transformer with its Qwen3, and later a LoRA on the transformer alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from training.autoencoder import encode
from training.flow import logit_normal, mixed
from training.loop import fit
from training.pictures import sample
from training.settings import Stage
from training.z_image_parts import MAX_TOKENS
from workbench.demo.captions import Subject

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, ZImageTransformer2DModel
    from transformers import Qwen2Tokenizer, Qwen3Model

_CAPTIONS_DROPPED = 0.1


@dataclass(frozen=True)
class Texts:
    """Of each caption, the empty one last: tokens [n, longest], padded at the end, and how many are its own [n]."""

    tokens: torch.Tensor
    lengths: torch.Tensor

    @property
    def blank(self) -> int:
        return len(self.tokens) - 1


@dataclass(frozen=True)
class Lessons:
    """Latents [n, 4, 8, 8], the number of each one's caption [n], and the captions."""

    latents: torch.Tensor
    captions: torch.Tensor
    texts: Texts


def read_captions(tokenizer: Qwen2Tokenizer, captions: Sequence[str]) -> Texts:
    """The captions as ZImagePipeline asks for them: each a question in a chat that the answer has yet to come to."""
    import torch

    asked = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": caption}], tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
        for caption in captions
    ]
    read = tokenizer(asked, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    lengths = read.attention_mask.sum(dim=1)
    return Texts(read.input_ids[:, : int(torch.max(lengths))], lengths)


def draw_lessons(wanted: Sequence[Subject], vae: AutoencoderKL, tokenizer: Qwen2Tokenizer, count: int, seed: int) -> Lessons:
    """Draw and encode the pictures once; training then never touches the autoencoder."""
    import torch

    pictures, which = sample(wanted, count, seed)
    texts = read_captions(tokenizer, [*(subject.caption for subject in wanted), ""])
    return Lessons(encode(vae, pictures), torch.from_numpy(which), texts)


def meanings(qwen: Qwen3Model, texts: Texts, rows: torch.Tensor) -> list[torch.Tensor]:
    """Of each caption its own tokens' meanings [tokens, width], without the padding's: what enters the Qwen3's last layer.

    No mask is needed: a token sees none of those after it, where the padding is.
    """
    read = qwen(texts.tokens[rows], output_hidden_states=True).hidden_states[-2]
    return [meaning[:length] for meaning, length in zip(read, texts.lengths[rows].tolist(), strict=True)]


def velocity(transformer: ZImageTransformer2DModel, noisy: torch.Tensor, times: torch.Tensor, said: Sequence[torch.Tensor]) -> torch.Tensor:
    """Noise minus picture, at times in [0, 1]; 1 is noise. The transformer counts from 0, noise, to 1 and predicts the opposite."""
    import torch

    predicted = transformer(list(noisy[:, :, None].unbind()), 1 - times, list(said), return_dict=False)[0]
    return -torch.stack(predicted)[:, :, 0]


def train_flow(
    transformer: ZImageTransformer2DModel,
    read: Callable[[torch.Tensor], list[torch.Tensor]],
    trainable: list[torch.nn.Parameter],
    lessons: Lessons,
    stage: Stage,
    *,
    name: str,
    state_folder: Path,
) -> None:
    """Train the parameters in place on pictures and captions; `read` gives the meanings of captions by their numbers."""
    import torch
    from torch.nn import functional

    def loss(draws: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(lessons.latents), (stage.batch,), generator=draws)
        clean, captions = lessons.latents[chosen], lessons.captions[chosen]
        captions = captions.masked_fill(torch.rand(stage.batch, generator=draws) < _CAPTIONS_DROPPED, lessons.texts.blank)
        noise, times = torch.randn(clean.shape, generator=draws), logit_normal(stage.batch, draws)
        predicted = velocity(transformer, mixed(clean, noise, times), times, read(captions))
        return functional.mse_loss(predicted, noise - clean)

    fit(trainable, loss, stage, name=name, state_folder=state_folder, average=True)
