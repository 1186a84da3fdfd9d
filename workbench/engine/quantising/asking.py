"""What was asked for of a quantised file, checked. Which tensor it means is in `choosing`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from workbench.engine.quantising.formats import written_format
from workbench.errors import ExportError

Scaled = bool | Literal["row"]

_OPTIONS = ("default", "blocks", "keep")
_SCALED = {
    ("float8_e4m3fn", True): "float8_e4m3fn",
    ("float8_e5m2", True): "float8_e5m2",
    ("float8_e4m3fn", "row"): "float8_e4m3fn_rowwise",
}


@dataclass(frozen=True)
class Quantise:
    """A type, types by block, and patterns of names that stay precise (None is the family's list); or the most bytes of the file,
    within which each tensor that no block's type decides gets one.
    """

    default: str | None = None
    blocks: Mapping[str, str] | None = None
    keep: tuple[str, ...] | None = None
    max_bytes: int | None = None

    @property
    def types(self) -> tuple[str, ...]:
        """Those that are named."""
        return tuple(dict.fromkeys([*([self.default] if self.default else []), *(self.blocks or {}).values()]))

    @property
    def told(self) -> str:
        """What is rounded to, in words."""
        return " and ".join(self.types) or f"{self.max_bytes} bytes"

    def as_data(self) -> dict[str, Any]:
        """What goes into the header: what was asked for, of all that was."""
        said = {"default": self.default, "blocks": dict(self.blocks or {}), "max_bytes": self.max_bytes}
        keep = {} if self.keep is None else {"keep": list(self.keep)}
        return {name: value for name, value in said.items() if value} | keep


def asked_for(path: Path, quantise: object, dtype: object, scaled: object, max_bytes: int | None) -> Quantise | None:
    """What `export`'s arguments ask for; None where nothing is to be quantised. Raises ExportError."""
    if scaled is not False:
        if quantise is not None or max_bytes is not None:
            raise ExportError(
                f"{path}: scaled={scaled!r} is for dtype alone; leave it out, for quantise and max_bytes name types with scales"
            )
        quantise = _scaled(path, str(dtype).removeprefix("torch."), scaled)
    if quantise is None:
        return None if max_bytes is None else Quantise(max_bytes=max_bytes)
    data = {"default": quantise} if isinstance(quantise, str) else quantise
    if not isinstance(data, Mapping) or not data or not set(data) <= set(_OPTIONS):
        raise ExportError(f"{path}: quantise must be a type, or a mapping with some of {', '.join(map(repr, _OPTIONS))}, got {quantise!r}")
    return _checked(path, data, max_bytes)


def _scaled(path: Path, dtype: str, scaled: object) -> str:
    if not isinstance(scaled, bool | str) or (dtype, scaled) not in _SCALED:
        allowed = " or ".join(f"dtype={one!r} with scaled={how!r}" for one, how in _SCALED)
        raise ExportError(f"{path}: scaled={scaled!r} with dtype={dtype!r} is no type of scaled float8; allowed are {allowed}")
    return _SCALED[dtype, scaled]


def _checked(path: Path, data: Mapping[str, Any], max_bytes: int | None) -> Quantise:
    default, blocks, keep = (data.get(name) for name in _OPTIONS)
    if blocks is not None and not (isinstance(blocks, Mapping) and all(isinstance(one, str) for one in blocks)):
        raise ExportError(f"{path}: quantise's 'blocks' must map patterns of blocks to types, got {blocks!r}")
    if keep is not None and (isinstance(keep, str) or not all(isinstance(one, str) for one in keep)):
        raise ExportError(f"{path}: quantise's 'keep' must be a list of patterns of names, got {keep!r}")
    asked = Quantise(default, blocks, None if keep is None else tuple(keep), max_bytes)
    form = written_format(path)
    allowed = f"{', '.join(form.types())}{form.hint}"
    if max_bytes is not None and default is not None:
        raise ExportError(
            f"{path}: max_bytes chooses the types, and quantise names {default!r} for all; leave one out, or name 'blocks' alone"
        )
    if max_bytes is None and not asked.types:
        raise ExportError(f"{path}: quantise names no type; give 'default' or 'blocks' one of {allowed}")
    for kind in asked.types:
        if kind not in form.types():
            raise ExportError(f"{path}: quantise has {kind!r}, which is not written here; allowed are {allowed}")
    return asked
