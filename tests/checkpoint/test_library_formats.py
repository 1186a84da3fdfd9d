"""Files of bitsandbytes, quanto and torchao open as what their definitions say, which are written out here in NumPy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import workbench as wb
from workbench.errors import CheckpointError
from workbench.tensors import Storage

RNG = np.random.default_rng(0)
NF4 = np.array(
    [-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0,
     0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0], np.float32,
)  # fmt: skip
Tensors = dict[str, torch.Tensor]


def text(said: object) -> torch.Tensor:
    return torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8)


def opened(folder: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> wb.Checkpoint:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors", metadata)
    return wb.open(folder / "model.safetensors")


def four_bits(
    shape: tuple[int, ...], block: int = 64, nested: int | None = None, told: object = None, **said: object
) -> tuple[Tensors, np.ndarray]:
    """A weight as bitsandbytes stores it, of random codes, and what it stands for; `nested` largest values share one."""
    count = int(np.prod(shape))
    codes, blocks = RNG.integers(0, 16, count + count % 2), -(-count // block)
    state = {"quant_type": "nf4", "blocksize": block, "dtype": "bfloat16", "shape": told or list(shape)}
    stored = {"x.weight": torch.from_numpy((codes[::2] * 16 + codes[1::2]).astype(np.uint8))[:, None]}
    if nested:
        table, outer = np.sort(RNG.uniform(-1, 1, 256)).astype(np.float32), RNG.uniform(0.01, 0.02, -(-blocks // nested)).astype(np.float32)
        inner = RNG.integers(0, 256, blocks)
        largest = table[inner] * np.repeat(outer, nested)[:blocks] + np.float32(0.05)
        state |= {"nested_blocksize": nested, "nested_dtype": "float32", "nested_offset": 0.05}
        stored |= {"x.weight.absmax": torch.from_numpy(inner.astype(np.uint8)), "x.weight.nested_absmax": torch.from_numpy(outer)}
        stored |= {"x.weight.nested_quant_map": torch.from_numpy(table)}
    else:
        largest = RNG.uniform(0.01, 0.1, blocks).astype(np.float32)
        stored |= {"x.weight.absmax": torch.from_numpy(largest)}
    stored |= {"x.weight.quant_map": torch.from_numpy(NF4), "x.weight.quant_state.bitsandbytes__nf4": text(state | said)}
    return stored, (NF4[codes[:count]] * np.repeat(largest, block)[:count]).reshape(shape)


KINDS = {
    "plain": four_bits((12, 40)),
    "nested": four_bits((40, 64), nested=16),
    "a last block that is not full": four_bits((5, 27)),
    "a convolution": four_bits((4, 3, 3, 3), block=16, nested=4),
}


@pytest.mark.parametrize("kind", KINDS)
def test_four_bits_are_values_of_their_table_times_the_largest_of_the_block(tmp_path, kind):
    stored, whole = KINDS[kind]
    model = opened(tmp_path, stored | {"x.bias": torch.ones(2)})
    assert sorted(model) == ["x.bias", "x.weight"]
    assert (model.info("x.weight").dtype, model.info("x.weight").shape) == (torch.bfloat16, whole.shape)
    assert np.array_equal(model.exact("x.weight").numpy(), whole)
    assert torch.equal(model["x.weight"], torch.from_numpy(whole).bfloat16())
    assert model.storage("x.weight") == Storage("NF4", sum(tensor.nbytes for tensor in stored.values()))


@pytest.mark.parametrize("kind", KINDS)
@given(first=st.floats(0, 1), last=st.floats(0, 1))
def test_every_part_of_four_bits_is_that_part_of_the_whole(tmp_path_factory, kind, first, last):
    stored, whole = KINDS[kind]
    model = opened(tmp_path_factory.mktemp("m"), stored)
    part = wb.Flat(*sorted((int(first * whole.size), int(last * whole.size))))
    assert np.array_equal(model.exact("x.weight", part).numpy(), whole.reshape(-1)[part.start : part.stop])


def test_four_bits_read_as_the_dtype_that_they_were_made_from(tmp_path):
    assert opened(tmp_path, four_bits((4, 64), dtype="float16")[0])["x.weight"].dtype is torch.float16


def test_int8_of_bitsandbytes_is_scaled_by_the_largest_of_each_row(tmp_path):
    codes, largest = RNG.integers(-127, 128, (4, 6)).astype(np.int8), RNG.uniform(0.1, 1, 4).astype(np.float32)
    stored = {"x.weight": torch.from_numpy(codes), "x.SCB": torch.from_numpy(largest)}
    stored |= {"x.weight_format": torch.tensor(0, dtype=torch.uint8)}
    model = opened(tmp_path, stored)
    assert list(model) == ["x.weight"]
    assert np.array_equal(model.exact("x.weight").numpy(), codes.astype(np.float32) * largest[:, None] * np.float32(7.874015718698502e-3))
    assert torch.equal(model.exact("x.weight", wb.Rows(1, 3)), model.exact("x.weight")[1:3])


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_quantos_codes_of_8_bits_are_read_under_the_weights_own_name(tmp_path, dtype):
    codes, scale = torch.randint(-100, 100, (3, 5)).to(dtype), torch.rand(3, 1).half()
    beside = {"x.bias": torch.ones(3), "x.input_scale": torch.tensor(1.0), "x.output_scale": torch.tensor(1.0)}
    model = opened(tmp_path, {"x.weight._data": codes, "x.weight._scale": scale, **beside})
    assert sorted(model) == ["x.bias", "x.weight"]
    assert torch.equal(model.exact("x.weight"), codes.float() * scale.float())
    assert model["x.weight"].dtype is torch.float16


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("zero", [False, True])
def test_torchaos_codes_of_8_bits_are_read_under_the_weights_own_name(tmp_path, dtype, zero):
    codes, scale, zeros = torch.randint(-100, 100, (3, 5)).to(dtype), torch.rand(3, 1), torch.tensor([[1], [0], [-2]], dtype=torch.int8)
    stored = {"x._weight_qdata": codes, "x._weight_scale": scale, "x.bias": torch.ones(3)}
    stored |= {"x._weight_zero_point": zeros} if zero else {}
    said = {"tensor_names": '["x.weight"]', "x.weight": '{"_type": "Int8Tensor"}', "x.bias": '{"_type": "Tensor"}', "title": "T"}
    model = opened(tmp_path, stored, said)
    assert sorted(model) == ["x.bias", "x.weight"]
    assert torch.equal(model.exact("x.weight"), (codes.float() - zeros.float() * zero) * scale)
    assert dict(model.metadata) == {"title": "T"}


def changed(stored: Tensors, tensors: dict[str, torch.Tensor | None]) -> Tensors:
    return {name: tensor for name, tensor in (stored | tensors).items() if tensor is not None}


PLAIN, NESTED = KINDS["plain"][0], KINDS["nested"][0]
STATE = "x.weight.quant_state.bitsandbytes__nf4"
WRONG = {
    "no state": (changed(PLAIN, {STATE: None}), rf"'x\.weight' is stored in 4 bits, and what says how is missing \({STATE}\)"),
    "no largest values": (
        changed(PLAIN, {"x.weight.absmax": None}),
        r"'x\.weight' is stored as NF4, and its 'x\.weight\.absmax' is missing",
    ),
    "no second table": (changed(NESTED, {"x.weight.nested_quant_map": None}), r"its 'x\.weight\.nested_quant_map' is missing"),
    "a state that is no JSON": (changed(PLAIN, {STATE: torch.ones(3, dtype=torch.uint8)}), rf"'{STATE}' is not JSON"),
    "a shape that contradicts": (four_bits((12, 40), told=[12, 41])[0], r"'x\.weight' \(uint8 \[240, 1\]\) should be 246 of U8"),
    "a shape that is none": (four_bits((12, 40), told=[12, -1])[0], rf"'{STATE}' has shape \[12, -1\]; a list of natural numbers"),
    "an unknown dtype": (four_bits((12, 40), dtype="int3")[0], rf"'{STATE}' has dtype 'int3'; allowed are float16, bfloat16, float32"),
    "blocks of nothing": (four_bits((12, 40), blocksize=0)[0], rf"'{STATE}' has blocks of 0; even numbers"),
    "an offset that is none": (four_bits((12, 40), nested=4, nested_offset="x")[0], rf"'{STATE}' has nested_offset x; a number"),
    "largest values in bytes": (
        changed(PLAIN, {"x.weight.absmax": torch.ones(8, dtype=torch.uint8)}),
        r"'x\.weight\.absmax' \(uint8 \[8\]\) should be 8 of F32",
    ),
    "no scale of quanto's": (
        {"x.weight._data": torch.ones(2, 2, dtype=torch.int8)},
        r"'x\.weight\._data' is stored as int8, and its 'x\.weight\._scale' is missing",
    ),
    "no scale of torchao's": (
        {"x._weight_qdata": torch.ones(2, 2, dtype=torch.int8)},
        r"'x\._weight_qdata' is stored as int8, and its 'x\._weight_scale' is missing",
    ),
    "packed bits of torchao's": (
        {"x._weight_qdata": torch.ones(2, 2, dtype=torch.uint8)},
        r"'x\._weight_qdata' \(uint8 \[2, 2\]\) is a tensor of torchao in packed bits",
    ),
    "a weight that is there twice": (
        {"x.weight._data": torch.ones(2, 2, dtype=torch.int8), "x.weight._scale": torch.ones(2, 1), "x.weight": torch.ones(2, 2)},
        r"'x\.weight' is there as it is, and quantised \('x\.weight\._data'\): nothing tells which is meant",
    ),
    "scales of columns": (
        {"x.weight._data": torch.ones(2, 3, dtype=torch.int8), "x.weight._scale": torch.ones(1, 3)},
        r"'x\.weight\._scale' \(float32 \[1, 3\]\) is no scale of 'x\.weight\._data' \[2, 3\] that is read",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_refused_when_it_is_opened(tmp_path, what):
    tensors, told = WRONG[what]
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: .*{told}"):
        opened(tmp_path, tensors)


@pytest.mark.parametrize("value", [-1.0, float("nan"), 0.0])
def test_a_largest_value_that_is_none_is_an_error_that_names_it(tmp_path, value):
    largest = PLAIN["x.weight.absmax"].clone()
    largest[3] = value
    model = opened(tmp_path, changed(PLAIN, {"x.weight.absmax": largest}))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: 'x\.weight\.absmax' (holds a scale|is zero)"):
        model.read("x.weight")
    assert model.exact("x.weight", wb.Flat(0, 3 * 64)).isfinite().all()
