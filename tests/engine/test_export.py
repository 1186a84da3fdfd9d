"""The file that `export` writes: it is what `read` gives, to the bit, whatever the threads, the parts, the dtype."""

from __future__ import annotations

import io
import json
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_models import MARKERS, SHAPES, TEXT, UNET, tensors

import workbench as wb
from workbench import tensors as tensors_module
from workbench.checkpoint.files.safetensors_file import SafetensorsFile
from workbench.engine import parts
from workbench.engine.quantising.quantiser import Plain
from workbench.merge import operator
from workbench.tensors import Calculation, Flat, Rows, Scope, Weight

average, add_difference, task_arithmetic = wb.operators.weighted_average, wb.operators.add_difference, wb.operators.task_arithmetic
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
read_file = SafetensorsFile.read
RAMP = {"ramp": {"start": [1, 0.2], "end": [0.1, 0.9], "elsewhere": 0.5}}


@operator(scope=Scope.ROW, keys="base", source="none")
def rows_normed(base: Weight) -> Weight:
    """Each row divided by its norm, which only whole rows know."""
    return base / base.norm(dim=-1, keepdim=True).clamp(min=1e-3) if base.ndim else base


@operator(scope=Scope.TENSOR, keys="base", source="none")
def centred(base: Weight) -> Weight:
    """Each tensor without its mean, which only the whole tensor knows."""
    return base - base.mean() if base.numel() else base


def merges(model) -> dict[str, wb.Merge]:
    """Merges of every scope, nested, with schedules and rules."""
    a, b, c = model("a"), model("b"), model("c")
    inner = average([a, b], weights=RAMP)
    return {
        "element": task_arithmetic(c, [inner, b], weights=RAMP, rules=[{"component": "vae", "take": "models[0]"}]),
        "rows": average([rows_normed(a), inner], weights=[0.3, 0.7]),
        "tensor": add_difference(rows_normed(a), centred(inner), c, strength=0.3),
        "double": average([a, b, c], weights=[0.1, 0.2, 0.4], precision="float64", dtype="float32"),
    }


def export(checkpoint: wb.Checkpoint, path: Path, **options: object) -> bytes:
    wb.export(checkpoint, path, overwrite=True, progress=False, **options)
    return path.read_bytes()


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return (one.dtype, one.shape) == (other.dtype, other.shape) and torch.equal(one, other)


@pytest.mark.parametrize("name", ["element", "rows", "tensor", "double"])
@pytest.mark.parametrize("dtype", [None, *DTYPES])
def test_the_file_holds_what_reading_the_merge_gives(model, out, name, dtype):
    merge = merges(model)[name]
    export(merge, out, dtype=dtype)
    loaded, expected = load_file(out), merge.with_dtype(dtype) if dtype else merge
    assert set(loaded) == set(expected)
    for key in expected:
        assert same(loaded[key], expected.read(key)), key
    assert set(wb.open(out)) == set(expected)


@pytest.mark.parametrize("name", ["element", "rows", "tensor", "double"])
def test_the_bytes_are_the_same_for_any_number_of_threads_and_any_size_of_parts(model, out, name, monkeypatch):
    merge = merges(model)[name]
    whole = export(merge, out, threads=1)
    for size in (1, 7, 64):
        monkeypatch.setattr(tensors_module, "PIECE", size)
        assert [export(merge, out, threads=threads) == whole for threads in (1, 2, 8)] == [True] * 3, size


def test_large_parts_end_anywhere_without_a_trace(model, out, monkeypatch):
    a, b = (model(name, {"x": torch.randn(3, 20_001).to(torch.bfloat16)}) for name in "ab")
    merge = average([a, b], weights=[0.3, 0.6], dtype="float32")
    whole = export(merge, out)
    for size in (4096, 4097, 10_000, 33_333):
        monkeypatch.setattr(tensors_module, "PIECE", size)
        assert export(merge, out) == whole, size
    assert same(wb.open(out)["x"], merge["x"])


