"""`lineage`: the headers of each program as it writes them, parents found by each hash, what is not known, and hostile metadata."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import workbench as wb
from workbench.analysis.provenance.lineage_result import Basis
from workbench.checkpoint.files.catalogue import Catalogue, Mark
from workbench.errors import CheckpointError

UNET, TEXT = "model.diffusion_model.input_blocks.1.1.proj_in.weight", "cond_stage_model.transformer.text_model.x"
average = wb.operators.weighted_average
UNKNOWN = "0" * 64


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """The folder in which hashes are remembered for the length of one test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: folder / name)


@pytest.fixture
def write(tmp_path) -> Callable[..., Path]:
    """Writes an SD 1.x model of two tensors, `write("a.safetensors", sd_merge_recipe=...)`; JSON for what is no text."""

    def make(name: str, *, seed: int | None = None, large: bool = False, **metadata: object) -> Path:
        made = torch.Generator().manual_seed(sum(name.encode()) if seed is None else seed)
        tensors = {UNET: torch.randn(40, 30, 1, 1, generator=made).half(), TEXT: torch.randn(50, generator=made).half()}
        if large:  # more than 1 MiB, so that the legacy hash says something
            tensors["model.diffusion_model.out.2.weight"] = torch.randn(600_000, generator=made).half()
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        said = {key.replace("__", "."): value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
        save_file(tensors, path, {"format": "pt"} | said)
        return path

    return make


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def legacy(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()[0x100000:0x110000]).hexdigest()[:8]


def lineage(path: Path, among: Path | None = None) -> wb.analysis.Lineage:
    return wb.lineage(path, among, progress=False)


def rows(found: wb.analysis.Lineage, *columns: str) -> list[tuple]:
    return list(found.frame().fillna({"parent": -1})[list(columns)].itertuples(index=False, name=None))


# --- each program's header, as it writes it


def webui(first: Path, second: Path, third: str, **changes: object) -> dict[str, object]:
    """The header of AUTOMATIC1111's merger (extras.py), whose entries have full names and the legacy hash."""
    recipe = {
        "type": "webui", "primary_model_hash": sha256(first), "secondary_model_hash": sha256(second), "tertiary_model_hash": third,
        "interp_method": "Add difference", "multiplier": 0.3, "save_as_half": True, "custom_name": "", "config_source": 0,
        "bake_in_vae": "None", "discard_weights": "", "is_inpainting": False, "is_instruct_pix2pix": False,
    }  # fmt: skip
    models = {
        sha256(first): {"name": first.name, "legacy_hash": legacy(first), "sd_merge_recipe": None},
        sha256(second): {"name": f"sub\\{second.name}", "legacy_hash": legacy(second), "sd_merge_recipe": None},
        third: {"name": "gone.ckpt [0000000000]", "legacy_hash": "81761151", "sd_merge_recipe": None},
    }
    return {"sd_merge_recipe": recipe | changes, "sd_merge_models": models}


def test_automatic1111s_merge_names_its_parents_with_their_weights(write, tmp_path):
    a, b = write("a.safetensors", large=True), write("b.safetensors", large=True)
    merged = write("merged.safetensors", **webui(a, b, UNKNOWN))
    a.rename(tmp_path / "renamed.safetensors")
    found = lineage(merged, tmp_path)
    assert rows(found, "name", "role", "weight", "found_by", "source") == [
        ("merged.safetensors", "", "", "given", "the file itself"),
        ("a.safetensors", "primary", "1", "sha256", "found by hash"),
        ("sub\\b.safetensors", "secondary", "0.3", "sha256", "found by hash"),
        ("gone.ckpt", "tertiary", "-0.3", "", "told, not found"),
    ]
    assert found.rows[1].file == tmp_path / "renamed.safetensors"
    assert "interp_method=Add difference, multiplier=0.3" in found.rows[0].method
    assert found.rows[0].told_by == "AUTOMATIC1111's sd_merge_recipe"
    assert found.rows[3].note == f"not in {tmp_path.name}; parents unknown"
    plain = write("sum.safetensors", **webui(b, b, UNKNOWN, interp_method="Weighted sum"))
    assert [row.weight for row in lineage(plain).rows[1:]] == ["0.7", "0.3", ""]


def test_a_chain_of_merges_leads_through_the_entries_that_were_copied_in(write):
    a, b = write("a.safetensors"), write("b.safetensors")
    first = webui(a, b, "1" * 64)
    inner = first["sd_merge_models"] | {
        "2" * 64: {"name": "first.ckpt", "legacy_hash": "", "sd_merge_recipe": json.dumps(first["sd_merge_recipe"])}
    }
    recipe = {"type": "webui", "primary_model_hash": "2" * 64, "secondary_model_hash": sha256(b), "tertiary_model_hash": None}
    found = lineage(write("second.safetensors", sd_merge_recipe=recipe, sd_merge_models=inner))
    assert [(row.name, row.depth, row.parent) for row in found.rows] == [
        ("second.safetensors", 0, None), ("first.ckpt", 1, 0), ("a.safetensors", 2, 1), ("sub\\b.safetensors", 2, 1),
        ("gone.ckpt", 2, 1), ("sub\\b.safetensors", 1, 0)]  # fmt: skip


def test_supermergers_and_model_mixers_headers(write, tmp_path):
    a, b = write("a.safetensors"), write("b.safetensors")
    models = {sha256(path): {"name": f"{path.name} [{sha256(path)[:10]}]", "legacy_hash": legacy(path)} for path in (a, b)}
    recipe = {
        "type": "sd-webui-supermerger", "weights_alpha": [0.5] * 25, "weights_beta": None, "model_a": sha256(a), "model_b": sha256(b),
        "model_c": None, "base_alpha": 0.4, "base_beta": 0.25, "mode": "Weight sum", "mbw": True, "calcmode": "normal",
    }  # fmt: skip
    found = lineage(write("m.safetensors", sd_merge_recipe=recipe, sd_merge_models=models), tmp_path)
    assert rows(found, "name", "role", "found_by")[1:] == [("a.safetensors", "model_a", "sha256"), ("b.safetensors", "model_b", "sha256")]
    assert "mode=Weight sum, mbw=True, calcmode=normal" in found.rows[0].method
    mixer = {"type": "sd-webui-model-mixer", "model_a": f"a.safetensors [{sha256(a)[:10]}]", "mode": ["Sum"], "alpha": [0.5]}
    found = lineage(write("x.safetensors", sd_merge_recipe=mixer, sd_merge_models={}), tmp_path)
    assert rows(found, "name", "role", "found_by")[1:] == [("a.safetensors", "model_a", "short hash")]


def test_models_without_a_recipe_are_ancestors_and_no_more_is_said(write):
    models = {"1" * 64: {"name": "one.ckpt"}, "2" * 64: {"name": "two.ckpt"}}
    found = lineage(write("m.safetensors", sd_merge_models=models))
    assert rows(found, "name", "role")[1:] == [("one.ckpt", "one of its ancestors"), ("two.ckpt", "one of its ancestors")]


def test_our_own_recipes_show_every_operator_and_lead_on_to_the_parents_recipes(write, tmp_path):
    a, b, c = (wb.open(write(f"{name}.safetensors")) for name in "abc")
    first = wb.export(average([a, b], weights=[0.3, 0.7]), tmp_path / "first.safetensors", progress=False).open()
    merge = average([wb.operators.add_difference(first, c, b, strength=0.5), c], weights=[1, 3])
    second = wb.export(merge, tmp_path / "second.safetensors", progress=False).path
    told = [
        ("second.safetensors", -1, "", "", "weighted_average(weights=[1, 3])"),
        ("add_difference", 0, "models[0]", "1", "add_difference(strength=0.5)"),
        ("first.safetensors", 1, "base", "", "weighted_average(weights=[0.3, 0.7])"),
        ("a.safetensors", 2, "models[0]", "0.3", ""),
        ("b.safetensors", 2, "models[1]", "0.7", ""),
        ("c.safetensors", 1, "tuned", "", ""),
        ("b.safetensors", 1, "original", "", ""),
        ("c.safetensors", 0, "models[1]", "3", ""),
    ]
    assert rows(lineage(second), "name", "parent", "role", "weight", "method") == told
    found = lineage(second, tmp_path)
    assert rows(found, "name", "parent", "role", "weight", "method") == told
    assert [row.source for row in found.rows].count(Basis.HASH) == 6
    assert str(found).splitlines()[1].startswith("├─ models[0] 1: add_difference(strength=0.5): says Workbench's sd_merge_recipe")
    assert "│     ├─ models[0] 0.3: a.safetensors" not in str(found)
    assert "│  │  ├─ models[0] 0.3: a.safetensors [" in str(found)


def test_sd_mechas_recipe(write, tmp_path):
    write("ghostmix_v20Bakedvae.safetensors")
    text = "\n".join([
        "version 0.1.0",
        'model "ghostmix_v20Bakedvae.safetensors" model_config="sd1-ldm" merge_space="weight"',
        'model "dreams \\"x\\".safetensors" model_config="sd1-ldm" merge_space="weight"',
        'literal 0.25 model_config="sd1-ldm" merge_space="param"',
        'merge "weighted_sum" &0 &1 alpha=&2',
        'merge "add_perpendicular" &3 &1 &0 alpha=0.5',
    ])  # fmt: skip
    found = lineage(write("m.safetensors", mecha_recipe=text), tmp_path)
    assert rows(found, "name", "parent", "method", "found_by") == [
        ("m.safetensors", -1, "add_perpendicular(alpha=0.5)", "given"),
        ("weighted_sum", 0, "weighted_sum(alpha=0.25)", ""),
        ("ghostmix_v20Bakedvae.safetensors", 1, "", "name"),
        ('dreams "x".safetensors', 1, "", ""),
        ('dreams "x".safetensors', 0, "", ""),
        ("ghostmix_v20Bakedvae.safetensors", 0, "", "name"),
    ]
    assert found.rows[2].source is Basis.NAME
    assert "(by name only)" in str(found)
    older = 'model "a" "sd1"\nlora "b" "sd1"\nmerge "add_difference" &0 &1 alpha=1.0'
    assert [row.name for row in lineage(write("o.safetensors", mecha_recipe=older)).rows] == ["o.safetensors", "a", "b"]


GRAPH = {
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}, "_meta": {"title": "Load Checkpoint"}},
    "10": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "anime/b.safetensors"}},
    "11": {"class_type": "ModelMergeSimple", "inputs": {"ratio": 0.3, "model1": ["4", 0], "model2": ["10", 0]}},
    "12": {
        "class_type": "LoraLoader",
        "inputs": {"lora_name": "style.safetensors", "strength_model": 0.8, "strength_clip": 1.0, "model": ["11", 0], "clip": ["4", 1]},
    },
    "14": {"class_type": "VAELoader", "inputs": {"vae_name": "vae-ft-mse.pt"}},
    "15": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["12", 1]}},
    "13": {
        "class_type": "CheckpointSave",
        "inputs": {"filename_prefix": "checkpoints/mine", "model": ["12", 0], "clip": ["12", 1], "vae": ["14", 0]},
    },
}


