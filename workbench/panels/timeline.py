"""The states a panel has been in: undo, redo, named snapshots. What a state is does not matter here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import final

from workbench.panels.state import PanelState
from workbench.panels.viewing import Viewing

_MOST = 1000  # moments that are remembered


@final
@dataclass(frozen=True)
class Moment:
    """A state, what led to it, and when; `renaming` is the old and the new name where that was a model's."""

    state: PanelState
    change: str
    when: datetime = field(default_factory=lambda: datetime.now().replace(microsecond=0))
    renaming: tuple[str, str] | None = None


@final
@dataclass(frozen=True)
class Timeline:
    """Moments in order, where one stands among them, and states by name.

    Models are called in all of them as they are now: going back over a renaming renames them everywhere.
    """

    moments: tuple[Moment, ...]
    position: int = 0
    snapshots: Mapping[str, PanelState] = field(default_factory=dict)

    @property
    def now(self) -> PanelState:
        return self.moments[self.position].state

    @property
    def can_undo(self) -> bool:
        return self.position > 0

    @property
    def can_redo(self) -> bool:
        return self.position < len(self.moments) - 1

    def went_on(self, state: PanelState, change: str) -> Timeline:
        """One moment more; those that were undone are dropped, and the first beyond 1000.

        The same state again is none; its view is that of all.
        """
        if state.view != self.now.view:
            return self._looked_at(state.view).went_on(state, change)
        if state == self.now:
            return self
        moments = (*self.moments[: self.position + 1], Moment(state, change))[-_MOST:]
        return replace(self, moments=moments, position=len(moments) - 1)

    @property
    def undoes(self) -> tuple[str, str] | None:
        """The renaming that one moment back makes, if it makes one."""
        renaming = self.moments[self.position].renaming
        return renaming and (renaming[1], renaming[0])

    @property
    def redoes(self) -> tuple[str, str] | None:
        """The renaming that one moment forth makes, if it makes one."""
        return self.moments[self.position + 1].renaming if self.can_redo else None

    def undone(self) -> Timeline:
        """One moment back, if there is one."""
        back = replace(self, position=max(self.position - 1, 0))
        return back.renamed(*self.undoes) if self.undoes else back

    def redone(self) -> Timeline:
        """One moment forth, if there is one."""
        forth = replace(self, position=min(self.position + 1, len(self.moments) - 1))
        return forth.renamed(*self.redoes) if self.redoes else forth

    def with_renaming(self, old: str, new: str) -> Timeline:
        """One moment more, after a model was given another name."""
        here = self.renamed(old, new)
        moment = Moment(here.now, f"{old} is called {new}", renaming=(old, new))
        return replace(here, moments=(*here.moments[: here.position + 1], moment), position=here.position + 1)

    def renamed(self, old: str, new: str) -> Timeline:
        """The same past after a model was given another name."""
        moments = tuple(replace(one, state=one.state.renamed(old, new)) for one in self.moments)
        return replace(self, moments=moments, snapshots={name: one.renamed(old, new) for name, one in self.snapshots.items()})

    def _looked_at(self, view: Viewing) -> Timeline:
        """The same past in another view: going back changes what was done, not how one looks."""
        moments = tuple(replace(one, state=replace(one.state, view=view)) for one in self.moments)
        return replace(self, moments=moments, snapshots={name: replace(one, view=view) for name, one in self.snapshots.items()})

    def with_snapshot(self, name: str) -> Timeline:
        """The present state under a name; an older one of that name is replaced."""
        return replace(self, snapshots={**self.snapshots, name: self.now})
