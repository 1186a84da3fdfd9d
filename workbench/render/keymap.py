"""Which tensor of a checkpoint each tensor of a diffusers module comes from: derived by diffusers' own converters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from workbench.checkpoint.architecture import is_marker
from workbench.checkpoint.base import Checkpoint
from workbench.errors import RenderError
from workbench.tensors import Rows

if TYPE_CHECKING:
    from torch import nn

Labels = dict[str, torch.Tensor]

# What only LDM-layout names of a component begin with
_LDM_HEADS = {
    "unet": ("input_blocks.", "middle_block.", "output_blocks.", "time_embed."),
    "vae": ("encoder.down.", "encoder.mid.", "decoder.up.", "decoder.mid."),
    "text_encoder": ("model.",),  # OpenCLIP, as in SD 2.x; CLIP has the same names in both layouts
}


@dataclass(frozen=True)
class Origin:
    """A tensor of a checkpoint, or some rows of it (`part`), with the shape it has in diffusers' layout."""

    key: str
    part: Rows | None
    shape: tuple[int, ...]


def origins(checkpoint: Checkpoint, component: str, module: nn.Module) -> dict[str, Origin]:
    """Name in `module` -> its origin in the checkpoint, for the tensors of one component.

    Names that the module does not know are included; markers (`v_pred`, `position_ids`) and empty tensors are not.

    Raises RenderError when diffusers cannot convert the names.
    """
    structure = checkpoint.structure
    mine = [key for key in checkpoint if structure.component(key) == component and not is_marker(key)]
    keys = [key for key in mine if checkpoint.info(key).numel]
    labels, starts = _label(checkpoint, keys)
    named = {structure.name(key).rest: label for key, label in zip(keys, labels, strict=True)}
    try:
        converted = _converter(component, named)(named, module)
    except (KeyError, IndexError, AttributeError) as error:
        raise RenderError(
            f"{checkpoint.name!r}: diffusers cannot convert the names of its {component} (it stopped at {error}): "
            "it is incomplete, or of another kind"
        ) from error
    found = {name: _origin(checkpoint, label, keys, starts) for name, label in converted.items() if label is not None}
    return {_spelled(name, module): origin for name, origin in found.items()}


def _label(checkpoint: Checkpoint, keys: list[str]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Tensors of the right shapes in which every row holds its own number, and the first number of each.

    They are expanded with zero stride: only dimension 0 takes memory. Numbered rows survive whatever a converter does
    (rename, squeeze, split), so what comes out tells where it came from.
    """
    shapes = [checkpoint.info(key).shape for key in keys]
    rows = [shape[0] if shape else 1 for shape in shapes]
    starts = torch.tensor([0, *rows], dtype=torch.int64).cumsum(0)
    labels = []
    for shape, start, count in zip(shapes, starts.tolist(), rows, strict=False):
        column = torch.arange(start, start + count)
        labels.append(column.reshape(-1, *[1] * (len(shape) - 1)).expand(shape) if shape else column[0])
    return labels, starts


def _origin(checkpoint: Checkpoint, label: torch.Tensor, keys: list[str], starts: torch.Tensor) -> Origin:
    """Read a label back: which key, and which of its rows."""
    rows = label.reshape(label.shape[0], -1)[:, 0] if label.ndim else label.reshape(1)
    first, count = int(rows[0]), len(rows)
    index = int(torch.searchsorted(starts, first, right=True)) - 1
    key, offset = keys[index], first - int(starts[index])
    if int(rows[-1]) != first + count - 1:
        raise RenderError(f"{checkpoint.name!r}: {key} is rearranged by diffusers in a way this renderer does not follow")
    whole = (checkpoint.info(key).shape or (1,))[0]
    return Origin(key, None if count == whole else Rows(offset, offset + count), tuple(label.shape))


def _converter(component: str, named: Mapping[str, torch.Tensor]) -> Callable[[Labels, nn.Module], Labels]:
    """The conversion that these names need, told by how they begin."""
    heads = _LDM_HEADS.get(component, ())
    if not any(name.startswith(heads) for name in named):
        return _from_diffusers
    return {"unet": _from_ldm_unet, "vae": _from_ldm_vae, "text_encoder": _from_open_clip}[component]


def _from_ldm_unet(named: Labels, module: nn.Module) -> Labels:
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    return convert_ldm_unet_checkpoint({f"model.diffusion_model.{name}": label for name, label in named.items()}, module.config)


def _from_ldm_vae(named: Labels, module: nn.Module) -> Labels:
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    return convert_ldm_vae_checkpoint({f"first_stage_model.{name}": label for name, label in named.items()}, module.config)


def _from_open_clip(named: Labels, module: nn.Module) -> Labels:
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

    return convert_open_clip_checkpoint(module, {f"cond_stage_model.{name}": label for name, label in named.items()})


def _from_diffusers(named: Labels, module: nn.Module) -> Labels:
    """The names as they are, but for attention blocks that older diffusers called `query`, `key`, `value`."""
    labels = dict(named)
    if hasattr(module, "_fix_state_dict_keys_on_load"):
        module._fix_state_dict_keys_on_load(labels)
    return labels


def _spelled(name: str, module: nn.Module) -> str:
    """transformers 5 drops `text_model.` from CLIPTextModel's names and keeps it in CLIPTextModelWithProjection's."""
    if hasattr(module, "embeddings"):
        return name.removeprefix("text_model.")
    if hasattr(module, "text_model") and not name.startswith(("text_model.", "text_projection.")):
        return f"text_model.{name}"
    return name
