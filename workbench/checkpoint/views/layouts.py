"""`in_layout`, `spelled` and `like`: a checkpoint's tensors named, cut and joined as another layout has them. Nothing is read here."""

from __future__ import annotations

from collections.abc import Container, Mapping

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.names.components import DENOISER
from workbench.checkpoint.names.naming import After, Layout, Naming, naming
from workbench.checkpoint.names.structure import Structure, structure_of
from workbench.checkpoint.views.conversion import converted
from workbench.checkpoint.views.live import without_twins
from workbench.checkpoint.views.view import Incomplete, View
from workbench.errors import CheckpointError, InputError
from workbench.families import GENERIC, Names
from workbench.families.correspondence import DIFFUSERS, ORIGINAL

_SHOWN = 3  # tensors that a message names


def in_layout(checkpoint: Checkpoint, layout: Layout) -> Checkpoint:
    """The same model with the tensors and names of another layout, lazily; exported, it is a file in that layout.

    `"diffusers"` is that of pipeline folders (`unet.conv_in.weight`; of a model that is one component alone, that of the component's own
    folder), `"original"` that of the files its authors publish; it has names of its own in some families: `"LDM"` that of the single
    files of Stable Diffusion, `"BFL"` Flux's, `"ComfyUI"` that of the single files of Flux with all components. What is several
    tensors in the other layout (fused queries, keys and values) is cut along dimension 0, or joined; numbers stay as they are, bit
    for bit. What has no other name keeps its own. Of a merge whose method needs whole tensors, one that is cut is calculated once for
    each piece.

    Raises CheckpointError for a layout that this architecture does not have, for a model that diffusers cannot convert, and for tensors
    that cannot be joined since one is missing, or of another shape; InputError for what is no checkpoint.
    """
    if not isinstance(checkpoint, Checkpoint):
        raise InputError(f"in_layout takes a checkpoint (see workbench.open), got {checkpoint!r}")
    if isinstance(checkpoint, View) and checkpoint.layout is not None:  # the way back is to what it was
        return checkpoint if checkpoint.layout == layout else in_layout(checkpoint.source, layout)
    structure = checkpoint.structure
    if layout not in (allowed := dict.fromkeys((DIFFUSERS, ORIGINAL, *structure.family.layouts))):
        told = f"{checkpoint.name} is {structure.family.name}, which has no layout {layout!r}"
        raise CheckpointError(f"{told}; choose {' or '.join(map(repr, allowed))}")
    target = naming(structure, layout)
    if why := _why_not(checkpoint, structure, target):
        raise CheckpointError(f"{checkpoint.name}, in layout {layout!r}: {why}")
    if layout == ORIGINAL and all(structure.layouts.get(part, ORIGINAL) == there for part, there in target.layouts.items()):
        return checkpoint
    found = _viewed(without_twins(checkpoint), structure, target, layout)
    return _whole(found, f"{checkpoint.name}, in layout {layout!r}")


def spelled(checkpoint: Checkpoint, target: Naming) -> Checkpoint:
    """The tensors as `target` names, cuts and joins them, lazily; itself where that changes nothing.

    Raises CheckpointError for tensors that cannot be cut or joined so.
    """
    return _whole(_viewed(checkpoint, checkpoint.structure, target, None), checkpoint.name)


def _whole(found: Checkpoint, told: str) -> Checkpoint:
    """What was found, if nothing is missing in it. Raises CheckpointError."""
    if problems := [one.why for one in incomplete(found).values()]:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise CheckpointError(f"{told}: {'; '.join(problems[:_SHOWN])}{more}; get the whole model")
    return found


def _why_not(checkpoint: Checkpoint, structure: Structure, target: Naming) -> str | None:
    """Why a model cannot be put into a layout; None where it can."""
    names = f"its names ({next(iter(checkpoint), 'none')!r}, ...)"
    if structure.conflict:
        return structure.conflict
    if set(structure.components) <= {"other"}:
        return f"{names} are of no known layout; in_layout takes models of image pipelines"
    if structure.denoiser not in structure.components:
        return None
    family, wanted, there = structure.family, target.layout(DENOISER), structure.layouts.get(DENOISER)
    if family is GENERIC or not family.is_model:
        return f"{names} are of no architecture whose layouts are known ({family.name})"
    if wanted == there or (there is None and not family.conversion.costly):
        return None
    if there is None:
        return f"{names} do not tell whether it is in {family.name}'s original layout or in diffusers'"
    rests = [rest for component, rest in structure.by_bare if component == DENOISER]
    variant = next(filter(None, map(Names(rests).find, family.unconvertible)), None)
    if reason := f"diffusers has no converter for a {family.name} with {variant!r}" if variant else family.conversion.reason:
        return f"{reason}; it stays in {there!r}"
    if wanted == ORIGINAL and (unknown := structure.lookup.unknown()):
        return f"{unknown[0]!r} is no name of {family.name} that can be converted"
    if "vae" in structure.components and not family.vae_converts:
        return f"the names of {family.name}'s VAE are not converted; leave it out with the rule {{component: vae, skip: true}}"
    return None


def like(model: Checkpoint, first: Checkpoint) -> Checkpoint:
    """The model as it would be written in the first's layout, under its prefixes; itself where these are its own.

    A tensor whose name the first has keeps it, and so do tensors of components that the first lacks. What cannot be joined or cut is left
    out, and told by `incomplete`; of changes, what is missing is zero. A model of another architecture stays as it is.
    """
    model = model if model is first else model.upon(first)
    if all(key in first for key in model):  # as it mostly is, and then nothing has to be looked at
        return model
    own, other = model.structure, first.structure
    families = {own.family.name, other.family.name} - {GENERIC.name}
    if len(families) > 1 or own.conflict or other.conflict:
        return model
    if other.family is not GENERIC and (own.family is GENERIC or len(model) < len(first)):  # a part: the whole says what it does not
        own = structure_of(model, lambda key: len(model.info(key).shape), model.metadata, other)
    elif other.family is GENERIC and own.family is not GENERIC:
        other = structure_of(first, lambda key: len(first.info(key).shape), first.metadata, own)
    return _viewed(model, own, After(other, own), None, first)


def alike(models: Mapping[str, Checkpoint]) -> dict[str, Checkpoint]:
    """Every model as it would be written in the first's layout, so that equal names mean the same tensor."""
    first = next(iter(models.values()))
    return {name: like(model, first) for name, model in models.items()}


def incomplete(model: Checkpoint) -> Mapping[str, Incomplete]:
    """What could not be had when a model was viewed in another's layout, by the name it would have."""
    return model.incomplete if isinstance(model, View) else {}


def _viewed(source: Checkpoint, structure: Structure, target: Naming, layout: Layout | None, kept: Container[str] = ()) -> Checkpoint:
    where, lost = converted(source, structure, target, kept)
    if not lost and all(name == entry for name, entry in where.items()):  # every tensor of the source is in `where`, or in `lost`
        return source
    return View(source, where, lost, layout, structure)
