"""Fingerprints: equal when, and only when, the same numbers would be read."""

from __future__ import annotations

import os
from typing import Annotated

import pytest
import torch
from held import Held

import workbench as wb
from workbench.errors import MissingTensorError
from workbench.merge import Prepared, Range, operator
from workbench.tensors import Scope, Weight

IN, OUT = "model.diffusion_model.input_blocks.1.0.x", "model.diffusion_model.output_blocks.1.0.x"
ops = wb.operators


@pytest.fixture
def models() -> list[Held]:
    return [Held({IN: torch.full((2,), float(i)), OUT: torch.ones(2)}, f"m{i}") for i in range(3)]


def prints(merge: wb.Checkpoint) -> list[str]:
    return [merge.fingerprint(key) for key in (IN, OUT)]


def test_nothing_is_read(models):
    prints(ops.ties(models[0], models[1:]))
    assert not any(model.reads for model in models)


def test_a_file_opened_again_is_the_same_and_a_changed_one_is_not(tmp_path, models):
    path = wb.export(models[0], tmp_path / "a.safetensors", progress=False).path
    before = wb.open(path).fingerprint(IN)
    assert wb.open(path).fingerprint(IN) == before != wb.open(path).fingerprint(OUT)
    os.utime(path, ns=(1, 1))
    assert wb.open(path).fingerprint(IN) != before


def test_checkpoints_in_memory_are_never_the_same(models):
    assert Held(models[0].tensors).fingerprint(IN) != models[0].fingerprint(IN)


def test_an_option_changes_the_blocks_it_changes(models):
    one, other = (ops.ties(models[0], models[1:], density={"blocks": {"IN*": share, "default": 0.5}}) for share in (0.2, 0.3))
    assert prints(one)[0] != prints(other)[0]
    assert prints(one)[1] == prints(other)[1] == prints(ops.ties(models[0], models[1:]))[1]


def test_inputs_operator_and_precision_change_it(models):
    a, b, c = models
    merges = [
        ops.task_arithmetic(a, [b]),
        ops.task_arithmetic(a, [c]),
        ops.magnitude_prune(a, [b]),
        ops.task_arithmetic(a, [b], precision="float64"),
        ops.task_arithmetic(a, [b], dtype="float16"),
        ops.task_arithmetic(a, [ops.weighted_average([b])]),
    ]
    assert len({merge.fingerprint(IN) for merge in merges}) == len(merges)
    assert prints(ops.task_arithmetic(a, [b])) == prints(merges[0])


def test_a_seed_changes_only_what_is_drawn(models):
    a, b, _ = models
    assert prints(ops.ties(a, [b], seed=0)) == prints(ops.ties(a, [b], seed=1))
    assert prints(ops.dare_linear(a, [b], seed=0)) != prints(ops.dare_linear(a, [b], seed=1))


def test_what_a_rule_takes_is_what_it_is_taken_from(models):
    a, b, _ = models
    for density in (0.2, 0.4):
        merge = ops.ties(a, [b], density=density, rules=[{"match": "*input*", "take": "base"}])
        assert merge.fingerprint(IN) == ops.dare_ties(a, [b], rules=[{"match": "*input*", "take": "base"}]).fingerprint(IN)


def test_an_operator_that_is_defined_anew_is_another():
    def define(factor: float):
        if factor == 2:

            @operator(scope=Scope.ELEMENT, keys="base", source="a test")
            def scaled(base: Weight, *, by: Annotated[float, Range(0, 1, 1, "nothing")] = 0.0) -> Weight:
                """Double."""
                return base * 2
        else:

            @operator(scope=Scope.ELEMENT, keys="base", source="a test")
            def scaled(base: Weight, *, by: Annotated[float, Range(0, 1, 1, "nothing")] = 0.0) -> Weight:
                """Treble."""
                return base * 3

        return scaled

    base = Held({"x": torch.ones(1)})
    assert define(2)(base).fingerprint("x") != define(3)(base).fingerprint("x")


def test_a_name_that_is_not_there_is_refused(models):
    with pytest.raises(MissingTensorError):
        models[0].fingerprint("nothing")


def test_an_operator_is_another_where_what_it_uses_is_another(models):
    """As in a notebook, where a helper is defined anew, or a function makes operators."""

    def made(factor: float | torch.Tensor, prepare=None) -> wb.Merge:
        def times(tensor: torch.Tensor) -> torch.Tensor:
            return tensor * factor

        @operator(scope=Scope.ELEMENT if prepare is None else Scope.MODEL, keys="base", source="a test", prepare=prepare)
        def scaled(base: Weight, *, prepared: Prepared = Prepared()) -> Weight:
            """Scale it."""
            return times(base) + (prepared.state or 0)

        return scaled(models[0])

    assert prints(made(2.0)) == prints(made(2.0)) != prints(made(3.0))

    masks = [torch.zeros(5000), torch.zeros(5000)]
    masks[1][2500] = 1
    assert prints(made(masks[0])) == prints(made(masks[0].clone())) != prints(made(masks[1]))

    def with_state(state: float) -> wb.Merge:
        return made(1.0, lambda passes: state)

    assert prints(with_state(1.0)) != prints(with_state(2.0))
    assert [with_state(state)[OUT].tolist() for state in (1.0, 2.0)] == [[2.0, 2.0], [3.0, 3.0]]


def test_a_helper_of_the_same_module_counts_too_and_one_may_call_itself(models, monkeypatch):
    @operator(scope=Scope.ELEMENT, keys="base", source="a test")
    def helped(base: Weight) -> Weight:
        """Have another do it."""
        return _helper(base)

    merge = helped(models[0])
    before = prints(merge)
    monkeypatch.setitem(globals(), "_helper", lambda tensor: tensor * 3)
    assert prints(helped(models[0])) != before


def _helper(tensor: torch.Tensor, left: int = 2) -> torch.Tensor:
    return _helper(tensor, left - 1) * _TWO if left else tensor


_TWO = 2
