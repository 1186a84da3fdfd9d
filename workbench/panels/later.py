"""`Later`: what a panel has its queue do: draw, export, sweep, find out which block does it; and how that is shown and taken up."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import ipywidgets as widgets

from workbench.checkpoint import Checkpoint
from workbench.errors import InputError, SweepError, WorkbenchError
from workbench.panels import keeping
from workbench.panels.block_map_view import BlockMapView
from workbench.panels.callbacks import in_words, on_click
from workbench.panels.fields import close_all
from workbench.panels.outcome_view import OutcomeView
from workbench.panels.panel import Panel
from workbench.panels.queue_view import QueueView
from workbench.panels.shelf import Shelf
from workbench.panels.state import PanelState
from workbench.panels.studio import Studio
from workbench.panels.sweep_grid import SweepGrid
from workbench.panels.sweep_plan import SweepPlan, swept_state
from workbench.panels.sweep_view import SweepView
from workbench.panels.swept import sweepables
from workbench.recipe import Recipe
from workbench.sweeps import Queue, QueueJob
from workbench.sweeps.queue_work import block_map_of
from workbench.tensors import Space

_STORE = "panel"  # the sweep's folder in out/sweeps that all panels share: a picture that one drew no other draws again


@final
class Later:
    """A panel's queue in `folder`: `asking` goes below the controls, `showing` below the pictures, `drawing` beside their status.

    The button that exports later is put beside the one of `outcome`.

    Raises SweepError, InputError and RecipeError for what cannot be queued, before anything is written.
    """

    def __init__(
        self,
        panel: Panel,
        shelf: Shelf,
        studio: Studio,
        outcome: OutcomeView,
        folder: str | os.PathLike[str],
        gallery: str | os.PathLike[str] | None,
        samplers: Sequence[str],
    ) -> None:
        self._panel, self._shelf, self._studio, self._outcome = panel, shelf, studio, outcome
        self._gallery, self._samplers = gallery, samplers
        self.queue = Queue(Path(folder))
        self._grid = SweepGrid(self.take, self._put_away)
        self._grid_place = widgets.VBox().add_class("wb-column")
        self._sweep = SweepView(self._plan, lambda: self._studio.pace, self._run)
        self._map = BlockMapView(self.map_blocks, getattr(panel, "use_block_map", None))
        self._view = QueueView(self.queue, self._seen, self.show_result)
        forms = widgets.Accordion([self._sweep.widget, self._map.form], titles=["sweep this", "which block does it?"])
        self.asking = forms.add_class("wb-fold")
        self.showing = widgets.VBox([self._grid_place, self._map.result, self._view.widget]).add_class("wb-column")
        self.drawing = _button("Draw later", "Draw these pictures of the result into the gallery, when it is their turn", self.draw)
        self.exporting = _button("Export later", "Write the file when it is its turn", self._export_as_typed)
        outcome.offer(self.exporting)
        begun = [job for job in self.queue.jobs if job.kind == "sweep" and job.active]
        if begun:  # before this panel was there
            self._show_grid(begun[-1])

    def show(self, state: PanelState) -> None:
        """Offer what can be swept over in this state."""
        self._sweep.show(sweepables(state, self._samplers))
        models = [name for name in state.models if self._shelf.checkpoints[name].space is not Space.DELTA]
        self._map.offer(models, [name for name in state.used if name in models])

    def close(self) -> None:
        """Look at the queue no more; its jobs go on."""
        self._view.close()
        close_all(self._grid)  # which is in the panel only while a sweep is looked at

    def sweep(self, over: Mapping[str, Any]) -> QueueJob:
        """Queue a sweep of one to three options, and show its grid."""
        plan, checkpoints = self._plan(over), dict(self._shelf.checkpoints)
        merge = self._panel.merge
        asked = plan.asked
        job = self.queue.sweep(
            lambda **options: plan.make(checkpoints, **options),
            plan.merges,
            axes=plan.axes,
            name=_STORE,
            origin=keeping.as_data(self.queue.folder, plan.state, {}, checkpoints),
            **self._drawn_by(merge),
            **asked,
        )
        self._show_grid(job)
        self._view.refresh()
        return job

    def draw(self) -> QueueJob:
        """Queue the pictures of the result, into the folder of the gallery."""
        if self._gallery is None:
            raise SweepError("this panel keeps no pictures (gallery=None), so there is no place to draw into later")
        merge = self._panel.merge
        job = self.queue.draw(merge, self._panel.state.wanted.request(), gallery=Path(self._gallery), **self._drawn_by(merge))
        self._view.refresh()
        return job

    def export(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> QueueJob:
        """Queue an export of the result, in the layout that is chosen."""
        merge = self._panel.recipe.build() if self._panel.state.layout else self._panel.merge
        job = self.queue.export(merge, Path(path), overwrite=overwrite)
        self._view.refresh()
        return job

    def map_blocks(self, base: str, tuned: str) -> QueueJob:
        """Queue the question which block of one model does it, put into another."""
        for name in (base, tuned):
            if name not in self._shelf.checkpoints:
                raise InputError(f"there is no model {name!r}; there are: {', '.join(self._shelf.checkpoints)}")
        if base == tuned:
            raise InputError(f"which block does it? {base} is compared with itself: choose another model")
        one, other = (self._shelf.checkpoints[name] for name in (base, tuned))
        job = self.queue.block_map(one, other, **self._drawn_by(one), **self._panel.state.wanted.asked)
        self._view.refresh()
        return job

    def show_result(self, job: QueueJob) -> None:
        """Show what came of a sweep, as far as it is, or of a block map."""
        if job.kind == "sweep":
            self._show_grid(job)
        else:
            self._map.show(block_map_of(job))

    def take(self, job: QueueJob, values: Mapping[str, Any]) -> None:
        """Go to the state of one cell of a sweep; models that are not on the shelf are opened."""
        if not job.what.get("origin"):
            raise SweepError(f"{job.title}: was not asked for by a panel; drop one of its pictures onto this one instead")
        kept = keeping.from_data(job.folder, job.what["origin"])
        state = swept_state(kept.state, values, self._samplers)
        state = state.with_models([*dict.fromkeys([*state.used, *state.loras])])
        names = {name: self._name_of(kept, name) for name in state.models}
        state = _renamed(state, {old: new for old, new in names.items() if old != new})
        told = ", ".join(f"{name} {value}" for name, value in values.items())
        self._panel.show(replace(state, models=(*dict.fromkeys([*self._panel.state.models, *state.models]),)), f"swept: {told}"[:60])

    def _plan(self, over: Mapping[str, Any]) -> SweepPlan:
        return SweepPlan.of(self._panel.state, over, self._samplers)

    def _run(self, over: Mapping[str, str]) -> None:
        self.sweep(over)

    def _export_as_typed(self) -> None:
        path, overwrite = self._outcome.target
        try:
            self._outcome.say(f"queued: {self.export(path, overwrite=overwrite).title}")
        except (WorkbenchError, OSError) as error:
            self._outcome.say(in_words(error))

    def _drawn_by(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """The renderer and lender that the panel draws a checkpoint with."""
        renderer, lender = self._studio.drawn_by(checkpoint)
        return {"renderer": renderer, "lender": lender}

    def _seen(self, jobs: Sequence[QueueJob]) -> None:
        """Fill the grid that is shown."""
        shown = self._grid.job
        if shown is None:
            return
        now = next((job for job in jobs if job.id == shown.id), None)
        if now is not None and (now.share, now.state) != (shown.share, shown.state):
            self._grid.show(now)

    def _show_grid(self, job: QueueJob) -> None:
        self._grid.show(job)
        self._grid_place.children = [self._grid]

    def _put_away(self) -> None:
        self._grid.hide()
        self._grid_place.children = []

    def _name_of(self, kept: keeping.Kept, name: str) -> str:
        """What a model of a job is called on the shelf, where it is put if it is not there."""
        found = self._shelf.checkpoints
        known = next((other for other in dict.fromkeys([name, *found]) if other in found and _is(found[other], kept, name)), None)
        return known or self._shelf.add(kept.open(name), name)


def _is(here: Checkpoint, kept: keeping.Kept, name: str) -> bool:
    """Whether a model on the shelf is the one that a job means by its name."""
    if name in kept.recipes:
        return here.merge is not None and Recipe.of(here).relative_to(kept.recipes[name].folder).to_dict() == kept.recipes[name].to_dict()
    place = kept.paths.get(name)
    there = place.resolve() if isinstance(place, Path) else place
    return there in (here.address, here.path and here.path.resolve()) and here.layout == kept.layouts.get(name)


def _renamed(state: PanelState, names: Mapping[str, str]) -> PanelState:
    """A state with other names for its models, which may be one another's."""
    for old, new in names.items():
        state = state.renamed(old, f"\0{new}")
    for new in names.values():
        state = state.renamed(f"\0{new}", new)
    return state


def _button(text: str, told: str, pressed: Any) -> widgets.Button:
    button = widgets.Button(description=text, icon="clock-o", tooltip=told, layout=widgets.Layout(width="120px", flex="0 0 auto"))
    on_click(button, pressed)
    return button