def test_comfyuis_graph_as_it_ran(write, tmp_path):
    write("a.safetensors")
    found = lineage(write("mine_00001_.safetensors", prompt=GRAPH), tmp_path)
    assert rows(found, "name", "parent", "role", "weight", "source") == [
        ("mine_00001_.safetensors", -1, "", "", "the file itself"),
        ("LoraLoader", 0, "model, clip", "", "a step, no file"),
        ("ModelMergeSimple", 1, "model", "", "a step, no file"),
        ("a.safetensors", 2, "model1", "0.3", "found by name only"),
        ("anime/b.safetensors", 2, "model2", "0.7", "told, not found"),
        ("a.safetensors", 1, "clip", "", "found by name only"),
        ("style.safetensors", 1, "lora", "0.8", "told, not found"),
        ("vae-ft-mse.pt", 0, "vae", "", "told, not found"),
    ]
    assert found.rows[2].method == "ModelMergeSimple(ratio=0.3)"
    assert not any("a cat" in row.method for row in found.rows)


def test_comfyuis_graph_of_blocks_and_as_it_was_drawn(write):
    nodes = [
        {"id": 1, "type": "CheckpointLoaderSimple", "widgets_values": ["a.safetensors"], "inputs": []},
        {"id": 2, "type": "UNETLoader", "widgets_values": ["b.safetensors", "default"]},
        {"id": 3, "type": "ModelMergeBlocks", "widgets_values": [0.1, 0.2, 0.3],
         "inputs": [{"name": "model1", "link": 7}, {"name": "model2", "link": 8}]},
        {"id": 4, "type": "ModelSave", "widgets_values": ["diffusion_models/mine"], "inputs": [{"name": "model", "link": 9}]},
    ]  # fmt: skip
    workflow = {"nodes": nodes, "links": [[7, 1, 0, 3, 0, "MODEL"], [8, 2, 0, 3, 1, "MODEL"], [9, 3, 0, 4, 0, "MODEL"]], "version": 0.4}
    found = lineage(write("mine_00001_.safetensors", prompt="", workflow=workflow))
    assert rows(found, "name", "role", "method") == [
        ("mine_00001_.safetensors", "", "ModelMergeBlocks(widget 0=0.1, widget 1=0.2, widget 2=0.3)"),
        ("a.safetensors", "model1", ""), ("b.safetensors", "model2", "")]  # fmt: skip


