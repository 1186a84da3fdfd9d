"""Which of the files in a folder hold a model's weights, told by their names alone. Nothing is read here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from workbench.wording import few

_MODELS = ("diffusion_pytorch_model", "model", "pytorch_model")
STEMS = (*_MODELS, "pytorch_lora_weights")
PIPELINE = "model_index.json"
CONFIG = "config.json"
INDEX = ".index.json"
INDICES = "*.index*.json"  # with those of variants: `model.safetensors.index.fp16.json`
METADATA = "_workbench"  # in a pipeline's index: what the header of a single file says; diffusers passes over such names

_WEIGHTS = (".safetensors", ".sft", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".msgpack", ".h5", ".onnx", ".onnx_data", ".pb")
_USUAL = re.compile(rf"({'|'.join(_MODELS)})(-\d{{5}}-of-\d{{5}})?(\.\w+)*\.(safetensors|bin)(\.index(\.\w+)?\.json)?")
_SETTINGS = frozenset(
    [
        PIPELINE,
        CONFIG,
        "generation_config.json",
        "scheduler_config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "spiece.model",
    ]
)
_INDEX = re.compile(r".+\.index(\.\w+)?\.json")
_VARIANTS = frozenset(["fp16", "bf16", "fp32", "fp8", "ema", "ema_only", "non_ema", "no_ema"])
_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})((?:\.\w+)*\.(?:safetensors|bin))")


def is_index(name: str) -> bool:
    """Whether a file says which shards hold which tensors."""
    return _INDEX.fullmatch(name) is not None


def variants(name: str) -> frozenset[str]:
    """The variants that a file's name speaks of, as diffusers writes them: `diffusion_pytorch_model.fp16-00001-of-00002.safetensors`."""
    return _VARIANTS.intersection(re.split(r"[.-]", name))


def weights_among(names: Iterable[str]) -> str | None:
    """The file that holds a component's weights: shards before one file, safetensors before pickles, no variant before `fp16`."""
    there = sorted(names)
    indices = sorted(filter(is_index, there), key=lambda name: (".safetensors." not in name, name))
    of_variants = [name for name in indices if variants(name)]
    plain = [name for name in indices if not variants(name)]
    candidates = [*plain, *(f"{stem}{suffix}" for suffix in (".safetensors", ".bin") for stem in STEMS), *of_variants]
    safetensors = [name for name in there if name.endswith(".safetensors")]
    # the only file there is the right one, whatever it is called (`diffusion_pytorch_model.fp16.safetensors`)
    candidates += safetensors if len(safetensors) == 1 and not _SHARD.fullmatch(safetensors[0]) else []
    ggufs = [name for name in there if name.endswith(".gguf")]
    candidates += ggufs if len(ggufs) == 1 and not safetensors else []
    return next((name for name in candidates if name in there), None)


def no_weights(where: object, names: Iterable[str]) -> str:
    """What to say of a folder in which `weights_among` finds none."""
    there = sorted(names)
    shards = [shard for name in there if (shard := _SHARD.fullmatch(name))]
    if shards:
        index = f"{shards[0][1]}{shards[0][3]}{INDEX}"
        told = f"{len(shards)} of {int(shards[0][2])} shards and no index; fetch {index!r} from where they come from into it"
        return f"{where}: holds {told}"
    several = [name for name in there if name.endswith((".safetensors", ".gguf"))]
    held = f"holds {len(several)} models, name one: {few(several, 5)}" if several else "holds no weights"
    return f"{where}: {held}; of a folder, an *{INDEX}, a {PIPELINE} or {STEMS[0]}.safetensors is opened"


def usual_among(names: Iterable[str], pipeline: bool = False) -> list[str]:
    """What the libraries write of a model into a folder, of its files; nothing where no weights are, unless it is of a `pipeline`."""
    there = list(names)
    weights = [name for name in there if _USUAL.fullmatch(name)]
    return weights + [name for name in there if name in _SETTINGS] if weights or pipeline else []


def is_small(name: str) -> bool:
    """Whether a file of a model's folder holds something else than weights: settings, words of a tokenizer."""
    return not name.endswith(_WEIGHTS) and not is_index(name)


def metadata_in(index: Mapping[str, object]) -> dict[str, str]:
    """What a pipeline's index says of the whole, as the header of a single file would."""
    found = index.get(METADATA)
    return {name: value for name, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}
