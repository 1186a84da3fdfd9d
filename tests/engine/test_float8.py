"""Results in float8: rounded to the nearest, saturated beyond the largest, and counted."""

from __future__ import annotations

import math
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from held import Held
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from workbench.errors import MergeWarning, NonFiniteWarning
from workbench.tensors import Space, rounded

FLOAT8 = {"float8_e4m3fn": 448.0, "float8_e5m2": 57344.0}
both = pytest.mark.parametrize(("dtype", "largest"), FLOAT8.items())


def of(values: list[float], name: str = "a") -> Held:
    return Held({"x": torch.tensor(values)}, name)


def filed(folder: Path, values: list[float], name: str = "a") -> wb.Checkpoint:
    """The same in a file, which a recipe can name."""
    return wb.export(of(values), folder / f"{name}.safetensors", progress=False).open()


@both
@given(value=st.floats(width=32, allow_nan=False))
def test_every_value_becomes_one_of_the_nearest(dtype, largest, value):
    """Every one of the 256 codes is tried, as an independent table of what there is."""
    codes = torch.arange(256, dtype=torch.uint8).view(getattr(torch, dtype)).double()
    there = codes[codes.isfinite()]
    result = rounded(torch.tensor([value]), getattr(torch, dtype)).double().item()
    wanted = max(min(value, largest), -largest)
    assert abs(result - wanted) == float((there - wanted).abs().min())


@both
def test_what_lies_beyond_is_the_largest_and_nan_stays(dtype, largest):
    values = torch.tensor([2 * largest, -2 * largest, math.inf, -math.inf, math.nan])
    result = rounded(values, getattr(torch, dtype)).float()
    assert result[:4].tolist() == [largest, -largest, largest, -largest]
    assert result[4].isnan()


@both
def test_the_file_has_it_and_the_warning_counts_what_saturated(dtype, largest, tmp_path):
    a = filed(tmp_path, [1.0, 2 * largest, -3 * largest, largest])
    merge = wb.operators.weighted_average([a, a])
    with pytest.warns(NonFiniteWarning, match="2 values of 'x' lie beyond the largest of its dtype, and were set to it"):
        written = wb.export(merge, tmp_path / "out.safetensors", dtype=dtype, progress=False).open()
    assert written.info("x").dtype_name == dtype
    assert written["x"].float().tolist() == [1.0, largest, -largest, largest]
    assert merge.with_dtype(dtype)["x"].float().tolist() == written["x"].float().tolist()