@pytest.mark.parametrize("dtype", [*DTYPES, *DTYPES.values()], ids=str)
def test_floats_take_the_asked_dtype_and_integers_and_markers_keep_theirs(model, out, dtype):
    wanted = dtype if isinstance(dtype, torch.dtype) else DTYPES[dtype]
    a, b = model("a"), model("b")
    for checkpoint in (a, average([a, b])):
        export(checkpoint, out, dtype=dtype)
        loaded = load_file(out)
        assert {key for key, tensor in loaded.items() if tensor.dtype is wanted} >= set(SHAPES)
        assert all(same(loaded[key], tensor) for key, tensor in MARKERS.items())


def test_a_recipes_dtype_leaves_markers_alone_too(model, out):
    merge = average([model("a"), model("b")], dtype="bfloat16")
    assert all(merge.info(key).dtype is tensor.dtype and same(merge[key], tensor) for key, tensor in MARKERS.items())
    export(merge, out)
    assert all(same(load_file(out)[key], tensor) for key, tensor in MARKERS.items())


def test_each_tensor_has_by_default_the_dtype_of_its_first_model(model, out):
    a = model("a", {"x": torch.ones(3, dtype=torch.bfloat16), "y": torch.ones(3)})
    b = model("b", {"x": torch.ones(3), "y": torch.ones(3, dtype=torch.float16), "z": torch.ones(3, dtype=torch.float64)})
    export(average([a, b]), out)
    assert {key: tensor.dtype for key, tensor in load_file(out).items()} == {"x": torch.bfloat16, "y": torch.float32, "z": torch.float64}


def test_a_merge_of_float16_models_is_rounded_once_to_float32(model, out):
    a, b = (model(name, {"x": torch.tensor(values, dtype=torch.float16)}) for name, values in (("a", [0.1, 1.0]), ("b", [0.2, 3.0])))
    export(average([a, b], weights=[1, 2]), out, dtype="float32")
    exact = (a["x"].double() + 2 * b["x"].double()) / 3
    found = wb.open(out)["x"]
    assert (found.double() - exact).abs().max() < 3e-7
    assert not torch.equal(found, found.half().float())


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float64])
def test_unusual_floats_are_merged_and_keep_their_dtype(model, out, dtype):
    a, b = (model(name, {"x": torch.tensor([value, 2.0, -1.0]).to(dtype)}) for name, value in (("a", 1.0), ("b", 3.0)))
    export(average([a, b]), out)
    assert same(wb.open(out)["x"], torch.tensor([2.0, 2.0, -1.0]).to(dtype))


def test_a_plain_checkpoint_is_copied_bit_by_bit_with_what_its_header_says(model, out):
    a = model("a", tensors(1), {"modelspec.title": "A", "own": "é"})
    export(a, out)
    assert wb.open(out).metadata == {"modelspec.title": "A", "own": "é", "format": "pt"}
    assert all(same(load_file(out)[key], a[key]) for key in a)


@pytest.mark.parametrize("suffix", [".ckpt", ".bin"])
def test_a_pickle_becomes_a_safetensors_file(tmp_path, out, suffix):
    torch.save({"state_dict": tensors(1), "epoch": 3}, tmp_path / f"a{suffix}")
    export(wb.open(tmp_path / f"a{suffix}"), out)
    assert all(same(load_file(out)[key], tensor) for key, tensor in tensors(1).items())


def test_every_tensor_is_aligned_in_the_file(model, out):
    export(model("a", {"odd": torch.zeros(3, dtype=torch.uint8), "x": torch.zeros(3), "h": torch.zeros(3, dtype=torch.float16)}), out)
    content = out.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert (8 + length) % 8 == 0
    assert header["x"]["data_offsets"][0] % 4 == 0
    assert header["h"]["data_offsets"][0] % 2 == 0


def test_the_result_says_where_it_is_and_opens(model, out):
    done = wb.export(average([model("a"), model("b")]), str(out), progress=False)
    assert (done.path, done.nbytes) == (out, out.stat().st_size)
    assert len(done.open()) == len(SHAPES) + len(MARKERS)
    assert str(out) in str(done)
    assert str(out) in done._repr_html_()


