"""`LowRank`: a LoRA, as a checkpoint of changes under its model's own names, expanded when read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from workbench import families
from workbench.checkpoint.base import Checkpoint, hashed
from workbench.checkpoint.names.lora_names import pairs
from workbench.checkpoint.names.structure import Structure, structure_of
from workbench.errors import CheckpointError
from workbench.tensors import Part, Rows, Scope, Space, TensorInfo, elements
from workbench.untrusted import MOST_LEVELS, Refused, parse_json
from workbench.wording import listed

if TYPE_CHECKING:
    import torch

    from workbench.figures.results import Result

_SETTINGS = "lora_adapter_metadata"
_ALPHA = ".lora_alpha"


@dataclass(frozen=True)
class Factors:
    """What a change is made of: scale * up @ down, with `mid` between them where there is one. Names in the LoRA's file."""

    up: str
    down: str
    mid: str | None
    scale: float
    rank: int
    info: TensorInfo


@final
class LowRank(Checkpoint):
    """The changes that a LoRA makes, tensor by tensor: low-rank ones, and whole ones (`diff`) as they are.

    `holder` has the factors; `path` is where it lies, if anywhere. Reading multiplies, in float32. `report` tells how it was
    made, and shows in a cell; `model` is whose tensors it changes, where that is known.
    Raises CheckpointError for factors that do not fit together, and for what is no LoRA.
    """

    space = Space.DELTA
    scope = Scope.ROW

    def __init__(self, holder: Checkpoint, report: Result | None = None, model: Checkpoint | None = None) -> None:
        self.holder, self.report, self._model = holder, report, model
        self.name, self.path, self.metadata = holder.name, holder.path, holder.metadata
        where = holder.path or holder.name
        alphas = _adapter_alphas(holder.metadata, where)
        self._entries: dict[str, Factors | str] = {}
        unscaled = []
        for name, roles in pairs(holder, where).items():
            if "diff" in roles:
                self._entries[name] = roles["diff"]
                continue
            alpha = _alpha(holder, where, roles["alpha"]) if "alpha" in roles else alphas.get(name.partition(".")[0])
            if alpha is None:
                unscaled.append(roles["up"])
            self._entries[name] = _factors(holder, where, name, roles, alpha)
        if unscaled and len(unscaled) < len(self._entries):
            self.notes = (f"{len(unscaled)} of {len(self._entries)} pairs have no alpha ({listed(unscaled)}) and are taken as they are",)

    @property
    def entries(self) -> Mapping[str, Factors | str]:
        return self._entries

    @cached_property
    def structure(self) -> Structure:
        """Architecture, components, layouts, and the block of each key; what few names do not tell, its model does, or its header."""
        return structure_of(
            self,
            lambda key: len(self.info(key).shape),
            self.metadata,
            whole=self._model.structure if self._model else None,
            hint=families.named_in(self.metadata),
        )

    def info(self, key: str) -> TensorInfo:
        entry = self.entry(key)
        return self.holder.info(entry) if isinstance(entry, str) else entry.info

    def read(self, key: str, part: Part = None) -> torch.Tensor:
        entry = self.entry(key)
        if isinstance(entry, str):
            return self.holder.read(entry, part)
        shape = entry.info.shape
        first, last = elements(part, shape)
        row = math.prod(shape[1:])
        rows = Rows(first // row, -(-last // row))  # those that the part lies in
        change = self._multiplied(entry, rows)
        if part is None or isinstance(part, Rows):
            return change
        return change.reshape(-1)[first - rows.start * row : last - rows.start * row].clone()

    def factors(self, key: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Of a low-rank change, matrices whose product it is, in float32: rows x rank (the scale in it), rank x others; else None."""
        entry = self.entry(key)
        if isinstance(entry, str) or entry.mid is not None:
            return None
        up, down = (self.holder.read(name).float().flatten(1) for name in (entry.up, entry.down))
        return up * entry.scale, down

    def fingerprint(self, key: str) -> str:
        entry = self.entry(key)
        if isinstance(entry, str):
            return self.holder.fingerprint(entry)
        names = [name for name in (entry.up, entry.down, entry.mid) if name]
        return hashed(entry.scale, *(self.holder.fingerprint(name) for name in names))

    def sources(self) -> tuple[Path, ...]:
        return self.holder.sources()

    def replaced(self) -> tuple[Path, ...]:
        return self.holder.replaced()

    def __repr__(self) -> str:
        return super().__repr__() if self.report is None else f"<{type(self).__name__} {self.name!r}: {self.report.headline}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any] | None:
        if self.report is None:
            return None
        return self.report._repr_mimebundle_(include, exclude) | {"text/plain": repr(self)}

    def _multiplied(self, entry: Factors, rows: Rows) -> torch.Tensor:
        up = self.holder.read(entry.up, rows).float().flatten(1)
        down = self.holder.read(entry.down).float()
        if entry.mid is not None:  # rank x rank x height x width between two 1x1 convolutions
            down = self.holder.read(entry.mid).float().permute(0, 2, 3, 1) @ down.flatten(1)
            down = down.permute(0, 3, 1, 2)
        return (up @ down.flatten(1) * entry.scale).reshape(len(up), *entry.info.shape[1:])


def _factors(holder: Checkpoint, where: object, name: str, roles: Mapping[str, str], alpha: float | None) -> Factors:
    """The factors of one change. Raises CheckpointError when their shapes do not multiply."""
    up, down = (holder.info(roles[role]).shape for role in ("up", "down"))
    mid = holder.info(roles["mid"]).shape if "mid" in roles else None
    rank = down[0] if down else 0
    fits = len(up) == len(down) in (2, 4) and up[1] == rank > 0 and set(up[2:]) <= {1}
    if not fits or (mid is not None and (len(mid) != 4 or mid[:2] != (rank, rank) or set(down[2:]) > {1})):
        told = f"{roles['up']!r} of shape {up} and {roles['down']!r} of shape {down}" + (f" with a middle of shape {mid}" if mid else "")
        raise CheckpointError(f"{where}: {told} do not multiply to a change of {name!r}; the file is damaged, or of another kind")
    shape = (up[0], down[1], *(mid[2:] if mid else down[2:]))
    scale = 1.0 if alpha is None else alpha / rank
    return Factors(roles["up"], roles["down"], roles.get("mid"), scale, rank, TensorInfo(shape, "F32"))


def _alpha(holder: Checkpoint, where: object, key: str) -> float:
    """The number that a pair is scaled by. Raises CheckpointError for what is none."""
    if (info := holder.info(key)).numel != 1:
        raise CheckpointError(f"{where}: {key!r} has shape {list(info.shape)}; an alpha is one number; the file is damaged, fetch it again")
    return _finite(where, key, holder.read(key).item())


def _adapter_alphas(metadata: Mapping[str, str], where: object) -> dict[str, float]:
    """Component -> alpha, where diffusers wrote PEFT's settings into the header. Raises CheckpointError where they are damaged."""
    try:
        found = parse_json(metadata.get(_SETTINGS, "{}"), levels=MOST_LEVELS)
    except Refused as error:
        raise CheckpointError(f"{where}: its header's {_SETTINGS} is not JSON that can be read: {error}; fetch the file again") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{where}: its header's {_SETTINGS} is a {type(found).__name__}, not an object; fetch the file again")
    alphas = {key: value for key, value in found.items() if key.endswith(_ALPHA) and isinstance(value, int | float)}
    return {key.removesuffix(_ALPHA): _finite(where, key, value) for key, value in alphas.items()}


def _finite(where: object, key: str, value: float) -> float:
    try:
        if math.isfinite(number := float(value)):
            return number
    except (OverflowError, TypeError):  # larger than any float, or complex
        pass
    raise CheckpointError(f"{where}: {key!r} is {str(value)[:20]}; an alpha is a finite number; the file is damaged, fetch it again")
