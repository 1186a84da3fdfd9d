"""The benchmark of every operator: what it merges, how it counts up time, and that it goes on where it stopped."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from itertools import count
from pathlib import Path
from threading import get_ident

import pytest
import torch
from held import Held

import workbench as wb
from benchmarks import operators
from workbench.operators import own
from workbench.tensors import Scope, TensorInfo

GOLDEN = Path(__file__).resolve().parent / "golden"
CASES = operators.cases()


def test_every_operator_is_measured_and_over_the_whole_model_where_it_can_be():
    assert [case.operator for case in CASES if case.name == case.operator] == list(own())
    whole = {case.operator for case in CASES if own()[case.operator].declaration.scope_for(case.options) is Scope.MODEL}
    assert whole == {name for name, operator in own().items() if operator.declaration.prepare is not None}
    assert {case.operator for case in CASES if case.slow} == operators._SLOW


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_recipe_is_built_and_gives_something_else_than_any_of_its_models(case, tmp_path):
    for model, golden in {"base": "base", "first": "a", "second": "b"}.items():
        for before in ("", operators._BY_SHAPE):
            shutil.copy(GOLDEN / f"{golden}.safetensors", tmp_path / f"{before}{operators._FILES[model]}")
    (tmp_path / "recipe.yaml").write_text(case.recipe(tmp_path), encoding="utf-8")
    merge = wb.Recipe.load(tmp_path / "recipe.yaml").build()
    models = [wb.open(path) for path in case.files(tmp_path).values()]
    assert any(not any(torch.equal(merge[key], model[key]) for model in models) for key in merge)


def test_time_is_counted_up_by_how_many_tensors_have_a_shape(monkeypatch):
    clocks = defaultdict(count)
    monkeypatch.setattr(operators.time, "thread_time", lambda: next(clocks[get_ident()]))  # every tensor takes a second
    monkeypatch.setattr(
        operators, "sd15_tensors", lambda: {str(n): TensorInfo(shape, "F16") for n, shape in enumerate([(2,)] * 5 + [(3,)])}
    )
    merge = wb.operators.task_arithmetic(*_held())
    assert operators._times_as_much(merge) == (5 + 1) / 2


def _held():
    base, tuned = (Held({"x": torch.zeros(2), "y": torch.full((3,), number)}, name) for name, number in (("base", 1.0), ("tuned", 2.0)))
    return base, [tuned]


def test_what_was_measured_is_not_measured_again(monkeypatch, tmp_path, capsys):
    asked = []
    monkeypatch.setattr(operators, "_made", lambda folder: 1000)
    monkeypatch.setattr(
        operators,
        "measured",
        lambda case, folder: asked.append(case.name) or dict.fromkeys(("floor", "seconds", "inputs"), 1) | {"peak": 2},
    )
    (tmp_path / "operators.json").write_text(json.dumps({"slerp": {"floor": 2, "seconds": 3, "peak": 4, "inputs": 2}}), encoding="utf-8")
    operators.main(["--folder", str(tmp_path), "--operators", "slerp", "ties"])
    assert asked == ["ties", 'ties, over="model"']
    assert "| `slerp` | 1.5 | 4 | 2000.0 |" in capsys.readouterr().out
