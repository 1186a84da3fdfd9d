"""Folders: shards with an index, diffusers components and pipelines; only what lies inside is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import workbench as wb
from workbench.errors import CheckpointError, MissingTensorError

X, Y = torch.arange(6.0).reshape(2, 3), torch.ones(3)


def sharded(
    folder: Path, weight_map: object, name: str = "diffusion_pytorch_model.safetensors.index.json", size: int | None = None
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps({"metadata": {} if size is None else {"total_size": size}, "weight_map": weight_map}))
    return folder


def saved(path: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (save_file if path.suffix == ".safetensors" else torch.save)(dict(tensors), path)
    return path


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A folder of two shards."""
    folder = tmp_path / "transformer"
    saved(folder / "m-00001-of-00002.safetensors", {"x": X})
    saved(folder / "m-00002-of-00002.safetensors", {"y": Y})
    return sharded(folder, {"y": "m-00002-of-00002.safetensors", "x": "m-00001-of-00002.safetensors"}, size=36)


def test_shards_read_as_one_checkpoint_whether_the_folder_or_its_index_is_opened(shards):
    for path in (shards, next(shards.glob("*.json"))):
        checkpoint = wb.open(path)
        assert (checkpoint.name, list(checkpoint), len(checkpoint)) == ("transformer", ["y", "x"], 2)
        assert torch.equal(checkpoint["x"], X)
        assert torch.equal(checkpoint.read("x", wb.Rows(1, 2)), X[1:])
        assert checkpoint.info("y").shape == (3,)
        assert sorted(source.name for source in checkpoint.sources()) == ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"]
        with pytest.raises(MissingTensorError, match=r"transformer.*'z'"):
            checkpoint["z"]


def test_shards_of_pickles_read_as_well(tmp_path):
    saved(tmp_path / "te" / "a.bin", {"x": X})
    sharded(tmp_path / "te", {"x": "a.bin"}, "pytorch_model.bin.index.json")
    assert torch.equal(wb.open(tmp_path / "te")["x"], X)


def test_shards_that_are_links_elsewhere_are_read_as_download_caches_need(tmp_path):
    saved(tmp_path / "blobs" / "a.safetensors", {"x": X})
    folder = sharded(tmp_path / "snapshot", {"x": "s.safetensors"})
    (folder / "s.safetensors").symlink_to(tmp_path / "blobs" / "a.safetensors")
    assert torch.equal(wb.open(folder)["x"], X)


@pytest.mark.parametrize("file", ["../secret.safetensors", "/secret.safetensors", "a/../../secret.safetensors", "..\\secret.safetensors",
                                  "C:\\secret.safetensors", "C:secret.safetensors", "\\\\host\\secret.safetensors"])  # fmt: skip
def test_a_shard_outside_the_folder_is_refused_unread(tmp_path, file):
    saved(tmp_path / "secret.safetensors", {"x": X})
    with pytest.raises(CheckpointError, match="outside the folder"):
        wb.open(sharded(tmp_path / "model", {"x": file}))


@pytest.mark.parametrize("name", ["../secret", "/secret", "..\\secret", "C:\\secret"])
def test_a_component_outside_the_pipeline_is_refused_unread(tmp_path, name):
    saved(tmp_path / "secret" / "model.safetensors", {"x": X})
    saved(tmp_path / "pipe" / "unet" / "model.safetensors", {"x": X})
    (tmp_path / "pipe" / "model_index.json").write_text(json.dumps({"unet": ["diffusers", "U"], name: ["diffusers", "U"]}))
    with pytest.raises(CheckpointError, match=r"model_index\.json.*outside the folder"):
        wb.open(tmp_path / "pipe")


