"""What an exported file says of itself: its recipe, which makes it again; its parents; the fields other programs look for."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_models import TEXT, UNET, tensors

import workbench as wb

average, task_arithmetic = wb.operators.weighted_average, wb.operators.task_arithmetic
FULL = {
    "SD 1.x": [f"{UNET}input_blocks.1.1.proj_in.weight", f"{TEXT}x"],
    "SD 2.x": ["cond_stage_model.model.x", f"{UNET}out.0.weight"],
    "SDXL": [f"{UNET}label_emb.0.0.weight"],
    "Flux": ["double_blocks.0.img_mod.lin.weight"],
    "Flux with guidance": ["double_blocks.0.img_mod.lin.weight", "guidance_in.in_layer.weight"],
    "generic": ["x"],
}
SAI = "https://github.com/Stability-AI"
MODELSPEC = {
    "SD 1.x": ("stable-diffusion-v1", "https://github.com/CompVis/stable-diffusion", "512x512", "epsilon"),
    "SD 2.x": ("stable-diffusion-v2-512", f"{SAI}/stablediffusion", "512x512", None),
    "SDXL": ("stable-diffusion-xl-v1-base", f"{SAI}/generative-models", "1024x1024", "epsilon"),
    "Flux": ("flux-1-schnell", "https://github.com/black-forest-labs/flux", "1024x1024", None),
    "Flux with guidance": ("flux-1-dev", "https://github.com/black-forest-labs/flux", "1024x1024", None),
}


def header(path: Path) -> dict[str, str]:
    """The metadata as another program reads it."""
    with safe_open(path, "pt") as file:
        return file.metadata()


def export(checkpoint: wb.Checkpoint, path: Path, **options: object) -> dict[str, str]:
    wb.export(checkpoint, path, overwrite=True, progress=False, **options)
    return header(path)


def sha256(checkpoint: wb.Checkpoint) -> str:
    return hashlib.sha256(checkpoint.path.read_bytes()).hexdigest()


def spec(metadata: dict[str, str]) -> dict[str, str]:
    return {key.removeprefix("modelspec."): value for key, value in metadata.items() if key.startswith("modelspec.")}


def of(model, form: str, *names: str, **metadata: str) -> list[wb.Checkpoint]:
    return [model(name, {key: torch.ones(1) for key in FULL[form]}, {"format": "pt", **metadata}) for name in names]


def test_the_recipe_in_the_header_makes_the_same_file_again(model, out):
    a, b = model("a"), model("b")
    merge = average([task_arithmetic(a, [b], weights=0.4), b], weights={"blocks": {"MID": [1, 2], "default": [2, 1]}}, seed=5)
    metadata = export(merge, out, dtype="bfloat16")
    again = wb.Recipe.from_file(out).build()
    export(again, out.with_name("again.safetensors"))
    one, other = load_file(out), load_file(out.with_name("again.safetensors"))
    assert {key: (tensor.dtype, tensor.tolist()) for key, tensor in one.items()} == {
        key: (tensor.dtype, tensor.tolist()) for key, tensor in other.items()
    }
    second = header(out.with_name("again.safetensors"))
    assert second == metadata | {"modelspec.title": "again"}


@pytest.mark.parametrize("folder", [".", "deeper/still", "../elsewhere"])
def test_the_recipe_finds_its_models_from_wherever_the_file_was_written(model, out, folder, monkeypatch):
    a, b = model("a"), model("b")
    monkeypatch.chdir(a.path.parent)
    target = out.parent / folder / "m.safetensors"
    target.parent.mkdir(parents=True, exist_ok=True)
    export(average([wb.open("a.safetensors"), b]), target)
    monkeypatch.chdir("/")
    assert [path.resolve() for path in wb.Recipe.from_file(target).build().sources()] == [a.path, b.path]


def test_the_parents_hashes_are_those_of_their_files(model, out):
    a, b = model("a"), model("b")
    recipe = json.loads(export(average([a, b]), out)["sd_merge_recipe"])
    assert recipe["type"] == "workbench"
    assert {name: one["sha256"] for name, one in recipe["recipe"]["models"].items()} == {"a": sha256(a), "b": sha256(b)}


def test_the_lineage_names_every_parent_and_copies_the_entries_of_theirs(model, out):
    theirs = {"f" * 64: {"name": "grandparent.ckpt", "legacy_hash": "12345678", "sd_merge_recipe": None}}
    a, b = model("a"), model("b", metadata={"format": "pt", "sd_merge_models": json.dumps(theirs), "sd_merge_recipe": '{"type": "webui"}'})
    lineage = json.loads(export(average([a, b]), out)["sd_merge_models"])
    legacy = {one: hashlib.sha256(one.path.read_bytes()[0x100000:0x110000]).hexdigest()[:8] for one in (a, b)}
    assert lineage == theirs | {
        sha256(a): {"name": "a.safetensors", "legacy_hash": legacy[a], "sd_merge_recipe": None},
        sha256(b): {"name": "b.safetensors", "legacy_hash": legacy[b], "sd_merge_recipe": {"type": "webui"}},
    }


def test_a_merge_of_merges_carries_the_whole_family(model, out):
    a, b = model("a"), model("b")
    first = out.with_name("first.safetensors")
    export(average([a, b]), first)
    lineage = json.loads(export(average([wb.open(first), b]), out)["sd_merge_models"])
    assert set(lineage) == {sha256(a), sha256(b), sha256(wb.open(first))}
    assert lineage[sha256(wb.open(first))]["sd_merge_recipe"]["type"] == "workbench"


@pytest.mark.parametrize("text", ["", "null", "[]", "3", "{", "nonsense"])
def test_lineage_that_another_program_wrote_badly_is_left_out(model, out, text):
    a, b = model("a"), model("b", metadata={"sd_merge_models": text, "sd_merge_recipe": text})
    assert set(json.loads(export(average([a, b]), out)["sd_merge_models"])) == {sha256(a), sha256(b)}


def test_two_copies_of_one_file_are_one_entry_and_the_file_stays_sound(model, out):
    a = model("a")
    copy = a.path.with_name("copy.safetensors")
    copy.write_bytes(a.path.read_bytes())
    merge = average([a, wb.open(copy)])
    assert len(json.loads(export(merge, out)["sd_merge_models"])) == 1
    assert all(torch.equal(load_file(out)[key], merge[key]) for key in merge)


def test_a_parent_that_lies_in_shards_has_each_file_in_the_lineage(model, out, tmp_path):
    shard, weight_map = tmp_path / "s.safetensors", dict.fromkeys(tensors(1), "s.safetensors")
    save_file(tensors(1), shard)
    (tmp_path / "m.index.json").write_text(json.dumps({"weight_map": weight_map}))
    metadata = export(average([model("a"), wb.open(tmp_path / "m.index.json")]), out)
    assert hashlib.sha256(shard.read_bytes()).hexdigest() in json.loads(metadata["sd_merge_models"])
    assert len(wb.Recipe.from_file(out).build()) == len(tensors(1))


@pytest.mark.parametrize("form", FULL)
def test_modelspec_says_what_the_names_tell(model, out, form):
    metadata = export(average(of(model, form, "moon", "heart")), out)
    if form == "generic":
        assert spec(metadata) == {}
        return
    architecture, implementation, resolution, prediction = MODELSPEC[form]
    expected = {
        "sai_model_spec": "1.0.1", "architecture": architecture, "implementation": implementation, "title": "merged",
        "resolution": resolution, "merged_from": "moon, heart",
    }  # fmt: skip
    assert spec(metadata) == expected | ({"prediction_type": prediction} if prediction else {})


def test_a_marker_makes_it_a_v_prediction_model(model, out):
    for form, architecture in (("SDXL", "stable-diffusion-xl-v1-base"), ("SD 2.x", "stable-diffusion-v2-768-v")):
        marked = model("v", {key: torch.ones(1) for key in FULL[form]} | {"v_pred": torch.tensor([])})
        found = spec(export(average([marked, marked]), out))
        assert (found["architecture"], found["prediction_type"]) == (architecture, "v")


@pytest.mark.parametrize("nested", [False, True])
def test_what_the_models_say_of_themselves_goes_before_what_is_usual(model, out, nested):
    said = {"modelspec.resolution": "768x768", "modelspec.prediction_type": "v"}
    first, second = of(model, "SD 2.x", "a", "b", **said)
    found = spec(export(average([average([first, second]), second]) if nested else average([first, second]), out))
    assert (found["resolution"], found["prediction_type"], found["architecture"]) == ("768x768", "v", "stable-diffusion-v2-768-v")


def test_every_value_is_text_and_the_format_is_said(model, out):
    metadata = export(average([model("a"), model("b")]), out)
    assert metadata["format"] == "pt"
    assert all(isinstance(value, str) for value in metadata.values())


def test_the_header_is_the_same_every_time(model, out):
    a, b = model("a"), model("b")
    first = export(average([a, b]), out) and out.read_bytes()
    assert (export(average([a, b]), out) and out.read_bytes()) == first


def test_the_second_export_does_not_read_its_parents_for_their_hashes(model, out, monkeypatch):
    a, b = model("a"), model("b")
    for one in (a, b):
        os.utime(one.path, (1, 1))
    a, b = wb.open(a.path), wb.open(b.path)
    export(average([a, b]), out)
    streamed, plain = [], hashlib.sha256  # a file's hash begins empty, those of short texts do not
    monkeypatch.setattr(hashlib, "sha256", lambda *given: streamed.append(given) or plain() if not given else plain(*given))
    export(average([a, b]), out)
    assert not streamed


def test_a_file_that_is_exported_again_unmerged_keeps_its_recipe(model, out):
    a, b = model("a"), model("b")
    export(average([a, b]), out)
    copy = out.with_name("copy.safetensors")
    assert export(wb.open(out), copy) == header(out)
    assert len(wb.Recipe.from_file(copy).build()) == len(wb.open(out))


XL = {f"{UNET}label_emb.0.0.weight": torch.ones(2, 2), f"{UNET}out.2.weight": torch.ones(2)}
V = {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}


def claimed(merge: wb.Checkpoint, path: Path) -> str | None:
    with warnings.catch_warnings(action="ignore"):
        return spec(export(merge, path)).get("prediction_type")


def test_a_marker_that_is_in_the_result_is_claimed_and_one_that_is_not_is_not(model, out):
    v, e = model("v", XL | V, {"modelspec.prediction_type": "v"}), model("e", XL)
    assert claimed(average([e, v]), out) == "v"  # a union has it
    assert claimed(task_arithmetic(e, [v]), out) == "epsilon"
    assert claimed(average([v, e], rules=[{"match": match, "skip": True} for match in V]), out) is None
    assert claimed(average([e, v], rules=[{"match": match, "skip": True} for match in V]), out) == "epsilon"


def test_what_only_the_metadata_says_counts(model, out):
    v, e = model("v", XL, {"modelspec.prediction_type": "v"}), model("e", XL)
    assert claimed(average([v, v]), out) == "v"
    assert claimed(average([average([v, v]), e]), out) == "v"
    assert claimed(wb.in_layout(average([v, v]), "diffusers"), out) == "v"
    assert claimed(task_arithmetic(e, [v]), out) == "epsilon"
    (warning,) = wb.preflight(average([v, e])).warnings
    assert warning == "weighted_average: v predicts v, e predicts epsilon; the result has no marker, and is taken to predict v"


def test_a_warning_says_where_markers_go_and_that_one_model_alone_has_ztsnr(model):
    v, e = model("v", XL | V), model("e", XL)
    into, zero = wb.preflight(average([e, v])).warnings
    assert into.endswith("'v_pred', 'ztsnr' of the first that has it goes into the result, and is taken to predict v")
    assert zero.startswith("weighted_average: 'ztsnr' is in v and not in e")
    assert zero.endswith("the result has the marker")
    lost, zero, *left_out = wb.preflight(task_arithmetic(e, [v])).warnings
    assert "the result has no marker" in " ".join([lost, zero, *left_out])
    assert "goes into the result" not in " ".join([lost, zero, *left_out])
    assert not wb.preflight(average([v, v])).warnings


def test_the_refiner_is_named_and_comes_back_from_diffusers_as_it_was(model, out):
    blocks = {f"input_blocks.{i}.0.{'op' if i in (3, 6, 9) else 'in_layers.2'}.weight": (2, 2, 3, 3) for i in range(1, 12)}
    blocks |= {f"output_blocks.{i}.0.in_layers.2.weight": (2, 2, 3, 3) for i in range(12)}
    blocks |= {"label_emb.0.0.weight": (2, 2), "input_blocks.0.0.weight": (2, 4, 3, 3), "middle_block.0.in_layers.2.weight": (2, 2, 3, 3)}
    text = dict.fromkeys(("ln_final.bias", "text_projection", "logit_scale", "transformer.resblocks.0.mlp.c_proj.bias"), (2, 2))
    names = {UNET + key: shape for key, shape in blocks.items()} | {
        f"conditioner.embedders.0.model.{key}": shape for key, shape in text.items()
    }
    made = {key: torch.randn(shape) for key, shape in names.items()}
    refiner = model("refiner", made)
    assert spec(export(average([refiner, refiner]), out))["architecture"] == "stable-diffusion-xl-v1-refiner"
    wb.export(wb.in_layout(refiner, "diffusers"), out.with_name("d.safetensors"), progress=False)
    diffusers = wb.open(out.with_name("d.safetensors"))
    assert diffusers.architecture == "SDXL refiner"
    assert spec(export(average([diffusers, diffusers]), out))["architecture"] == "stable-diffusion-xl-v1-refiner"
    back = wb.in_layout(diffusers, "original")
    assert set(back) == set(made)
    assert all(torch.equal(back[key], tensor) for key, tensor in made.items())


def test_a_hash_of_other_bytes_is_not_carried_over(model, out):
    stale = {"modelspec.hash_sha256": "0x12", "sshs_model_hash": "34", "sshs_legacy_hash": "56", "modelspec.title": "mine"}
    carried = export(model("a", None, stale), out, dtype="bfloat16")
    assert not set(carried) & {*list(stale)[:3]}
    assert carried["modelspec.title"] == "mine"


@pytest.mark.parametrize("dtype", [None, "float16", "bfloat16", "float8_e4m3fn"])
@pytest.mark.parametrize("layout", [None, "diffusers"])
def test_a_merged_file_that_is_exported_again_carries_a_recipe_that_makes_it_or_none(model, out, dtype, layout):
    a, b = (model(name, {key: t.float() if t.is_floating_point() else t for key, t in tensors(i).items()}) for i, name in enumerate("ab"))
    export(average([a, b]), out)
    merged = wb.open(out)
    again = out.with_name("again.safetensors")
    export(wb.in_layout(merged, layout) if layout else merged, again, dtype=dtype)
    made = wb.Recipe.from_file(again).build()
    written = load_file(again)
    assert {key: (tensor.dtype, tensor.tolist()) for key, tensor in written.items()} == {
        key: (made[key].dtype, made[key].tolist()) for key in made
    }
    export(wb.open(again), out.with_name("third.safetensors"), dtype="float32")  # which cannot have what rounding took
    lost = dtype is not None
    assert (("sd_merge_recipe" in header(out.with_name("third.safetensors"))), lost) in {(False, True), (True, False)}