def test_a_graph_that_saves_several_models_tells_by_the_name_which_this_is_or_not_at_all(write):
    two = GRAPH | {"20": {"class_type": "ModelSave", "inputs": {"filename_prefix": "only_unet", "model": ["11", 0]}}}
    found = lineage(write("only_unet_00001_.safetensors", prompt=two))
    assert [row.name for row in found.rows] == ["only_unet_00001_.safetensors", "a.safetensors", "anime/b.safetensors"]
    renamed = lineage(write("renamed.safetensors", prompt=two))
    assert len(renamed.rows) == 1
    assert "parents unknown: the graph in prompt saves 2 models, and does not tell which this is" in str(renamed)


def test_kohyas_training_notes_find_the_model_by_its_hashes(write, tmp_path):
    base, vae = write("base.safetensors", large=True), write("vae.safetensors", large=True)
    said = {"ss_sd_model_name": "base.safetensors", "ss_sd_model_hash": legacy(base), "ss_new_sd_model_hash": sha256(base),
            "ss_vae_name": "vae.safetensors", "ss_vae_hash": legacy(vae), "ss_network_module": "networks.lora", "ss_network_dim": "32",
            "ss_network_alpha": "16.0"}  # fmt: skip
    base.rename(tmp_path / "x.safetensors")
    found = lineage(write("lora.safetensors", **said), tmp_path)
    assert rows(found, "name", "role", "found_by")[1:] == [
        ("base.safetensors", "trained on", "sha256"), ("vae.safetensors", "VAE in training", "legacy hash")]  # fmt: skip
    assert found.rows[0].method == "trained(network_module=networks.lora, network_dim=32, network_alpha=16.0)"
    none = lineage(write("n.safetensors", ss_sd_model_name="None", ss_sd_model_hash="NOFILE", ss_vae_name="None"))
    assert "its header says nothing" in none.rows[0].note


