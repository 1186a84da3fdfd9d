"""Trains the CLIP that scores the family's pictures, on every shape, colour and style."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.autoencoder import pixels
from training.loop import fit
from training.parts import build_clip, build_tokenizer, tokens_of
from training.pictures import SIZE, sample
from training.settings import Stage
from workbench.demo.captions import PLAIN, SHAPES, STYLES, subjects

if TYPE_CHECKING:
    import torch

_NOISE = 0.1  # generated pictures are a little rough; drawn ones are not


def train_clip(stage: Stage, folder: Path, state_folder: Path) -> None:
    """Train on drawn pictures and write a complete CLIPModel folder, processor included."""
    import torch

    torch.manual_seed(stage.seed)
    everything = subjects(SHAPES, (PLAIN, *STYLES))
    tokenizer = build_tokenizer(folder)
    captions = tokens_of(tokenizer, [subject.caption for subject in everything])
    clip = build_clip(tokenizer)
    pictures, which = sample(everything, stage.pictures, stage.seed)
    of_subject = [np.flatnonzero(which == index) for index in range(which.max() + 1)]

    def loss(draws: torch.Generator) -> torch.Tensor:
        # No caption twice in a batch: each picture must have one right answer.
        drawn = torch.randperm(len(of_subject), generator=draws)[: stage.batch].tolist()
        lots = torch.rand(len(drawn), generator=draws).tolist()
        chosen = [of_subject[index][int(lot * len(of_subject[index]))] for index, lot in zip(drawn, lots, strict=True)]
        clean = pixels(pictures[chosen])
        noise = torch.randn(clean.shape, generator=draws) * torch.rand(len(drawn), 1, 1, 1, generator=draws) * _NOISE
        return clip(input_ids=captions[drawn], pixel_values=clean + noise, return_loss=True).loss

    fit(list(clip.parameters()), loss, stage, name="clip", state_folder=state_folder, average=True)
    clip.save_pretrained(folder)
    build_processor(tokenizer).save_pretrained(folder)


def build_processor(tokenizer: object) -> object:
    """Pictures to [-1, 1] at 64x64 and captions to tokens; the Pillow image processor, which needs no torchvision."""
    from transformers import CLIPProcessor

    try:
        from transformers import CLIPImageProcessorPil as ImageProcessor
    except ImportError:
        from transformers import CLIPImageProcessor as ImageProcessor
    half = [0.5, 0.5, 0.5]
    images = ImageProcessor(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=half,
        image_std=half,
        do_convert_rgb=True,
    )
    return CLIPProcessor(images, tokenizer)
