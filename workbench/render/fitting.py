"""Whether and how a checkpoint fits a pipeline, from names and shapes alone; reading is in `pipeline`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workbench.checkpoint.architecture import Architecture
from workbench.checkpoint.base import Checkpoint
from workbench.errors import RenderError
from workbench.render.assembly import PIPELINES, WEIGHTED
from workbench.render.keymap import Origin, origins

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

Plan = dict[str, Origin]  # name in a module -> where it comes from


class Fitting:
    """Plans how checkpoints go into one pipeline; a plan is made once per set of names and shapes."""

    def __init__(self, pipeline: StableDiffusionPipeline) -> None:
        self._pipeline = pipeline
        self._plans: dict[object, Plan] = {}

    def plans(self, checkpoint: Checkpoint) -> dict[str, Plan]:
        """Component -> plan, for every component of the pipeline that the checkpoint has.

        Raises RenderError for another architecture, and for a missing, extra or misshapen tensor.
        """
        if not isinstance(checkpoint, Checkpoint):
            kind = type(checkpoint).__name__
            raise RenderError(f"a renderer draws checkpoints, got {kind}: open a file with workbench.open(path)")
        self._check_architecture(checkpoint)
        if parts := [part for part in WEIGHTED if part in checkpoint.components]:
            return {part: self.plan(checkpoint, part) for part in parts}
        held = ", ".join(checkpoint.components) or "no tensors"
        raise RenderError(f"{checkpoint.name!r} holds none of {', '.join(WEIGHTED)}, only {held}: nothing to draw with")

    def plan(self, checkpoint: Checkpoint, part: str) -> Plan:
        """Where each tensor of one component comes from."""
        structure = checkpoint.structure
        names = tuple((key, checkpoint.info(key).shape) for key in checkpoint if structure.component(key) == part)
        if (part, names) not in self._plans:
            module = getattr(self._pipeline, part)
            wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
            found = origins(checkpoint, part, module)
            _check_tensors(checkpoint.name, part, found, wanted)
            self._plans[part, names] = {name: found[name] for name in wanted}
        return self._plans[part, names]

    def _check_architecture(self, checkpoint: Checkpoint) -> None:
        drawn = PIPELINES[type(self._pipeline).__name__]
        if checkpoint.structure.architecture is Architecture.GENERIC or checkpoint.architecture in drawn:
            return
        raise RenderError(
            f"{checkpoint.name!r} is {checkpoint.architecture}; this renderer's pipeline draws {' or '.join(drawn)}: "
            "make a Renderer from a config folder of that architecture"
        )


def prediction(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint's markers (`v_pred`, `ztsnr`) change about the noise schedule."""
    structure = checkpoint.structure
    changes: dict[str, Any] = {"prediction_type": "v_prediction"} if structure.prediction == "v" else {}
    if any(structure.name(key).rest == "ztsnr" for key in checkpoint):
        changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return changes


def _check_tensors(name: str, part: str, found: Plan, wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Raises RenderError that names the checkpoint, the first tensor that does not fit, and both shapes."""
    if missing := [key for key in wanted if key not in found]:
        raise RenderError(
            f"{name!r} lacks {len(missing)} of the {len(wanted)} tensors that the pipeline's {part} needs, "
            f"first {missing[0]} {list(wanted[missing[0]])}: load a whole checkpoint, or merge it with one"
        )
    for key, shape in wanted.items():
        if found[key].shape != shape:
            raise RenderError(
                f"{name!r}: {found[key].key} is {list(found[key].shape)}, but the pipeline's {part} needs "
                f"{list(shape)} for {key}: a model of another size or kind; make a Renderer from its own config folder"
            )
    extra = [origin.key for key, origin in found.items() if key not in wanted]
    if extra and part == "unet":
        raise RenderError(
            f"{name!r}: the pipeline's unet has no place for {len(extra)} of its tensors, "
            f"first {extra[0]}: a larger or other model; make a Renderer from its own config folder"
        )
