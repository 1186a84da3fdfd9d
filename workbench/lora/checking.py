"""What is asked of LoRAs before anything is made of them: that they are LoRAs, of one model, without NaN. Messages name who asks."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.checkpoint.views.low_rank import LowRank
from workbench.errors import InputError, MergeError
from workbench.families import GENERIC
from workbench.wording import listed


def check_lora(lora: object, who: str) -> None:
    """Raise InputError for what is no LoRA."""
    if not isinstance(lora, LowRank):
        raise InputError(f"{who} takes LoRAs (see workbench.open and workbench.lora.extract), got {lora!r}")


def check_by_itself(lora: LowRank, who: str) -> None:
    """Raise InputError for a LoRA whose changes depend on the model that it is put on, and so are none by themselves."""
    if lora.relative:
        key = lora.relative[0]
        told = f"{who}: {lora.name}: {key!r} is changed by a {lora.kind(key)}, which depends on the model that it is put on"
        raise InputError(f"{told}; take what it changes there: wb.lora.extract(wb.lora.apply(base, [(lora, 1.0)]), base, rank=...)")


def check_architectures(loras: Sequence[LowRank], who: str) -> None:
    """Raise MergeError for LoRAs whose names tell of different models."""
    known = {lora.architecture: lora for lora in loras if lora.structure.family is not GENERIC}
    denoisers = {lora.structure.denoiser: lora for lora in loras if lora.structure.denoiser in lora.components}
    if len(known) == 1 and len(denoisers) > 1:  # names that tell no architecture, and are of another than the one that is known
        known = {f"{lora.architecture}, of a {denoiser}": lora for denoiser, lora in denoisers.items()}
    if len(known) > 1:
        told = ", ".join(f"{lora.name} is {architecture} ({listed(lora)})" for architecture, lora in known.items())
        raise MergeError(f"{who}: {told}; only LoRAs of one architecture can be put together")


def check_finite(lora: LowRank, key: str, who: str) -> None:
    """Raise MergeError for a change that is made of tensors with NaN or infinity."""
    entry = lora.entries[key]
    names = [entry] if isinstance(entry, str) else entry.names
    if not all(lora.holder.read(name).isfinite().all() for name in names):
        raise MergeError(f"{who}: {lora.name}: {key!r} holds NaN or infinity; mend the file, or leave it out")
