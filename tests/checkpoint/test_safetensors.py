"""Safetensors files: what is read is what was written, in any part; nothing is read early; a damaged file says so."""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import workbench as wb
from workbench.checkpoint.files import writing
from workbench.checkpoint.names.lora_names import is_lora
from workbench.errors import CheckpointError, ExportError, MissingTensorError
from workbench.tensors import DTYPE_CODES, TensorInfo, dtype_code

DTYPES = [TensorInfo((), code).dtype for code in DTYPE_CODES]
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
contents = st.dictionaries(st.text(max_size=6), st.tuples(shapes, st.sampled_from(DTYPES)), max_size=6)
relaxed = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def filled(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Every byte different from its neighbours, so that a part taken from the wrong place shows."""
    size = math.prod(shape) * torch.empty((), dtype=dtype).element_size()
    data = torch.arange(size) % (2 if dtype is torch.bool else 61)
    return data.to(torch.uint8).view(dtype).reshape(shape)


def bits(tensor: torch.Tensor) -> tuple[torch.dtype, tuple[int, ...], bytes]:
    return tensor.dtype, tuple(tensor.shape), tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def content(header: object, size: int = 0, length: int | None = None) -> bytes:
    """A file with any header at all (an object that becomes JSON, or bytes) and `size` bytes of data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(size)


def raw(path: Path, header: object, size: int = 0) -> Path:
    path.write_bytes(content(header, size))
    return path


def entry(begin: object, end: object, dtype: object = "F32", shape: object = (1,)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@relaxed
@given(shape=shapes, dtype=st.sampled_from(DTYPES), data=st.data())
def test_any_part_of_a_tensor_is_that_part_of_the_whole(tmp_path, shape, dtype, data):
    tensor = filled(shape, dtype)
    save_file({"before": filled((3,), dtype), "x": tensor, "y": filled((3,), dtype)}, tmp_path / "a.safetensors")
    checkpoint = wb.open(tmp_path / "a.safetensors")
    assert bits(checkpoint.read("x")) == bits(tensor)
    first, last = sorted(data.draw(st.tuples(st.integers(0, tensor.numel()), st.integers(0, tensor.numel()))))
    assert bits(checkpoint.read("x", wb.Flat(first, last))) == bits(tensor.reshape(-1)[first:last])
    if shape:
        first, last = sorted(data.draw(st.tuples(st.integers(0, shape[0]), st.integers(0, shape[0]))))
        assert bits(checkpoint.read("x", wb.Rows(first, last))) == bits(tensor[first:last])


@pytest.mark.parametrize("part", [wb.Flat(0, 7), wb.Flat(-1, 2), wb.Flat(3, 2), wb.Rows(0, 3), wb.Rows(-1, 1)], ids=str)
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_part_outside_the_tensor_is_refused_and_never_a_neighbours_data(tmp_path, part, suffix):
    tensors = {"a": torch.ones(9), "x": torch.zeros(2, 3), "z": torch.ones(9)}
    (save_file if suffix == ".safetensors" else torch.save)(tensors, tmp_path / f"a{suffix}")
    with pytest.raises(IndexError, match=r"\[2, 3\]"):
        wb.open(tmp_path / f"a{suffix}").read("x", part)


@relaxed
@given(tensors=contents)
def test_files_of_the_safetensors_library_open_identically(tmp_path, tensors):
    assume(not is_lora(tensors))  # hypothesis tries the strings of this package, too
    made = {name: filled(*tensor) for name, tensor in tensors.items()}
    save_file(made, tmp_path / "a.safetensors", {"format": "pt", "é": "ü"})
    checkpoint = wb.open(tmp_path / "a.safetensors")
    assert set(checkpoint) == set(made)
    assert checkpoint.metadata == {"format": "pt", "é": "ü"}
    for name, tensor in made.items():
        info = checkpoint.info(name)
        assert (info.shape, info.dtype, info.nbytes) == (tuple(tensor.shape), tensor.dtype, tensor.nbytes)
        assert bits(checkpoint[name]) == bits(tensor)


@relaxed
@given(tensors=contents)
def test_what_is_exported_the_safetensors_library_loads_identically(tmp_path, tensors):
    made = {name: filled(*tensor) for name, tensor in tensors.items()}
    save_file(made, tmp_path / "a.safetensors", {"format": "pt", "é": "ü"})
    wb.export(wb.open(tmp_path / "a.safetensors"), tmp_path / "b.safetensors", overwrite=True, progress=False, threads=1)
    loaded = load_file(tmp_path / "b.safetensors")
    assert {name: bits(tensor) for name, tensor in loaded.items()} == {name: bits(tensor) for name, tensor in made.items()}


@given(lengths=st.lists(st.sampled_from(DTYPE_CODES), max_size=5), least=st.integers(0, 700), text=st.text(max_size=9))
@settings(deadline=None)
def test_every_tensor_is_aligned_whatever_the_header_holds(lengths, least, text):
    infos = {f"t{i}": TensorInfo((i,), code) for i, code in enumerate(lengths)}
    header, begins = writing.safetensors_header(infos, {"text": text}, least)
    assert len(header) >= least
    assert len(header) % 8 == 0
    assert all(begin % infos[key].itemsize == 0 for key, begin in begins.items())
    assert json.loads(header[8:])["__metadata__"] == {"text": text}


def test_a_files_order_of_names_is_kept(tmp_path):
    names = ["z", "a", "m"]
    header = {name: entry(4 * i, 4 * i + 4) for i, name in enumerate(names)}
    assert list(wb.open(raw(tmp_path / "a.safetensors", header, 12))) == names


def test_a_file_without_tensors_opens_empty(tmp_path):
    assert len(wb.open(raw(tmp_path / "a.safetensors", {}))) == 0


def test_opening_a_large_file_reads_no_data(tmp_path):
    size = 6 << 30
    path = raw(tmp_path / "a.safetensors", {"x": entry(0, size, "F16", [size // 2])})
    os.truncate(path, path.stat().st_size + size)  # sparse: it takes no disk, and reading it all would take memory
    checkpoint = wb.open(path)
    assert checkpoint.nbytes == size
    assert torch.equal(checkpoint.read("x", wb.Flat(2 << 30, (2 << 30) + 3)), torch.zeros(3, dtype=torch.float16))
    assert path.stat().st_blocks * 512 < 1 << 20


def test_looking_at_names_and_shapes_does_not_load_torch(tmp_path):
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(2, 2)}, tmp_path / "a.safetensors")
    code = (
        "import sys, workbench as wb; c = wb.open(sys.argv[1]); i = c.info(next(iter(c)));"
        "print(len(c), i.shape, i.dtype_name, i.nbytes, c.architecture, c.block(next(iter(c))), repr(c)); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.safetensors"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["1 (2, 2) float32 16 SD 1.x IN00 <SafetensorsFile 'a': SD 1.x, 1 tensors, 0.0 MB>", "False"]


def test_a_tensor_that_is_read_belongs_to_the_caller(tmp_path):
    save_file({"x": torch.zeros(4)}, tmp_path / "a.safetensors")
    checkpoint = wb.open(tmp_path / "a.safetensors")
    checkpoint["x"].add_(1)
    assert torch.equal(checkpoint["x"], torch.zeros(4))


def test_an_open_checkpoint_keeps_its_tensors_when_the_file_is_replaced(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.zeros(4)}, path)
    checkpoint = wb.open(path)
    save_file({"x": torch.ones(4)}, tmp_path / "b.safetensors")
    (tmp_path / "b.safetensors").replace(path)
    assert torch.equal(checkpoint["x"], torch.zeros(4))
    assert torch.equal(wb.open(path)["x"], torch.ones(4))


def test_a_file_cut_short_after_opening_is_an_error_that_names_the_tensor(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.zeros(4000)}, path)
    checkpoint = wb.open(path)
    os.truncate(path, 500)
    with pytest.raises(CheckpointError, match=r"a\.safetensors.*'x'.*cut short"):
        checkpoint.read("x")


def test_a_path_stays_right_when_the_current_folder_changes(tmp_path, monkeypatch):
    save_file({"x": torch.zeros(4)}, tmp_path / "a.safetensors")
    monkeypatch.chdir(tmp_path)
    checkpoint = wb.open("a.safetensors")
    monkeypatch.chdir("/")
    assert [path.is_file() for path in checkpoint.sources()] == [True]


def test_a_missing_tensor_names_file_and_tensor(tmp_path):
    save_file({"x": torch.zeros(4)}, tmp_path / "a.safetensors")
    for ask in (lambda c: c["y"], lambda c: c.info("y"), lambda c: c.read("y", wb.Flat(0, 1))):
        with pytest.raises(MissingTensorError, match=r"a\.safetensors.*'y'"):
            ask(wb.open(tmp_path / "a.safetensors"))
    assert wb.open(tmp_path / "a.safetensors").get("y") is None


ONE = {"x": entry(0, 4)}
HUGE = 10**30
DAMAGED = {
    "empty": (b"", "too few"),
    "seven bytes": (b"1234567", "too few"),
    "header longer than the file": (content(ONE, 4, length=5000), "header should have 5000 bytes"),
    "header of 2**64 bytes": (content(ONE, 4, length=2**64 - 1), "header should have"),
    "header of no bytes": (content(b""), "not JSON"),
    "not JSON": (content(b"{x: 1}"), "not JSON"),
    "not UTF-8": (content(b'{"\xff": 1}'), "not JSON"),
    "nested too deep": (content(b"[" * 200_000), "not JSON"),
    "a number too long": (content(b'{"x":' + b"1" * 9999 + b"}"), "not JSON"),
    "a list": (content([1]), "JSON list, not an object"),
    "a number": (content(3), "JSON int, not an object"),
    "a name twice": (content(b'{"x":{},"x":{}}'), "'x' occurs twice"),
    "a field twice": (content(b'{"x":{"dtype":"F32","dtype":"F16"}}'), "'dtype' occurs twice"),
    "half a character": (content(rb'{"\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4), "not JSON"),
    "no entry": (content({"x": 3}), "'x' needs dtype, shape and data_offsets"),
    "an entry of null": (content({"x": None}), "'x' needs dtype"),
    "an entry of text": (content({"x": "dtype"}), "'x' needs dtype"),
    "no dtype": (content({"x": {"shape": [1], "data_offsets": [0, 4]}}, 4), "'x' needs dtype"),
    "unknown dtype": (content({"x": entry(0, 4, "F31")}, 4), "dtype 'F31'; known are F64"),
    "dtype of the wrong type": (content({"x": entry(0, 4, ["F32"])}, 4), "dtype"),
    "shape of the wrong type": (content({"x": entry(0, 4, shape=1)}, 4), "'x' needs dtype, shape"),
    "shape of text": (content({"x": entry(0, 4, shape="1")}, 4), "natural numbers"),
    "negative shape": (content({"x": entry(0, 4, shape=[-1, -1])}, 4), "natural numbers"),
    "fractional shape": (content({"x": entry(0, 4, shape=[1.0])}, 4), "natural numbers"),
    "bool as shape": (content({"x": entry(0, 4, shape=[True])}, 4), "natural numbers"),
    "bool as offset": (content({"x": entry(False, 4)}, 4), "natural numbers"),
    "negative offset": (content({"x": entry(-4, 0)}, 4), "natural numbers"),
    "infinite offset": (content({"x": entry(0, math.inf)}, 4), "natural numbers"),
    "offset of text": (content({"x": entry("0", "4")}, 4), "natural numbers"),
    "three offsets": (content({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, 4), "'x' needs dtype"),
    "huge shape": (content({"x": entry(0, 4, shape=[HUGE])}, 4), "natural numbers"),
    "huge and empty shape": (content({"x": entry(0, 0, shape=[HUGE, 0])}), "natural numbers"),
    "huge shape and offset": (content({"x": entry(0, 4 * HUGE, shape=[HUGE])}, 4), "natural numbers"),
    "end before begin": (content({"x": entry(4, 0)}, 4), "offsets span -4"),
    "offsets that do not fit the shape": (content({"x": entry(0, 4, shape=[2])}, 4), "takes 8 bytes"),
    "out of range": (content({"x": entry(0, 8, shape=[2])}, 4), "truncated.*'x' is out of range"),
    "overlap": (content({"x": entry(0, 8, shape=[2]), "y": entry(4, 8)}, 8), "'y' begins at byte 4 and overlaps 'x'"),
    "two in one place": (content({"x": entry(0, 4), "y": entry(0, 4)}, 4), "overlaps"),
    "a hole": (content({"x": entry(0, 4), "y": entry(8, 12)}, 12), "hole of 4 bytes"),
    "a hole at the start": (content({"x": entry(4, 8)}, 8), "hole of 4 bytes"),
    "trailing bytes": (content(ONE, 5), "1 bytes follow the last tensor"),
    "metadata that is no mapping": (content({"__metadata__": ["pt"]}), "__metadata__"),
    "metadata that is no text": (content({"__metadata__": {"format": 1}}), "__metadata__"),
    "a web page": (b"<!DOCTYPE html><html>login first</html>", "no safetensors file"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_an_error_that_names_the_file_and_the_fault(tmp_path, name):
    damaged, said = DAMAGED[name]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=rf"bad\.safetensors: .*{said}"):
        wb.open(path)


@given(at=st.integers(0, 10_000), byte=st.integers(0, 255))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_header_with_a_changed_byte_opens_or_is_a_checkpoint_error(tmp_path, at, byte):
    path = tmp_path / "a.safetensors"
    if not path.exists():
        save_file({"x": filled((2, 3), torch.float16), "y": torch.zeros(2), "z": torch.tensor(1.0)}, path, {"format": "pt"})
    changed = bytearray(path.read_bytes())
    changed[at % len(changed)] = byte
    (tmp_path / "b.safetensors").write_bytes(changed)
    try:
        checkpoint = wb.open(tmp_path / "b.safetensors")
    except CheckpointError:
        return
    assert sum(checkpoint[key].nbytes for key in checkpoint) == checkpoint.nbytes == 24


@given(share=st.floats(0, 1, exclude_max=True))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_truncated_anywhere_is_refused(tmp_path, share):
    save_file({"x": torch.zeros(20), "y": torch.zeros(2, 2)}, tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "b.safetensors").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"b\.safetensors.*truncated"):
        wb.open(tmp_path / "b.safetensors")


def test_a_path_that_is_not_there_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=rf"a\.safetensors.*no such file.*{tmp_path}"):
        wb.open("a.safetensors")


@pytest.mark.parametrize("name", ["model.onnx", "model", "model.safetensors.part"])
def test_an_unknown_suffix_lists_those_that_are_known(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"\.safetensors, \.sft, \.ckpt"):
        wb.open(tmp_path / name)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), writing.replacing(path) as temporary:
        fail(temporary)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "old")]
    with writing.replacing(path) as temporary:
        temporary.write_text("new")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "new")]
    with pytest.raises(ExportError, match="no folder"), writing.replacing(tmp_path / "no" / "a.txt"):
        pass


def test_every_dtype_of_the_library_is_known():
    from safetensors.torch import _TYPES

    assert {dtype_code(dtype) for dtype in _TYPES.values() if "fnuz" not in str(dtype)} <= set(DTYPE_CODES)
