"""`verify`: a merged file is made again from its recipe, byte for byte; what is not the same, or cannot be made, is said."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_models import TEXT, UNET

import workbench as wb
from workbench.errors import CheckpointError

average, ties, add_difference = wb.operators.weighted_average, wb.operators.ties, wb.operators.add_difference


@pytest.fixture
def merged(model, out) -> Path:
    """Of two models and a merge of them, written."""
    a, b, c = model("a"), model("b"), model("c")
    wb.export(average([ties(a, [b, c], density=0.4), c], weights=[0.3, 0.7], seed=3), out, dtype="bfloat16", progress=False)
    return out


def verify(path: Path, among: Path | None = None):
    return wb.verify(path, among, progress=False)


def rewritten(path: Path, metadata: dict[str, str] | None = None, **tensors: torch.Tensor) -> None:
    """Write a file again as another program would, with other tensors or metadata."""
    with safe_open(path, "pt") as file:
        said = file.metadata()
    save_file(load_file(path) | tensors, path, said | (metadata or {}))


def test_what_its_recipe_makes_is_the_same_byte_for_byte(merged):
    before = sorted(merged.parent.iterdir())
    found = verify(merged)
    assert (found.verdict, found.status) == ("same", 0), found.reason
    assert found.reason == "its recipe makes it again, byte for byte"
    assert set(found.parents) == {"a", "b", "c"}
    assert len(found.frame()) == 0
    assert sorted(merged.parent.iterdir()) == before  # nothing is written


def test_parents_are_found_by_hash_when_they_were_moved_and_renamed(merged, tmp_path):
    models = tmp_path / "models"
    (tmp_path / "archive" / "old").mkdir(parents=True)
    (models / "a.safetensors").rename(tmp_path / "archive" / "old" / "x.safetensors")
    (models / "b.safetensors").rename(tmp_path / "archive" / "a.safetensors")  # under the name of another
    found = verify(merged, tmp_path / "archive")
    assert found.verdict == "same", found.reason
    assert {name: place.name for name, (place, _) in found.parents.items()} == {
        "a": "x.safetensors", "b": "a.safetensors", "c": "c.safetensors"}  # fmt: skip
    assert "x.safetensors (by sha256)" in str(found)


def test_a_file_that_was_renamed_or_moved_itself_is_the_same(merged, tmp_path):
    target = tmp_path / "elsewhere" / "another name.safetensors"
    target.parent.mkdir()
    merged.rename(target)
    assert verify(target, tmp_path / "models").verdict == "same"


def test_a_tensor_with_one_other_value_is_named_with_its_element(merged):
    key = f"{UNET}input_blocks.4.0.in_layers.2.weight"
    data = bytearray(merged.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    begin = json.loads(data[8 : 8 + length])[key]["data_offsets"][0]
    data[8 + length + begin + 2 * 17] ^= 1
    merged.write_bytes(data)
    found = verify(merged)
    assert (found.verdict, found.status, list(found.tensors)) == ("differs", 1, [key])
    assert found.reason == f"1 of 12 tensors differ, first {key!r}: other values, the first at element 17"
    assert found.frame()["tensor"].tolist() == [key]


def test_tensors_that_are_missing_added_or_of_another_dtype_are_told(merged):
    rewritten(merged, extra=torch.ones(2), **{f"{TEXT}final_layer_norm.bias": torch.ones(8)})
    found = verify(merged)
    assert found.verdict == "differs"
    assert found.tensors["extra"] == "is in the file, and not in what its recipe makes"
    assert found.tensors[f"{TEXT}final_layer_norm.bias"] == "is float32 [8], and its recipe makes bfloat16 [8]"
    assert found.reason.startswith("2 of 13 tensors differ, first ")


def test_a_header_that_says_something_else_differs(merged):
    rewritten(merged, {"modelspec.author": "somebody"})
    found = verify(merged)
    assert found.verdict == "differs"
    assert found.reason == "the tensors are the same, and the header differs: 'modelspec.author' is not what its recipe makes"


def test_a_file_that_another_program_wrote_again_differs_in_its_header_alone(merged):
    with safe_open(merged, "pt") as file:
        said = file.metadata()
    save_file(load_file(merged), merged, said)
    assert "header differs: its order or spelling is another" in verify(merged).reason


def test_a_missing_parent_is_named_with_its_sha256(merged, tmp_path):
    parent = tmp_path / "models" / "b.safetensors"
    sha256 = hashlib.sha256(parent.read_bytes()).hexdigest()
    parent.unlink()
    found = verify(merged)
    assert (found.verdict, found.status) == ("cannot", 2)
    assert f"'b' (b.safetensors, sha256 {sha256})" in found.reason
    assert "--among" in found.reason
    assert f"nor in {tmp_path / 'models'}" in verify(merged, tmp_path / "models").reason


def test_a_parent_that_was_replaced_is_another_file(merged, tmp_path, model):
    model("b", {f"{UNET}x": torch.ones(1)})
    assert "a parent is not where the recipe says, and no other folder" in verify(merged).reason


def test_a_file_without_a_recipe_or_with_a_damaged_one_cannot_be_made(model, tmp_path):
    assert "carries no recipe" in verify(model("a").path).reason
    webui = model("b", metadata={"sd_merge_recipe": '{"type": "webui"}'})
    assert verify(webui.path).verdict == "cannot"
    for text in ("{", "[" * 100_000, '{"type": "workbench", "recipe": null}', '{"type": "workbench", "recipe": {"models": []}}'):
        found = verify(model("c", metadata={"sd_merge_recipe": text}).path)
        assert found.verdict == "cannot"
        assert "c.safetensors" in found.reason


def test_what_is_no_file_or_no_folder_is_an_error(merged, tmp_path):
    with pytest.raises(CheckpointError, match="there is no such file"):
        verify(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="is no folder"):
        verify(merged, tmp_path / "none")


def test_a_folder_of_shards_is_verified_by_its_tensors(model, tmp_path):
    a, b = model("a"), model("b")
    wb.export(average([a, b]), tmp_path / "sharded", max_shard_size=2000, progress=False)
    found = verify(tmp_path / "sharded")
    assert found.verdict == "same", found.reason
    assert found.reason.endswith("every tensor's bytes, and what the header says")


def test_a_merge_of_a_merge_and_one_in_fp8_are_the_same(model, merged, tmp_path):
    second = merged.with_name("second.safetensors")
    wb.export(add_difference(wb.open(merged), model("d"), model("a"), strength=0.5), second, dtype="float8_e4m3fn", progress=False)
    (tmp_path / "models" / "d.safetensors").rename(tmp_path / "d2.safetensors")
    assert verify(second, tmp_path).verdict == "same"


def test_the_result_is_escaped_where_it_is_shown(model, out):
    a = model("a<b>\x1b[31m")
    wb.export(average([a, model("b")]), out, progress=False)
    found = verify(out)
    assert "<b>" not in found._repr_html_()
    assert "\x1b" not in str(found)