def test_a_missing_shard_is_named(shards):
    (shards / "m-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"index\.json.*'m-00002-of-00002\.safetensors' is missing; fetch it into .*transformer"):
        wb.open(shards)


def test_a_tensor_that_is_not_in_its_shard_is_named(shards):
    sharded(shards, {"x": "m-00001-of-00002.safetensors", "y": "m-00001-of-00002.safetensors"})
    with pytest.raises(CheckpointError, match=r"index\.json.*'y' should be in m-00001-of-00002\.safetensors"):
        wb.open(shards)


def test_a_damaged_shard_is_named(shards):
    (shards / "m-00001-of-00002.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(CheckpointError, match=r"m-00001-of-00002\.safetensors"):
        wb.open(shards)


@pytest.mark.parametrize(
    "index",
    ["", "{", "[]", "3", "{}", '{"weight_map": 3}', '{"weight_map": ["a"]}', '{"weight_map": {"x": 3}}', '{"weight_map": {"x": ["a"]}}',
     '{"weight_map": {"x": "a", "x": "b"}}', "[" * 99_999, '{"weight_map": {"x": null}}'],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_a_damaged_index_is_an_error_that_names_it(tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json"):
        wb.open(tmp_path)


@pytest.mark.parametrize("index", ["", "{", "[]", "3", '{"unet": 1, "unet": 2}', "[" * 99_999], ids=lambda text: text[:30])
def test_a_damaged_pipeline_index_is_an_error_that_names_it(tmp_path, index):
    (tmp_path / "model_index.json").write_text(index)
    with pytest.raises(CheckpointError, match=r"model_index\.json"):
        wb.open(tmp_path)


@pytest.mark.parametrize("file", ["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors",
                                  "diffusion_pytorch_model.bin", "model.safetensors", "pytorch_model.bin"])  # fmt: skip
def test_a_component_opens_under_its_folders_name(tmp_path, file):
    saved(tmp_path / "unet" / file, {"x": X})
    (tmp_path / "unet" / "config.json").write_text("{}")
    checkpoint = wb.open(tmp_path / "unet")
    assert torch.equal(checkpoint["x"], X)
    assert checkpoint.name == "unet"


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (("diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.safetensors"), "diffusion_pytorch_model.safetensors"),
        (("diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors"), "diffusion_pytorch_model.safetensors"),
        (("pytorch_model.bin", "model.safetensors"), "model.safetensors"),
    ],
)
def test_of_several_forms_of_one_component_the_plain_safetensors_is_read(tmp_path, files, chosen):
    for file in files:
        saved(tmp_path / file, {file: X})
    assert list(wb.open(tmp_path)) == [chosen]


def test_of_several_indices_the_plain_safetensors_is_read(tmp_path):
    for index in ("model.fp16.safetensors.index.json", "model.bin.index.json", "model.safetensors.index.json"):
        saved(tmp_path / f"{index}.safetensors", {index: X})
        sharded(tmp_path, {index: f"{index}.safetensors"}, index)
    assert list(wb.open(tmp_path)) == ["model.safetensors.index.json"]


def test_a_pipeline_reads_as_one_checkpoint_with_its_components_names(tmp_path):
    saved(tmp_path / "unet" / "diffusion_pytorch_model.safetensors", {"conv_in.weight": X})
    saved(tmp_path / "text_encoder" / "model.safetensors", {"text_model.embeddings.token_embedding.weight": Y})
    saved(tmp_path / "vae" / "v-1.safetensors", {"decoder.conv_in.weight": Y})
    sharded(tmp_path / "vae", {"decoder.conv_in.weight": "v-1.safetensors"})
    (tmp_path / "scheduler").mkdir()
    saved(tmp_path / "stray" / "model.safetensors", {"z": X})
    names = {name: ["library", "Class"] for name in ("unet", "text_encoder", "vae", "scheduler")}
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "P", **names, "safety_checker": [None, None]}))
    checkpoint = wb.open(tmp_path)
    assert set(checkpoint) == {
        "unet.conv_in.weight",
        "text_encoder.text_model.embeddings.token_embedding.weight",
        "vae.decoder.conv_in.weight",
    }
    assert checkpoint.components == ("unet", "text_encoder", "vae")
    assert torch.equal(checkpoint["unet.conv_in.weight"], X)
    assert torch.equal(checkpoint.read("vae.decoder.conv_in.weight", wb.Flat(1, 3)), Y[1:])
    assert len(checkpoint.sources()) == 3


def test_a_pipeline_without_weights_says_what_it_names(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "P", "unet": ["a", "b"]}')
    with pytest.raises(CheckpointError, match=r"pipeline without weights.*unet"):
        wb.open(tmp_path)


