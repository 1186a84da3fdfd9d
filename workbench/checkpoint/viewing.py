"""`in_layout` and `like`: a checkpoint with its tensors named, cut and joined as another layout has them. Nothing is read here."""

from __future__ import annotations

from collections.abc import Mapping

from workbench.checkpoint.architecture import Architecture
from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.layouts import LAYOUTS, After, Layout, Naming, naming
from workbench.checkpoint.view import Incomplete, View
from workbench.checkpoint.weaving import weave
from workbench.errors import CheckpointError, InputError

_SHOWN = 3  # tensors that a message names


def in_layout(checkpoint: Checkpoint, layout: Layout) -> Checkpoint:
    """The same model with the tensors and names of another layout, lazily; exported, it is a file in that layout.

    `"diffusers"` is that of pipeline folders (`unet.conv_in.weight`; of a model that is one component alone, that of the component's own
    folder), `"LDM"` that of single files of Stable Diffusion, `"BFL"` Flux's own, `"ComfyUI"` that of the single files of Flux with
    all components. What is several tensors in the other layout (the fused queries, keys and values of Flux and OpenCLIP) is cut
    along dimension 0, or joined; numbers stay as they are, bit for bit. What has no other name keeps its own. Of a merge whose method
    needs whole tensors, one that is cut is calculated once for each piece.

    Raises CheckpointError for a layout that this architecture does not have, and for tensors that cannot be joined since one is
    missing, or of another shape; InputError for what is no checkpoint.
    """
    if not isinstance(checkpoint, Checkpoint):
        raise InputError(f"in_layout takes a checkpoint (see workbench.open), got {checkpoint!r}")
    structure = checkpoint.structure
    if layout not in (allowed := LAYOUTS[structure.architecture]):
        told = f"{checkpoint.name} is {structure.architecture.value}, which has no layout {layout!r}"
        raise CheckpointError(f"{told}; choose {' or '.join(map(repr, allowed))}")
    if set(structure.components) <= {"other"}:
        told = f"its names ({next(iter(checkpoint), 'none')!r}, ...) are of no known layout"
        raise CheckpointError(f"{checkpoint.name}: {told}; in_layout takes models of image pipelines")
    found = _viewed(checkpoint, naming(structure, layout), layout)
    if problems := [one.why for one in incomplete(found).values()]:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise CheckpointError(f"{checkpoint.name}, in layout {layout!r}: {'; '.join(problems[:_SHOWN])}{more}; get the whole model")
    return found


def like(model: Checkpoint, first: Checkpoint) -> Checkpoint:
    """The model as it would be written in the first's layout, under its prefixes; itself where these are its own.

    Tensors of components that the first lacks keep their names. What cannot be joined or cut is left out, and told by `incomplete`;
    of changes, what is missing is zero. A model of another architecture stays as it is.
    """
    architectures = {model.structure.architecture, first.structure.architecture} - {Architecture.GENERIC}
    return model if model is first or len(architectures) > 1 else _viewed(model, After(first.structure), None)


def alike(models: Mapping[str, Checkpoint]) -> dict[str, Checkpoint]:
    """Every model as it would be written in the first's layout, so that equal names mean the same tensor."""
    first = next(iter(models.values()))
    return {name: like(model, first) for name, model in models.items()}


def incomplete(model: Checkpoint) -> Mapping[str, Incomplete]:
    """What could not be had when a model was viewed in another's layout, by the name it would have."""
    return model.incomplete if isinstance(model, View) else {}


def _viewed(source: Checkpoint, target: Naming, layout: Layout | None) -> Checkpoint:
    where, lost = weave(source, target)
    if not lost and all(name == entry for name, entry in where.items()):  # every tensor of the source is in `where`, or in `lost`
        return source
    return View(source, where, lost, layout)
