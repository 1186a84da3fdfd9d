"""The samplers by the names people know: each a diffusers scheduler and its options. Drawing is in `pipeline`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from workbench.errors import RenderError

Samplers = Mapping[str, tuple[str, dict[str, Any]]]  # name -> diffusers class, options

SAMPLERS: Samplers = {
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "use_karras_sigmas": False}),
    "Euler": ("EulerDiscreteScheduler", {"use_karras_sigmas": False}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {"use_karras_sigmas": False}),
    "DDIM": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),  # latents are no pixels in [-1, 1]
}
FLOW_SAMPLERS: Samplers = {"Euler": ("FlowMatchEulerDiscreteScheduler", {})}

_ZERO_SNR = "rescale_betas_zero_snr"


def samplers_for(scheduler: Any) -> Samplers:
    """Those that walk the noise schedule of a pipeline's own scheduler: of betas, of a flow, or, of any other kind, none."""
    if type(scheduler).__name__ == FLOW_SAMPLERS["Euler"][0]:
        return FLOW_SAMPLERS
    return SAMPLERS if "beta_schedule" in scheduler.config and not scheduler.config.get("use_flow_sigmas") else {}


def check_sampler(name: str | None, known: Samplers) -> None:
    """Raises RenderError that lists the samplers when there is none of this name."""
    if name is not None and name not in known:
        told = f"one of {', '.join(map(repr, known))}, or " if known else ""
        raise RenderError(f"sampler must be {told}None for the model's own; got {name!r}")


def make_sampler(name: str | None, own: Any, changes: Mapping[str, Any]) -> Any:
    """A fresh diffusers scheduler on the noise schedule of a pipeline's `own`; without a name, one like it.

    `changes` are what a model's markers say (see `schedule`): a scheduler that cannot start from pure noise, such as PNDM, gives way to
    Euler, and a model of EDM's noise levels has Euler alone. Raises RenderError for a name that is not to be had.
    """
    import diffusers

    if "sigma_data" in changes:
        check_sampler(name, {"Euler": ("EDMEulerScheduler", {})})
        return diffusers.EDMEulerScheduler(**changes)
    known = samplers_for(own)
    check_sampler(name, known)
    if name is None:
        able = _ZERO_SNR not in changes or _ZERO_SNR in inspect.signature(type(own).__init__).parameters
        kind, options = (type(own).__name__, {}) if able else known["Euler"]
    else:
        kind, options = known[name]
    return getattr(diffusers, kind).from_config(own.config, **options, **changes)
