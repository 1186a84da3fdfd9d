"""Vectors of an option: given, or from a source that is resolved before the first read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import pytest
import torch
from held import Held

import workbench as wb
from workbench.errors import OptionError
from workbench.merge import Vector, operator, sources
from workbench.tensors import Scope, Weight

IN, OUT = "model.diffusion_model.input_blocks.1.0.x", "model.diffusion_model.output_blocks.1.0.x"


@operator(scope=Scope.ELEMENT, keys="base", source="a test")
def write(base: Weight, *, numbers: Annotated[Sequence[float], Vector("what is written", per_block=True)]) -> Weight:
    """Write the numbers over the base."""
    return torch.tensor(numbers).reshape(-1)


@pytest.fixture
def base() -> Held:
    return Held({IN: torch.zeros(2), OUT: torch.zeros(2), "y": torch.zeros(2)}, "base")


def test_a_constant_is_one_number():
    assert sources.resolve({"constant": 0.25}) == [0.25]


def test_a_seed_gives_as_many_numbers_as_the_hypernetwork_the_same_every_time():
    numbers = sources.resolve({"seed": 3})
    assert len(numbers) == 256
    assert -1 <= min(numbers) < -0.9 < 0.9 < max(numbers) <= 1
    assert numbers == sources.resolve({"seed": 3}) != sources.resolve({"seed": 4})


def test_a_curve_is_its_points_and_of_one_point_it_is_level():
    assert sources.resolve({"curve": [[0, 1], [0.5, -1]]}) == [(0, 1), (0.5, -1)]
    assert sources.resolve({"curve": [[0.5, 2]]}) == [(0, 2), (1, 2)]


def test_each_block_may_have_a_source_of_its_own(base):
    merge = write(base, numbers={"blocks": {"IN*": {"constant": 2}, "default": [3.0, 4.0]}})
    assert [merge[key].tolist() for key in (IN, OUT, "y")] == [[2.0], [3.0, 4.0], [3.0, 4.0]]


def test_a_ramp_between_vectors_goes_number_by_number(base):
    merge = write(base, numbers={"ramp": {"start": [0.0, 8.0], "end": [4.0, 0.0], "first": 1, "last": 14, "elsewhere": [9.0]}})
    assert merge[IN].tolist() == [0.0, 8.0]
    assert merge[OUT].tolist() == [4.0, 0.0]
    half = write(base, numbers={"ramp": {"start": [0.0, 8.0], "end": [4.0, 0.0], "first": 0, "last": 2, "elsewhere": [9.0]}})
    assert half[IN].tolist() == [2.0, 4.0]


def test_a_ramp_between_vectors_of_two_lengths_is_refused(base):
    merge = write(base, numbers={"ramp": {"start": [0.0, 8.0], "end": [1.0], "first": 0, "last": 2, "elsewhere": [9.0]}})
    assert "a ramp must begin and end with as many numbers, got 2 and 1" in wb.preflight(merge).errors[0]


@pytest.mark.parametrize("missing", [{"blocks": {"IN*": [1.0]}}, {"ramp": {"start": [1.0], "end": [2.0]}}])
def test_what_has_no_default_must_say_what_goes_elsewhere(base, missing):
    with pytest.raises(OptionError, match=r"write: numbers needs '(default|elsewhere)' too"):
        write(base, numbers=missing)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"picture": "a heart"},
            r"that is no known source; there are \{constant\}, \{seed\}, \{curve\}, \{prompt, encoder, hypernetwork, seed\}",
        ),
        ({"constant": 1, "other": 2}, "that is no known source"),
        ({"constant": "much"}, "constant must be a finite number, got 'much'"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"curve": []}, "curve must be a list of points"),
        ({"curve": [0, 1]}, "curve must be a list of points"),
        ({"curve": [[0, float("nan")]]}, "curve must be a list of points"),
        ({"curve": [[0.5, 1], [0.25, 0]]}, r"frequencies must rise within \[0, 1\], got \[0.5, 0.25\]"),
        ({"curve": [[0, 1], [2, 0]]}, "frequencies must rise within"),
    ],
)
def test_a_bad_source_says_what_is_allowed(base, given, said):
    with pytest.raises(OptionError, match=rf"^write: numbers cannot be had from .*{said}"):
        write(base, numbers=given)


def test_the_recipe_keeps_the_source_and_not_its_numbers(base, tmp_path):
    path = wb.export(base, tmp_path / "base.safetensors", progress=False).path
    made = wb.operators.fft_blend(wb.open(path), wb.open(path), coefficients={"seed": 3})
    assert made.recipe.data.merge.options == {"coefficients": {"seed": 3}}
    assert made.recipe.build().options == made.options


@pytest.mark.usefixtures("forgotten")
def test_a_new_source_is_one_function(base):
    @sources.source
    def twice(twice: float, of: float = 1.0) -> list[float]:
        return [2 * twice * of]

    assert write(base, numbers={"twice": 3, "of": 2})["y"].tolist() == [12.0]
