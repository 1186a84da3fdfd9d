"""The command that compares all methods: runs quickly, goes on where it stopped, and keeps what it chooses with from what it reports."""

from __future__ import annotations

import json

import pytest

from benchmarks import method_options, methods
from benchmarks.method_tasks import CHOOSING, REPORTING, TASKS, prompts
from workbench.analysis.comparing_methods import read
from workbench.operators import own


def test_no_prompt_and_no_seed_is_both_chosen_with_and_reported():
    assert not set(CHOOSING["seeds"]) & set(REPORTING["seeds"])
    for task in TASKS:
        choosing, reporting = (prompts(task, one["start"], one["count"]) for one in (CHOOSING, REPORTING))
        assert not choosing.keys() & reporting.keys()
        assert {skill for skill, _ in choosing.values()} == {skill for skill, _ in reporting.values()} == set(task.skills)
        assert all(
            f" {skill} " in caption or caption.endswith(f", {skill}") or skill == "base" for caption, (skill, _) in reporting.items()
        )


def test_every_method_is_tried_with_options_that_it_has_the_default_first():
    for name, operator in own().items():
        tried = method_options.tried(name)
        declared = operator.declaration.options
        assert {option for options in tried for option in options} <= set(declared)
        needed = {option for option, one in declared.items() if one.required}
        assert set(tried[0]) == needed
        assert len({json.dumps(options) for options in tried}) == len(tried)


def test_the_command_measures_what_is_not_there_yet_and_writes_what_can_be_read(tmp_path, capsys, monkeypatch):
    asked = ["--quick", "--workers", "1", "--folder", str(tmp_path / "kept"), "--result", str(tmp_path / "methods.json")]
    monkeypatch.setattr(methods, "QUICK_METHODS", ("weighted_average", "slerp"))
    methods.main(asked)
    found = read(json.loads((tmp_path / "methods.json").read_text(encoding="utf-8")))
    (task,) = found.tasks.values()
    assert (task.name, task.models, found.names) == ("two concepts", ("heart", "moon"), ("weighted_average", "slerp"))
    assert found.apart[0, 1] == found.apart[1, 0] > 0
    average = task.methods["weighted_average"]
    assert set(average.told["from"]) == {"base", "heart", "moon"}
    assert average.told["memory"] == 1
    assert len(average.seeds) == 2
    capsys.readouterr()
    (tmp_path / "kept" / "two concepts" / "slerp.json").unlink()
    methods.main(asked)
    said = capsys.readouterr().out
    assert "slerp" in said
    assert "weighted_average" not in said
    again = read(json.loads((tmp_path / "methods.json").read_text(encoding="utf-8")))
    assert again.tasks["two concepts"].methods["slerp"].told["skills"] == task.methods["slerp"].told["skills"]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_task_has_its_models(task):
    assert list(task.checkpoints()) == ["base", *task.models]
