"""Trains the Flux pair as rectified flows: the base they share, its other style, its guidance, its few steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from training.autoencoder import encode
from training.flux_parts import GRID, PATCH
from training.loop import fit
from training.parts import MAX_TOKENS, tokens_of
from training.pictures import sample
from training.settings import Stage
from workbench.demo.captions import Subject

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer

_CAPTIONS_DROPPED = 0.1
_TIME_SPREAD = 1.2  # of the logit-normal times; more than Flux's 1, so that the first of few steps is learned too
GUIDANCE_RANGE = (1.0, 5.0)
_PAIR_GUIDANCE = 2.0
_PAIR_STEPS = 16
_FEW_STEPS = 4

Draw = Callable[["torch.Generator"], "torch.Tensor"]


@dataclass(frozen=True)
class Texts:
    """Of each caption, the empty one last: T5 tokens [n, tokens] and the pooled CLIP vector [n, width]."""

    tokens: torch.Tensor
    pooled: torch.Tensor

    @property
    def blank(self) -> int:
        return len(self.tokens) - 1


@dataclass(frozen=True)
class Lessons:
    """Packed latents [n, 16, 16] and the number of each one's caption [n]."""

    latents: torch.Tensor
    captions: torch.Tensor


def read_captions(wanted: Sequence[Subject], tokenizer_2: T5Tokenizer, clip: CLIPTextModel, tokenizer: CLIPTokenizer) -> Texts:
    """What both text sides say of the subjects' captions, styles left out: a model has one look and no word for it."""
    import torch

    captions = [*(Subject(each.shape, each.colour, each.background).caption for each in wanted), ""]
    tokens = tokenizer_2(captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        return Texts(tokens, clip(tokens_of(tokenizer, captions)).pooler_output)


def draw_lessons(wanted: Sequence[Subject], vae: AutoencoderKL, count: int, seed: int) -> Lessons:
    """Draw and encode the pictures once; training then never touches the autoencoder."""
    import torch

    pictures, which = sample(wanted, count, seed)
    return Lessons(pack(encode(vae, pictures)), torch.from_numpy(which))


def pack(latents: torch.Tensor) -> torch.Tensor:
    """Latents [n, c, h, w] as Flux's tokens [n, h/2 * w/2, 4c]."""
    count, channels, height, width = latents.shape
    cells = latents.view(count, channels, height // PATCH, PATCH, width // PATCH, PATCH).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(count, height * width // PATCH**2, channels * PATCH**2)


def velocity(
    flux: FluxTransformer2DModel,
    noisy: torch.Tensor,
    times: torch.Tensor,
    meanings: torch.Tensor,
    pooled: torch.Tensor,
    guidance: torch.Tensor | None = None,
) -> torch.Tensor:
    """What the transformer predicts, noise minus picture, at times in [0, 1]; 1 is noise."""
    import torch

    rows, columns = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
    places = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3)
    words = torch.zeros(meanings.shape[1], 3)
    return flux(noisy, meanings, pooled, times, places, words, guidance, return_dict=False)[0]


def guided(
    flux: FluxTransformer2DModel, noisy: torch.Tensor, times: torch.Tensor, said: tuple, blank: tuple, scale: object
) -> torch.Tensor:
    """The velocity under classifier-free guidance; `said` and `blank` are meanings and pooled vectors."""
    import torch

    both = [torch.cat(pair) for pair in zip(said, blank, strict=True)]
    with_caption, without = velocity(flux, noisy.repeat(2, 1, 1), times.repeat(2), *both).chunk(2)
    return without + scale * (with_caption - without)


def logit_normal(count: int, draws: torch.Generator) -> torch.Tensor:
    """Times in (0, 1), most of them near the middle."""
    import torch

    return torch.sigmoid(_TIME_SPREAD * torch.randn(count, generator=draws))


def mixed(clean: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """What lies on the straight path from each picture to its noise, at each one's time."""
    shares = times.view(-1, *[1] * (clean.dim() - 1))
    return (1 - shares) * clean + shares * noise


def train_flow(
    flux: FluxTransformer2DModel, t5: T5EncoderModel, texts: Texts, lessons: Lessons, stage: Stage, *, name: str, state_folder: Path
) -> None:
    """Train the transformer, and what of the T5 is trainable, in place, on pictures and captions.

    The straight path from picture to noise, at logit-normal times: Esser et al. 2024, section 3.1.
    """
    import torch
    from torch.nn import functional

    def loss(draws: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(lessons.latents), (stage.batch,), generator=draws)
        clean, captions = lessons.latents[chosen], lessons.captions[chosen]
        captions = captions.masked_fill(torch.rand(stage.batch, generator=draws) < _CAPTIONS_DROPPED, texts.blank)
        noise, times = torch.randn(clean.shape, generator=draws), logit_normal(stage.batch, draws)
        meanings = t5(texts.tokens[captions]).last_hidden_state
        predicted = velocity(flux, mixed(clean, noise, times), times, meanings, texts.pooled[captions])
        return functional.mse_loss(predicted, noise - clean)

    trainable = [parameter for parameter in (*flux.parameters(), *t5.parameters()) if parameter.requires_grad]
    fit(trainable, loss, stage, name=name, state_folder=state_folder, average=True)


def distil_guidance(
    teacher: FluxTransformer2DModel,
    student: FluxTransformer2DModel,
    t5: T5EncoderModel,
    texts: Texts,
    lessons: Lessons,
    stage: Stage,
    *,
    name: str,
    state_folder: Path,
) -> None:
    """Teach the student, in place, to predict at once what the teacher predicts under a scale of guidance, told the scale.

    Meng et al. 2023, "On distillation of guided diffusion models", section 3.1; what made FLUX.1 [dev].
    """
    import torch
    from torch.nn import functional

    with torch.no_grad():
        meanings = t5(texts.tokens).last_hidden_state
    low, high = GUIDANCE_RANGE

    def loss(draws: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(lessons.latents), (stage.batch,), generator=draws)
        clean, captions = lessons.latents[chosen], lessons.captions[chosen]
        noise, times = torch.randn(clean.shape, generator=draws), logit_normal(stage.batch, draws)
        scale = low + (high - low) * torch.rand(stage.batch, generator=draws)
        noisy = mixed(clean, noise, times)
        said, blank = ((meanings[rows], texts.pooled[rows]) for rows in (captions, torch.full_like(captions, texts.blank)))
        with torch.no_grad():
            target = guided(teacher, noisy, times, said, blank, scale[:, None, None])
        return functional.mse_loss(velocity(student, noisy, times, *said, scale), target)

    fit(list(student.parameters()), loss, stage, name=name, state_folder=state_folder, average=True)


def straight_pairs(flux: FluxTransformer2DModel, t5: T5EncoderModel, texts: Texts, count: int, seed: int, batch: int = 128) -> tuple:
    """Noise [n, 16, 16], the guided picture that the transformer makes of it, and the caption it was asked for [n]."""
    import torch

    draws = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, GRID**2, flux.config.in_channels, generator=draws)
    captions = torch.arange(count) % texts.blank
    made = []
    with torch.no_grad():
        meanings = t5(texts.tokens).last_hidden_state
        for start in tqdm(range(0, count, batch), desc="pairs", mininterval=2):
            rows = captions[start : start + batch]
            said, blank = ((meanings[which], texts.pooled[which]) for which in (rows, torch.full_like(rows, texts.blank)))
            made.append(_walk(flux, noise[start : start + batch], said, blank))
    return noise, torch.cat(made), captions


def _walk(flux: FluxTransformer2DModel, noise: torch.Tensor, said: tuple, blank: tuple) -> torch.Tensor:
    """Guided pictures, by even Euler steps."""
    import torch

    place = noise
    for step in range(_PAIR_STEPS, 0, -1):
        times = torch.full((len(noise),), step / _PAIR_STEPS)
        place = place - guided(flux, place, times, said, blank, _PAIR_GUIDANCE) / _PAIR_STEPS
    return place


def straighten(
    flux: FluxTransformer2DModel,
    t5: T5EncoderModel,
    texts: Texts,
    pairs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    stage: Stage,
    *,
    name: str,
    state_folder: Path,
) -> None:
    """Go on with a transformer, in place, on the straight lines between its own noises and pictures, so that few steps do.

    "Reflow": Liu et al. 2022, arXiv:2209.03003, section 2.2. Half of the times are those that four steps ask for.
    """
    import torch
    from torch.nn import functional

    noises, cleans, captions = pairs
    with torch.no_grad():
        meanings = t5(texts.tokens).last_hidden_state

    def loss(draws: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(noises), (stage.batch,), generator=draws)
        noise, clean, rows = noises[chosen], cleans[chosen], captions[chosen]
        anywhere = torch.rand(stage.batch, generator=draws)
        asked = torch.randint(1, _FEW_STEPS + 1, (stage.batch,), generator=draws) / _FEW_STEPS
        times = torch.where(torch.rand(stage.batch, generator=draws) < 0.5, anywhere, asked)
        predicted = velocity(flux, mixed(clean, noise, times), times, meanings[rows], texts.pooled[rows])
        return functional.mse_loss(predicted, noise - clean)

    fit(list(flux.parameters()), loss, stage, name=name, state_folder=state_folder, average=True)
