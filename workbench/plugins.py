"""`Registry`: things by name, Workbench's own and those that notebooks, scripts and other packages add; what they are is not known here."""

from __future__ import annotations

import importlib
import pkgutil
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar, final

from workbench.errors import PluginWarning, WorkbenchError, warn

T = TypeVar("T")

_loading = threading.RLock()
_loaded: set[str] = set()


def place_of(function: Callable[..., object]) -> str:
    """The module that defines a function; of code that has none, as in an interactive session, `__main__`."""
    return function.__module__ or "__main__"


def load_entry_points(group: str) -> None:
    """Load what installed packages have in a group of entry points, once; one that cannot be loaded is a PluginWarning."""
    with _loading:
        if group in _loaded:
            return
        _loaded.add(group)  # before they are loaded, for they may look something up themselves
        from importlib.metadata import entry_points

        for point in entry_points(group=group):
            try:
                point.load()
            except Exception as error:  # a package that is broken must not break what has nothing to do with it
                package = point.dist.name if point.dist else "a package"
                told = f"{package}: its entry point {point.name!r} in {group} ({point.value}) cannot be loaded"
                warn(f"{told}: {type(error).__name__}: {error}; mend or uninstall it", PluginWarning)


@final
class Registry(Mapping[str, T], Generic[T]):
    """What was added, by name: that of the package or module `home` first, in the order of module and definition, then others.

    It is complete when it is looked at: every module of `home` is imported then, and once, every entry point that an installed
    package has in `group`. An entry point that cannot be loaded is a PluginWarning.
    """

    def __init__(self, what: str, *, home: str, group: str) -> None:
        self._what, self._home, self._group = what, home, group
        self._things: dict[tuple[str, str], T] = {}  # by name and module
        self._home_is_imported = False

    def add(self, name: str, module: str, thing: T) -> None:
        """Add what `module` defines, in place of what it defined by that name before. Raises WorkbenchError for a name of our own."""
        if not self.is_own(module):
            self._import_home()
            if owner := next((place for known, place in self._things if known == name and self.is_own(place)), None):
                raise WorkbenchError(f"{module}: {self._what} {name!r} has the name of one in {owner}; give it another name")
            self._things.pop((name, module), None)  # of several by one name the last that was defined is meant
        self._things[name, module] = thing

    def is_own(self, module: str) -> bool:
        """Whether a module is one of Workbench's own."""
        return module == self._home or module.startswith(f"{self._home}.")

    def find(self, name: str, module: str | None = None) -> T | None:
        """What goes by this name, in this module if one is given; None when nothing does."""
        found = self._known(name, module)
        if found is None:
            self._discover()
            found = self._known(name, module)
        return found

    def __getitem__(self, name: str) -> T:
        found = self.find(name)
        if found is None:
            raise KeyError(name)
        return found

    def so_far(self) -> list[T]:
        """Our own and what was added until now; entry points, whose search takes a tenth of a second, are left unloaded."""
        self._import_home()
        return list({name: thing for (name, _), thing in self._things.items()}.values())

    def __iter__(self) -> Iterator[str]:
        self._discover()
        own = sorted((key for key in self._things if self.is_own(key[1])), key=lambda key: key[1])
        return iter(dict.fromkeys(name for name, _ in [*own, *self._things]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _known(self, name: str, module: str | None) -> T | None:
        found = [thing for (known, place), thing in self._things.items() if known == name and module in (None, place)]
        return found[-1] if found else None

    def _discover(self) -> None:
        self._import_home()
        load_entry_points(self._group)

    def _import_home(self) -> None:
        """Import every module there is, once; those that are being imported just now add what they define when they get there."""
        if self._home_is_imported:
            return
        home = importlib.import_module(self._home)
        for module in pkgutil.iter_modules(getattr(home, "__path__", ())):
            importlib.import_module(f"{self._home}.{module.name}")
        self._home_is_imported = True
