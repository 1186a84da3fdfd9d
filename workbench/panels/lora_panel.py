"""`LoraPanel`: choose the rank of a LoRA along its error curve, and see what it still draws."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, final

import ipywidgets as widgets

from workbench.checkpoint import Checkpoint
from workbench.errors import OptionError
from workbench.lora.extraction import extract
from workbench.lora.nesting import Cut, cuts
from workbench.lora.targets import largest_rank
from workbench.panels.callbacks import on_change
from workbench.panels.controls import heading
from workbench.panels.error_chart import error_chart
from workbench.panels.first_wanted import first_wanted
from workbench.panels.judging import depth_of
from workbench.panels.lora_view import LoraView
from workbench.panels.merge_view import MergeView
from workbench.panels.panel import Panel
from workbench.panels.shelf import Shelf
from workbench.panels.state import PanelState
from workbench.panels.timeline import Moment, Timeline
from workbench.sweeps.picture_store import GALLERY

if TYPE_CHECKING:
    from workbench.render import Renderer

Folder = str | os.PathLike[str]
Given = Checkpoint | Folder

_OPERATOR, _DELTAS = "add_delta", "deltas"
_MOST = 128  # the largest rank that is offered
_FIRST = 8


@final
class LoraPanel(Panel):
    """Takes a LoRA out of `tuned` on `base`, once; then the rank and the strength are chosen, and the pictures follow.

    `tuned` and `base` are checkpoints or paths. `renderer` draws; by default that of the models' kind, which all panels of the process
    share (see `Renderer`). Ranks are powers of two up to 128, or to where every direction is in. `.lora` is the LoRA that is
    shown; everything can be done in Python: `panel.choose(16)`, `panel.show(panel.state.with_option("strengths", 0.8))`.

    Pictures are kept in the folder `gallery` (see `MergePanel`).

    Raises what `workbench.lora.extract` raises, and CheckpointError for a file that cannot be opened.
    """

    def __init__(self, tuned: Given, base: Given, renderer: Renderer | None = None, *, gallery: Folder | None = GALLERY) -> None:
        shelf = Shelf([base, tuned])
        self._parents = tuple(shelf.checkpoints)
        lender, learned = shelf.checkpoints[self._parents[0]], shelf.checkpoints[self._parents[-1]]
        whole = extract(learned, lender, rank=min(_MOST, largest_rank(lender, "LoraPanel") or _MOST))
        most = max(entry.rank for entry in whole.entries.values())
        self._cuts = {shelf.add(cut.lora): cut for cut in cuts(whole, lender, _ranks(most))}
        first = next((name for name, cut in self._cuts.items() if cut.rank >= _FIRST), list(self._cuts)[-1])
        wanted = first_wanted([lender, learned])
        state = PanelState(tuple(shelf.checkpoints), _OPERATOR, {"base": self._parents[:1], _DELTAS: (first,)}, wanted=wanted)
        super().__init__(shelf, renderer, Timeline((Moment(state, "start"),)), gallery)
        self._outcome = LoraView()
        self._merging = MergeView(self._changed, only=("strengths",))
        ranks = [(str(cut.rank), name) for name, cut in self._cuts.items()]
        self._rank = widgets.SelectionSlider(options=ranks, value=first, continuous_update=False, layout=widgets.Layout(width="auto"))
        on_change(self._rank, lambda change: self._choose(change["new"]))
        self._told, self._chart = widgets.HTML().add_class("wb-said"), widgets.HTML()
        rank = widgets.VBox([heading("rank", "How many directions each layer keeps"), self._rank, self._told]).add_class("wb-option")
        curve = widgets.VBox([heading("relative error", "What is missed of the change, over the change"), self._chart])
        self._lay_out(
            [self._wanted.widget, rank, self._merging.widget],
            [self._history.widget, curve, self._pictures.status.widget, self._pictures.widget],
        )
        self._present()

    @property
    def cut(self) -> Cut:
        """The rank that is chosen, its LoRA, error and size."""
        return self._cuts[self.state.inputs[_DELTAS][0]]

    @property
    def lora(self) -> Checkpoint:
        """The LoRA that is shown."""
        return self.cut.lora

    def choose(self, rank: int) -> None:
        """Go on to another rank; it can be undone. Raises OptionError for one that is not offered."""
        name = next((name for name, cut in self._cuts.items() if cut.rank == rank), None)
        if name is None:
            raise OptionError(f"LoraPanel: rank must be one of {', '.join(str(cut.rank) for cut in self._cuts.values())}, got {rank!r}")
        self._choose(name)

    def show(self, state: PanelState, change: str = "by Python") -> None:
        """Go on to another state, of the same models, with one LoRA; it can be undone. Raises OptionError for any other."""
        deltas = state.inputs.get(_DELTAS, ())
        if state.operator != _OPERATOR or len(deltas) != 1 or deltas[0] not in self._cuts or state.inputs["base"] != self._parents[:1]:
            raise OptionError(f"LoraPanel shows {_OPERATOR} of one of {', '.join(self._cuts)} on {self._parents[0]}, got {state.inputs}")
        super().show(state, change)

    def _choose(self, name: str) -> None:
        self._changed(lambda state: state.with_input(_DELTAS, (name,)), "rank")

    def _beside(self, state: PanelState) -> tuple[str, ...]:
        return self._parents

    def _show(self, state: PanelState) -> None:
        self._outcome.lora = self.lora
        self._rank.value = state.inputs[_DELTAS][0]
        self._merging.show(state, depth_of(state, self._shelf.checkpoints), self._words)
        cut, every = self.cut, list(self._cuts.values())
        self._told.value = f"rank {cut.rank}: misses {cut.error:.1%} of the change; {cut.nbytes / 1e6:.2f} MB"
        self._chart.value = error_chart([one.rank for one in every], [one.error for one in every], cut.rank)


def _ranks(most: int) -> list[int]:
    """Powers of two below the largest rank, and that."""
    return [*(2**power for power in range(most.bit_length()) if 2**power < most), most]
