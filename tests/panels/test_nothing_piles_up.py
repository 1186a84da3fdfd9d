"""A panel that is used all day has as many widgets in the evening as in the morning. What each part shows is tested elsewhere."""

from __future__ import annotations

from ipywidgets.widgets.widget import _instances

from workbench.panels.state import PanelState
from workbench.panels.timeline import Moment, Timeline


def test_what_comes_and_goes_leaves_no_widget_behind(make):
    panel = make()
    names = panel.state.used

    def round_trip() -> int:
        for method in ("ties", "task_arithmetic", "weighted_average"):
            panel.show(panel.state.with_operator(method))
            panel.show(panel.state.with_option("weights", {"blocks": {"MID": [0.1] * len(panel.state.many), "default": 0.3}}))
            panel.undo()
        panel.show(panel.state.with_input("models", names[:2]))
        panel.show(panel.state.with_wanted(prompts=["a blue star"], seeds=[0, 1]))
        panel.undo()
        panel.undo()
        assert panel.wait(60)
        assert panel.merge.by_block("weights")
        return len(_instances)

    round_trip()
    assert round_trip() == round_trip()


def test_a_thousand_steps_can_be_undone_and_older_ones_are_forgotten():
    timeline = Timeline((Moment(PanelState(("a",)), "start"),)).with_snapshot("first")
    for seed in range(1, 1011):
        timeline = timeline.went_on(PanelState(("a",), seed=seed), "seed")
    assert (timeline.now.seed, len(timeline.moments), timeline.can_redo) == (1010, 1000, False)
    for _ in range(999):
        timeline = timeline.undone()
    assert (timeline.now.seed, timeline.can_undo) == (11, False)
    timeline = timeline.redone().went_on(PanelState(("a",), seed=5), "seed")
    assert [one.state.seed for one in timeline.moments] == [11, 12, 5]
    assert timeline.snapshots["first"].seed == 0
