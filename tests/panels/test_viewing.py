"""How pictures are looked at: what may be chosen, what travels, and that going back in time changes none of it."""

from __future__ import annotations

from datetime import datetime

import pytest
import yaml
from PIL import Image

from workbench.errors import OptionError
from workbench.panels import keeping
from workbench.panels.shelf import Shelf
from workbench.panels.state import PanelState, Wanted
from workbench.panels.timeline import Moment, Timeline
from workbench.panels.view_controls import ViewControls
from workbench.panels.viewing import Viewing

SMALL, LARGE = [Image.new("RGB", (64, 48))], [Image.new("RGB", (768, 1024))]


@pytest.mark.parametrize(
    ("view", "images", "edge", "travelling"),
    [
        (Viewing(), SMALL, 128, 256),
        (Viewing(), LARGE, 256, 512),
        (Viewing(), [], 128, 256),
        (Viewing(96), LARGE, 96, 192),
        (Viewing("full size"), LARGE, 1024, 1024),
    ],
)
def test_a_size_is_of_the_longer_edge_and_twice_as_many_pixels_travel(view, images, edge, travelling):
    assert (view.edge(images), view.travelling(images)) == (edge, travelling)


@pytest.mark.parametrize(
    "given", [{"size": 31}, {"size": 4097}, {"size": "huge"}, {"size": True}, {"size": 99.5}, {"across": "models down"}]
)
def test_a_view_that_there_is_not_is_told(given):
    with pytest.raises(OptionError, match=f"view: {next(iter(given))} must be"):
        PanelState(()).with_view(**given)


def test_undo_and_snapshots_leave_the_view_as_it_is_and_a_view_is_no_moment():
    first, second = PanelState((), operator="ties"), PanelState((), operator="slerp")
    timeline = Timeline((Moment(first, "start", datetime(2026, 1, 1)),)).with_snapshot("one").went_on(second, "method")
    looked = timeline.went_on(second.with_view(size=512, across="seeds"), "view")
    assert len(looked.moments) == 2
    assert {moment.state.view for moment in looked.moments} == {Viewing(512, "seeds")}
    assert looked.undone().can_redo
    assert looked.undone().now.view == looked.snapshots["one"].view == Viewing(512, "seeds")
    assert looked.undone().went_on(first.with_view(size=64), "view").can_redo


def test_a_view_is_kept_and_files_without_one_are_read(tmp_path, models):
    shelf = Shelf(models)
    state = PanelState.start(tuple(shelf.checkpoints), Wanted(("a star",))).with_view(size=384, across="prompts")
    file = tmp_path / "panel.yaml"
    keeping.save(file, state, {}, shelf.checkpoints)
    assert keeping.load(file).state.view == Viewing(384, "prompts")
    told = yaml.safe_load(file.read_text())
    for view in ({"size": "a lot"}, {"width": 3}, None, "large"):
        told["view"] = view
        file.write_text(yaml.safe_dump(told))
        assert keeping.load(file).state.view == Viewing()
    del told["view"]
    file.write_text(yaml.safe_dump(told))
    assert keeping.load(file).state.view == Viewing()


def test_the_controls_tell_what_is_chosen_and_show_any_size():
    told = []
    controls = ViewControls(told.append)
    controls.show(Viewing(300, "seeds"))
    assert told == []
    assert (controls._size.label, controls._across.label) == ("300", "seeds across, by model")
    controls._size.value = "full size"
    controls.show(Viewing("full size", "seeds"))
    controls._across.value = "models"
    assert told == [Viewing("full size", "seeds"), Viewing("full size", "models")]
