"""What is read off an operator's signature, and what its author is told."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest

from workbench.errors import OptionError
from workbench.merge import OneOf, PerModel, Range, operator
from workbench.tensors import Deltas, Scope, Space, Weight

declared = operator(scope=Scope.TENSOR, keys="base", source="a test")


@declared
def keep(
    base: Weight,
    models: Deltas,
    *,
    density: Annotated[float, Range(0, 1, 0.01, "share kept")] = 0.5,
    weights: Annotated[PerModel[float], Range(-2, 2, 0.05, "how much", per_block=True)] = 1.0,
    sign: Annotated[Literal["total", "frequency"], OneOf("what votes")] = "total",
) -> Weight:
    """Keep some."""
    return base


def test_inputs_and_options_are_read_off_the_signature():
    found = keep.declaration
    assert [(slot.name, slot.space, slot.many) for slot in found.inputs] == [
        ("base", Space.WEIGHT, False),
        ("models", Space.DELTA, True),
    ]
    assert list(found.options) == ["density", "weights", "sign"]
    assert found.options["weights"].per_model
    assert not found.options["density"].constraint.per_block
    assert (found.options["sign"].constraint.choices, found.options["sign"].constraint.help) == (("total", "frequency"), "what votes")
    assert (found.summary, found.space) == ("Keep some.", Space.WEIGHT)


@pytest.mark.parametrize("value", ["totl", 3, None])
def test_a_choice_names_what_there_is(value):
    with pytest.raises(OptionError, match="keep: sign must be one of 'total', 'frequency'"):
        keep.declaration.options["sign"].check("keep", value, 2)


def test_an_input_without_its_kind_is_the_authors_error():
    with pytest.raises(TypeError, match="base must be annotated Weight"):

        @declared
        def wrong(base: int) -> Weight: ...


def test_an_option_without_bounds_is_the_authors_error():
    with pytest.raises(TypeError, match="option strength must have a default and be Annotated"):

        @declared
        def wrong(base: Weight, *, strength: float = 1.0) -> Weight: ...


def test_an_operator_without_a_docstring_is_the_authors_error():
    with pytest.raises(TypeError, match="wrong: needs a docstring"):

        @operator(scope=Scope.ELEMENT, keys="base", source="a test")
        def wrong(base: Weight) -> Weight: ...


def test_a_value_per_model_may_be_none_or_whole_as_any_other():
    @declared
    def counted(
        base: Weight,
        models: Deltas,
        *,
        counts: Annotated[PerModel[int | None], Range(0, 8, 1, "how many")] = None,
    ) -> Weight:
        """Count."""
        return base

    option = counted.declaration.options["counts"]
    assert (option.per_model, option.optional, option.constraint.whole) == (True, True, True)


def test_keys_of_no_input_are_the_authors_error():
    with pytest.raises(TypeError, match="keys must be 'union' or the name of a single input"):

        @operator(scope=Scope.ELEMENT, keys="bsae", source="a test")
        def wrong(base: Weight) -> Weight: ...


def test_deltas_before_the_weights_that_they_are_changes_of_are_the_authors_error():
    with pytest.raises(TypeError, match="deltas are changes of the first input, which must be weights, got models"):

        @operator(scope=Scope.ELEMENT, keys="base", source="a test")
        def wrong(models: Deltas, base: Weight) -> Weight: ...