def test_a_folder_without_weights_says_what_was_looked_for(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no weights.*index\.json"):
        wb.open(tmp_path)


def test_a_folder_of_gguf_files_asks_for_one_of_them(tmp_path):
    for name in ("flux1-Q4.gguf", "flux1-Q8.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match=r"holds 2 models, name one: flux1-Q4\.gguf, flux1-Q8\.gguf"):
        wb.open(tmp_path)


def test_a_folder_of_models_asks_for_one_of_them(tmp_path):
    for name in ("anime", "photo"):
        saved(tmp_path / f"{name}.safetensors", {"x": X})
    with pytest.raises(CheckpointError, match=r"holds 2 models, name one: anime\.safetensors, photo\.safetensors"):
        wb.open(tmp_path)


def test_every_missing_shard_is_named(shards):
    for shard in shards.glob("*.safetensors"):
        shard.unlink()
    with pytest.raises(CheckpointError, match=r"'m-00001-of-00002\.safetensors', 'm-00002-of-00002\.safetensors' are missing; fetch them"):
        wb.open(shards)


def test_a_tensor_in_two_shards_is_an_error_that_names_both(shards):
    saved(shards / "m-00002-of-00002.safetensors", {"y": Y, "x": X})
    with pytest.raises(CheckpointError, match=r"'x' lies in two shards, m-00001-of-00002\.safetensors and m-00002-of-00002\.safetensors"):
        wb.open(shards)


def test_a_tensor_that_the_index_does_not_know_is_an_error(shards):
    saved(shards / "m-00002-of-00002.safetensors", {"y": Y, "z": X})
    with pytest.raises(CheckpointError, match=r"'z' in m-00002-of-00002\.safetensors is not in the index"):
        wb.open(shards)


@pytest.mark.parametrize("size", [35, 0, 37.5, "36"])
def test_an_index_with_a_wrong_size_is_an_error_that_says_both(shards, size):
    index = next(shards.glob("*.json"))
    index.write_text(json.dumps(json.loads(index.read_text()) | {"metadata": {"total_size": size}}))
    with pytest.raises(CheckpointError, match=rf"the tensors have {size} bytes \(total_size\), but .* have 36; .*fetch them again"):
        wb.open(shards)


def test_pickled_shards_may_count_tensors_that_share_their_storage_once(tmp_path):
    saved(tmp_path / "a.bin", {"x": X, "y": X})
    assert len(wb.open(sharded(tmp_path, {"x": "a.bin", "y": "a.bin"}, "pytorch_model.bin.index.json", size=24))) == 2


def test_shards_without_an_index_say_which_file_to_fetch(shards):
    next(shards.glob("*.json")).unlink()
    with pytest.raises(CheckpointError, match=r"holds 2 of 2 shards and no index; fetch 'm\.safetensors\.index\.json'"):
        wb.open(shards)
    (shards / "m-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"holds 1 of 2 shards and no index"):
        wb.open(shards)


def test_shards_of_another_index_are_not_read_and_that_is_noted(shards):
    saved(shards / "m-00003-of-00003.safetensors", {"old": X})
    checkpoint = wb.open(shards)
    assert set(checkpoint) == {"x", "y"}
    (note,) = checkpoint.notes
    assert note == "m-00003-of-00003.safetensors is not in diffusion_pytorch_model.safetensors.index.json, and not read"
    assert f"transformer: {note}" in wb.preflight(checkpoint).notes


def test_shards_say_what_all_their_headers_say(tmp_path):
    for i, own in enumerate("ab", 1):
        save_file({own: X}, tmp_path / f"m-{i}.safetensors", {"title": "T", "own": own})
    assert dict(wb.open(sharded(tmp_path, {"a": "m-1.safetensors", "b": "m-2.safetensors"})).metadata) == {"title": "T"}


FP16 = "diffusion_pytorch_model.safetensors.index.fp16.json"


@pytest.mark.parametrize("shard", ["diffusion_pytorch_model.fp16-00001-of-00001.safetensors", "m-00001-of-00001.fp16.safetensors"])
def test_shards_of_a_variant_are_opened_by_its_index(tmp_path, shard):
    saved(tmp_path / "unet" / shard, {"x": X.half()})
    sharded(tmp_path / "unet", {"x": shard}, FP16)
    (tmp_path / "model_index.json").write_text(json.dumps({"unet": ["diffusers", "UNet2DConditionModel"]}))
    for path in (tmp_path / "unet", tmp_path / "unet" / FP16, tmp_path):
        (tensor,) = wb.open(path).values()
        assert torch.equal(tensor, X.half())
    assert wb.open(tmp_path).components == ("unet",)


def test_a_variant_comes_after_what_has_none(tmp_path):
    saved(tmp_path / "m.fp16-00001-of-00001.safetensors", {"x": X.half()})
    saved(tmp_path / "diffusion_pytorch_model.safetensors", {"x": X})
    sharded(tmp_path, {"x": "m.fp16-00001-of-00001.safetensors"}, FP16)
    assert wb.open(tmp_path).info("x").dtype == torch.float32


@pytest.mark.parametrize(("index", "shard"), [(FP16, "m-00001-of-00001.safetensors"), (FP16.replace(".fp16", ""), "m.fp16.safetensors")])
def test_an_index_that_names_another_variants_shards_is_refused(tmp_path, index, shard):
    saved(tmp_path / shard, {"x": X})
    sharded(tmp_path, {"x": shard}, index)
    with pytest.raises(CheckpointError, match="names shards of another variant"):
        wb.open(tmp_path / index)
