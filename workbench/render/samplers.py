"""The samplers by the names people know: each a diffusers scheduler and its options. Drawing is in `pipeline`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.errors import RenderError

DEFAULT_SAMPLER = "DPM++ 2M Karras"

Samplers = Mapping[str, tuple[str, dict[str, Any]]]  # name -> diffusers class, options

SAMPLERS: Samplers = {
    DEFAULT_SAMPLER: ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "DDIM": ("DDIMScheduler", {}),
}
FLOW_SAMPLERS: Samplers = {"Euler": ("FlowMatchEulerDiscreteScheduler", {})}


def check_sampler(name: str, known: Samplers = SAMPLERS) -> None:
    """Raises RenderError that lists the samplers when there is none of this name."""
    if name not in known:
        raise RenderError(f"sampler must be one of {', '.join(map(repr, known))}; got {name!r}")


def make_sampler(name: str, schedule: Mapping[str, Any], known: Samplers = SAMPLERS, **overrides: Any) -> Any:
    """A fresh diffusers scheduler on the noise schedule of a model (`schedule`: a scheduler's config).

    Raises RenderError for an unknown name.
    """
    import diffusers

    check_sampler(name, known)
    kind, options = known[name]
    return getattr(diffusers, kind).from_config(schedule, **options, **overrides)
