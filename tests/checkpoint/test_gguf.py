"""A GGUF opens as what its blocks stand for, by parts, with the shapes and the names that its tensors had."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
import tracemalloc

import gguf
import numpy as np
import pytest
import torch
from gguf_files import QUANTISED, Type, blocks, decoded, write_gguf
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import workbench as wb
from workbench.errors import CheckpointError
from workbench.tensors import PIECE, Space, Storage


def same(one: torch.Tensor, other: np.ndarray) -> bool:
    """Equal to the bit, but for which NaN it is."""
    theirs = torch.from_numpy(np.ascontiguousarray(other))
    return one.shape == theirs.shape and bool(((one == theirs) | (one.isnan() & theirs.isnan())).all())


@pytest.mark.parametrize("halves", ["usual", "extreme"])
@pytest.mark.parametrize("kind", QUANTISED, ids=lambda kind: kind.name)
def test_every_type_reads_as_the_library_decodes_it(tmp_path, kind, halves):
    data = blocks(kind, (6, 512), seed=int(kind), halves=halves)
    model = wb.open(write_gguf(tmp_path / "m.gguf", {"x.weight": (data, kind)}))
    whole = decoded(data, kind)
    assert halves == "extreme" or np.isfinite(whole).all()
    assert model.info("x.weight").shape == (6, 512)
    assert same(model.exact("x.weight"), whole)
    assert same(model.read("x.weight").float(), torch.from_numpy(whole).bfloat16().float().numpy())
    for part in (wb.Flat(0, 1), wb.Flat(31, 33), wb.Flat(700, 2049), wb.Flat(3071, 3072), wb.Flat(5, 5)):
        assert same(model.exact("x.weight", part), whole.reshape(-1)[part.start : part.stop])
    assert same(model.exact("x.weight", wb.Rows(2, 5)), whole[2:5])


@given(first=st.integers(0, 3 * 512), last=st.integers(0, 3 * 512))
def test_every_part_is_that_part_of_the_whole(tmp_path_factory, first, last):
    data = blocks(Type.Q4_K, (3, 512))
    model = wb.open(write_gguf(tmp_path_factory.mktemp("m") / "m.gguf", {"x": (data, Type.Q4_K)}))
    part = wb.Flat(min(first, last), max(first, last))
    assert same(model.exact("x", part), decoded(data, Type.Q4_K).reshape(-1)[part.start : part.stop])


PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64", "I32": "int32"}


@pytest.mark.parametrize(("kind", "dtype"), PLAIN.items())
def test_plain_tensors_keep_their_dtype(tmp_path, kind, dtype):
    values = torch.arange(12).reshape(3, 4).to(getattr(torch, dtype))
    data = values.view(torch.uint8).numpy() if kind == "BF16" else values.numpy()
    model = wb.open(write_gguf(tmp_path / "m.gguf", {"x": (data, Type[kind])}))
    assert model.info("x").dtype_name == dtype
    assert torch.equal(model["x"], values)
    assert torch.equal(model.read("x", wb.Flat(3, 7)), values.reshape(-1)[3:7])
    assert model.storage("x") == Storage(dtype, values.nbytes)
    assert model.origin("x") == (model, "x")
    assert not model.notes


def test_what_is_quantised_is_noted_and_known_as_it_is_stored(tmp_path):
    tensors = {"x": (blocks(Type.Q4_K, (4, 256)), Type.Q4_K), "y": (blocks(Type.Q6_K, (2, 256)), Type.Q6_K), "z": np.ones(3, np.float32)}
    model = wb.open(write_gguf(tmp_path / "m.gguf", tensors, texts={"modelspec.title": "T", "general.name": "N"}))
    assert model.notes == ("2 of 3 tensors are quantised (Q4_K 1, Q6_K 1), and are read as what they stand for, in bfloat16",)
    assert model.storage("x") == Storage("Q4_K", 4 * 144)
    assert model.info("x").dtype_name == "bfloat16"
    assert model.origin("x") is None
    assert dict(model.metadata) == {"modelspec.title": "T"}
    assert model.sources() == (tmp_path / "m.gguf",)


def test_a_tensor_has_the_shape_from_before_it_was_cut_into_rows_of_blocks(tmp_path):
    data = blocks(Type.Q5_K, (9, 256))
    path = write_gguf(tmp_path / "m.gguf", {"x.weight": (data, Type.Q5_K)}, shapes={"x.weight": (16, 16, 3, 3)})
    model = wb.open(path)
    assert model.info("x.weight").shape == (16, 16, 3, 3)
    assert same(model.exact("x.weight", wb.Rows(3, 5)), decoded(data, Type.Q5_K).reshape(16, 16, 3, 3)[3:5])


def test_only_the_blocks_that_a_part_touches_are_read(tmp_path, monkeypatch):
    from workbench.checkpoint.files.by_position import OpenFile

    model = wb.open(write_gguf(tmp_path / "m.gguf", {"x": (blocks(Type.Q8_0, (8, 64)), Type.Q8_0)}))
    plain, read = OpenFile.read_into, []
    monkeypatch.setattr(OpenFile, "read_into", lambda self, view, *more: read.append(len(view)) or plain(self, view, *more))
    model.read("x", wb.Flat(40, 70))
    assert read == [2 * 34]


def test_a_large_tensor_is_decoded_piece_by_piece(tmp_path, monkeypatch):
    from workbench.checkpoint.stored.gguf_blocks import GgufBlocks

    data = blocks(Type.Q8_0, (3, PIECE))
    model = wb.open(write_gguf(tmp_path / "m.gguf", {"x": (data, Type.Q8_0)}))
    plain, sizes = GgufBlocks.decoded, []
    monkeypatch.setattr(GgufBlocks, "decoded", lambda self, first, last: sizes.append(last - first) or plain(self, first, last))
    assert same(model.exact("x", wb.Flat(1, 2 * PIECE + 5)), decoded(data, Type.Q8_0).reshape(-1)[1 : 2 * PIECE + 5])
    assert max(sizes) == PIECE


def test_a_merge_of_a_gguf_and_a_safetensors_file_is_that_of_their_dequantised_copies_to_the_bit(tmp_path):
    generator = np.random.default_rng(0)
    kinds = {"x": Type.Q8_0, "y": Type.Q4_K, "z": Type.IQ4_XS}
    one = {key: blocks(kind, (3, 512), seed=number) for number, (key, kind) in enumerate(kinds.items())}
    write_gguf(tmp_path / "one.gguf", {key: (data, kinds[key]) for key, data in one.items()})
    save_file({key: torch.from_numpy(decoded(data, kinds[key])) for key, data in one.items()}, tmp_path / "one.safetensors")
    other = {key: torch.from_numpy(generator.standard_normal((3, 512), np.float32)).half() for key in kinds}
    save_file(other, tmp_path / "other.safetensors")
    merges = {
        "average": lambda a, b: wb.operators.weighted_average([a, b], weights=[0.3, 0.7]),
        "ties": lambda a, b: wb.operators.ties(b, [a, a], density=0.4),
        "slerp": lambda a, b: wb.operators.slerp(b, a, t=0.4),
    }
    for name, merge in merges.items():
        files = []
        for kind in ("gguf", "safetensors"):
            made = merge(wb.open(tmp_path / f"one.{kind}"), wb.open(tmp_path / "other.safetensors"))
            wb.export(made, tmp_path / f"{name}-{kind}.safetensors", dtype="float32", progress=False)
            files.append(load_file(tmp_path / f"{name}-{kind}.safetensors"))
        assert all(torch.equal(files[0][key], files[1][key]) for key in kinds)


def test_a_merge_of_ggufs_alone_is_written_in_bfloat16_and_carries_its_recipe(tmp_path):
    for number in (1, 2):
        write_gguf(tmp_path / f"{number}.gguf", {"x": (blocks(Type.Q4_0, (4, 64), seed=number), Type.Q4_0)})
    merge = wb.operators.weighted_average([wb.open(tmp_path / "1.gguf"), wb.open(tmp_path / "2.gguf")])
    wb.export(merge, tmp_path / "out.safetensors", progress=False)
    out = wb.open(tmp_path / "out.safetensors")
    parents = [decoded(blocks(Type.Q4_0, (4, 64), seed=number), Type.Q4_0) for number in (1, 2)]
    wanted = (torch.from_numpy(parents[0]) * 0.5 + torch.from_numpy(parents[1]) * 0.5).bfloat16()
    assert torch.equal(out["x"], wanted)
    again = wb.Recipe.from_file(tmp_path / "out.safetensors").build()
    assert torch.equal(again["x"], wanted)


def test_a_merge_decodes_its_parents_part_by_part(tmp_path):
    size = 16 * PIECE
    for number in (1, 2):
        write_gguf(tmp_path / f"{number}.gguf", {"x": (blocks(Type.Q8_0, (16, PIECE), seed=number), Type.Q8_0)})
    merge = wb.operators.weighted_average([wb.open(tmp_path / "1.gguf"), wb.open(tmp_path / "2.gguf")])
    wb.export(merge, tmp_path / "first.safetensors", threads=1, progress=False)  # what it imports is not of the tensors
    tracemalloc.start()
    try:
        wb.export(merge, tmp_path / "out.safetensors", threads=1, progress=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * size / 2  # what the library has in memory at once, of one tensor decoded


def test_a_lora_is_baked_into_a_gguf(tmp_path):
    key, data = "model.diffusion_model.input_blocks.1.1.proj_in.weight", blocks(Type.Q8_0, (8, 32))
    other = "model.diffusion_model.out.2.bias"
    shapes = {key: (8, 32, 1, 1)}
    base = wb.open(write_gguf(tmp_path / "b.gguf", {key: (data, Type.Q8_0), other: np.ones(4, np.float32)}, "sd1", shapes))
    generator = torch.Generator().manual_seed(0)
    up, down = torch.randn(8, 2, 1, 1, generator=generator), torch.randn(2, 32, 1, 1, generator=generator)
    module = "lora_unet_down_blocks_0_attentions_0_proj_in"
    factors = {f"{module}.lora_up.weight": up, f"{module}.lora_down.weight": down, f"{module}.alpha": torch.tensor(2.0)}
    save_file(factors, tmp_path / "l.safetensors")
    made = wb.lora.apply(base, [(tmp_path / "l.safetensors", 0.5)])
    wb.export(made, tmp_path / "out.safetensors", dtype="float32", progress=False)
    out = load_file(tmp_path / "out.safetensors")
    wanted = torch.from_numpy(decoded(data, Type.Q8_0)) + 0.5 * (up.flatten(1) @ down.flatten(1))
    assert torch.allclose(out[key].flatten(1), wanted, rtol=1e-6, atol=1e-7)
    assert torch.equal(out[other], torch.ones(4))


def test_a_quantised_lora_is_read_as_what_it_stands_for(tmp_path):
    module = "lora_unet_down_blocks_0_attentions_0_proj_in"
    up, down = blocks(Type.Q8_0, (8, 32), seed=1), blocks(Type.Q8_0, (32, 64), seed=2)
    factors = {f"{module}.lora_up.weight": (up, Type.Q8_0), f"{module}.lora_down.weight": (down, Type.Q8_0)}
    lora = wb.open(write_gguf(tmp_path / "l.gguf", factors, None))
    (key,) = lora
    assert lora.space is Space.DELTA
    parts = [torch.from_numpy(decoded(data, Type.Q8_0)).bfloat16().float() for data in (up, down)]
    assert torch.allclose(lora[key].float().flatten(1), parts[0] @ parts[1], rtol=1e-2)


def test_a_folder_with_one_gguf_is_that_model(tmp_path):
    (tmp_path / "model").mkdir()
    write_gguf(tmp_path / "model" / "a.gguf", {"x": np.ones(3, np.float32)})
    assert (wb.open(tmp_path / "model").name, list(wb.open(tmp_path / "model"))) == ("model", ["x"])


def test_a_gguf_is_read_whatever_it_is_called(tmp_path):
    write_gguf(tmp_path / "m.safetensors", {"x": np.ones(3, np.float32)})
    assert torch.equal(wb.open(tmp_path / "m.safetensors")["x"], torch.ones(3))


def test_two_reads_have_one_fingerprint(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", {"x": (blocks(Type.Q4_0, (4, 64)), Type.Q4_0)})
    assert wb.open(path).fingerprint("x") == wb.open(path).fingerprint("x")


def test_opening_one_loads_no_heavy_library(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", GOOD)
    code = f"import sys, workbench as wb; wb.open({str(path)!r}); print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "diffusers", "transformers"} & set(loaded)


def test_without_the_library_it_is_named(tmp_path, monkeypatch):
    path = write_gguf(tmp_path / "m.gguf", {"x": np.ones(3, np.float32)})
    for name in [name for name in sys.modules if name.partition(".")[0] == "gguf"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(CheckpointError, match=r"needs the library gguf: pip install 'workbench\[quantised\]'"):
        wb.open(path)


# what is wrong with a file

GOOD = {"x.weight": (blocks(Type.Q4_0, (4, 64)), Type.Q4_0), "y": np.ones((2, 3), np.float32)}


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "t5encoder", "qwen2vl", "gemma3"])
def test_a_language_model_is_told_by_its_architecture(tmp_path, architecture):
    with pytest.raises(CheckpointError, match=rf"m\.gguf: is a GGUF of a language model \(general\.architecture is '{architecture}'\)"):
        wb.open(write_gguf(tmp_path / "m.gguf", GOOD, architecture))


@pytest.mark.parametrize("architecture", ["flux", "sd1", "sdxl", "sd3", "qwen_image", "lumina2", "pig", None])
def test_image_models_are_read_whatever_they_are_called(tmp_path, architecture):
    assert list(wb.open(write_gguf(tmp_path / "m.gguf", GOOD, architecture))) == ["x.weight", "y"]


@given(share=st.floats(0, 0.999))
def test_a_file_truncated_anywhere_is_refused_by_name(tmp_path_factory, share):
    folder = tmp_path_factory.mktemp("m")
    whole = write_gguf(folder / "m.gguf", GOOD).read_bytes().rstrip(b"\0")
    (folder / "cut.gguf").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"cut\.gguf.*(truncated|too few)"):
        wb.open(folder / "cut.gguf")


def test_big_endian_files_are_refused(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", {"y": np.ones((2, 3), np.float32)}, endianess=gguf.GGUFEndian.BIG)
    with pytest.raises(CheckpointError, match=r"m\.gguf: is a GGUF file of big-endian numbers, which is not read; use the usual"):
        wb.open(path)


def test_a_shape_that_contradicts_the_tensor_is_refused_with_both(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", GOOD, shapes={"x.weight": (8, 33)})
    with pytest.raises(CheckpointError, match=r"orig_shape\.x\.weight says \[8, 33\], 264 elements, but the tensor has \[4, 64\], 256"):
        wb.open(path)


def header(*tensors: tuple[str, tuple[int, ...], int, int], values: bytes = b"", count: int = 0, version: int = 3) -> bytes:
    """The bytes of a header: of each tensor its name, dimensions as GGUF orders them, type and offset."""
    entries = b"".join(
        struct.pack("<Q", len(name)) + name.encode() + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        for name, shape, kind, offset in tensors
    )
    found = b"GGUF" + struct.pack("<IQQ", version, len(tensors), count) + values + entries
    return found + bytes(-len(found) % 32)


def value(name: str, kind: int, data: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + data


DAMAGED = {
    "unknown type": (
        header(("x", (32,), 99, 0)),
        r"'x' is of type 99, which is unknown or cannot be decoded; known are F32 \(0\), .*Q4_K \(12\)",
    ),
    "a type that is never stored": (header(("x", (32,), 9, 0)), "'x' is of type 9, which is unknown or cannot be decoded"),
    "half a block": (header(("x", (33,), 2, 0)), r"'x' has rows of 33 elements, and Q4_0 blocks of 32"),
    "two of a name": (header(("x", (1,), 0, 0), ("x", (1,), 0, 32)), "two tensors called 'x'"),
    "one on another": (header(("x", (16,), 0, 0), ("y", (16,), 0, 32)), "'y' begins at byte .* and overlaps 'x'"),
    "a new version": (header(version=4), "is a GGUF file of version 4; read are 2 and 3"),
    "too many dimensions": (header(("x", (1,) * 65, 0, 0)), "'x' has 65 dimensions; at most 64"),
    "beyond counting": (header(("x", (1 << 63,), 0, 0)), "numbers beyond counting"),
    "more tensors than bytes": (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "should have 1152921504606846976 of tensors"),
    "a longer text than bytes": (
        header(values=value("a", 8, struct.pack("<Q", 1 << 60)), count=1),
        "the header ends inside a: 1152921504606846976",
    ),
    "a longer list than bytes": (
        header(values=value("a", 9, struct.pack("<IQ", 4, 1 << 60)), count=1),
        "should have 1152921504606846976 of a",
    ),
    "lists in lists": (header(values=value("a", 9, struct.pack("<IQ", 9, 1) * 9), count=1), "'a' is of type 9 at level 4"),
    "a value of no type": (header(values=value("a", 77, b""), count=1), "'a' is of type 77"),
    "a name that is no text": (
        header().replace(b"", b"", 1)[:16] + struct.pack("<Q", 1) + struct.pack("<Q", 1) + b"\xff" + bytes(40),
        "is not text",
    ),
    "an alignment of three": (
        header(values=value("general.alignment", 4, struct.pack("<I", 3)), count=1),
        "general.alignment is 3; a power of two",
    ),
    "a shape that is text": (
        header(("x", (1,), 0, 0), values=value("comfy.gguf.orig_shape.x", 8, struct.pack("<Q", 1) + b"1"), count=1) + bytes(4),
        r"comfy\.gguf\.orig_shape\.x is 1; a list of natural numbers is allowed",
    ),
    "no GGUF": (b"GGML" + bytes(60), "is no GGUF file; it begins with other bytes"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_refused_with_what_is_wrong(tmp_path, what):
    content, told = DAMAGED[what]
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"m\.gguf: .*{told}"):
        wb.open(tmp_path / "m.gguf")


@given(content=st.binary(max_size=200))
def test_no_bytes_do_anything_but_raise_the_packages_own_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("m") / "m.gguf"
    path.write_bytes(b"GGUF\x03\0\0\0" + content)
    with contextlib.suppress(CheckpointError):
        wb.open(path)


def test_a_file_that_is_cut_short_after_it_was_opened_says_so(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", GOOD)
    model = wb.open(path)
    with path.open("r+b") as file:
        file.truncate(100)
    with pytest.raises(CheckpointError, match=r"m\.gguf: the file ended inside 'x\.weight'; it was cut short"):
        model.read("x.weight")


def test_preflight_says_where_a_change_holds_the_rounding_of_two_formats(tmp_path):
    tensors = {name: (blocks(kind, (4, 256)), kind) for name, kind in (("x", Type.Q4_K), ("y", Type.Q8_0))}
    tuned = wb.open(write_gguf(tmp_path / "tuned.gguf", tensors))
    save_file({name: torch.ones(4, 256, dtype=torch.float16) for name in tensors}, tmp_path / "base.safetensors")
    base = wb.open(tmp_path / "base.safetensors")
    told = (
        "task_arithmetic: 2 changes are of tensors stored in two ways (Q4_K less float16, Q8_0 less float16), and hold the rounding of both"
    )
    assert any(note.startswith(told) for note in wb.preflight(wb.operators.task_arithmetic(base, [tuned])).notes)
    assert not any("stored" in note for note in wb.preflight(wb.operators.task_arithmetic(tuned, [tuned])).notes)
    assert not any("stored" in note for note in wb.preflight(wb.operators.weighted_average([base, tuned])).notes)
