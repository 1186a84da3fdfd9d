"""ComfyUI's int8, int4, mxfp8 and nvfp4 open as what their definitions say, which are written out here in NumPy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf_files import Type, blocks, write_gguf
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import workbench as wb
from workbench.errors import CheckpointError
from workbench.tensors import Storage

RNG = np.random.default_rng(0)
Tensors = dict[str, torch.Tensor]


def mark(**conf: object) -> torch.Tensor:
    return torch.tensor(list(json.dumps(conf).encode()), dtype=torch.uint8)


def opened(folder: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> wb.Checkpoint:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors", metadata)
    return wb.open(folder / "model.safetensors")


def hadamard(size: int) -> np.ndarray:
    """The regular Hadamard matrix over the root of its size."""
    small = np.array([[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]], np.float64)
    found = np.ones((1, 1))
    while len(found) < size:
        found = np.kron(found, small)
    return found / np.sqrt(size)


def swizzled(scales: np.ndarray) -> np.ndarray:
    """Scales in cuBLAS's order, one by one as its documentation counts them: the offset of row and column in their tile."""
    rows, columns = scales.shape
    tiles_down, tiles_across = -(-rows // 128), -(-columns // 4)
    out = np.zeros(tiles_down * tiles_across * 512, scales.dtype)
    for row in range(rows):
        for column in range(columns):
            tile = (row // 128) * tiles_across + column // 4
            out[tile * 512 + (row % 32) * 16 + ((row % 128) // 32) * 4 + column % 4] = scales[row, column]
    return out.reshape(tiles_down * 128, tiles_across * 4)


def float8(codes: np.ndarray) -> np.ndarray:
    """float8_e4m3fn by its bits."""
    sign, exponent, mantissa = codes >> 7, (codes >> 3) & 15, codes & 7
    values = np.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent.astype(int) - 7))
    return np.where(sign == 1, -values, values)


def nvfp4(rows: int, columns: int) -> tuple[Tensors, np.ndarray]:
    """A weight of random codes and scales, and what it stands for."""
    codes = RNG.integers(0, 16, (rows, columns))
    scales = RNG.integers(1, 0x7E, (rows, columns // 16)).astype(np.uint8)
    grid = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    values = np.where(codes >= 8, -1, 1) * grid[codes % 8]
    whole = values * np.repeat(np.float32(0.003) * float8(scales).astype(np.float32), 16, axis=1)
    stored = {
        "x.weight": torch.from_numpy((codes[:, ::2] * 16 + codes[:, 1::2]).astype(np.uint8)),
        "x.weight_scale": torch.from_numpy(swizzled(scales)).view(torch.float8_e4m3fn),
        "x.weight_scale_2": torch.tensor(0.003),
        "x.comfy_quant": mark(format="nvfp4"),
    }
    return stored, whole.astype(np.float32)


def mxfp8(rows: int, columns: int) -> tuple[Tensors, np.ndarray]:
    codes = RNG.integers(0, 0x7F, (rows, columns)).astype(np.uint8)
    powers = RNG.integers(100, 140, (rows, columns // 32)).astype(np.uint8)
    whole = float8(codes) * np.repeat(2.0 ** (powers.astype(int) - 127), 32, axis=1)
    stored = {
        "x.weight": torch.from_numpy(codes).view(torch.float8_e4m3fn),
        "x.weight_scale": torch.from_numpy(swizzled(powers)).view(torch.float8_e8m0fnu),
        "x.comfy_quant": mark(format="mxfp8"),
    }
    return stored, whole.astype(np.float32)


def int8(rows: int, columns: int, group: int | None = None) -> tuple[Tensors, np.ndarray]:
    codes = RNG.integers(-127, 128, (rows, columns)).astype(np.int8)
    scales = RNG.uniform(0.01, 0.1, (rows, 1)).astype(np.float32)
    whole = codes.astype(np.float32) * scales
    conf = {"convrot": True, "convrot_groupsize": group} if group else {}
    if group:
        whole = (whole.reshape(rows, -1, group).astype(np.float64) @ hadamard(group)).reshape(rows, columns)
    stored = {
        "x.weight": torch.from_numpy(codes),
        "x.weight_scale": torch.from_numpy(scales),
        "x.comfy_quant": mark(format="int8_tensorwise", **conf),
    }
    return stored, whole.astype(np.float32)


def int4(rows: int, columns: int, group: int) -> tuple[Tensors, np.ndarray]:
    codes = RNG.integers(-8, 8, (rows, columns))
    scales = RNG.uniform(0.01, 0.1, rows).astype(np.float32)
    whole = codes * scales[:, None].astype(np.float64)
    whole = (whole.reshape(rows, -1, group) @ hadamard(group)).reshape(rows, columns)
    stored = {
        "x.weight": torch.from_numpy(((codes[:, ::2] & 15) | ((codes[:, 1::2] & 15) << 4)).astype(np.uint8)).view(torch.int8),
        "x.weight_scale": torch.from_numpy(scales),
        "x.comfy_quant": mark(format="convrot_w4a4", convrot_groupsize=group),
    }
    return stored, whole.astype(np.float32)


EXACT = {
    "nvfp4": lambda: nvfp4(40, 96),
    "nvfp4 of several tiles": lambda: nvfp4(270, 160),
    "mxfp8": lambda: mxfp8(33, 96),
    "mxfp8 of several tiles": lambda: mxfp8(260, 320),
    "int8": lambda: int8(5, 24),
}
ROTATED = {
    "int8 in groups of 4": lambda: int8(6, 24, 4),
    "int8 in groups of 64": lambda: int8(5, 192, 64),
    "int8 in groups of 256": lambda: int8(4, 512, 256),
    "int4 in groups of 16": lambda: int4(6, 48, 16),
    "int4 in groups of 256": lambda: int4(3, 512, 256),
}


@pytest.mark.parametrize("kind", EXACT)
def test_weights_are_what_the_definition_says_to_the_bit(tmp_path, kind):
    stored, whole = EXACT[kind]()
    model = opened(tmp_path, stored | {"x.bias": torch.ones(2), "x.input_scale": torch.tensor(1.0)})
    assert sorted(model) == ["x.bias", "x.weight"]
    assert model.info("x.weight").dtype is torch.bfloat16
    assert np.array_equal(model.exact("x.weight").numpy(), whole)
    assert torch.equal(model["x.weight"], torch.from_numpy(whole).bfloat16())


@pytest.mark.parametrize("kind", ROTATED)
def test_rotated_weights_are_rotated_back(tmp_path, kind):
    stored, whole = ROTATED[kind]()
    model = opened(tmp_path, stored)
    assert np.abs(model.exact("x.weight").numpy() - whole).max() <= 2e-6 * np.abs(whole).max()
    assert model.storage("x.weight").kind.endswith("rotated")


ALL = {
    kind: make()
    for kind, make in (EXACT | ROTATED).items()
    if kind in ("nvfp4 of several tiles", "mxfp8 of several tiles", "int8 in groups of 64", "int4 in groups of 16")
}


@pytest.mark.parametrize("kind", ALL)
@given(first=st.floats(0, 1), last=st.floats(0, 1))
def test_every_part_is_that_part_of_the_whole_to_the_bit(tmp_path_factory, kind, first, last):
    model = opened(tmp_path_factory.mktemp("m"), ALL[kind][0])
    whole, (rows, columns) = model.exact("x.weight"), model.info("x.weight").shape
    part = wb.Flat(*sorted((int(first * rows * columns), int(last * rows * columns))))
    assert torch.equal(model.exact("x.weight", part), whole.reshape(-1)[part.start : part.stop])
    rows_part = wb.Rows(*sorted((int(first * rows), int(last * rows))))
    assert torch.equal(model.exact("x.weight", rows_part), whole[rows_part.start : rows_part.stop])


def test_int8_may_have_one_scale_for_the_tensor(tmp_path):
    codes = torch.randint(-127, 128, (3, 4), dtype=torch.int8)
    model = opened(tmp_path, {"x.weight": codes, "x.weight_scale": torch.tensor(0.25), "x.comfy_quant": mark(format="int8_tensorwise")})
    assert torch.equal(model.exact("x.weight"), codes.float() * 0.25)
    assert model.storage("x.weight") == Storage("scaled int8", 12 + 4)


def test_what_smooths_inputs_is_put_into_the_weights(tmp_path):
    stored, whole = nvfp4(8, 32)
    factors = torch.linspace(0.5, 2, 32)
    model = opened(tmp_path, stored | {"x.pre_quant_scale": factors})
    assert list(model) == ["x.weight"]
    assert np.array_equal(model.exact("x.weight").numpy(), whole * factors.numpy())


def test_scales_of_blocks_may_be_bytes(tmp_path):
    stored, whole = nvfp4(8, 32)
    model = opened(tmp_path, stored | {"x.weight_scale": stored["x.weight_scale"].view(torch.uint8)})
    assert np.array_equal(model.exact("x.weight").numpy(), whole)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("conf", ["nvfp4", {"format": "nvfp4"}])
def test_what_a_layer_is_stored_as_may_stand_in_the_header(tmp_path, prefix, conf):
    stored, whole = nvfp4(8, 32)
    tensors = {prefix + key: tensor for key, tensor in stored.items() if key != "x.comfy_quant"}
    model = opened(tmp_path, tensors, {"_quantization_metadata": json.dumps({"layers": {"x": conf}}), "title": "T"})
    assert np.array_equal(model.exact(f"{prefix}x.weight").numpy(), whole)
    assert dict(model.metadata) == {"title": "T"}


def test_formats_may_differ_from_layer_to_layer(tmp_path):
    layers = {"a": nvfp4(8, 32), "b": mxfp8(8, 32), "c": int8(8, 32)}
    tensors = {name + key[1:]: tensor for name, (stored, _) in layers.items() for key, tensor in stored.items()}
    model = opened(tmp_path, tensors)
    assert sorted(model) == ["a.weight", "b.weight", "c.weight"]
    assert all(np.array_equal(model.exact(f"{name}.weight").numpy(), whole) for name, (_, whole) in layers.items())
    assert [model.storage(f"{name}.weight").kind for name in layers] == ["nvfp4", "mxfp8", "scaled int8"]


def test_parents_of_different_kinds_merge_as_their_dequantised_copies_to_the_bit(tmp_path):
    parents = {
        "nvfp4": nvfp4(40, 96)[0],
        "mxfp8": mxfp8(40, 96)[0],
        "rotated": int8(40, 96, 16)[0],
        "plain": {"x.weight": torch.ones(40, 96).half()},
    }
    (tmp_path / "gguf").mkdir()
    write_gguf(tmp_path / "gguf" / "model.gguf", {"x.weight": (blocks(Type.Q5_1, (40, 96)), Type.Q5_1)}, None)
    models = [wb.open(tmp_path / "gguf" / "model.gguf")]
    for name, stored in parents.items():
        (tmp_path / name).mkdir()
        models.append(opened(tmp_path / name, stored))
    copies = []
    for number, model in enumerate(models):
        save_file({"x.weight": model.exact("x.weight").float()}, tmp_path / f"{number}.safetensors")
        copies.append(wb.open(tmp_path / f"{number}.safetensors"))
    results = []
    for parents_of_it in (models, copies):
        path = tmp_path / f"out-{len(results)}.safetensors"
        wb.export(
            wb.operators.ties(parents_of_it[4], [*parents_of_it[:4]], density=0.5, weights=0.7), path, dtype="float32", progress=False
        )
        results.append(wb.open(path)["x.weight"])
    assert torch.equal(*results)
    assert not torch.equal(results[0], models[4]["x.weight"].float())


def changed(stored: Tensors, **tensors: torch.Tensor | None) -> Tensors:
    found = stored | {f"x.{name}": tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


NVFP4, MXFP8, INT8 = nvfp4(8, 32)[0], mxfp8(8, 32)[0], int8(8, 32)[0]
WRONG = {
    "no scale": (changed(INT8, weight_scale=None), r"'x\.weight' is stored as int8_tensorwise, and its 'x\.weight_scale' is missing"),
    "no scale of blocks": (changed(NVFP4, weight_scale=None), r"'x\.weight' is stored as nvfp4, and its 'x\.weight_scale' is missing"),
    "no scale of the tensor": (
        changed(NVFP4, weight_scale_2=None),
        r"'x\.weight' is stored as nvfp4, and its 'x\.weight_scale_2' is missing",
    ),
    "no powers": (changed(MXFP8, weight_scale=None), r"'x\.weight' is stored as mxfp8, and its 'x\.weight_scale' is missing"),
    "too few scales": (
        changed(NVFP4, weight_scale=NVFP4["x.weight_scale"][:64]),
        r"'x\.weight_scale' .* should be \[128, 4\] scales of 'x\.weight' \[8, 32\]",
    ),
    "other codes": (
        changed(MXFP8, weight=torch.ones(8, 32, dtype=torch.int8)),
        r"'x\.weight' \(int8 \[8, 32\]\) is marked as mxfp8, which a matrix of",
    ),
    "no matrix": (
        changed(NVFP4, weight=torch.ones(8, 8, 2, dtype=torch.uint8)),
        r"'x\.weight' \(uint8 \[8, 8, 2\]\) is marked as nvfp4, which a matrix",
    ),
    "a format that is not read": (
        changed(INT8, comfy_quant=mark(format="asym_w4a8_int8")),
        r"is stored as ComfyUI's 'asym_w4a8_int8', which is not read; use an fp16",
    ),
    "no format": (changed(INT8, comfy_quant=mark(a=1)), r"is stored as ComfyUI's 'None', which is not read"),
    "no JSON": (changed(INT8, comfy_quant=torch.tensor([1], dtype=torch.uint8)), r"'x\.comfy_quant' is not JSON"),
    "no text": (changed(INT8, comfy_quant=torch.ones(3)), r"'x\.comfy_quant' \(float32 \[3\]\) should be a text"),
    "groups of 8": (
        changed(INT8, comfy_quant=mark(format="int8_tensorwise", convrot=True, convrot_groupsize=8)),
        "rotated in groups of 8; powers of 4",
    ),
    "groups that do not divide": (
        changed(INT8, comfy_quant=mark(format="int8_tensorwise", convrot=True, convrot_groupsize=64)),
        "in groups of 64 of a row",
    ),
    "too few factors": (
        changed(NVFP4, pre_quant_scale=torch.ones(31)),
        r"'x\.pre_quant_scale' \[31\] should be one float for each of 32 columns",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_refused_when_it_is_opened(tmp_path, what):
    tensors, told = WRONG[what]
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: .*{told}"):
        opened(tmp_path, tensors)


def with_value(tensor: torch.Tensor, value: int) -> torch.Tensor:
    found = tensor.clone()
    found.view(torch.uint8)[0, 0] = value
    return found


DAMAGED = {
    "a scale of blocks that is NaN": (
        changed(NVFP4, weight_scale=with_value(NVFP4["x.weight_scale"], 0x7F)),
        r"'x\.weight_scale' holds a scale of nan",
    ),
    "a negative scale of blocks": (
        changed(NVFP4, weight_scale=with_value(NVFP4["x.weight_scale"], 0xB8)),
        r"'x\.weight_scale' holds a scale of -1\.0",
    ),
    "a scale of blocks that is zero": (
        changed(NVFP4, weight_scale=with_value(NVFP4["x.weight_scale"], 0)),
        r"'x\.weight_scale' is zero where 'x\.weight' is not",
    ),
    "a scale of the tensor that is zero": (
        changed(NVFP4, weight_scale_2=torch.tensor(0.0)),
        r"'x\.weight_scale_2' is zero where 'x\.weight' is not",
    ),
    "a scale of the tensor that is NaN": (
        changed(NVFP4, weight_scale_2=torch.tensor(float("nan"))),
        r"'x\.weight_scale_2' holds a scale of nan",
    ),
    "a negative scale": (changed(INT8, weight_scale=-INT8["x.weight_scale"]), r"'x\.weight_scale' holds a scale of -0"),
    "a power that is NaN": (
        changed(MXFP8, weight_scale=with_value(MXFP8["x.weight_scale"], 255)),
        r"'x\.weight_scale' holds a scale of nan",
    ),
    "factors that are NaN": (
        changed(NVFP4, pre_quant_scale=torch.full((32,), float("nan"))),
        r"'x\.pre_quant_scale' holds NaN or infinity",
    ),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_scale_that_is_none_is_an_error_that_names_file_and_tensor(tmp_path, what):
    tensors, told = DAMAGED[what]
    model = opened(tmp_path, tensors)
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: {told}"):
        model.read("x.weight")
