"""Which tensors of a file are no live weights: marks and indices, buffers of the noise schedule, and what training left behind."""

from __future__ import annotations

import re
from functools import lru_cache

_START = r"(?:^|\.)"
_MARKS = r"v_pred|ztsnr|scaled_fp8|edm_vpred\.sigma_(?:min|max)|position_ids"
# of LDM's DDPM and its DDIM sampler, of k-diffusion's and generative-models' denoisers, of Playground and of unCLIP's noise augmentor
_BUFFERS = (
    r"betas|alphas_cumprod\w*|sqrt_\w+|log_one_minus_\w+|posterior_\w+|ddim_\w+|lvlb_weights|logvar|scale_factor|(?:log_)?sigmas"
    r"|edm_(?:mean|std)|data_(?:mean|std)"
)
_CARRIED = re.compile(rf"{_START}(?:{_MARKS}|{_BUFFERS})$")
_POSITIONS = re.compile(rf"{_START}position_ids$")
_LEFTOVERS = {
    "EMA copies of weights": re.compile(rf"{_START}(?:model_ema|net_ema)\.|{_START}(?:decay|num_updates)$"),
    "parts of a training loss": re.compile(r"^(?:first_stage_model\.|vae\.)?loss\."),
}


def is_marker(key: str) -> bool:
    """Whether a tensor is a mark, an index, or a buffer of the noise schedule (`v_pred`, `position_ids`, `alphas_cumprod`, ...).

    It is carried over in its own dtype, and never averaged.
    """
    return _CARRIED.search(key) is not None and leftover(key) is None


def is_positions(key: str) -> bool:
    """Whether a tensor holds the numbers of a text encoder's positions: 0, 1, 2 and so on."""
    return _POSITIONS.search(key) is not None


@lru_cache(1 << 16)  # many models have the same names
def leftover(key: str) -> str | None:
    """What a tensor is that training left in the file and that no picture is drawn with; None for all others."""
    return next((what for what, pattern in _LEFTOVERS.items() if pattern.search(key)), None)