def test_modelspecs_merged_from_gives_names_or_titles(write, tmp_path):
    write("a.safetensors")
    write("b_v2.safetensors", modelspec__title="My B")
    found = lineage(write("m.safetensors", modelspec__merged_from="a, My B, c"), tmp_path)
    assert [(row.name, row.file and row.file.name, row.source) for row in found.rows[1:]] == [
        ("a", "a.safetensors", Basis.NAME), ("My B", "b_v2.safetensors", Basis.NAME), ("c", None, Basis.TOLD)]  # fmt: skip


def test_what_more_a_header_says_is_named(write):
    found = lineage(write("m.safetensors", mecha_recipe='model "a"', ss_sd_model_name="b.safetensors"))
    assert found.rows[0].note == '"kohya\'s ss_sd_model_*" in the same header is not shown'


# --- hashes


def test_every_hash_is_that_of_a_file_worked_out_by_hand(tmp_path):
    content = bytes(range(256)) * 5000  # 1,280,000 bytes
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    catalogue = Catalogue(tmp_path, progress=False)
    # of `sha256sum a.ckpt`, and of `tail -c +1048577 a.ckpt | head -c 65536 | sha256sum | cut -c 1-8`
    whole, old = "7d471e4af16db5a30ce10aebbc29f5178b2edbad6c7dc2e8ff8ee6e4848a726f", "7daca209"
    assert [catalogue.find(Mark.of("b", sha)).by for sha in (whole, whole.upper(), f"0x{whole}", whole[:10], whole[:12])] == [
        "sha256", "sha256", "sha256", "short hash", "short hash"]  # fmt: skip
    assert catalogue.find(Mark.of(legacy=old)).by == "legacy hash"
    assert catalogue.find(Mark.of(f"b.ckpt [{whole[:10]}]")).by == "short hash"
    assert catalogue.find(Mark.of(f"b.ckpt [{old}]")).by == "legacy hash"


