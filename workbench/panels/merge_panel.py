"""`MergePanel`: choose models and a method, move sliders, look, go back, export. It only ties the parts together."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import ipywidgets as widgets

from workbench.checkpoint import Checkpoint
from workbench.errors import InputError, RecipeError, WorkbenchError
from workbench.panels.added_models import with_added
from workbench.panels.block_effects import check_blocks, mapped, shown_effects
from workbench.panels.callbacks import in_words
from workbench.panels.drop_zone import DropZone
from workbench.panels.dropped_model import find_dropped
from workbench.panels.first_wanted import first_wanted, samplers_of
from workbench.panels.judging import alone, components_of, depth_of
from workbench.panels.keep_file import KeepFile
from workbench.panels.later import Later
from workbench.panels.loras_view import LorasView
from workbench.panels.merge_view import MergeView
from workbench.panels.models_view import ModelsView
from workbench.panels.naming_view import NamingView
from workbench.panels.panel import Panel
from workbench.panels.reopening import reopen
from workbench.panels.shelf import Given, Shelf
from workbench.panels.state import AT_FIRST, PanelState
from workbench.panels.timeline import Moment, Timeline
from workbench.sweeps import Queue, QueueJob
from workbench.sweeps.block_map_result import BlockMap
from workbench.sweeps.picture_store import GALLERY
from workbench.sweeps.queueing import QUEUE
from workbench.wording import few

if TYPE_CHECKING:
    from workbench.render import Renderer


@final
class MergePanel(Panel):
    """Merges models by hand: shown in a notebook, it draws parents and result side by side while controls are moved.

    `checkpoints` is a mapping from names, a list of checkpoints and paths, or a folder with models in it (single files and pipeline
    folders); by default the family that comes with the project. `renderer` draws; by default each model is drawn by the renderer of
    its kind, which all panels of the process share, on the best device there is (see `Renderer`). `keep` names a YAML file in which
    the panel keeps its state, and finds it again when the notebook is reopened. Every picture that is drawn is kept in the folder
    `gallery`, with its recipe, up to that folder's limit (5 GB, unless `wb.Gallery(folder, limit=...)` says otherwise); None keeps none.

    What is to be done later lies in the folder `queue` (see `Queue`), and goes on when the notebook is closed.

    Everything the panel does can be done in Python: `panel.show(panel.state.with_option("density", 0.3))`.
    Raises CheckpointError and InputError for checkpoints that cannot be opened, RecipeError for a damaged `keep`.
    """

    def __init__(
        self,
        checkpoints: Given | None = None,
        renderer: Renderer | None = None,
        *,
        keep: str | os.PathLike[str] | None = None,
        gallery: str | os.PathLike[str] | None = GALLERY,
        queue: str | os.PathLike[str] = QUEUE,
    ) -> None:
        self._shelf = Shelf(checkpoints)
        self._keep = None if keep is None else KeepFile(keep)
        self._block_map: BlockMap | None = None
        timeline, self._said = self._begin()
        super().__init__(self._shelf, renderer, timeline, gallery)
        self._merging = MergeView(self._changed)
        self._loras = LorasView(self._changed)
        folder = next((one.path.parent for one in self._shelf.checkpoints.values() if one.path is not None), Path())
        arrange = lambda names: self._changed(lambda state: state.with_models(names), "models")  # noqa: E731
        self._models = ModelsView(folder, lambda paths, merge: self.add(*paths, merge=merge), arrange, self.read_again)
        self._naming = NamingView(self.rename, self.use_result)
        chooser = widgets.VBox([self._models.widget, self._naming.renaming]).add_class("wb-column")
        shown = None if self.state.models else 0
        self._chooser = widgets.Accordion([chooser], titles=["models to choose from"], selected_index=shown)
        samplers = samplers_of(list(self._shelf.checkpoints.values()))
        self._later = Later(self, self._shelf, self._pictures.studio, self._outcome, queue, gallery, samplers)
        status = widgets.HBox([self._pictures.status.widget, self._later.drawing]).add_class("wb-row").add_class("wb-going")
        wanted = self._wanted.widget.add_class("wb-wanted")
        pictures = [self._history.widget, wanted, status, self._pictures.widget, self._later.showing]
        left = [
            self._chooser.add_class("wb-fold").add_class("wb-shelf"),
            self._loras.widget,
            self._merging.widget,
            self._naming.using,
            self._later.asking,
            DropZone(self.reopen, self._dropped),
        ]
        self._lay_out(left, pictures)
        self._present()

    def _begin(self) -> tuple[Timeline, list[str]]:
        """The state that was kept, or a first one; and what to say of models that are not there any more."""
        found = self._shelf.checkpoints
        kept = self._keep.load() if self._keep is not None else None
        if kept is None:
            wanted, changes = first_wanted(list(found.values())), self._shelf.changes_among(found)
            state = PanelState.start(list(found), wanted, merged=self._shelf.alike(), changes=changes)
            return Timeline((Moment(state, "start"),)), list(self._shelf.problems)
        said = list(self._shelf.problems)
        for name in (*kept.paths, *kept.recipes):
            try:
                if name not in found:
                    self._put_back(kept.open(name), name, kept.state.models)
            except WorkbenchError as error:
                said.append(f"{name} was there when this panel was kept: {error}")
        names = [name for name in kept.state.models if name in found]
        names += [name for name in found if name not in names]
        snapshots = {name: state.with_models(names) for name, state in kept.snapshots.items()}
        state = replace(kept.state.with_models(names), changes=self._shelf.changes_among(names))
        return Timeline((Moment(state, "start"),), snapshots=snapshots), said

    def _put_back(self, model: Checkpoint, name: str, names: Collection[str]) -> None:
        """Put a model on the shelf that was there; one that is there under a name that is none of the `names` was renamed."""
        known = self._shelf.name_of(model)
        if known is None or known in names:
            self._shelf.add(model, name)
        else:
            self._shelf.rename(known, name)

    def show(self, state: PanelState, change: str = "by Python") -> None:
        """Go on to another state; it can be undone."""
        super().show(replace(state, changes=self._shelf.changes_among(state.models)), change)

    def add(self, *paths: str | os.PathLike[str], merge: bool | None = None) -> None:
        """Open more checkpoints to choose from; what is wrong with one is said at the chooser, and the others are opened.

        `merge` says whether they are put into the merge at once: into inputs that are empty, or beside others, LoRAs on the result.
        By default only LoRAs are.
        """
        names, said = [], []
        for path in paths:
            try:
                names.append(self._shelf.add(path))
            except Exception as error:  # whatever is wrong with the file
                said.append(in_words(error))
        told: list[str] = []
        if names:
            changes = self._shelf.changes_among([*self.state.models, *names])
            self._changed(lambda state: with_added(state, names, changes, merge, told), f"added {few(names)}")
        if said := [*said, *told]:
            self._models.say("\n".join(said))
            self._chooser.selected_index = 0

    def rename(self, old: str, new: str) -> None:
        """Call a model otherwise, in everything that was done, too; it can be undone. Raises InputError for a name that is taken."""
        if old not in self._shelf.checkpoints:
            raise InputError(f"there is no model {old!r}; there are: {', '.join(self._shelf.checkpoints)}")
        if (new := self._shelf.free_name(old, new)) != old:
            self._go(lambda timeline: timeline.with_renaming(old, new), (old, new))

    def use_block_map(self, block_map: BlockMap | None) -> None:
        """Give the bars of the block editors the colours of what each block does (see `wb.block_map`); None takes them away.

        Colours are on the bars of the model that the map is of. Raises InputError for the map of a model that is not here, or whose blocks
        are not those of the models that are merged.
        """
        if block_map is not None:
            found = self._shelf.checkpoints
            mapped(block_map, found)
            check_blocks(block_map, depth_of(self.state, found), components_of(self.state, found))
        with self._changing:
            self._block_map = block_map
            self._present()

    def use_result(self, name: str) -> str:
        """Put the merge as it is now among the models, to be merged again; no file is written. Returns its name there.

        Raises RecipeError where the state makes no merge.
        """
        if not self._judged.ok:
            raise RecipeError("there is no result to use until the errors are mended")
        name = self._shelf.add(self.merge, name.strip() or self.state.operator)
        self._changed(lambda state: state.with_model(name), f"{name} from the result")
        return name

    def reopen(
        self, source: str | os.PathLike[str] | bytes, name: str = "what was dropped", size: int | None = None, samples: bytes = b""
    ) -> None:
        """Take the state that a file tells of: a grid's or kept picture's PNG, a recipe, a panel's state, a merged file, a model.

        `source` is its path, or its bytes and its `name`; of a safetensors file of `size` bytes the header will do. Models are looked for
        where it says, and in the folders of those on the shelf, by hash or else by name. A model goes into the merge; of one that was
        dropped `samples` tell which it is (see `dropped_model`). What is missing, or is no such file, is said.
        """
        try:
            found = reopen(source, self._shelf.folders, name, size, self._models.folders, samples)
        except (WorkbenchError, OSError) as error:
            self.tell(in_words(error))
            return
        names = {told: self._shelf.add(one) for told, one in found.models.items()}
        said = [*found.said]

        def after(state: PanelState) -> PanelState:
            then = found.state_after(state, names)
            changes = self._shelf.changes_among(then.models)
            return then if found.state or found.wanted else with_added(then, list(names.values()), changes, True, said)

        self._changed(after, f"reopened {found.name}")
        if said:
            self._merging.say([*(("warning", text) for text in said), *self._words])

    def _dropped(self, header: bytes, name: str, size: int, samples: bytes) -> None:
        """Put a file that was dropped onto the chooser into the merge; where it was found, or that it was not, is said there."""
        try:
            path = find_dropped(name, size, header, [*self._shelf.folders, *self._models.folders], samples)
        except InputError as error:
            self._models.say(str(error))
            return
        self._models.say(f"{name} was found at {path}")
        self.add(path, merge=True)

    @property
    def queue(self) -> Queue:
        """What is to be done later, and what came of it."""
        return self._later.queue

    def sweep(self, over: Mapping[str, Any]) -> QueueJob:
        """Draw this merge for every combination of one to three options' values, in the queue; the grid fills below the pictures.

        Options are those of the method, `weights of NAME`, `method`, its inputs (`models: heart + moon, heart`), `strength of NAME` and
        `prompts`, `seeds`, `steps`, `guidance`, `sampler`; values are lists, or text: `{"density": "0..1 step 0.25", "seeds": "0-3"}`.
        Raises InputError, RenderError and SweepError, which name the option and the word that is wrong.
        """
        return self._later.sweep(over)

    def draw_later(self) -> QueueJob:
        """Have the result's pictures drawn into the gallery, in the queue. Raises SweepError and RecipeError for what cannot be queued."""
        return self._later.draw()

    def export_later(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> QueueJob:
        """Have the result written, in the queue. Raises InputError for a file that is there, and as `draw_later` does."""
        return self._later.export(path, overwrite=overwrite)

    def map_blocks(self, base: str, tuned: str) -> QueueJob:
        """Have it found out which block of one model does it, put into another (see `block_map`), in the queue. Raises as `sweep` does."""
        return self._later.map_blocks(base, tuned)

    def close(self) -> None:
        """Take the panel down, as `Panel.close` does; its queue goes on."""
        self._later.close()
        super().close()

    def read_again(self) -> None:
        """Open files anew that have changed since."""
        self._said = self._shelf.open_again()
        self._present()

    def _beside(self, state: PanelState) -> tuple[str, ...]:
        """The models that are merged; where that is one alone, others to choose from as well."""
        models = [name for name in state.models if name not in self._changes]
        used = [name for name in state.used if name in models]
        shown = tuple(used) if len(used) > 1 else tuple(dict.fromkeys([*used, *models]))[:AT_FIRST]
        return (*shown, *state.loras) if state.alone and self._judged.ok and used else shown

    def _model(self, name: str) -> Checkpoint:
        if name not in self.state.loras:
            return super()._model(name)
        base = next(one for one in self.state.used if one not in self._changes)
        return alone(self.state, name, base, self._shelf.checkpoints)

    @property
    def _changes(self) -> list[str]:
        """The LoRAs, and other changes of models, which nobody can draw alone."""
        return list(self._shelf.changes_among(self.state.models))

    def _show(self, state: PanelState) -> None:
        self._models.show(state.models)
        self._naming.show(state.models)
        found = self._shelf.checkpoints
        depth = depth_of(state, found)
        self._loras.show(state, self._changes, depth)
        self._later.show(state)
        self._merging.show(state, depth, self._words, components_of(state, found))
        self._merging.colour(*shown_effects(self._block_map, state, found, depth))
        self._save()

    def _look(self) -> None:
        super()._look()
        self._save()

    @property
    def _words(self) -> list[tuple[str, str]]:
        return [*(("warning", text) for text in self._said), *super()._words]

    def _save(self) -> None:
        if self._keep and (said := self._keep.save(self.state, self._timeline.snapshots, self._shelf.checkpoints)):
            self._merging.say([("warning", said), *self._words])
