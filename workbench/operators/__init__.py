"""The merge methods, found by discovery: every `@operator`, of a module here or from elsewhere, is in the registry by its name."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Mapping

from workbench.errors import UnknownOperatorError
from workbench.merge import decorator
from workbench.merge.declaration import near
from workbench.merge.decorator import Operator

_MODULES = frozenset(module.name for module in pkgutil.iter_modules(__path__))


def registry() -> Mapping[str, Operator]:
    """Every operator by name: Workbench's own in the order of module and definition, then those from elsewhere."""
    return decorator.registry


def own() -> dict[str, Operator]:
    """Those that are Workbench's own."""
    return {name: one for name, one in registry().items() if one.declaration.module is None}


def find(name: str, module: str | None = None) -> Operator:
    """The operator of that name, defined in `module` if that is given. Raises UnknownOperatorError, which says what to do."""
    found = decorator.registry.find(name, module)
    if found is not None:
        return found
    if module is None or module in sys.modules.keys() - {"__main__"}:
        where = "" if module is None else f" in {module}, though that is imported"
        raise UnknownOperatorError(f"there is no operator {name!r}{where}{near(name, list(registry()))}")
    first = "run the cell or script that defines it" if module == "__main__" else f"import {module}"
    raise UnknownOperatorError(f"there is no operator {name!r} here, for it is not Workbench's own: {first} first")


def __getattr__(name: str) -> Operator:
    if name.startswith("__") or name in _MODULES:  # a module that is being imported is asked for as an attribute first
        raise AttributeError(name)
    return find(name)


def __dir__() -> list[str]:
    return [*globals(), *registry()]
