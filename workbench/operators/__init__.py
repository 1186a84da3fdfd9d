"""The merge methods, found by discovery: every `@operator` in a module of this package is in the registry by its name."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from workbench.errors import UnknownOperatorError
from workbench.merge.declaration import near
from workbench.merge.decorator import Operator


@cache
def registry() -> dict[str, Operator]:
    """Every operator by name, in the order of module and definition."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        for name, value in vars(importlib.import_module(f"{__name__}.{module.name}")).items():
            if isinstance(value, Operator):
                found[name] = value
    return found


def find(name: str) -> Operator:
    """The operator of that name. Raises UnknownOperatorError, which lists those there are."""
    try:
        return registry()[name]
    except KeyError:
        raise UnknownOperatorError(f"there is no operator {name!r}{near(name, registry())}") from None


def __getattr__(name: str) -> Operator:
    if name.startswith("__"):
        raise AttributeError(name)
    return find(name)


def __dir__() -> list[str]:
    return [*globals(), *registry()]
