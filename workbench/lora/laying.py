"""`laid`: a LoRA in another layout, in memory; `apart`: a model in the layout that LoRAs of it have. Views are in `checkpoint`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.names.naming import Named
from workbench.checkpoint.views.in_memory import InMemory
from workbench.checkpoint.views.layouts import spelled
from workbench.checkpoint.views.low_rank import Factors, LowRank
from workbench.checkpoint.views.view import Composite, View
from workbench.families.clip_names import TEXT_MODEL
from workbench.families.correspondence import DIFFUSERS, ORIGINAL

if TYPE_CHECKING:
    import torch

_ENDS = {"up": ".lora_up.weight", "down": ".lora_down.weight", "mid": ".lora_mid.weight"}


def apart(model: Checkpoint) -> Checkpoint:
    """The model with transformers' names and tensors in place of OpenCLIP's, whose queries, keys and values are one; else itself.

    The prefixes stay. All that trains or loads LoRAs knows these modules alone.
    """
    structure = model.structure
    encoders = [part for part, layout in structure.layouts.items() if part.startswith("text_encoder") and layout == ORIGINAL]
    prefixes = {part: (structure.prefix(part) or "").removesuffix(TEXT_MODEL) + TEXT_MODEL for part in encoders}
    return spelled(model, Named(dict.fromkeys(encoders, DIFFUSERS), prefixes)) if encoders else model


def laid(lora: LowRank, view: Checkpoint) -> LowRank:
    """The LoRA of whose changes `view` is a view; itself where it is no other.

    What is cut keeps the directions that it has, what is joined of several has the directions of each, and one lower factor that they
    share once. What comes to nothing is left out. Exact.
    """
    if isinstance(view, LowRank):
        return view
    if not isinstance(view, View):
        return lora
    lora = view.source if isinstance(view.source, LowRank) else lora
    tensors: dict[str, torch.Tensor] = {}
    for key, entry in view.entries.items():
        module, _, end = key.rpartition(".")
        held = lora.entries[entry] if isinstance(entry, str) else None
        if isinstance(entry, Composite) and (factors := _factors(lora, entry)) is not None:
            up, down = factors
            if len(down):
                tensors |= {module + _ENDS["up"]: up, module + _ENDS["down"]: down, f"{module}.alpha": _number(len(down))}
        elif not isinstance(held, Factors):
            tensors[f"{module}.diff{'_b' if end == 'bias' else ''}"] = view.read(key)
        else:
            tensors |= {module + _ENDS[role]: lora.holder.read(name) for role in _ENDS if (name := getattr(held, role)) is not None}
            tensors[f"{module}.alpha"] = _number(held.scale * held.rank)
    return LowRank(InMemory(tensors, lora.name, lora.metadata), lora.report, view)


def _factors(lora: LowRank, entry: Composite) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Of a change that is composed of low-rank ones, matrices whose product it is, in float32; None where one is whole."""
    import torch

    if entry.transposed:
        found = lora.factors(entry.pieces[0].key)  # type: ignore[arg-type]
        return found and (found[1].T.contiguous(), found[0].T.contiguous())
    rows, begin = entry.info.shape[0], 0
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []  # up, with zeros where it changes nothing, and down
    for piece in entry.pieces:
        size = (piece.stop - piece.start) * rows // entry.info.numel
        if piece.key is not None:
            found = lora.factors(piece.key)
            if found is None:
                return None
            up, down = found
            first = piece.start * len(up) // lora.info(piece.key).numel
            wide = next((wide for wide, known in pairs if torch.equal(known, down)), None)
            if wide is None:
                wide = up.new_zeros(rows, len(down))
                pairs.append((wide, down))
            wide[begin : begin + size] += up[first : first + size]
        begin += size
    up, down = torch.cat([up for up, _ in pairs], 1), torch.cat([down for _, down in pairs])
    there = up.any(0)
    return up[:, there], down[there]


def _number(value: float) -> torch.Tensor:
    import torch

    return torch.tensor(float(value))
