"""What every operator promises, whoever wrote it: run over the registry, so that a new one is held to it at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from held import Held
from hypothesis import given, settings
from hypothesis import strategies as st

import workbench as wb
from benchmarks.method_costs import Alive
from workbench.merge import Operator, Range
from workbench.operators import own
from workbench.tensors import Flat, Rows, Scope, Space

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
every_operator = pytest.mark.parametrize("operator", own().values(), ids=own())
every_shape = pytest.mark.parametrize("shape", [(), (1,), (3,), (5,), (6, 4), (6, 3, 2, 2), (0, 4)], ids=str)


def arguments(operator: Operator, shape: tuple[int, ...], seed: int = 0, models: int = 2) -> list[Any]:
    """Random tensors for an operator's inputs; lists where it takes several models."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda: torch.randn(shape, generator=generator)  # noqa: E731
    return [[draw() for _ in range(models)] if slot.many else draw() for slot in operator.declaration.inputs]


def required(operator: Operator) -> dict[str, Any]:
    """A value for each option that has no default."""
    return {name: [0.5, -0.5, 0.25] for name, option in operator.declaration.options.items() if option.required}


def flat(inputs: list[Any]) -> list[torch.Tensor]:
    return [tensor for given in inputs for tensor in (given if isinstance(given, list) else [given])]


def held(operator: Operator, shape: tuple[int, ...], seed: int = 0) -> list[Any]:
    """The same random numbers as checkpoints of one tensor."""
    wrap = lambda tensor: Held({"x": tensor})  # noqa: E731
    return [[wrap(t) for t in given] if isinstance(given, list) else wrap(given) for given in arguments(operator, shape, seed)]


@every_operator
def test_it_says_what_it_does_and_where_it_comes_from(operator):
    declaration = operator.declaration
    assert declaration.summary.endswith(".")
    assert len(declaration.source) > 10
    assert "Shapes:" in operator.__doc__
    for option in declaration.options.values():
        assert option.constraint.help, option.name


def test_what_was_measured_of_a_method_is_in_its_help():
    for name, operator in own().items():
        assert " ".join(wb.analysis.purpose_of(name).split()) in " ".join(operator.__doc__.split()), name
    assert "better than averaging" in own()["ties"].__doc__
    assert wb.analysis.purpose_of("of_my_own") == ""


@every_operator
def test_every_range_has_a_step_and_holds_its_default(operator):
    for option in operator.declaration.options.values():
        option.check(operator.declaration.name, required(operator).get(option.name, option.default), 1)
        if isinstance(option.constraint, Range):
            assert option.constraint.low < option.constraint.high
            assert 0 < option.constraint.step <= option.constraint.high - option.constraint.low


@every_operator
@every_shape
def test_the_result_has_the_inputs_shape_and_dtype_and_the_inputs_stay_as_they_are(operator, shape):
    inputs = arguments(operator, shape)
    before = [tensor.clone() for tensor in flat(inputs)]
    result = operator.function(*inputs, **required(operator))
    assert result.shape == shape
    assert result.dtype == torch.float32
    for tensor, copy in zip(flat(inputs), before, strict=True):
        assert torch.equal(tensor, copy)
        assert tensor.numel() == 0 or result.data_ptr() != tensor.data_ptr(), "the result must be memory of its own"


@every_operator
def test_what_it_works_with_is_a_small_multiple_of_its_inputs(operator):
    inputs = arguments(operator, (120, 100))
    operator.function(*inputs, **required(operator))  # what is made once and kept is not of this tensor
    with Alive() as alive:
        operator.function(*inputs, **required(operator))
    assert alive.most <= 5.5 * sum(tensor.nbytes for tensor in flat(inputs))


@every_operator
def test_it_gives_the_same_twice(operator):
    inputs = arguments(operator, (6, 4))
    first = operator.function(*inputs, **required(operator))
    assert torch.equal(first, operator.function(*inputs, **required(operator)))


@every_operator
def test_models_that_are_all_the_same_give_that_model(operator):
    """Where weights come in, the same weights go out; where deltas do, nothing changed."""
    one = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    same = {Space.WEIGHT: one, Space.DELTA: torch.zeros_like(one)}
    inputs = [[same[slot.space]] * 2 if slot.many else same[slot.space] for slot in operator.declaration.inputs]
    torch.testing.assert_close(operator.function(*inputs, **required(operator)), one)


@every_operator
@settings(max_examples=25)  # each of many operators; together they see all kinds of parts
@given(st.integers(0, 5), st.integers(1, 6), st.integers(0, 20), st.integers(1, 24))
def test_a_part_of_the_result_is_the_result_of_that_part(operator, first, rows, start, count):
    whole = operator(*held(operator, (6, 4)), **required(operator))["x"]
    some = Rows(first, min(first + rows, 6))
    torch.testing.assert_close(
        operator(*held(operator, (6, 4)), **required(operator)).read("x", some), whole[some.start : some.stop], rtol=0, atol=0
    )
    piece = Flat(start, min(start + count, 24))
    torch.testing.assert_close(
        operator(*held(operator, (6, 4)), **required(operator)).read("x", piece),
        whole.reshape(-1)[piece.start : piece.stop],
        rtol=0,
        atol=0,
    )


@every_operator
def test_it_reads_no_more_than_its_scope_needs(operator):
    inputs = held(operator, (6, 4))
    operator(*inputs, **required(operator)).read("x", Flat(5, 7))
    parts = {part for checkpoint in flat(inputs) for _, part in checkpoint.reads}
    expected = {Scope.ELEMENT: Flat(5, 7), Scope.ROW: Rows(1, 2), Scope.TENSOR: None}
    assert parts == {expected[operator.declaration.scope_for({})]}


@every_operator
def test_its_golden_recipe_gives_what_it_always_gave(operator):
    """`tests/golden/NAME.yaml` and `NAME.safetensors` are written once, by hand or by export, and kept for ever."""
    name = operator.declaration.name
    merge = wb.Recipe.load(GOLDEN / f"{name}.yaml").build()
    expected = wb.open(GOLDEN / f"{name}.safetensors")
    assert merge.call.operator.name == name
    assert list(merge) == sorted(expected, key=list(merge).index)
    for key in expected:
        torch.testing.assert_close(merge[key], expected[key], rtol=1e-6, atol=1e-7)


@every_operator
def test_its_file_is_the_same_bytes_on_one_thread_and_on_eight(operator, tmp_path):
    merge = wb.Recipe.load(GOLDEN / f"{operator.declaration.name}.yaml").build()
    bytes_of = [wb.export(merge, tmp_path / "out.safetensors", threads=t, overwrite=True, progress=False).path.read_bytes() for t in (1, 8)]
    assert bytes_of[0] == bytes_of[1]
