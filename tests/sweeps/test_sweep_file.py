"""Sweeps that a file describes: drawn by the command, looked at meanwhile, and refused where the file makes no sense."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import workbench as wb
from workbench.errors import SweepError
from workbench.places import DATA
from workbench.render import ClipChoice, ClipScorer, ParentDistance
from workbench.sweeps.run_file import ExecutorFields, ScorerFields, executor_of
from workbench.sweeps.sweep_file import SweepFields, draw_sweep

ROOT = Path(__file__).resolve().parents[2]
CLIP = str(DATA / "shapes-clip")


@pytest.fixture
def recipe(make, tmp_path):
    make(weights=0.3).recipe.relative_to(tmp_path).save(tmp_path / "merge.yaml")
    return tmp_path / "merge.yaml"


@pytest.fixture
def written(recipe, tmp_path):
    """Writes a file beside the recipe."""

    def write(**fields) -> Path:
        told = {"workbench_sweep": 1, "recipe": recipe.name, "over": {"weights": [0.2, 0.8]}, "prompts": "a red heart", "steps": 1}
        told = {name: value for name, value in (told | fields).items() if value is not None}
        (tmp_path / "strengths.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
        return tmp_path / "strengths.yaml"

    return write


def test_a_file_draws_what_the_call_draws_and_another_look_draws_nothing(written, make, short, tmp_path, monkeypatch):
    file = written(seeds=[0, 3], score={"distance": "heart"})
    monkeypatch.chdir("/")  # a file means the same from everywhere
    found = draw_sweep(file)
    assert found.folder == tmp_path / "out" / "sweeps" / "strengths"
    assert not found.problems
    called = wb.sweep(
        make, {"weights": [0.2, 0.8]}, **short | {"prompts": "a red heart", "seeds": [0, 3], "score": ParentDistance("heart")}
    )
    for one, other in zip(found, called, strict=True):
        assert [picture.tobytes() for picture in one.pictures] == [picture.tobytes() for picture in other.pictures]
        assert list(one.scores["from_heart"]) == list(other.scores["from_heart"])
    again = wb.open_sweep(file)
    assert (again.drawn, len(again.problems)) == (0, 0)
    assert again.frame().drop(columns="seconds").equals(found.frame().drop(columns="seconds"))


def test_the_command_draws_while_a_notebook_looks_and_goes_on_after_an_interruption(written):
    file = written(over={"weights": [number / 12 for number in range(12)]}, steps=8, seeds=[0, 1, 2, 3], score=[])
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import workbench.__main__"
    command = [sys.executable, "-c", code, "sweep", str(file)]  # a program started in the background ignores Ctrl-C otherwise
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=file.parent, env=environment)
    until = time.monotonic() + 300
    while process.poll() is None and len(list(file.parent.glob("out/sweeps/*/*/cell.json"))) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGSTOP)  # in the middle, however slow the look at it is
    meanwhile = wb.open_sweep(file)
    process.send_signal(signal.SIGINT)  # which it gets before anything else
    process.send_signal(signal.SIGCONT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "stopped: what is drawn is kept, and the same command goes on from there" in errors
    assert "Traceback" not in errors
    there = [cell.drawn for cell in meanwhile]
    assert 2 <= sum(there) < 12
    assert set(meanwhile.problems.values()) == {"not drawn yet"}
    assert len(meanwhile[0].pictures) == 4
    assert meanwhile.grid().images[-1] is None
    assert sum(cell.drawn for cell in wb.open_sweep(file)) >= sum(there)


def test_processes_of_this_machine_draw_the_same(written, monkeypatch):
    with executor_of(ExecutorFields(processes=3)) as executor:
        assert executor._max_workers == 3
    here = draw_sweep(written())
    there = draw_sweep(written(name="processes", executor={"processes": 1}))
    assert there.drawn == 2
    assert [one.pictures[0].size for one in here] == [one.pictures[0].size for one in there]
    assert not there.problems


def test_scorers_are_named_and_their_folders_seen_from_the_file(tmp_path):
    (tmp_path / "clip").mkdir()
    assert ScorerFields(clip="clip").made(tmp_path).model == str(tmp_path / "clip")
    assert ScorerFields(clip="openai/clip-vit-base-patch32").made(tmp_path).model == "openai/clip-vit-base-patch32"
    choice = ScorerFields(choice={"clip": CLIP, "column": "shape", "words": ["heart", "moon"]}).made(tmp_path)
    assert isinstance(choice, ClipChoice)
    assert isinstance(choice.clip, ClipScorer)
    assert ScorerFields(clip="clip", device="cuda").made(tmp_path).device == "cuda"
    assert ScorerFields(distance="heart").made(tmp_path).parent == "heart"


def test_pictures_for_a_device_that_only_workers_have_are_planned_here(written):
    found = wb.open_sweep(written(renderer={"device": "cuda", "dtype": "float16", "config": str(DATA / "shapes-sd" / "config")}))
    assert found[0].job.spec.device == "cuda"
    assert found[0].job.folder != wb.open_sweep(written())[0].job.folder
    assert found[0].problem == "not drawn yet"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"workbench_sweep": 2}, "strengths.yaml: workbench_sweep: Input should be 1"),
        ({"prompts": None}, "strengths.yaml: prompts: Field required"),
        ({"promts": ["x"]}, "promts: Extra inputs are not permitted; did you mean 'prompts'?"),
        (
            {"over": {"wieghts": [1]}},
            r"strengths.yaml: over: task_arithmetic has no option 'wieghts'.*did you mean 'weights'.*it has weights",
        ),
        ({"over": {"weights": 1}}, "over.*weights: Input should be a valid list"),
        ({"seeds": [-1]}, "seeds.0: Input should be greater than or equal to 0"),
        ({"score": [{"clip": "a", "distance": "b"}]}, "score.0: a scorer is one of clip:, choice: or distance:"),
        ({"executor": {}}, "executor: an executor is processes: or dask:"),
        ({"executor": {"processes": 0}}, "executor.processes: Input should be greater than or equal to 1"),
        ({"renderer": {"divice": "cpu"}}, "renderer.divice: Extra inputs are not permitted; did you mean 'device'?"),
        ({"cells": 1}, "a sweep of 2 cells.*cells=2"),
    ],
)
def test_a_file_that_makes_no_sense_is_named_with_the_field(written, fields, message):
    with pytest.raises(SweepError, match=message):
        draw_sweep(written(**fields))


def test_a_scheduler_that_does_not_answer_is_named(written, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("workbench.sweeps.run_file._PATIENCE", 0.2)
    with pytest.raises(SweepError, match=r"executor.dask: no scheduler answers at 'tcp://127.0.0.1:9' .*start one with `dask scheduler`"):
        draw_sweep(written(executor={"dask": "tcp://127.0.0.1:9"}))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(SweepError, match=r"absent.yaml: cannot be read: No such file"):
        wb.open_sweep(tmp_path / "absent.yaml")
    (tmp_path / "damaged.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(SweepError, match=r"damaged.yaml: is not YAML that can be read"):
        wb.open_sweep(tmp_path / "damaged.yaml")
    (tmp_path / "list.yaml").write_text("[1]", encoding="utf-8")
    with pytest.raises(SweepError, match=r"list.yaml: the file: Input should be a valid dictionary"):
        wb.open_sweep(tmp_path / "list.yaml")


def test_the_file_in_the_documents_can_be_read():
    first, _ = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8"), re.DOTALL)
    fields = SweepFields.model_validate(yaml.safe_load(first))
    assert fields.over["density"] == [0.2, 0.5, 1.0]
    assert fields.executor.dask == "tcp://scheduler:8786"
    assert [one.model_fields_set for one in fields.score] == [{"clip"}, {"distance"}]
