"""Scaled fp8 opens as the weights it stands for, lazily; formats that are not read are refused by name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import workbench as wb
from workbench.errors import CheckpointError
from workbench.tensors import Calculation, Storage

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
WEIGHT = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
ROWS = torch.linspace(0.1, 2.0, 6)
# how ComfyUI spells it, the older and the newer way; and what lies beside
DIALECTS = {
    "scale_weight": {"x.scale_weight": torch.tensor(0.37), "x.scale_input": torch.tensor(1.0), "scaled_fp8": torch.empty(2, dtype=E4M3)},
    "weight_scale": {
        "x.weight_scale": torch.tensor([0.37]),
        "x.input_scale": torch.tensor(1.0),
        "x.comfy_quant": torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8),
    },
}


def opened(folder: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> wb.Checkpoint:
    save_file(tensors, folder / "model.safetensors", metadata)
    return wb.open(folder / "model.safetensors")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("dtype", [E4M3, E5M2])
def test_scaled_weights_are_read_times_their_scale_and_the_scales_are_hidden(tmp_path, dialect, dtype):
    bias, stored = torch.ones(6, dtype=torch.bfloat16), WEIGHT.to(dtype)
    model = opened(tmp_path, {"x.weight": stored, "x.bias": bias, **DIALECTS[dialect]}, {"_quantization_metadata": "{}", "title": "T"})
    assert sorted(model) == ["x.bias", "x.weight"]
    assert (model.info("x.weight").dtype, model.info("x.weight").shape) == (torch.bfloat16, (6, 5))
    assert torch.equal(model["x.weight"], (stored.float() * 0.37).bfloat16())
    assert torch.equal(model["x.bias"], bias)
    assert dict(model.metadata) == {"title": "T"}
    kind = f"scaled {str(dtype).removeprefix('torch.')}"
    assert model.notes == (f"1 of 2 tensors are quantised ({kind} 1), and are read as what they stand for, in bfloat16",)
    assert model.storage("x.weight") == Storage(kind, 30 + 4)


def test_a_merge_has_the_products_before_they_are_rounded(tmp_path):
    stored = WEIGHT.to(E4M3)
    model = opened(tmp_path, {"x.weight": stored, "x.scale_weight": torch.tensor(0.37)})
    assert torch.equal(model.calculate("x.weight", None, Calculation()), stored.float() * 0.37)
    wb.export(wb.operators.weighted_average([model]), tmp_path / "out.safetensors", dtype="float32", progress=False)
    assert torch.equal(load_file(tmp_path / "out.safetensors")["x.weight"], stored.float() * 0.37)
    wb.export(model, tmp_path / "copy.safetensors", dtype="float32", progress=False)
    assert torch.equal(load_file(tmp_path / "copy.safetensors")["x.weight"], stored.float() * 0.37)


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
@given(first=st.integers(0, 30), last=st.integers(0, 30), start=st.integers(0, 6), stop=st.integers(0, 6))
def test_every_part_of_a_tensor_with_a_scale_for_each_row_is_that_part_of_the_whole(tmp_path_factory, shape, first, last, start, stop):
    model = opened(tmp_path_factory.mktemp("m"), {"x.weight": WEIGHT.to(E4M3), "x.weight_scale": ROWS.reshape(shape)})
    whole = (WEIGHT.to(E4M3).float() * ROWS[:, None]).bfloat16()
    assert torch.equal(model["x.weight"], whole)
    flat, rows = wb.Flat(min(first, last), max(first, last)), wb.Rows(min(start, stop), max(start, stop))
    assert torch.equal(model.read("x.weight", flat), whole.reshape(-1)[flat.start : flat.stop])
    assert torch.equal(model.read("x.weight", rows), whole[rows.start : rows.stop])


def test_only_the_part_that_is_asked_for_is_read(tmp_path, monkeypatch):
    from workbench.checkpoint.files.safetensors_file import SafetensorsFile

    model = opened(tmp_path, {"x.weight": WEIGHT.to(E4M3), "x.weight_scale": ROWS})
    plain, read = SafetensorsFile.read, []
    monkeypatch.setattr(SafetensorsFile, "read", lambda self, key, part=None: read.append((key, part)) or plain(self, key, part))
    model.read("x.weight", wb.Flat(7, 12))
    assert read == [("x.weight", wb.Flat(7, 12)), ("x.weight_scale", wb.Flat(1, 3))]


def test_a_scale_in_another_shard_is_found(tmp_path):
    save_file({"x.weight": WEIGHT.to(E4M3)}, tmp_path / "m-00001-of-00002.safetensors")
    save_file({"x.scale_weight": torch.tensor(2.0)}, tmp_path / "m-00002-of-00002.safetensors")
    weight_map = {"x.weight": "m-00001-of-00002.safetensors", "x.scale_weight": "m-00002-of-00002.safetensors"}
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert torch.equal(wb.open(tmp_path)["x.weight"], (WEIGHT.to(E4M3).float() * 2).bfloat16())


def test_a_component_of_a_pipeline_keeps_its_exact_products(tmp_path):
    (tmp_path / "unet").mkdir()
    save_file({"x.weight": WEIGHT.to(E4M3), "x.scale_weight": torch.tensor(0.37)}, tmp_path / "unet" / "model.safetensors")
    (tmp_path / "model_index.json").write_text('{"unet": ["diffusers", "U"]}')
    pipeline = wb.open(tmp_path)
    assert torch.equal(pipeline.calculate("unet.x.weight", None, Calculation()), WEIGHT.to(E4M3).float() * 0.37)
    assert pipeline.origin("unet.x.weight") is None
    assert pipeline.notes


def test_plain_fp8_stays_as_it_is_with_and_without_the_marker(tmp_path):
    for beside in ({}, {"scaled_fp8": torch.empty(0, dtype=E4M3)}):
        model = opened(tmp_path, {"x.weight": WEIGHT.to(E4M3), **beside})
        assert list(model) == ["x.weight"]
        assert model["x.weight"].dtype is E4M3
        assert not model.notes


def test_a_scale_beside_wider_weights_is_a_tensor_like_any_other(tmp_path):
    model = opened(tmp_path, {"x.weight": WEIGHT, "x.weight_scale": torch.tensor(2.0), "y.weight_scale": torch.tensor(3.0)})
    assert len(model) == 3
    assert torch.equal(model["x.weight"], WEIGHT)


def test_two_reads_have_one_fingerprint_and_another_scale_another(tmp_path):
    model = opened(tmp_path, {"x.weight": WEIGHT.to(E4M3), "x.scale_weight": torch.tensor(0.37)})
    again = wb.open(model.path)
    assert model.fingerprint("x.weight") == again.fingerprint("x.weight")
    (tmp_path / "other").mkdir()
    other = opened(tmp_path / "other", {"x.weight": WEIGHT.to(E4M3), "x.scale_weight": torch.tensor(0.38)})
    assert model.fingerprint("x.weight") != other.fingerprint("x.weight")


REFUSED = {
    "SVDQuant (nunchaku)": {"x.qweight": torch.int8, "x.wscales": torch.bfloat16, "x.smooth_factor": torch.bfloat16},
    "nvfp4 that is not marked as ComfyUI's": {"x.weight": torch.uint8, "x.weight_scale": E4M3, "x.weight_scale_2": torch.float32},
    "fp8 with a scale for each block": {"x.weight": E4M3, "x.weight_scale_inv": torch.float32},
    "4 bits of GPTQ or AWQ": {"x.qweight": torch.int32, "x.scales": torch.float16},
    "packed bits of quanto": {"x.weight._data": torch.uint8, "x.weight._scale": torch.float16, "x.weight._shift": torch.int8},
    "SDNQ": {"x.weight": torch.uint8, "x.scale": torch.bfloat16, "x.zero_point": torch.bfloat16},
    "integers with a scale that nothing explains": {"x.weight": torch.int8, "x.weight_scale": torch.float32},
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_other_quantised_formats_are_refused_by_name_with_what_to_use(tmp_path, kind):
    told = rf"model\.safetensors: 'x\..*' belongs to weights in {re.escape(kind)}, which are not read; use an fp16 or bf16 version"
    with pytest.raises(CheckpointError, match=told):
        opened(tmp_path, {name: torch.ones(4, 4).to(dtype) for name, dtype in REFUSED[kind].items()})


@pytest.mark.parametrize("scale", [-1.0, float("nan"), float("inf"), 0.0])
@pytest.mark.parametrize("rows", [(), (6,)], ids=["tensor", "rows"])
def test_a_scale_that_is_none_is_an_error_that_names_it(tmp_path, scale, rows):
    model = opened(tmp_path, {"x.weight": WEIGHT.to(E4M3), "x.weight_scale": torch.full(rows, scale)})
    told = "is zero where 'x.weight' is not" if scale == 0 else f"holds a scale of {scale}; a scale is positive"
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: 'x\.weight_scale' {told}"):
        model.read("x.weight")
    with pytest.raises(CheckpointError, match=told):
        wb.export(wb.operators.weighted_average([model]), tmp_path / "out.safetensors", progress=False)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_row_of_zeros_may_have_a_scale_of_zero(tmp_path):
    weight, rows = WEIGHT.clone(), ROWS.clone()
    weight[2], rows[2] = 0, 0
    model = opened(tmp_path, {"x.weight": weight.to(E4M3), "x.weight_scale": rows})
    assert torch.equal(model.exact("x.weight"), weight.to(E4M3).float() * rows[:, None])


@pytest.mark.parametrize("scale", [torch.ones(2), torch.ones(6, 5), torch.ones(5), torch.ones(6, 2, 1), torch.ones(6, dtype=torch.uint8)])
def test_a_scale_that_does_not_fit_is_named_with_its_shape(tmp_path, scale):
    with pytest.raises(CheckpointError, match=r"'x\.scale_weight' \(.*\) is no scale of 'x\.weight' \[6, 5\] that is read: one float for"):
        opened(tmp_path, {"x.weight": WEIGHT.to(E4M3), "x.scale_weight": scale})
