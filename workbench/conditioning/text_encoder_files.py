"""Which tensors of a file are a CLIP text encoder's, and which folder says how it is built. Running one is in `text_encoders`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.files.json_object import read_object
from workbench.checkpoint.views.layouts import in_layout
from workbench.checkpoint.views.view import View
from workbench.errors import TextEncoderError
from workbench.places import FAMILY
from workbench.tensors import Space
from workbench.wording import few

if TYPE_CHECKING:
    import torch
    from transformers import CLIPTextConfig

PARTS = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}  # what ComfyUI and what diffusers calls them

_PREFIXES = re.compile(r"(clip_[lg]\.)?(model\.)?(transformer\.(?!resblocks\.))?(text_model\.)?")  # `transformer.resblocks` is OpenCLIP's
_NOT_RUN = re.compile(r"logit_scale|embeddings\.position_ids|vision_model\..+|visual_projection\.weight")
# the two encoders that people have, told by their width where no config does: attention heads and activation (SDXL's configs)
_KNOWN = {("clip_l", 768): (12, "quick_gelu"), ("clip_g", 1280): (20, "gelu")}
_SIZES = {  # option of CLIPTextConfig -> tensor and dimension that tell it
    "vocab_size": ("embeddings.token_embedding.weight", 0),
    "hidden_size": ("embeddings.token_embedding.weight", 1),
    "max_position_embeddings": ("embeddings.position_embedding.weight", 0),
    "intermediate_size": ("encoder.layers.0.mlp.fc1.weight", 0),
}


@dataclass(frozen=True)
class StoredEncoder:
    """One text encoder of a checkpoint: its `tensors` as transformers cuts and names them, `keys` by their names without `text_model.`.

    `kind` is `clip_l`, a CLIPTextModel, or `clip_g`, a CLIPTextModelWithProjection. `own_config` is the folder that it came with.
    """

    kind: str
    checkpoint: Checkpoint
    tensors: Checkpoint
    keys: Mapping[str, str]
    own_config: Path | None = None

    @property
    def label(self) -> str:
        return f"{self.checkpoint.path or self.checkpoint.name}: {self.kind}"

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor as transformers has it; nothing is read."""
        return self.tensors.info(self.keys[name]).shape

    def read(self, name: str) -> torch.Tensor:
        """A tensor as transformers has it, float32."""
        return self.tensors.read(self.keys[name]).float()

    def sizes(self) -> dict[str, int]:
        """What the tensors' shapes tell of the configuration. Raises TextEncoderError for one that is not there."""
        if missing := sorted({name for name, _ in _SIZES.values()} - set(self.keys)):
            raise TextEncoderError(f"{self.label} lacks {few(missing)}; it is no CLIP text encoder, or not all of one")
        sizes = {option: self.shape(name)[dimension] for option, (name, dimension) in _SIZES.items()}
        layers = {name.split(".")[2] for name in self.keys if name.startswith("encoder.layers.")}
        if self.kind == "clip_g" and "text_projection.weight" in self.keys:
            sizes["projection_dim"] = self.shape("text_projection.weight")[0]
        return {**sizes, "num_hidden_layers": len(layers)}


def in_checkpoint(checkpoint: Checkpoint) -> tuple[StoredEncoder, ...]:
    """The text encoders of a checkpoint: a model's own one or two, or that of a folder which holds nothing else.

    Raises TextEncoderError where there is none, and for OpenCLIP's in the place of clip_l (SD 2.x, SDXL's refiner).
    """
    _check_weights(checkpoint)
    names = {key: checkpoint.structure.name(key) for key in checkpoint}
    if (config := _config_beside(checkpoint)) and all(name.prefix in ("", "text_model.") for name in names.values()):
        projected = "CLIPTextModelWithProjection" in read_object(config / "config.json").get("architectures", ())
        kind = "clip_g" if projected else "clip_l"
        return (_stored(checkpoint, kind, {key: key for key in checkpoint}, config),)
    found = {kind: {key: name.rest for key, name in names.items() if name.component == part} for kind, part in PARTS.items()}
    found = {kind: rests for kind, rests in found.items() if rests and "shared.weight" not in rests.values()}  # Flux's second is a T5
    if not found:
        raise TextEncoderError(
            f"{checkpoint.path or checkpoint.name}: holds no CLIP text encoder; its components are {', '.join(checkpoint.components)}; "
            "give a full checkpoint, a text encoder's folder, or clip_l= and clip_g="
        )
    if any("transformer.resblocks." in rest for rest in found.get("clip_l", {}).values()):
        raise TextEncoderError(
            f"{checkpoint.path or checkpoint.name}: its first text encoder is OpenCLIP's, as in SD 2.x and SDXL's refiner, of which "
            "pipelines take some layers only; give the text_encoder folder of a diffusers pipeline of it"
        )
    return tuple(_stored(checkpoint, kind, rests) for kind, rests in found.items())


