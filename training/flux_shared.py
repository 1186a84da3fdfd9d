"""The parts that both of the Flux pair have: the Stable Diffusion base's autoencoder and CLIP, and a T5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.files import Folder, as_stored, read_pipeline
from workbench.demo.captions import BASE_SHAPES, subjects

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer

    from training.flow import Lessons, Texts


@dataclass(frozen=True)
class Shared:
    """What both of the pair have in common, rounded to bfloat16 as their files hold it."""

    vae: AutoencoderKL
    clip: CLIPTextModel
    tokenizer: CLIPTokenizer
    t5: T5EncoderModel
    tokenizer_2: T5Tokenizer

    @property
    def texts(self) -> Texts:
        from training.flow import read_captions

        return read_captions(subjects(BASE_SHAPES), self.tokenizer_2, self.clip, self.tokenizer)

    def lessons(self, count: int, seed: int, style: str) -> Lessons:
        from training.flow import draw_lessons

        return draw_lessons(subjects(BASE_SHAPES, [style]), self.vae, count, seed)


def read_shared(folder: Folder, t5: T5EncoderModel | None = None) -> Shared:
    """The Stable Diffusion base's autoencoder and text encoder, and a T5: the trained one unless another is given."""
    import torch
    from transformers import T5EncoderModel

    from training.flux_parts import build_t5_tokenizer

    base = read_pipeline(folder)
    base.vae.register_to_config(shift_factor=0.0)
    t5 = t5 or T5EncoderModel.from_pretrained(folder.flux_part("t5"), local_files_only=True)
    parts = [as_stored(part.requires_grad_(False).eval(), torch.bfloat16) for part in (base.vae, base.text_encoder, t5)]
    return Shared(parts[0], parts[1], base.tokenizer, parts[2], build_t5_tokenizer(folder.flux_part("tokenizer_2")))
