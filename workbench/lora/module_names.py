"""What modules are called in the LoRA files of each format, and which of them its readers do not have. No tensor is read here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from workbench.checkpoint.names.components import DENOISER, takes_latents
from workbench.checkpoint.names.naming import Named
from workbench.checkpoint.names.structure import Structure
from workbench.errors import ExportError
from workbench.families import GENERIC, Encoder, Kohya
from workbench.families.clip_names import BESIDE, TEXT_MODEL
from workbench.families.correspondence import DIFFUSERS, ORIGINAL, ComponentLayout

Format = Literal["kohya", "peft", "comfy", "original"]

_KOHYA = Kohya("", {DENOISER: "lora_unet_", "text_encoder": "lora_te_", "text_encoder_2": "lora_te2_"})  # of a family that says nothing
_COMFY = "diffusion_model."


def denoiser_layout(structure: Structure, format: Format) -> ComponentLayout:
    """The layout in which a format names a denoiser's modules; kohya's of a family that is not known are in the one they are in."""
    if format != "kohya":
        return DIFFUSERS if format == "peft" else ORIGINAL
    if structure.family.kohya:
        return structure.family.kohya.layout
    return DIFFUSERS if structure.layouts.get(DENOISER) == DIFFUSERS else ORIGINAL


def naming(structure: Structure, format: Format) -> Named:
    """How the tensors have to be cut and joined before `module_name` can name them: text encoders always as transformers has them.

    U-Nets stay as they are, since their layouts differ in names alone.
    """
    parts = {component for component, _ in structure.by_bare}
    layouts = {part: DIFFUSERS for part in parts if part.startswith("text_encoder")}
    if structure.denoiser != "unet" and DENOISER in parts:
        layouts[DENOISER] = denoiser_layout(structure, format)
    prefixes = {part: prefix for part in parts if (prefix := structure.prefix(part)) is not None}
    return Named(layouts, prefixes)


def module_name(structure: Structure, key: str, format: Format, path: object) -> str:
    """The name of a tensor's module, as the format writes it. Raises ExportError, which names `path`, for a part that it cannot name."""
    component, rest = structure.bare(key)
    if component == DENOISER and structure.denoiser == "unet" and (one := structure.correspondence(component, rest)):
        rest = one.original if denoiser_layout(structure, format) == ORIGINAL else one.names[0]
    module = rest.rpartition(".")[0]
    heads = _heads(structure, format)
    if component not in heads:
        raise ExportError(f"{path}: {key!r} belongs to no part of a pipeline that LoRAs in {format!r} names change ({', '.join(heads)})")
    if component.startswith("text_encoder") and not rest.startswith(BESIDE):
        encoder = structure.family.text_encoders.get(component)
        module = f"{TEXT_MODEL}{module}" if encoder is None or encoder.clip else module
    return heads[component] + (module.replace(".", "_") if format == "kohya" else module)


def unread(structure: Structure, key: str, format: Format) -> bool:
    """Whether the programs that a format is for have no such module, or cannot be told of it.

    kohya's tools make LoRAs of the modules in blocks, and of text encoders' layers (sd-scripts, networks/lora.py and its likes:
    `target_replace_module`); LyCORIS' and OneTrainer's in the same names also of text projections, which ComfyUI and diffusers load.
    Of a model that is not known all counts as read.
    """
    component, rest = structure.bare(key)
    if component.startswith("text_encoder"):
        encoder = structure.family.text_encoders.get(component, Encoder(""))
        if format == "original":
            return encoder.layout == ORIGINAL  # OpenCLIP's queries, keys and values are one parameter of a module, which has no name here
        if format == "comfy":
            return False
        return rest.startswith(encoder.unused) or (format == "kohya" and not rest.startswith(("encoder.", "text_projection.")))
    if component != DENOISER or format != "kohya" or structure.family is GENERIC:
        return False
    beside = structure.family.kohya.beside if structure.family.kohya else ()
    return structure.block(key) is None or takes_latents(structure.name(key)) or rest.startswith(beside)


def _heads(structure: Structure, format: Format) -> Mapping[str, str]:
    """What stands before the names of each component's modules."""
    family = structure.family
    if format == "kohya":
        return (family.kohya or _KOHYA).heads
    encoders = family.text_encoders
    parts = dict.fromkeys(("text_encoder", "text_encoder_2", *encoders))
    if format == "peft":
        return {DENOISER: f"{structure.denoiser}."} | {part: f"{part}." for part in parts}
    prefixes = {part: encoder.prefix.removesuffix(TEXT_MODEL) for part, encoder in encoders.items()}
    if format == "original":
        return {DENOISER: "" if family.bare_alone else family.prefix} | prefixes
    return {DENOISER: _COMFY} | prefixes | {part: encoder.comfy for part, encoder in encoders.items() if encoder.comfy}
