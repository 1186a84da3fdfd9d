"""The states a panel has been in: undo, redo, named snapshots. What a state is does not matter here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import final

from workbench.panels.state import PanelState

_MOST = 1000  # moments that are remembered


@final
@dataclass(frozen=True)
class Moment:
    """A state, what led to it, and when."""

    state: PanelState
    change: str
    when: datetime = field(default_factory=lambda: datetime.now().replace(microsecond=0))


@final
@dataclass(frozen=True)
class Timeline:
    """Moments in order, where one stands among them, and states by name."""

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
        """One moment more; those that were undone are dropped, and the first beyond 1000. The same state again is no moment."""
        if state == self.now:
            return self
        moments = (*self.moments[: self.position + 1], Moment(state, change))[-_MOST:]
        return replace(self, moments=moments, position=len(moments) - 1)

    def undone(self) -> Timeline:
        """One moment back, if there is one."""
        return replace(self, position=max(self.position - 1, 0))

    def redone(self) -> Timeline:
        """One moment forth, if there is one."""
        return replace(self, position=min(self.position + 1, len(self.moments) - 1))

    def renamed(self, old: str, new: str) -> Timeline:
        """The same past after a model was given another name."""
        moments = tuple(replace(one, state=one.state.renamed(old, new)) for one in self.moments)
        return replace(self, moments=moments, snapshots={name: one.renamed(old, new) for name, one in self.snapshots.items()})

    def with_snapshot(self, name: str) -> Timeline:
        """The present state under a name; an older one of that name is replaced."""
        return replace(self, snapshots={**self.snapshots, name: self.now})