def test_a_file_of_the_right_name_and_another_hash_is_another_file(write, tmp_path):
    write("a.safetensors")
    found = Catalogue(tmp_path, progress=False).find(Mark.of("a.safetensors", "1" * 64))
    assert (found.path, found.note) == (None, f"not in {tmp_path.name}, where 'a.safetensors' has another hash")


def test_a_legacy_hash_that_says_nothing_is_no_hash_and_one_of_two_files_tells_none(write, tmp_path):
    write("a.safetensors"), write("b.safetensors")
    nothing = "e3b0c442"  # of no bytes at all, as of every file of 1 MiB or less
    catalogue = Catalogue(tmp_path, progress=False)
    assert catalogue.find(Mark.of("b.safetensors", legacy=nothing)).by == "name"
    one = write("x/one.safetensors", large=True)
    (tmp_path / "x" / "two.safetensors").write_bytes(one.read_bytes())
    catalogue = Catalogue(tmp_path, progress=False)
    found = catalogue.find(Mark.of("gone", legacy=legacy(one)))
    assert (found.path, "nothing tells which is meant" in found.note) == (None, True)
    assert catalogue.find(Mark.of("one.safetensors", legacy=legacy(one))).path == one
    write("y/a.safetensors", seed=5)
    assert "have this name" in Catalogue(tmp_path, progress=False).find(Mark.of("a.safetensors")).note


def test_the_hash_of_a_loras_tensors_is_checked_and_not_believed(write, tmp_path):
    plain = write("plain.safetensors")
    length = int.from_bytes(plain.read_bytes()[:8], "little")
    tensors = hashlib.sha256(plain.read_bytes()[8 + length :]).hexdigest()
    lora = write("plain2.safetensors", seed=sum(b"plain.safetensors"), sshs_model_hash=tensors, sshs_legacy_hash="12345678")
    write("liar.safetensors", seed=3, sshs_model_hash=tensors)
    catalogue = Catalogue(tmp_path, progress=False)
    assert [catalogue.find(Mark.of("gone", digits)).path for digits in (tensors, tensors[:12])] == [lora, lora]
    assert catalogue.find(Mark.of("gone", tensors)).by == "sshs_model_hash"
    assert catalogue.find(Mark.of("gone", legacy="12345678")).by == "sshs_legacy_hash, as its header says"


# --- measured


def test_where_the_header_is_silent_recover_proposes(write, tmp_path):
    a, b = (wb.open(write(f"{name}.safetensors")) for name in "ab")
    write("c.safetensors")
    save_file({key: (0.25 * a[key].float() + 0.75 * b[key].float()).half() for key in a}, tmp_path / "mystery.safetensors")
    wb.export(average([a, b]), tmp_path / "merge.safetensors", progress=False)  # a sum of the candidates, and so no candidate
    (tmp_path / "copy of a.safetensors").write_bytes(a.path.read_bytes())
    found = lineage(tmp_path / "mystery.safetensors", tmp_path)
    assert [(row.source, row.file.name[-13:], row.weight[:4]) for row in found.rows[1:]] == [
        (Basis.MEASURED, "a.safetensors", "0.25"), (Basis.MEASURED, "b.safetensors", "0.75")]  # fmt: skip
    assert 0 < found.rows[0].residual < 1e-3
    assert found.rows[0].told_by == "recover (measured)"
    assert "measured, not told" in found.headline
    silent = lineage(tmp_path / "mystery.safetensors")
    assert len(silent.rows) == 1
    assert "give the folder" in silent.rows[0].note


