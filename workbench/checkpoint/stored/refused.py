"""Formats that are told by name and not read, with what to use instead. Nothing is calculated here."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.stored.scales import few_bits
from workbench.errors import CheckpointError

_NEXT = "use an fp16 or bf16 version of this model, or a GGUF"


@dataclass(frozen=True)
class RefusedFormat:
    """A format, and how the names of tensors end that it has beside a weight of few bits; the surest first."""

    name: str
    ends: tuple[str, ...]


REFUSED = (
    RefusedFormat("SVDQuant (nunchaku)", (".wscales", ".smooth_factor", ".smooth", ".wcscales")),
    RefusedFormat("nvfp4 that is not marked as ComfyUI's", (".weight_scale_2",)),
    RefusedFormat("fp8 with a scale for each block", (".weight_scale_inv",)),
    RefusedFormat("4 bits of GPTQ or AWQ", (".qzeros", ".scales", ".qweight")),
    RefusedFormat("packed bits of quanto", ("._shift",)),
    RefusedFormat("SDNQ", (".scale", ".zero_point")),
    RefusedFormat("integers with a scale that nothing explains", (".weight_scale", ".scale_weight")),
)


def refuse(model: Checkpoint, read: Collection[str]) -> None:
    """Raise CheckpointError for a format that is not read; what belongs to one that is, is in `read`."""
    for one in REFUSED:
        for key in (key for key in model if key.endswith(one.ends) and key not in read):
            module = key[: -len(next(end for end in one.ends if key.endswith(end)))]
            codes = (f"{module}.{name}" for name in ("weight", "qweight", "_data", "_data._data"))
            if any(name in model and name not in read and few_bits(model.info(name)) for name in codes):
                raise CheckpointError(f"{model.path or model.name}: {key!r} belongs to weights in {one.name}, which are not read; {_NEXT}")
