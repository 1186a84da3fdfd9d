"""Whether and how a checkpoint fits a pipeline, from names and shapes alone; reading is in `pipeline`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workbench.checkpoint.base import Checkpoint
from workbench.errors import RenderError
from workbench.families import GENERIC
from workbench.render.keymap import Origin, origins
from workbench.render.kinds import Kind, has_guidance

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import nn

Plan = dict[str, Origin]  # name in a module -> where it comes from
Shapes = Mapping[str, tuple[int, ...]]

_GUIDANCE = "time_text_embed.guidance_embedder."


class Fitting:
    """Plans how checkpoints go into one pipeline; a plan is made once per set of names and shapes."""

    def __init__(self, pipeline: DiffusionPipeline, kind: Kind) -> None:
        self._pipeline = pipeline
        self._kind = kind
        self._plans: dict[object, Plan] = {}

    def plans(self, checkpoint: Checkpoint) -> dict[str, Plan]:
        """Component -> plan, for every component of the pipeline that the checkpoint has.

        Raises RenderError for another architecture, and for a missing, extra or misshapen tensor.
        """
        check_given(checkpoint)
        self._check_architecture(checkpoint)
        if parts := [part for part in self._kind.weighted if part in checkpoint.components]:
            return {part: self.plan(checkpoint, part) for part in parts}
        held = ", ".join(checkpoint.components) or "no tensors"
        raise RenderError(f"{checkpoint.name!r} holds none of {', '.join(self._kind.weighted)}, only {held}: nothing to draw with")

    def plan(self, checkpoint: Checkpoint, part: str) -> Plan:
        """Where each tensor of one component comes from."""
        structure = checkpoint.structure
        names = tuple((key, checkpoint.info(key).shape) for key in checkpoint if structure.component(key) == part)
        if (part, names) not in self._plans:
            module = getattr(self._pipeline, part)
            wanted = _shapes(module)
            if part == "transformer":
                wanted = _with_guidance(wanted) if has_guidance(checkpoint) else _without_guidance(wanted)
            found = origins(checkpoint, part, module)
            _check_tensors(checkpoint.name, part, found, wanted, whole=part == self._kind.denoiser)
            self._plans[part, names] = {name: found[name] for name in wanted}
        return self._plans[part, names]

    def _check_architecture(self, checkpoint: Checkpoint) -> None:
        family = checkpoint.structure.family
        if family is GENERIC or family.pipeline == self._kind.pipeline:
            return
        raise RenderError(
            f"{checkpoint.name!r} is {checkpoint.architecture}; this renderer's pipeline draws {' or '.join(self._kind.architectures)}: "
            "make a Renderer from a config folder of that architecture"
        )


def check_given(checkpoint: object) -> None:
    """Raises RenderError for what is no checkpoint."""
    if not isinstance(checkpoint, Checkpoint):
        kind = type(checkpoint).__name__
        raise RenderError(f"a renderer draws checkpoints, got {kind}: open a file with workbench.open(path)")


def prediction(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint's markers (`v_pred`, `ztsnr`) change about the noise schedule."""
    structure = checkpoint.structure
    changes: dict[str, Any] = {"prediction_type": "v_prediction"} if structure.prediction == "v" else {}
    if any(structure.name(key).rest == "ztsnr" for key in checkpoint):
        changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return changes


def _shapes(module: nn.Module) -> Shapes:
    """The tensors that a module needs; one that it ties to another (T5's second name for its embedding) comes with that."""
    tied = getattr(module, "_tied_weights_keys", None) or ()
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items() if name not in tied}


def _without_guidance(wanted: Shapes) -> Shapes:
    return {name: shape for name, shape in wanted.items() if not name.startswith(_GUIDANCE)}


def _with_guidance(wanted: Shapes) -> Shapes:
    """A guidance embedder has the shapes of the timestep's."""
    head = "time_text_embed.timestep_embedder."
    return {**wanted, **{_GUIDANCE + name.removeprefix(head): shape for name, shape in wanted.items() if name.startswith(head)}}


def _check_tensors(name: str, part: str, found: Plan, wanted: Shapes, *, whole: bool) -> None:
    """Raises RenderError that names the checkpoint, the first tensor that does not fit, and both shapes.

    In a `whole` part nothing may be left over.
    """
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
    if extra and whole:
        raise RenderError(
            f"{name!r}: the pipeline's {part} has no place for {len(extra)} of its tensors, "
            f"first {extra[0]}: a larger or other model; make a Renderer from its own config folder"
        )
