"""Builds the untrained parts of the small Z-Image: a transformer, its Qwen3 and its tokenizer; the autoencoder is Stable Diffusion's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from training.vocabulary import vocabulary

if TYPE_CHECKING:
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel
    from transformers import Qwen2Tokenizer, Qwen3Model

MAX_TOKENS = 64
LATENT_CHANNELS = 4
_TEXT_WIDTH = 48
_WIDTH = 64
_START, _END, _PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
_ROLES = ("user", "assistant")  # words of the chat template
# What Qwen3's own comes to for one question that may be thought about: `enable_thinking`, if given as true, adds nothing.
_CHAT = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"
)


def build_qwen_tokenizer(folder: Path) -> Qwen2Tokenizer:
    """A byte-level tokenizer in which every word of the family is one token, with a space before it or not; written to `folder`.

    Any other prompt is spelled in smaller pieces, in the end byte by byte.
    """
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    alphabet = sorted(ByteLevel.alphabet())
    merges = _merges((*vocabulary(), *_ROLES), alphabet)
    tokens = dict.fromkeys([*alphabet, *("".join(pair) for pair in merges), _PAD, _START, _END])
    tokenizer = Qwen2Tokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=merges,
        additional_special_tokens=[_START, _END],
        unk_token=_PAD,
        pad_token=_PAD,
        eos_token=_END,
        model_max_length=MAX_TOKENS,
    )
    tokenizer.chat_template = _CHAT
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _merges(words: tuple[str, ...], alphabet: list[str]) -> list[tuple[str, str]]:
    """The merges that make one token of each word, and then, so that no word needs them twice, of the space and the word."""
    import json

    from tokenizers import Tokenizer, models, trainers

    trained = Tokenizer(models.BPE())  # splits nothing: every text it is trained on is one word
    trainer = trainers.BpeTrainer(vocab_size=4000, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator([*words] * 4, trainer)
    found = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    return [*found, *(("Ġ", word) for word in words if word not in (",", *_ROLES))]


def build_qwen(tokenizer: Qwen2Tokenizer) -> Qwen3Model:
    """Two layers of width 48; Z-Image reads what enters the last one, whose own weights change nothing."""
    from transformers import Qwen3Config, Qwen3Model

    return Qwen3Model(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=_TEXT_WIDTH,
            intermediate_size=2 * _TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=12,
            max_position_embeddings=1024,
            initializer_range=0.1,
            use_cache=False,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def build_z_image() -> ZImageTransformer2DModel:
    """Four layers of width 64 and a refiner each for picture and caption; layers that see the time start as the identity.

    It cannot be much smaller: the embedder of the time alone, of a fixed inner width of 1024, is nearly half of it.
    """
    import torch
    from diffusers import ZImageTransformer2DModel

    transformer = ZImageTransformer2DModel(
        in_channels=LATENT_CHANNELS,
        dim=_WIDTH,
        n_layers=4,
        n_refiner_layers=1,
        n_heads=4,
        n_kv_heads=4,
        cap_feat_dim=_TEXT_WIDTH,
        axes_dims=(4, 6, 6),
        axes_lens=(1024, 64, 64),
    )
    last = next(iter(transformer.all_final_layer.values()))
    modulations = [layer.adaLN_modulation[0] for layer in (*transformer.noise_refiner, *transformer.layers)]
    for linear in (*modulations, last.adaLN_modulation[1], last.linear):
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    for token in (transformer.x_pad_token, transformer.cap_pad_token):  # of zeros, a norm's slope is steep
        torch.nn.init.normal_(token, std=0.02)
    return transformer


def build_z_schedule() -> FlowMatchEulerDiscreteScheduler:
    """The schedule of Z-Image: more steps where noise is strong, however large the picture."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=3.0)
