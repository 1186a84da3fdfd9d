"""The order in which the small Z-Image is trained and written, on the finished Stable Diffusion base; the training is in `z_image_flow`."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from training.files import Folder, as_stored, forget_folders, read_pipeline
from training.settings import Settings
from workbench.demo.captions import BASE_SHAPES, PLAIN, subjects

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen2Tokenizer, Qwen3Model
    from transformers.modeling_outputs import BaseModelOutputWithPast

NAMES = ("z-image", "z-image-lora")
STYLE = "pastel"  # what the LoRA adds
_TARGETS = r"(layers|noise_refiner|context_refiner)\.\d+\.(attention\.(to_[qkv]|to_out\.0)|feed_forward\.w[123])"


def run(name: str, folder: Folder, settings: Settings) -> None:
    """Train one part and write its files."""
    {"z-image": _base, "z-image-lora": _lora}[name](folder, settings)


def _read_vae(folder: Folder) -> AutoencoderKL:
    """Stable Diffusion's autoencoder, rounded as the folder holds it; ZImagePipeline asks every autoencoder for its shift."""
    import torch

    vae = read_pipeline(folder).vae
    vae.register_to_config(shift_factor=0.0)
    return as_stored(vae.requires_grad_(False).eval(), torch.bfloat16)


def _base(folder: Folder, settings: Settings) -> None:
    import torch

    from training.z_image_flow import draw_lessons, meanings, train_flow
    from training.z_image_parts import build_qwen, build_qwen_tokenizer, build_z_image

    stage, vae = settings.z_image, _read_vae(folder)
    tokenizer = build_qwen_tokenizer(folder.z_image_part("tokenizer"))
    torch.manual_seed(stage.seed)
    transformer, qwen = build_z_image(), build_qwen(tokenizer)
    lessons = draw_lessons(subjects(BASE_SHAPES), vae, tokenizer, stage.pictures, stage.seed)
    heard = [*qwen.embed_tokens.parameters(), *qwen.layers[:-1].parameters()]  # the last layer's own output is never read
    trainable = [*transformer.parameters(), *heard]
    train_flow(
        transformer,
        lambda rows: meanings(qwen, lessons.texts, rows),
        trainable,
        lessons,
        stage,
        name="z-image",
        state_folder=folder.state,
    )
    transformer.save_pretrained(folder.z_image_part("transformer"))
    qwen.save_pretrained(folder.z_image_part("text_encoder"))
    _set_apart(as_stored(qwen, torch.bfloat16), tokenizer)
    _write(folder, transformer, qwen, vae, tokenizer)


def _set_apart(qwen: Qwen3Model, tokenizer: Qwen2Tokenizer) -> None:
    """Give the words that the base never met meanings of their own, as far from each other as those of the shapes it knows."""
    import torch
    from torch.nn import functional

    from training.words import ALL, move_apart
    from training.z_image_flow import read_captions

    def seen(said: BaseModelOutputWithPast, tokens: torch.Tensor) -> tuple[torch.Tensor]:
        """What the transformer makes of it first: every token of the same length, and none of the padding."""
        read = said.hidden_states[-2]
        return ((functional.rms_norm(read, read.shape[-1:]) * (tokens != tokenizer.pad_token_id)[..., None]).flatten(1),)

    tokens = read_captions(tokenizer, [subject.caption for subject in ALL]).tokens
    alike = [number for number, one in enumerate(ALL) if one.shape in BASE_SHAPES and (one.colour, one.style) == ("red", PLAIN)]
    with torch.no_grad():
        (known,) = seen(qwen(tokens[alike], output_hidden_states=True), tokens[alike])
        apart = torch.stack([torch.pdist(known[start::4]).mean() for start in range(4)]).mean().item()  # a background at a time
    move_apart(qwen, tokens, seen, (apart,))


def _write(folder: Folder, transformer: ZImageTransformer2DModel, qwen: Qwen3Model, vae: AutoencoderKL, tokenizer: Qwen2Tokenizer) -> None:
    """A whole pipeline folder in bfloat16. The tokenizer's own folder is copied: one that has been used writes down how."""
    import torch
    from diffusers import ZImagePipeline

    from training.z_image_parts import build_z_schedule

    pipeline = ZImagePipeline(scheduler=build_z_schedule(), vae=vae, text_encoder=qwen, tokenizer=tokenizer, transformer=transformer)
    pipeline.to(torch.bfloat16).save_pretrained(folder.z_image)
    forget_folders(folder.z_image)
    shutil.rmtree(folder.z_image / "tokenizer")
    shutil.copytree(folder.z_image_part("tokenizer"), folder.z_image / "tokenizer")


def read_z_image(folder: Folder) -> ZImagePipeline:
    """The whole pipeline, in fp32."""
    import torch
    from diffusers import ZImagePipeline

    pipeline = ZImagePipeline.from_pretrained(folder.z_image, dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _lora(folder: Folder, settings: Settings) -> None:
    """Half on pastel pictures with the word for it, half on plain ones without."""
    import torch
    from diffusers import ZImagePipeline
    from peft import LoraConfig, get_peft_model_state_dict

    from training.z_image_flow import draw_lessons, meanings, train_flow

    stage, rank, base = settings.z_image_lora, settings.z_image_lora_rank, read_z_image(folder)
    transformer = base.transformer.requires_grad_(False)
    torch.manual_seed(stage.seed)
    transformer.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=_TARGETS))
    lessons = draw_lessons(subjects(BASE_SHAPES, [STYLE, PLAIN]), base.vae, base.tokenizer, 2 * stage.pictures, stage.seed)
    with torch.no_grad():
        said = meanings(base.text_encoder, lessons.texts, torch.arange(len(lessons.texts.tokens)))
    trainable = [parameter for parameter in transformer.parameters() if parameter.requires_grad]
    train_flow(
        transformer,
        lambda rows: [said[row] for row in rows.tolist()],
        trainable,
        lessons,
        stage,
        name="z-image-lora",
        state_folder=folder.state,
    )
    layers = {key: tensor.to(torch.bfloat16).contiguous() for key, tensor in get_peft_model_state_dict(transformer).items()}
    ZImagePipeline.save_lora_weights(folder.z_image / "lora", transformer_lora_layers=layers, weight_name=f"{STYLE}.safetensors")
