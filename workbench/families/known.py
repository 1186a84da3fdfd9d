"""The families that are known, by name, and which of them a checkpoint's names or a LoRA's header tell."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

from workbench.families.declaration import GENERIC, Family, Names
from workbench.plugins import Registry

_known: Registry[Family] = Registry("family", home="workbench.families", group="workbench.families")


def register(family: Family) -> Family:
    """Make a family known in this process, under its name; one that the same module gave that name is replaced. Returns it.

    Raises WorkbenchError for the name of a family that comes with Workbench.
    """
    _known.add(family.name, sys._getframe(1).f_globals.get("__name__", "__main__"), family)
    return family


def registry() -> Mapping[str, Family]:
    """Every family by name: Workbench's own, then those from elsewhere."""
    return _known


def so_far() -> list[Family]:
    """Those by which names are told at first: all but what other packages bring, unless it was looked for already."""
    return _known.so_far()


def tell(names: Iterable[str]) -> tuple[Family, dict[str, str]]:
    """The family that a checkpoint's tensors are told to be of by their names, without the denoiser's prefix.

    Also the name that tells each, where they are several: then the family is `GENERIC`.
    """
    asked = Names(names)
    # what other packages bring is looked for when nothing that is known tells
    found = _telling(so_far(), asked) or _telling(registry().values(), asked)
    return found[0][0] if len(found) == 1 else GENERIC, {family.name: name for family, name in found} if len(found) > 1 else {}


def _telling(families: Iterable[Family], names: Names) -> list[tuple[Family, str]]:
    """The families that are told, each with the name that tells it."""
    return [(family, name) for family in families if (name := family.told(names))]


def named_in(metadata: Mapping[str, str]) -> Family | None:
    """The family that a LoRA's header names, as kohya's tools and ModelSpec write it. Models are not told by it: merges carry old ones."""
    version, architecture = metadata.get("ss_base_model_version"), metadata.get("modelspec.architecture", "").partition("/")[0]
    for family in registry().values():
        specifications = [family.specification(names, prediction) for names in ((), ("guidance",)) for prediction in ("epsilon", "v")]
        if (version and family.kohya and version in (family.kohya.version, *family.kohya.also)) or any(
            one and one.id == architecture for one in specifications
        ):
            return family
    return None
