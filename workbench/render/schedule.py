"""What a model's markers say of the noise schedule that it was trained on; the schedulers are in `samplers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.checkpoint.base import Checkpoint

Changes = Mapping[str, Any]  # settings of a diffusers scheduler

_EDM = "edm_vpred.sigma_"


def schedule_changes(checkpoint: Checkpoint) -> Changes:
    """What the markers `v_pred`, `ztsnr` and `edm_vpred.*`, or the header, change about a scheduler's settings.

    Zero terminal SNR as ComfyUI and A1111 have it: rescaled betas, and steps that begin at pure noise (Lin et al. 2024,
    arXiv:2305.08891, sections 3.1 and 3.3). EDM as ComfyUI has CosXL's: `sigma_data` 1.
    """
    structure = checkpoint.structure
    markers = {structure.name(key).rest: key for key in checkpoint if structure.name(key).component == "other"}
    changes: dict[str, Any] = {"prediction_type": "v_prediction"} if structure.prediction == "v" else {}
    edm = {name: float(checkpoint.read(markers[_EDM + name])) for name in ("min", "max") if _EDM + name in markers}
    if edm:
        changes |= {"sigma_data": 1.0, **{f"sigma_{name}": value for name, value in edm.items()}}
    if "ztsnr" in markers:
        changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return changes
