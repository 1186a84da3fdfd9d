"""`with_dtype` of what is no merge: rounded where it is read, and what a recipe in its header says then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from held import Held
from safetensors import safe_open
from safetensors.torch import save_file

import workbench as wb
from workbench.errors import InputError, MissingTensorError, OptionError
from workbench.tensors import Calculation, Flat, Rows

KEY = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
average = wb.operators.weighted_average


def held() -> Held:
    made = torch.Generator().manual_seed(0)
    return Held({KEY: torch.randn(4, 6, generator=made), "n": torch.arange(3), "v_pred": torch.tensor([])}, "held")


def made(folder: Path, dtype: str | None, **settings: str) -> wb.Checkpoint:
    """A file that a merge of two wrote, in this dtype."""
    for name in "ab":
        save_file({KEY: torch.randn(4, 6, generator=torch.Generator().manual_seed(ord(name)))}, folder / f"{name}.safetensors")
    merge = average([wb.open(folder / f"{name}.safetensors") for name in "ab"], **settings)
    return wb.export(merge, folder / "made.safetensors", dtype=dtype, progress=False).open()


def header(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def test_floats_are_rounded_and_integers_and_markers_are_not():
    rounded = held().with_dtype("float16")
    assert [rounded.info(key).dtype_name for key in rounded] == ["float16", "int64", "float32"]
    assert torch.equal(rounded[KEY], held()[KEY].half())
    assert torch.equal(rounded["n"], torch.arange(3))
    assert torch.equal(rounded.read(KEY, Rows(1, 3)), held()[KEY][1:3].half())
    assert torch.equal(rounded.read(KEY, Flat(5, 9)), held()[KEY].flatten()[5:9].half())
    with pytest.raises(MissingTensorError):
        rounded.info("nothing")


def test_what_float8_cannot_hold_becomes_its_largest():
    assert Held({KEY: torch.tensor([1000.0])}).with_dtype("float8_e4m3fn")[KEY].float().item() == 448


def test_it_is_calculated_with_unrounded_and_rounded_anew_it_is_rounded_once():
    rounded = held().with_dtype("float8_e4m3fn")
    assert torch.equal(rounded.calculate(KEY, None, Calculation()), held()[KEY])
    assert torch.equal(rounded.with_dtype("float32")[KEY], held()[KEY])


def test_it_is_told_apart_from_what_it_was():
    one = held()
    assert len({one.fingerprint(KEY), one.with_dtype("float16").fingerprint(KEY), one.with_dtype("bfloat16").fingerprint(KEY)}) == 3


@pytest.mark.parametrize("dtype", ["int8", "half", None])
def test_another_dtype_than_a_result_can_have_is_refused_in_words(dtype):
    for one in (held(), average([held()])):
        with pytest.raises(OptionError, match=rf"dtype must be one of 'float32', .*, got {dtype!r}"):
            one.with_dtype(dtype)


def test_in_a_merge_it_would_not_be_rounded_and_is_refused():
    with pytest.raises(InputError, match=r"models\[0\] is held, with dtype='float16'; give dtype to the outermost merge only"):
        average([held().with_dtype("float16")])


def test_no_file_has_it_so_no_recipe_can_name_it(tmp_path):
    assert made(tmp_path, "float32").with_dtype("float16").path is None


def test_a_merged_file_in_another_dtype_has_the_recipe_that_makes_that(tmp_path):
    file = made(tmp_path, "float32")
    recipe = file.with_dtype("float16").recipe
    assert recipe.data.output.dtype == "float16"
    assert torch.equal(recipe.build()[KEY], file[KEY].half())


@pytest.mark.parametrize(("dtype", "settings"), [("float16", {}), ("float32", {"precision": "float64"})])
def test_a_recipe_that_would_round_otherwise_is_left_out_and_that_is_said(tmp_path, dtype, settings):
    file = made(tmp_path, dtype, **settings)
    assert file.recipe is not None
    assert file.with_dtype("bfloat16").recipe is None
    written = wb.export(file, tmp_path / "again.safetensors", dtype="bfloat16", progress=False)
    assert "without a recipe, for that of made is rounded already" in written.note
    assert "sd_merge_recipe" not in header(written.path)


def test_the_recipe_of_a_merged_file_written_elsewhere_names_its_models_from_there(tmp_path):
    file = made(tmp_path, None)
    (tmp_path / "elsewhere").mkdir()
    again = wb.export(file, tmp_path / "elsewhere" / "again.safetensors", progress=False)
    assert again.open().recipe.data.models["a"].path == "../a.safetensors"
    assert torch.equal(again.open().recipe.build()[KEY], file[KEY])


def test_a_recipe_in_a_header_that_cannot_be_read_stays_as_it_is(tmp_path):
    said = json.dumps({"type": "workbench", "recipe": {"workbench": 99}})
    save_file({KEY: torch.ones(1)}, tmp_path / "newer.safetensors", {"sd_merge_recipe": said})
    written = wb.export(wb.open(tmp_path / "newer.safetensors"), tmp_path / "out.safetensors", progress=False)
    assert header(written.path)["sd_merge_recipe"] == said