def test_what_fits_nothing_is_unknown_and_a_child_is_no_parent(write, tmp_path):
    a = write("a.safetensors")
    write("b.safetensors")
    found = lineage(a, tmp_path)
    assert len(found.rows) == 1
    assert "parents unknown: its header says nothing of its parents, and measured, a: no candidates fit" in found.rows[0].note
    wb.export(average([wb.open(a), wb.open(tmp_path / "b.safetensors")]), tmp_path / "child.safetensors", progress=False)
    assert len(lineage(a, tmp_path).rows) == 1  # though a is 2 child - b
    alone = tmp_path / "alone"
    alone.mkdir()
    a.rename(alone / "a.safetensors")
    assert "holds no other model of its kind" in lineage(alone / "a.safetensors", alone).rows[0].note


# --- hostile metadata

HOSTILE = ["null", "[]", "3", "{", "nonsense", "[" * 100_000, '{"a":' * 50_000, f'{{"type": "webui", "multiplier": {"9" * 5000}}}', "\x00",
           '{"type": "workbench"}', '{"type": "workbench", "recipe": {"models": [], "merge": 3}}', '{"type": 3, "model_a": {}}',
           '{"nodes": 3, "links": [[1]], "4": null}', '{"nodes": [null, {"inputs": [null], "id": []}], "links": [null]}',
           '{"1": {"class_type": ["Save"], "inputs": {"model": ["1", 0]}}}', '{"1": {"class_type": "Save", "inputs": {"model": [{}, 0]}}}',
           "version 0.1.0\nmerge\nmodel\nliteral &9", 'merge "x" &0 &1', '"' * 1000]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_bad_metadata_is_unknown_and_no_error(write, tmp_path, text):
    fields = ("sd_merge_recipe", "sd_merge_models", "mecha_recipe", "prompt", "workflow", "modelspec.merged_from", "ss_sd_model_name")
    for field in fields:
        found = lineage(write("m.safetensors", **{field.replace(".", "__"): text}))
        assert found.rows[0].name == "m.safetensors"
        for shown in (str(found), repr(found), found._repr_html_(), found.frame()):
            assert len(str(shown)) < 10_000
    everything = {field.replace(".", "__"): text for field in fields}
    assert lineage(write("m.safetensors", **everything)).plot().layout.title.text


def test_entries_that_are_no_objects_are_passed_over(write):
    models = {"1" * 64: None, "2" * 64: [], "3" * 64: 5, "no hash": {"name": None, "legacy_hash": 3}, "4" * 64: "text"}
    recipe = {"type": "webui", "primary_model_hash": "1" * 64, "secondary_model_hash": 7, "tertiary_model_hash": ["x"]}
    assert [row.name for row in lineage(write("m.safetensors", sd_merge_models=models, sd_merge_recipe=recipe)).rows] == [
        "m.safetensors", "1111111111"]  # fmt: skip
    assert len(lineage(write("n.safetensors", sd_merge_models=models)).rows) == 6


def test_circles_end(write, tmp_path):
    one, two = "1" * 64, "2" * 64
    models = {
        sha: {"name": name, "sd_merge_recipe": {"type": "webui", "primary_model_hash": other, "secondary_model_hash": sha}}
        for sha, name, other in ((one, "one", two), (two, "two", one))
    }
    found = lineage(write("m.safetensors", sd_merge_models=models, sd_merge_recipe={"type": "webui", "primary_model_hash": one}))
    assert len(found.rows) == 6
    assert sum("a circle" in row.note for row in found.rows) == 3
    loop = {"1": {"class_type": "Merge", "inputs": {"model1": ["2", 0], "file": "a.safetensors"}},
            "2": {"class_type": "Merge", "inputs": {"model1": ["1", 0]}},
            "3": {"class_type": "ModelSave", "inputs": {"model": ["2", 0]}}}  # fmt: skip
    assert any("a circle" in row.note for row in lineage(write("c.safetensors", prompt=loop)).rows)


