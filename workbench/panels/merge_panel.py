"""`MergePanel`: choose models and a method, move sliders, look, go back, export. It only ties the parts together."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

import ipywidgets as widgets

from workbench.checkpoint import Checkpoint
from workbench.errors import WorkbenchError
from workbench.panels import keeping
from workbench.panels.drop_zone import DropZone
from workbench.panels.first_wanted import first_wanted
from workbench.panels.judging import depth_of
from workbench.panels.merge_view import MergeView
from workbench.panels.models_view import ModelsView
from workbench.panels.panel import Panel
from workbench.panels.reopening import reopen
from workbench.panels.shelf import Given, Shelf
from workbench.panels.state import AT_FIRST, PanelState
from workbench.panels.timeline import Moment, Timeline
from workbench.sweeps.picture_store import GALLERY
from workbench.tensors import Space

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
    ) -> None:
        self._shelf = Shelf(checkpoints)
        self._keep = Path(keep) if keep is not None else None
        timeline, self._said = self._begin()
        super().__init__(self._shelf, renderer, timeline, gallery)
        self._merging = MergeView(self._changed)
        folder = next((one.path.parent for one in self._shelf.checkpoints.values() if one.path is not None), Path())
        arrange = lambda names: self._changed(lambda state: state.with_models(names), "models")  # noqa: E731
        self._models = ModelsView(folder, self.add, arrange, self.read_again)
        shelf = widgets.Accordion([self._models.widget], titles=["models to choose from"], selected_index=None if self.state.models else 0)
        pictures = [self._history.widget, self._wanted.widget, self._status.widget, self._gallery.widget]
        self._lay_out([shelf.add_class("wb-shelf"), self._merging.widget, DropZone(self.reopen)], pictures)
        self._present()

    def _begin(self) -> tuple[Timeline, list[str]]:
        """The state that was kept, or a first one; and what to say of models that are not there any more."""
        found = self._shelf.checkpoints
        if self._keep is None or not self._keep.exists():
            state = PanelState.start(list(found), first_wanted(list(found.values())), merged=_alike(found))
            return Timeline((Moment(state, "start"),)), list(self._shelf.problems)
        kept, said = keeping.load(self._keep), list(self._shelf.problems)
        for name in kept.paths:
            try:
                if name not in found:
                    self._shelf.add(kept.open(name), name)
            except WorkbenchError as error:
                said.append(f"{name} was there when this panel was kept: {error}")
        names = [name for name in kept.state.models if name in found]
        names += [name for name in found if name not in names]
        snapshots = {name: state.with_models(names) for name, state in kept.snapshots.items()}
        return Timeline((Moment(kept.state.with_models(names), "start"),), snapshots=snapshots), said

    def add(self, path: str | os.PathLike[str]) -> None:
        """Open one more checkpoint to choose from."""
        try:
            name = self._shelf.add(path)
        except (WorkbenchError, OSError) as error:
            self._say_again([("error", str(error))])
            return
        self._changed(lambda state: state.with_model(name), f"added {name}")

    def reopen(self, source: str | os.PathLike[str] | bytes, name: str = "what was dropped", size: int | None = None) -> None:
        """Take the state that a file tells of: a grid's or kept picture's PNG, a recipe, a panel's state, a merged file, a model.

        `source` is its path, or its bytes and its `name`; of a safetensors file of `size` bytes the header will do. Models are looked for
        where it says, and in the folders of those on the shelf, by hash or else by name. What is missing, or is no such file, is said.
        """
        folders = dict.fromkeys(one.path.parent for one in self._shelf.checkpoints.values() if one.path is not None)
        try:
            found = reopen(source, [*folders], name, size)
        except (WorkbenchError, OSError) as error:
            self._say_again([("error", str(error))])
            return
        names = {told: self._shelf.add(one) for told, one in found.models.items()}
        self._changed(lambda state: found.state_after(state, names), f"reopened {found.name}")
        if found.said:
            self._say_again([("warning", text) for text in found.said])

    def read_again(self) -> None:
        """Open files anew that have changed since."""
        self._said = self._shelf.open_again()
        self._present()

    def _beside(self, state: PanelState) -> tuple[str, ...]:
        """The models that are merged; where that is one alone, others to choose from as well."""
        if len(state.used) > 1:
            return state.used
        others = [name for name in state.models if self._shelf.checkpoints[name].space is Space.WEIGHT]
        return tuple(dict.fromkeys([*state.used, *others]))[:AT_FIRST]

    def _show(self, state: PanelState) -> None:
        self._models.show(state.models)
        self._merging.show(state, depth_of(state, self._shelf.checkpoints), self._words)
        self._save()

    @property
    def _words(self) -> list[tuple[str, str]]:
        return [*(("warning", text) for text in self._said), *self._judged.words]

    def _say_again(self, words: Sequence[tuple[str, str]]) -> None:
        self._merging.say([*words, *self._words])

    def _save(self) -> None:
        if self._keep is None:
            return
        try:
            keeping.save(self._keep, self.state, self._timeline.snapshots, self._shelf.checkpoints)
        except OSError as error:
            self._say_again([("warning", f"{self._keep}: the panel's state could not be kept: {error.strerror}")])


def _alike(found: Mapping[str, Checkpoint]) -> tuple[str, ...]:
    """The models that can be merged with the first one: of its family, and models rather than changes."""
    models = {name: one for name, one in found.items() if one.space is Space.WEIGHT}
    family = next((one.structure.family for one in models.values()), None)
    return tuple(name for name, one in models.items() if one.structure.family is family)
