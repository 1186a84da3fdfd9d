"""What becomes of a panel's state when models are opened: which of them are merged at once, and what there is no room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from workbench.errors import InputError
from workbench.panels.state import PanelState


def with_added(state: PanelState, names: Sequence[str], changes: Sequence[str], merge: bool | None, told: list[str]) -> PanelState:
    """The state with these models among the others or, with `merge`, in the merge; with None only the `changes` among them are.

    What there is no room for, or is there already, is put into `told`.
    """
    for name in names:
        if merge and name in (*state.used, *state.loras):
            told.append(f"{name} is in the merge already")
        state = replace(state.with_model(name), changes=tuple(changes))
        if merge or (merge is None and name in changes):
            try:
                state = state.with_merged(name)
            except InputError as error:
                told.append(str(error))
    return state