def test_much_is_bounded_and_said(write, tmp_path):
    began = time.monotonic()
    models = {f"{at:064x}": {"name": f"model {at}", "legacy_hash": "12345678"} for at in range(10_000)}
    found = lineage(write("m.safetensors", sd_merge_models=models), tmp_path)
    assert len(found.rows) == 1000
    assert found.notes[0].startswith("9001 more that the metadata names are left out")
    assert "the first 120 of 1000 are drawn" in re.sub(r"<br>(<span[^>]*>)?|</span>", " ", found.plot().layout.title.text).replace(
        "  ", " "
    )
    doubled = ['model "a"', *(f'merge "add" &{at} &{at}' for at in range(60))]  # 2 ** 60 leaves
    found = lineage(write("d.safetensors", mecha_recipe="\n".join(doubled)))
    assert len(found.rows) < 200
    assert any("its parents are shown above" in row.note for row in found.rows)
    deep: dict = {"operator": "x", "inputs": {"base": "a"}}
    for _ in range(300):
        deep = {"operator": "x", "inputs": {"base": deep}}
    found = lineage(
        write("r.safetensors", sd_merge_recipe={"type": "workbench", "recipe": {"models": {"a": "a.safetensors"}, "merge": deep}})
    )
    assert len(found.rows) < 60
    assert time.monotonic() - began < 30  # each takes well under a second


def test_names_are_escaped_and_no_control_character_is_printed(write, tmp_path):
    name = "<script>alert(1)</script>\x1b[31m\u202e\n" + "x" * 5000
    found = lineage(write("m.safetensors", modelspec__merged_from=name, mecha_recipe=f'model "{name}"'.replace("\n", "")), tmp_path)
    for text in (str(found), repr(found), found._repr_html_()):
        assert not set(text) & {"\x1b", "\u202e", "\x00"}
        assert len(text) < 3000
    assert "<script>" not in found._repr_html_() + found.plot().to_json()
    assert set(found._repr_mimebundle_()) == {"text/html", "text/plain"}


def test_metadata_that_is_no_text_and_files_that_are_none_are_our_errors(write, tmp_path):
    text = json.dumps({"__metadata__": {"sd_merge_models": None}}).encode()
    (tmp_path / "m.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(CheckpointError, match="must map names to strings"):
        wb.lineage(tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match="there is no such file"):
        wb.lineage(tmp_path / "none.safetensors")
    for path in ("~nobody at all/m.safetensors", "a\0b.safetensors", "n" * 300 + ".safetensors", ""):
        with pytest.raises(CheckpointError):
            wb.lineage(path)
    with pytest.raises(CheckpointError, match="is no folder; give the folder"):
        wb.lineage(write("a.safetensors"), tmp_path / "none")


def test_a_damaged_file_among_others_is_said_and_passed_over(write, tmp_path):
    write("a.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 40)
    found = lineage(write("m.safetensors", modelspec__merged_from="a, Some Title"), tmp_path)
    assert found.rows[1].file == tmp_path / "a.safetensors"
    assert any("broken.safetensors" in note for note in found.notes)


def test_the_figure_has_a_label_for_each_row_below_each_other(write, tmp_path):
    figure = lineage(write("mine_00001_.safetensors", prompt=GRAPH)).plot()
    labels = figure.layout.annotations
    assert [label.text.partition("<br>")[0] for label in labels][:3] == [
        "<b>mine_00001_.safetensors</b>", "<b>model, clip: LoraLoader(strength_model=0.8, strength_clip=1)</b>",
        "<b>model: ModelMergeSimple(ratio=0.3)</b>"]  # fmt: skip
    heights = [(label.y, 17 * (1 + label.text.count("<br>"))) for label in labels]
    assert all(above + height <= below for (above, height), (below, _) in pairwise(heights))
    assert heights[-1][0] + heights[-1][1] <= figure.layout.yaxis.range[0]
