"""The families of models: each is one declaration, `FAMILY`, found in the modules of this package, or registered from anywhere."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from functools import cache

from workbench.families.blocks import Block, Location, Stacks
from workbench.families.correspondence import Table
from workbench.families.declaration import GENERIC, Encoder, Evidence, Family, Kohya, ModelSpec, Names, Pictures
from workbench.families.tracing import Traced

__all__ = [
    "GENERIC", "Block", "Encoder", "Evidence", "Family", "Kohya", "Location", "ModelSpec", "Names", "Pictures", "Stacks", "Table",
    "Traced", "named_in", "register", "registry", "tell",
]  # fmt: skip

_registered: dict[str, Family] = {}


def register(family: Family) -> Family:
    """Make a family known in this process; one of the same name is replaced. Returns it."""
    _registered[family.name] = family
    return family


def registry() -> dict[str, Family]:
    """Every family by name."""
    return _own() | _registered


def tell(names: Iterable[str]) -> tuple[Family, dict[str, str]]:
    """The family that a checkpoint's tensors are told to be of by their names, without the denoiser's prefix.

    Also the name that tells each, where they are several: then the family is `GENERIC`.
    """
    asked = Names(names)
    found = {family.name: name for family in registry().values() if (name := family.told(asked))}
    if len(found) == 1:
        return registry()[next(iter(found))], {}
    return GENERIC, found


def named_in(metadata: Mapping[str, str]) -> Family | None:
    """The family that a LoRA's header names, as kohya's tools and ModelSpec write it. Models are not told by it: merges carry old ones."""
    version, architecture = metadata.get("ss_base_model_version"), metadata.get("modelspec.architecture", "").partition("/")[0]
    for family in registry().values():
        specifications = [family.specification(names, prediction) for names in ((), ("guidance",)) for prediction in ("epsilon", "v")]
        if (family.kohya and version == family.kohya.version) or any(one and one.id == architecture for one in specifications):
            return family
    return None


@cache
def _own() -> dict[str, Family]:
    found = (getattr(importlib.import_module(f"{__name__}.{module.name}"), "FAMILY", None) for module in pkgutil.iter_modules(__path__))
    return {family.name: family for family in found if family is not None}
