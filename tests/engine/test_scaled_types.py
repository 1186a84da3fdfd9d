"""Types with scales as ComfyUI has them: equal to what its own library makes, and float8 by `dtype` and `scaled`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from held import Held
from safetensors.torch import load_file

import workbench as wb
from workbench.engine.quantising.comfy_types import Float8Scaled, Int8ByRow, NvFp4Quantiser
from workbench.errors import ExportError
from workbench.tensors import TensorInfo

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "comfy_kitchen.safetensors"  # its metadata says what made it
KEY = "double_blocks.0.img_mod.lin.weight"


def flux() -> Held:
    made = torch.Generator().manual_seed(0)
    rows = torch.logspace(-5, 1, 96)[:, None]
    return Held({"img_in.weight": torch.randn(64, 64, generator=made), KEY: torch.randn(96, 64, generator=made) * rows}, "flux")


@pytest.mark.parametrize(
    ("quantiser", "kind", "parts"),
    [
        (Float8Scaled, "float8_e4m3fn", ("", ".scale")),
        (Int8ByRow, "int8_tensorwise", ("", ".scale")),
        (NvFp4Quantiser, "nvfp4", ("", ".block_scale", ".scale")),
    ],
)
def test_codes_and_scales_are_those_of_comfy_kitchen(quantiser, kind, parts):
    golden = load_file(GOLDEN)
    values = golden["values"]
    encoded = quantiser(TensorInfo(tuple(values.shape), "F32"), kind).encode(values.reshape(-1), 0)
    for (_, ours), part in zip(encoded.pieces, parts, strict=False):
        theirs = golden[kind + part]
        assert ours.dtype == theirs.dtype
        if kind == "nvfp4" and not part:
            theirs = theirs[: len(values)]  # it fills rows up to 16
        one, other = (tensor.reshape(-1).contiguous().view(torch.uint8) for tensor in (ours, theirs))
        if kind == "int8_tensorwise" and part:  # of the row of zeros any scale will do
            one, other = (torch.cat([tensor[:20], tensor[24:]]) for tensor in (one, other))
        assert one.equal(other)


def test_scaled_float8_is_the_type_of_that_name(tmp_path):
    by_dtype = wb.export(flux(), tmp_path / "a.safetensors", dtype="float8_e4m3fn", scaled=True, progress=False).path
    by_type = wb.export(flux(), tmp_path / "b.safetensors", quantise="float8_e4m3fn", progress=False).path
    assert {key: tensor.tolist() for key, tensor in load_file(by_dtype).items()} == {
        key: tensor.tolist() for key, tensor in load_file(by_type).items()
    }
    assert wb.open(by_dtype)["img_in.weight"].equal(flux()["img_in.weight"])  # what has to stay precise is not rounded


def test_a_scale_for_each_row_keeps_small_rows(tmp_path):
    whole = wb.export(flux(), tmp_path / "a.safetensors", dtype=torch.float8_e4m3fn, scaled=True, progress=False)
    rows = wb.export(flux(), tmp_path / "b.safetensors", dtype="float8_e4m3fn", scaled="row", progress=False)
    exact = flux()[KEY]
    errors = [((one.open().exact(KEY) - exact).norm(dim=1) / exact.norm(dim=1)).max() for one in (whole, rows)]
    assert errors[1] < 0.04 < errors[0]
    assert load_file(rows.path)[f"{KEY}_scale"].shape == (96,)
    assert load_file(rows.path)[KEY].dtype == torch.float8_e4m3fn


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"scaled": True}, "scaled=True with dtype='None' is no type of scaled float8; allowed are dtype='float8_e4m3fn' with scaled=True"),
        ({"dtype": "float16", "scaled": True}, "with dtype='float16' is no type"),
        ({"dtype": "float8_e5m2", "scaled": "row"}, "scaled='row' with dtype='float8_e5m2'"),
        ({"dtype": "float8_e4m3fn", "scaled": "column"}, "scaled='column'"),
        ({"dtype": "float8_e4m3fn", "scaled": True, "quantise": "nvfp4"}, "is for dtype alone"),
    ],
)
def test_other_ways_to_scale_are_refused(options, told, tmp_path):
    with pytest.raises(ExportError, match=told):
        wb.export(flux(), tmp_path / "x.safetensors", progress=False, **options)
    assert list(tmp_path.iterdir()) == []


def test_scaled_float8_is_no_type_of_gguf(tmp_path):
    with pytest.raises(ExportError, match="which is not written here; allowed are F32"):
        wb.export(flux(), tmp_path / "x.gguf", dtype="float8_e4m3fn", scaled=True, progress=False)