def in_file(checkpoint: Checkpoint, kind: str) -> StoredEncoder:
    """The encoder in a file that is given as `clip_l` or `clip_g`: the names that say so, or else all of it."""
    _check_weights(checkpoint)
    told = {key for key in checkpoint if key.startswith(tuple(f"{kind}." for kind in PARTS))}
    keys = {key: key for key in checkpoint if not told or key.startswith(f"{kind}.")}
    if not keys:
        other = next(iter(told)).partition(".")[0]
        raise TextEncoderError(f"{checkpoint.path or checkpoint.name}: is given as {kind} and holds {other}; pass {other}= with it")
    return _stored(checkpoint, kind, keys)


def configuration(encoder: StoredEncoder, given: Path | None) -> tuple[CLIPTextConfig, Path | None]:
    """How transformers is to build an encoder, and the folder that says so; None where the tensors' widths do.

    `given` is a pipeline's folder or an encoder's; without it an encoder's own folder is asked, then the pipelines that lie beside
    the file (`model_index.json` in its folder, the one above, or `config` in one of them) and the embedded models' pipeline: the
    first that has the tensors' sizes. Raises TextEncoderError where none of them has.
    """
    from transformers import CLIPTextConfig

    part, sizes = PARTS[encoder.kind], encoder.sizes()
    asked = encoder.own_config if given is None else given / part if (given / part).is_dir() else given
    if asked is not None:
        return _read_config(asked), asked
    for folder in _pipelines(encoder.checkpoint):
        if (folder / part / "config.json").is_file():
            found = _read_config(folder / part)
            if all(getattr(found, option) == size for option, size in sizes.items()):
                return found, folder / part
    width = sizes["hidden_size"]
    if (encoder.kind, width) in _KNOWN:
        heads, activation = _KNOWN[encoder.kind, width]
        return CLIPTextConfig(**sizes, num_attention_heads=heads, hidden_act=activation), None
    known = " and ".join(f"{kind} has width {wide}" for kind, wide in _KNOWN)
    other = next((kind for kind, wide in _KNOWN if wide == width), None)
    step = f"pass it as {other}=" if other else "pass config= with the folder of its config.json"
    raise TextEncoderError(f"{encoder.label} has width {width}, and no pipeline of its sizes lies beside it; {known}; {step}")


def _stored(checkpoint: Checkpoint, kind: str, rests: Mapping[str, str], own_config: Path | None = None) -> StoredEncoder:
    """The encoder whose tensors' names are, without a model's prefix, `rests`."""
    named: dict[str, str] = {}
    for key, rest in rests.items():
        name = rest[_PREFIXES.match(rest).end() :]  # type: ignore[union-attr]  # it matches anything
        if name in named:
            both = f"{named[name]} and {key}"
            raise TextEncoderError(f"{checkpoint.path or checkpoint.name}: {both} are both {name}; take one of them out")
        named[name] = key
    tensors = in_layout(View(checkpoint, {f"{PARTS[kind]}.{name}": key for name, key in named.items()}), "diffusers")
    keys = {key.removeprefix("text_model."): key for key in tensors}
    # ComfyUI writes a projection beside every clip_l; its pooled output does not go through one
    unused = {name for name in keys if _NOT_RUN.fullmatch(name) or (kind == "clip_l" and name == "text_projection.weight")}
    return StoredEncoder(kind, checkpoint, tensors, {name: key for name, key in keys.items() if name not in unused}, own_config)


def _check_weights(checkpoint: Checkpoint) -> None:
    if checkpoint.space is Space.DELTA:
        raise TextEncoderError(f"{checkpoint.path or checkpoint.name}: holds changes to a model, and no model; add it to its base first")


def _config_beside(checkpoint: Checkpoint) -> Path | None:
    """The folder of a transformers model that a checkpoint is all of, when it says that it is a CLIP."""
    folders = {path.parent for path in checkpoint.sources()}
    if len(folders) != 1 or not ((folder := folders.pop()) / "config.json").is_file():
        return None
    return folder if str(read_object(folder / "config.json").get("model_type", "")).startswith("clip") else None


def _pipelines(checkpoint: Checkpoint) -> tuple[Path, ...]:
    above = [folder for path in checkpoint.sources() for folder in path.parents[:2]]
    folders = dict.fromkeys([inner for folder in above for inner in (folder, folder / "config")] + [FAMILY])
    return tuple(folder for folder in folders if (folder / "model_index.json").is_file())


def _read_config(folder: Path) -> Any:
    from transformers import CLIPTextConfig

    path = folder / "config.json"
    if not path.is_file():
        raise TextEncoderError(f"{path}: there is no such file; give the folder of a diffusers pipeline, or of one of its text encoders")
    if not str(read_object(path).get("model_type", "")).startswith("clip"):
        raise TextEncoderError(f"{path}: is not the config of a CLIP text encoder; give the text_encoder folder of a pipeline")
    try:
        return CLIPTextConfig.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # its validation has exceptions of its own
        raise TextEncoderError(f"{path}: transformers cannot take this as a text encoder's config ({error})") from error