@both
def test_nothing_is_said_when_nothing_saturates(dtype, largest, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written = wb.export(of([0.5, -largest]), tmp_path / "out.safetensors", dtype=dtype, progress=False).open()
    assert written["x"].float().tolist() == [0.5, -largest]


def test_values_are_counted_over_every_piece_and_thread(tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.tensors.PIECE", 100)
    model = Held({f"t{i}": torch.full((1000,), 1e3) for i in range(5)}, "a")
    with pytest.warns(NonFiniteWarning, match="5000 values of 't0', 't1', 't2' and 2 more lie beyond"):
        wb.export(model, tmp_path / "out.safetensors", dtype="float8_e4m3fn", threads=4, progress=False)


def test_one_float8_into_the_other_saturates_too(tmp_path):
    model = Held({"x": torch.tensor([1024.0, 2.0]).to(torch.float8_e5m2)}, "a")
    with pytest.warns(NonFiniteWarning, match="1 values of 'x'"):
        written = wb.export(model, tmp_path / "out.safetensors", dtype="float8_e4m3fn", progress=False).open()
    assert written["x"].float().tolist() == [448.0, 2.0]


def test_a_recipe_may_ask_for_it(tmp_path):
    merge = wb.operators.weighted_average([filed(tmp_path, [1.0, 2.0])], dtype="float8_e5m2")
    merge.recipe.save(tmp_path / "recipe.yaml")
    assert wb.Recipe.load(tmp_path / "recipe.yaml").build()["x"].dtype == torch.float8_e5m2


def test_float16_overflow_names_the_tensor(tmp_path):
    base, big = filed(tmp_path, [0.0, 0.0], "base"), filed(tmp_path, [6e4, 1.0], "big")
    merge = wb.operators.task_arithmetic(base, [big, big])
    with pytest.warns(NonFiniteWarning, match=r"the result: 'x' holds values that its dtype turns into NaN or infinity"):
        wb.export(merge, tmp_path / "out.safetensors", dtype="float16", progress=False)


@both
def test_what_rounding_swallows_of_a_change_is_said_with_the_share_that_is_left(dtype, largest, tmp_path):
    made = torch.Generator().manual_seed(0)
    base = Held({"x": rounded(torch.randn(4096, generator=made), getattr(torch, dtype))}, "base")
    change = torch.randn(4096, generator=made)
    for strength, least, most in ((0.002, 0.0, 0.3), (2.0, 0.9, 1.1)):
        merge = wb.operators.add_delta(base, [Held({"x": change}, "lora", Space.DELTA)], strengths=strength)
        with pytest.warns(MergeWarning, match="rounding to float8 leaves") if least == 0 else nullcontext():
            result = wb.export(merge, tmp_path / f"{strength}.safetensors", dtype=dtype, progress=False)
        kept = result.open()["x"].float() - base["x"].float()
        wanted = merge.with_dtype("float32")["x"] - base["x"].float()
        assert result.kept == pytest.approx(float((kept * wanted).sum() / (wanted * wanted).sum()), rel=1e-4)
        assert least <= result.kept <= most
        assert ("rounding to float8 leaves" in result.note and "% of what the merge changes" in result.note) is (result.kept < 0.9)


def test_a_weak_change_of_a_model_that_was_not_float8_is_told_as_lost_though_its_mean_is_kept(tmp_path):
    # a value in so many crosses to the next step and carries the change of all: right on average, and noise
    made = torch.Generator().manual_seed(0)
    base = Held({"x": torch.randn(1 << 16, generator=made).bfloat16()}, "base")
    change = torch.randn(1 << 16, generator=made)
    merge = wb.operators.add_delta(base, [Held({"x": change}, "lora", Space.DELTA)], strengths=0.001)
    with pytest.warns(
        MergeWarning, match=r"float8 takes back the change of 9\d % of the values that the merge changes.*most of it is lost"
    ):
        result = wb.export(merge, tmp_path / "out.safetensors", dtype="float8_e4m3fn", progress=False)
    assert result.kept > 0.9


def test_it_is_measured_in_every_layout_and_for_averages_and_not_in_other_dtypes(tmp_path):
    unet = "model.diffusion_model.input_blocks.1.1.proj_in.weight"
    first, second = (Held({unet: rounded(value * torch.ones(2, 2, 1, 1), torch.float8_e4m3fn)}, "m") for value in (1.0, 1.125))
    merge = wb.operators.weighted_average([first, second], weights=[9, 1])
    for one in (merge, wb.in_layout(merge, "diffusers")):
        with pytest.warns(MergeWarning, match="leaves 0 % of what the merge changes"):
            result = wb.export(one, tmp_path / "out.safetensors", dtype="float8_e4m3fn", overwrite=True, progress=False)
        assert result.kept == 0
        assert "leaves 0 % of what the merge changes" in result.note
        wide = wb.export(one, tmp_path / "out.safetensors", dtype="bfloat16", overwrite=True, progress=False)
        assert (wide.kept, "rounding" in wide.note) == (None, False)


def test_preflight_says_so_where_both_are_float8():
    base = Held({"x": rounded(torch.ones(4), torch.float8_e4m3fn)}, "base")
    merge = wb.operators.weighted_average([base, base], dtype="float8_e4m3fn")
    (told,) = [text for text in wb.preflight(merge).notes if "rounding" in text]
    assert "1 merged tensors are float8_e4m3fn in the model that is changed, and in the result" in told
    assert not [text for text in wb.preflight(merge.with_dtype("bfloat16")).notes if "rounding" in text]