def test_the_file_has_the_usual_permissions(model, out):
    (out.parent / "plain").write_text("")
    export(model("a"), out)
    assert out.stat().st_mode == (out.parent / "plain").stat().st_mode


def test_nothing_lies_beside_the_file(model, out):
    export(average([model("a"), model("b")]), out)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_an_element_wise_merge_reads_no_more_at_once_than_one_part(model, out, monkeypatch):
    size = 1000
    monkeypatch.setattr(tensors_module, "PIECE", size)
    shape = {"x": torch.randn(40, 300).half(), f"{TEXT}y": torch.randn(9, 200).half()}
    models = [model(name, {key: tensor + i for key, tensor in shape.items()}) for i, name in enumerate("abc")]
    inner = task_arithmetic(models[0], models[1:])
    read: list[int] = []

    def spy(self, key, part=None):
        found = read_file(self, key, part)
        read.append(found.numel())
        return found

    monkeypatch.setattr(SafetensorsFile, "read", spy)
    export(average([inner, models[1]], rules=[{"match": "*y", "take": "models[1]"}]), out, threads=2)
    assert max(read) <= size
    assert sum(read) == 40 * 300 * 4 + 9 * 200


def test_rows_are_read_in_blocks_of_whole_rows(model, out, monkeypatch):
    monkeypatch.setattr(tensors_module, "PIECE", 1000)
    a = model("a", {"x": torch.randn(40, 300).half(), "bias": torch.randn(3000)})
    asked = []
    monkeypatch.setattr(SafetensorsFile, "read", lambda *given: asked.append(given[1:]) or read_file(*given))
    export(rows_normed(a), out, threads=1)
    assert [part for key, part in asked if key == "x"] == [Rows(i, min(i + 3, 40)) for i in range(0, 40, 3)]
    assert [part for key, part in asked if key == "bias"] == [Flat(start, start + 1000) for start in (0, 1000, 2000)]  # and whole then


@pytest.mark.parametrize("shape", [(), (0,), (5, 0), (0, 9), (1,), (7,), (3, 5), (2, 3, 4)])
@pytest.mark.parametrize("scope", list(Scope))
def test_the_parts_of_a_tensor_cover_it_once_and_in_order(model, shape, scope, monkeypatch):
    monkeypatch.setattr(tensors_module, "PIECE", 4)
    a = model("a", {"x": torch.zeros(shape)})
    a.scope = scope
    monkeypatch.setattr(type(a), "origin", lambda self, key: None)
    found = [job.part for job in parts.jobs(a, [("x", Plain.of(a.info("x")))], Calculation())]
    if found == [None]:
        assert scope is not Scope.ELEMENT or a.info("x").numel <= 4
        return
    assert all(isinstance(part, Flat if scope is Scope.ELEMENT else Rows) for part in found)
    ends = [0, *(part.stop for part in found)]
    assert [part.start for part in found] == ends[:-1]
    assert ends[-1] == (a.info("x").numel if scope is Scope.ELEMENT else shape[0])


def test_a_short_export_shows_no_bar(model, out):
    with redirect_stderr(io.StringIO()) as screen:
        wb.export(model("a"), out)
    assert screen.getvalue() == ""


def test_exports_leave_the_number_of_torchs_threads_as_it_was(model, out):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        export(model("a"), out, threads=2)
        with ThreadPoolExecutor(1) as fresh:
            assert (torch.get_num_threads(), fresh.submit(torch.get_num_threads).result()) == (3, 3)
    finally:
        torch.set_num_threads(before)


def test_a_block_of_a_ramp_has_its_own_weights_in_the_file(model, out):
    key = f"{UNET}middle_block.1.norm.weight"
    a, b = model("a"), model("b")
    export(average([a, b], weights={"blocks": {"MID": [1, 0], "default": [0, 1]}}), out)
    assert same(wb.open(out)[key], a[key])
    assert same(wb.open(out)[f"{TEXT}final_layer_norm.bias"], b[f"{TEXT}final_layer_norm.bias"])
