"""Folders that `export` writes: shards, index and config, loaded by diffusers without a word; whole pipelines; nothing else is touched."""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from held import Held
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import workbench as wb
from workbench.engine.configs import flux_config
from workbench.engine.folder_plan import FolderPlan
from workbench.errors import ExportError
from workbench.tensors import TensorInfo

average = wb.operators.weighted_average
GUIDANCE = [{"match": "*guidance*", "take": "models[1]"}]
FLUX = {
    "in_channels": 16, "num_layers": 2, "num_single_layers": 3, "attention_head_dim": 16, "num_attention_heads": 2,
    "joint_attention_dim": 24, "pooled_projection_dim": 12, "axes_dims_rope": (4, 6, 6),
}  # fmt: skip
NONE = dict.fromkeys(("tokenizer", "text_encoder_2", "tokenizer_2"))  # the pipelines here do without
INDEX = "diffusion_pytorch_model.safetensors.index.json"


def flux(seed: int, **config: object):
    """A small Flux transformer in bfloat16."""
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(seed)
    return FluxTransformer2DModel(**FLUX | config).to(torch.bfloat16)


def autoencoder():
    from diffusers import AutoencoderKL

    return AutoencoderKL(block_out_channels=(4,), norm_num_groups=1, layers_per_block=1)


def text_encoder():
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 20,
        "projection_dim": 8,
    }
    return CLIPTextModel(CLIPTextConfig(**sizes, bos_token_id=0, eos_token_id=1, pad_token_id=1))


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A folder of `schnell` (no guidance) and `krea`, in shards of different boundaries, and of two pipelines."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    folder = tmp_path_factory.mktemp("models")
    flux(1, guidance_embeds=False).save_pretrained(folder / "schnell", max_shard_size="30KB")
    flux(2, guidance_embeds=True).save_pretrained(folder / "krea", max_shard_size="50KB")
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        parts = {"vae": autoencoder(), "text_encoder": text_encoder(), "transformer": flux(seed)}
        FluxPipeline(scheduler=FlowMatchEulerDiscreteScheduler(), **parts, **NONE).save_pretrained(folder / name)
    (folder / "first" / "tokenizer").mkdir()
    (folder / "first" / "tokenizer" / "vocab.json").write_text("{}")
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where to write: in an empty folder."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "merged"


def flux_merge(models: Path, **options: object) -> wb.Merge:
    return average([wb.open(models / "schnell"), wb.open(models / "krea")], **options)


def export(checkpoint: wb.Checkpoint, path: Path, **options: object):
    return wb.export(checkpoint, path, progress=False, **{"max_shard_size": "30KB", **options})


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@contextmanager
def silence() -> Iterator[None]:
    """diffusers and transformers must have nothing to say."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    assert not said


def loaded(folder: Path):
    from diffusers import FluxTransformer2DModel

    with silence():
        return FluxTransformer2DModel.from_pretrained(folder)


# ---------------------------------------------------------------- a component


@pytest.mark.parametrize(("rules", "guided"), [(GUIDANCE, True), ([{"match": "*guidance*", "skip": True}], False)])
def test_diffusers_loads_the_folder_without_a_word_and_it_is_the_merge(models, target, rules, guided):
    merge = flux_merge(models, rules=rules)
    export(merge, target)
    model = loaded(target)
    assert model.config.guidance_embeds is guided
    state = model.state_dict()
    assert set(state) == set(merge)
    assert all(torch.equal(state[key].bfloat16(), merge[key]) for key in merge)
    assert set(wb.open(target)) == set(merge)


def test_the_config_is_the_first_inputs_corrected_to_the_tensors(models, target):
    config = models / "schnell" / "config.json"
    before = json.loads(config.read_text())
    config.write_text(json.dumps(before | {"_name_or_path": "somebody/else", "num_layers": 9, "quantization_config": {}}))
    try:
        export(flux_merge(models, rules=[*GUIDANCE, {"match": "single_transformer_blocks.2.*", "skip": True}]), target)
    finally:
        config.write_text(json.dumps(before))
    assert json.loads((target / "config.json").read_text()) == before | {"guidance_embeds": True, "num_layers": 2, "num_single_layers": 2}
    assert loaded(target).config.num_single_layers == 2


def test_a_unet_loads_too(tmp_path, target):
    from diffusers import UNet2DConditionModel

    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(block_out_channels=(4, 8), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), norm_num_groups=2, cross_attention_dim=8, attention_head_dim=4,
            layers_per_block=1)  # fmt: skip
        unet.save_pretrained(tmp_path / name, max_shard_size="20KB")
    merge = average([wb.open(tmp_path / "a"), wb.open(tmp_path / "b")])
    export(merge, target, max_shard_size=30_000)
    with silence():
        state = UNet2DConditionModel.from_pretrained(target).state_dict()
    assert all(torch.equal(state[key], merge[key]) for key in merge)


def test_shards_are_named_indexed_and_measured_as_diffusers_does(models, target):
    done = export(flux_merge(models, rules=GUIDANCE), target)
    index = json.loads((target / INDEX).read_text())
    names = sorted(path.name for path in target.glob("*.safetensors"))
    assert len(names) > 1
    assert names == [f"diffusion_pytorch_model-{i:05}-of-{len(names):05}.safetensors" for i in range(1, len(names) + 1)]
    held = {name: load_file(target / name) for name in names}
    assert index["weight_map"] == {key: name for name in names for key in held[name]}
    assert index["metadata"] == {"total_size": sum(tensor.nbytes for shard in held.values() for tensor in shard.values())}
    assert done.nbytes == sum((target / name).stat().st_size for name in names)
    assert sorted(path.name for path in target.iterdir()) == sorted([*names, INDEX, "config.json"])


@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=20), limit=st.integers(1, 40))
def test_shards_are_filled_greedily_in_the_order_of_the_tensors(sizes, limit):
    infos = {f"t{i}": TensorInfo((size,), "U8") for i, size in enumerate(sizes)}
    plan = FolderPlan()
    plan.add_shards(Path(), "m", {key: key for key in infos}, infos, limit)
    shards = [list(file.names) for file in plan.files]
    assert sorted(key for shard in shards for key in shard) == sorted(infos)
    alone = {key for key, info in infos.items() if info.nbytes > limit}
    assert all(sum(infos[key].nbytes for key in shard) <= limit or (len(shard) == 1 and shard[0] in alone) for shard in shards)
    others = [shard for shard in shards if not alone & set(shard)]
    assert [key for shard in others for key in shard] == [key for key in infos if key not in alone]
    for shard, following in itertools.pairwise(others):
        assert sum(infos[key].nbytes for key in [*shard, following[0]]) > limit


@pytest.mark.parametrize("limit", ["5GB", "1 mb", "0.5MB", 10**6])
def test_what_fits_into_one_file_has_no_index(models, target, limit):
    merge = flux_merge(models, rules=GUIDANCE)
    export(merge, target, max_shard_size=limit)
    assert sorted(path.name for path in target.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    assert set(loaded(target).state_dict()) == set(merge)


def test_the_bytes_are_the_same_on_any_number_of_threads(models, target):
    merge = flux_merge(models, rules=GUIDANCE)
    trees = []
    for threads in (1, 2, 8):
        export(merge, target, threads=threads, overwrite=True)
        trees.append(tree(target))
    assert trees[0] == trees[1] == trees[2]


def test_the_recipe_lies_in_every_shard_and_makes_the_folder_again(models, target):
    merge = flux_merge(models, rules=GUIDANCE, weights=[0.3, 0.7])
    export(merge, target)
    for shard in target.glob("*.safetensors"):
        with safe_open(shard, "pt") as file:
            assert "sd_merge_recipe" in file.metadata()
            assert file.metadata()["modelspec.title"] == "merged"
        assert wb.Recipe.from_file(shard).to_dict() == wb.Recipe.from_file(target).to_dict()
    again = wb.Recipe.from_file(target).build()
    export(again, target.with_name("again"))
    one, other = wb.open(target), wb.open(target.with_name("again"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_folder_is_sharded_anew_with_what_it_says(models, target):
    export(flux_merge(models, rules=GUIDANCE), target)
    done = export(wb.open(target), target.with_name("again"), max_shard_size="80KB")
    one, other = wb.open(target), done.open()
    assert dict(other.metadata) == dict(one.metadata)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert len(other.sources()) < len(one.sources())


def test_without_a_config_flux_is_told_by_its_shapes(tmp_path, target):
    model = flux(3, guidance_embeds=True, attention_head_dim=128, num_attention_heads=1, axes_dims_rope=(16, 56, 56), num_layers=1)
    save_file(model.state_dict(), tmp_path / "flux.safetensors")
    done = export(wb.open(tmp_path / "flux.safetensors"), target, max_shard_size="5GB")
    assert not done.note
    again = loaded(target)
    assert {name: value for name, value in again.config.items() if not name.startswith("_")} == {
        name: list(value) if isinstance(value, tuple) else value for name, value in model.config.items() if not name.startswith("_")
    }


@pytest.mark.parametrize("guidance", [False, True])
def test_the_shapes_of_the_published_flux_models_tell_their_configs(guidance):
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):  # the defaults are those of FLUX.1
        model = FluxTransformer2DModel(guidance_embeds=guidance)
    infos = {name: TensorInfo(tuple(tensor.shape), "BF16") for name, tensor in model.state_dict().items()}
    told = {name: tuple(value) if isinstance(value, list) else value for name, value in flux_config(infos).items()}
    assert told == {"_class_name": "FluxTransformer2DModel"} | {name: value for name, value in model.config.items() if name in told}
    assert model.config.keys() - told.keys() <= {"_use_default_values"}


def test_a_model_without_tensors_is_refused(target):
    with pytest.raises(ExportError, match="empty: holds no tensors"):
        export(Held({}, "empty"), target)
    assert not target.exists()


def test_where_shapes_do_not_tell_the_config_that_is_said(models, tmp_path, target):
    save_file(flux(3).state_dict(), tmp_path / "flux.safetensors")
    done = export(wb.open(tmp_path / "flux.safetensors"), target)
    assert "without config.json, so diffusers cannot load it from here: there is none beside flux" in done.note
    assert not (target / "config.json").exists()


def test_names_with_a_prefix_get_no_config_and_that_is_said(tmp_path, target):
    save_file({f"transformer.{key}": tensor for key, tensor in flux(3).state_dict().items()}, tmp_path / "flux.safetensors")
    (tmp_path / "config.json").write_text("{}")
    done = export(wb.open(tmp_path / "flux.safetensors"), target)
    assert "its tensors have names that begin with 'transformer.', as those of flux" in done.note
    assert not (target / "config.json").exists()


def test_a_file_with_bfl_names_says_why_it_has_no_config(tmp_path, target):
    save_file({"double_blocks.0.img_mod.lin.weight": torch.ones(4, 4), "img_in.weight": torch.ones(4, 4)}, tmp_path / "bfl.safetensors")
    done = export(wb.open(tmp_path / "bfl.safetensors"), target, max_shard_size=64)
    assert "without config.json, so diffusers cannot load it from here: its tensors have BFL names, as those of bfl" in done.note
    assert len(done.open()) == 2


# ---------------------------------------------------------------- the dtype


@pytest.mark.parametrize(
    ("stored", "merged"),
    [("bfloat16", "bfloat16"), ("float16", "float16"), ("float32", "float32"), ("float8_e4m3fn", "bfloat16"), ("float8_e5m2", "bfloat16")],
)
def test_a_merged_flux_keeps_its_dtype_and_of_fp8_is_bfloat16_unless_told_otherwise(tmp_path, target, stored, merged):
    tensors = {"double_blocks.0.img_mod.lin.weight": torch.ones(2, 2), "img_in.weight": torch.ones(2, 2)}
    for name in "ab":
        save_file({key: tensor.to(getattr(torch, stored)) for key, tensor in tensors.items()}, tmp_path / f"{name}.safetensors")
    models = [wb.open(tmp_path / f"{name}.safetensors") for name in "ab"]
    for name, checkpoint, dtype, wanted in [
        ("merge", average(models), None, merged),
        ("taken", average(models, rules=[{"match": "*", "take": "models[1]"}]), None, merged),
        ("asked", average(models), "float8_e4m3fn", "float8_e4m3fn"),
        ("copy", models[0], None, stored),
    ]:
        folder = export(checkpoint, target.with_name(name), dtype=dtype).open()
        file = wb.export(checkpoint, target.with_name(f"{name}.safetensors"), dtype=dtype, progress=False).open()
        shown = checkpoint.with_dtype(dtype) if dtype else checkpoint
        for found in (folder, file):
            assert {found.info(key).dtype_name for key in tensors} == {wanted}
            assert all(torch.equal(found[key].float(), shown[key].float()) for key in tensors)


# ---------------------------------------------------------------- a pipeline


def pipelines(models: Path, **options: object) -> wb.Merge:
    return average([wb.open(models / "first"), wb.open(models / "second")], **options)


def test_a_pipeline_is_a_pipeline_again_and_diffusers_loads_it_without_a_word(models, target):
    from diffusers import FluxPipeline

    merge = pipelines(models, rules=[{"component": "vae", "take": "models[0]"}])
    done = export(merge, target)
    with silence():
        pipe = FluxPipeline.from_pretrained(target, **NONE)
    for name in ("transformer", "vae", "text_encoder"):
        state = getattr(pipe, name).state_dict()
        stored = {key.removeprefix(f"{name}."): merge[key].float() for key in merge if key.startswith(f"{name}.")}
        assert all(torch.equal(state[key].float(), stored[key]) for key in stored)
    assert (target / "text_encoder" / "config.json").exists()
    assert [path.name for path in (target / "text_encoder").glob("*.safetensors")] == ["model.safetensors"]
    assert (target / "transformer" / INDEX).exists()
    assert (target / "scheduler" / "scheduler_config.json").exists()
    assert (target / "tokenizer" / "vocab.json").read_text() == "{}"
    assert done.note == "vae is not merged, and linked to the files of first"


def test_unmerged_weights_are_links_and_small_files_copies(models, target, monkeypatch):
    merge = pipelines(models, rules=[{"component": "vae", "take": "models[0]"}])
    file = Path("vae", "diffusion_pytorch_model.safetensors")
    export(merge, target)
    assert (target / file).samefile(models / "first" / file)
    assert not (target / "vae" / "config.json").samefile(models / "first" / "vae" / "config.json")

    def fail(*given):
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", fail)
    export(merge, target, overwrite=True)
    assert not (target / file).samefile(models / "first" / file)
    assert (target / file).read_bytes() == (models / "first" / file).read_bytes()


def test_what_is_taken_from_the_other_or_rounded_is_written_and_not_linked(models, target):
    other = pipelines(models, rules=[{"component": "vae", "take": "models[1]"}])
    rounded = pipelines(models, rules=[{"component": "vae", "take": "models[0]"}], dtype="float16")
    for merge in (other, rounded):
        export(merge, target, overwrite=True)
        found = wb.open(target)
        assert all(torch.equal(found[key], merge[key]) for key in merge if key.startswith("vae."))
        assert (target / "vae" / "diffusion_pytorch_model.safetensors").stat().st_nlink == 1


def test_a_component_that_rules_leave_out_is_out_of_the_index(models, target):
    merge = pipelines(models, rules=[{"component": "text_encoder", "skip": True}])
    export(merge, target)
    assert json.loads((target / "model_index.json").read_text())["text_encoder"] == [None, None]
    assert not (target / "text_encoder").exists()
    assert set(wb.open(target)) == set(merge)


def test_a_pipelines_recipe_is_its_own_and_not_that_of_a_linked_component(models, target):
    keep = [{"component": name, "take": "models[0]"} for name in ("vae", "text_encoder")]
    export(pipelines(models, rules=[{"component": "transformer", "take": "models[0]"}]), target)
    first = wb.open(target)
    merge = average([first, wb.open(models / "second")], weights=[0.2, 0.8], rules=keep)
    export(merge, target.with_name("again"))
    recipe = wb.Recipe.from_file(target.with_name("again"))
    assert recipe.data.merge.options == {"weights": [0.2, 0.8]}
    assert [path.resolve() for path in recipe.build().sources()] == [path.resolve() for path in merge.sources()]


def test_tensors_of_no_component_are_named(models, target):
    extra = Held({"stray.weight": torch.ones(2), "transformer.x_embedder.weight": torch.ones(32, 16, dtype=torch.bfloat16)}, "extra")
    merge = average([wb.open(models / "first"), extra], rules=[{"component": "transformer", "merge": True}])
    with pytest.raises(ExportError, match=r"'stray\.weight' belongs to no component of the pipeline .*skip it with a rule"):
        export(merge, target)


# ---------------------------------------------------------------- what is there


def test_an_older_model_goes_with_all_its_shards_and_everything_else_stays(models, target):
    merge = flux_merge(models, rules=GUIDANCE)
    export(merge, target, max_shard_size="10KB")
    (target / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"older")
    own = {"notes.txt": b"mine", "grids/one.png": b"png", "pytorch_lora_weights.safetensors": b"lora"}
    for name, content in own.items():
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_bytes(content)
    (target / "empty").mkdir()
    with pytest.raises(ExportError, match=r"merged: is not empty; give another name, or overwrite=True"):
        export(merge, target)
    export(merge, target, overwrite=True)
    found = tree(target)
    assert {name: found.pop(name) for name in own} == own
    assert (target / "empty").is_dir()
    export(merge, target.with_name("fresh"))
    assert set(found) == set(tree(target.with_name("fresh")))
    assert all(torch.equal(wb.open(target)[key], merge[key]) for key in merge)
    assert sorted(path.name for path in target.parent.iterdir()) == ["fresh", "merged"]


def test_a_pipeline_replaced_by_a_component_leaves_no_part_of_itself(models, target):
    export(pipelines(models), target)
    (target / "vae" / "mine.txt").write_text("mine")
    export(flux_merge(models, rules=GUIDANCE), target, overwrite=True)
    left = {name for name in tree(target) if not name.startswith("diffusion_pytorch_model")}
    assert left == {"config.json", "vae/mine.txt"}


def test_an_empty_folder_is_filled(models, target):
    target.mkdir()
    export(flux_merge(models, rules=GUIDANCE), target)
    assert (target / INDEX).exists()


def test_files_of_somebody_elses_are_not_taken_for_a_model(models, target):
    (target / "src").mkdir(parents=True)
    (target / "src" / "config.json").write_text("mine")
    (target / "tokenizer.json").write_text("mine")
    export(flux_merge(models, rules=GUIDANCE), target, overwrite=True)
    assert (target / "src" / "config.json").read_text() == (target / "tokenizer.json").read_text() == "mine"


@pytest.mark.parametrize("way", ["the folder", "a folder above", "a link to it"])
def test_a_folder_that_an_input_lies_in_is_refused(models, tmp_path, way):
    shutil.copytree(models / "schnell", tmp_path / "above" / "schnell")
    model = wb.open(tmp_path / "above" / "schnell")
    target = {"the folder": model.path.parent, "a folder above": tmp_path / "above", "a link to it": tmp_path / "link"}[way]
    if way == "a link to it":
        target.symlink_to(model.path.parent)
    before = tree(tmp_path)
    with pytest.raises(ExportError, match=r"the input .* lies in it; give the result a folder of its own"):
        export(model, target, overwrite=True)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite", "fsync", "rename"])
def test_a_disk_that_fails_leaves_nothing_behind_and_an_older_folder_as_it_was(models, target, monkeypatch, call, older):
    merge = flux_merge(models, rules=GUIDANCE)
    if older:
        export(merge, target, max_shard_size="10KB")
        (target / "notes.txt").write_text("mine")
    before = tree(target.parent)
    calls = []

    def fail(*given, **named):
        calls.append(given)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(ExportError, match="merged: could not be written: No space left on device; nothing was left behind"):
        export(merge, target, overwrite=True)
    assert calls
    assert tree(target.parent) == before


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("m.safetensors", {"max_shard_size": "5GB"}, r"with max_shard_size a folder is written; leave \.safetensors off"),
        ("m", {"max_shard_size": None}, r"name ends in \.safetensors or \.gguf; for a folder of shards, give max_shard_size"),
        ("m", {"max_shard_size": "5"}, r"max_shard_size must be bytes, or text like '5GB' \(KB, MB, GB, TB\), got '5'"),
        ("m", {"max_shard_size": "-5GB"}, "got '-5GB'"),
        ("m", {"max_shard_size": "5GiB"}, "got '5GiB'"),
        ("m", {"max_shard_size": 0}, "got 0"),
        ("m", {"max_shard_size": True}, "got True"),
        ("m", {"max_shard_size": 5e9}, "got 5000000000.0"),
        ("no/where", {}, "there is no folder .*no; make it first"),
        ("file", {}, "file: is a file; with max_shard_size a folder is written"),
    ],
)
def test_what_cannot_be_written_is_refused(models, target, name, options, said):
    (target.parent / "file").write_text("mine")
    with pytest.raises(ExportError, match=said):
        export(flux_merge(models, rules=GUIDANCE), target.parent / name, **options)
    assert tree(target.parent) == {"file": b"mine"}


def test_the_command_writes_folders_too(models, target):
    from typer.testing import CliRunner

    from workbench.cli import app

    flux_merge(models, rules=GUIDANCE).recipe.save(target.parent / "recipe.yaml")
    for limit in ("30KB", "30000"):
        command = ["merge", str(target.parent / "recipe.yaml"), "--out", str(target), "--max-shard-size", limit, "--overwrite"]
        found = CliRunner().invoke(app, command)
        assert found.exit_code == 0, found.output
        assert (target / INDEX).exists()
    shown = CliRunner().invoke(app, ["inspect", str(target)])
    assert "Flux" in shown.output
    assert "carries a recipe" in shown.output
    save_file({"old": torch.ones(1)}, target / "diffusion_pytorch_model-00099-of-00099.safetensors")
    assert "note: diffusion_pytorch_model-00099-of-00099.safetensors is not in" in CliRunner().invoke(app, ["inspect", str(target)]).output


# ---------------------------------------------------------------- disks, links, and what is in the way


@contextmanager
def mounted(place: Path) -> Iterator[None]:
    """A small disk at a place; skipped where nobody may mount one."""
    if (
        not shutil.which("mount")
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", place], capture_output=True).returncode
    ):
        pytest.skip("mounting a disk is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("older", [False, True])
def test_a_folder_that_is_a_disk_of_its_own_is_written(models, target, older):
    target.mkdir()
    with mounted(target):
        if older:
            export(flux_merge(models, rules=GUIDANCE), target, max_shard_size="10KB")
            (target / "notes.txt").write_text("mine")
        export(flux_merge(models, rules=GUIDANCE), target, overwrite=older)
        assert set(wb.open(target)) == set(flux_merge(models, rules=GUIDANCE))
        assert (target / "notes.txt").exists() == older
        assert not list(target.glob(".*"))


def test_a_disk_inside_the_folder_stays_and_one_in_the_place_of_a_part_is_refused(models, target):
    (target / "samples").mkdir(parents=True)
    (target / "vae").mkdir()
    with mounted(target / "samples"):
        (target / "samples" / "1.png").write_text("mine")
        export(flux_merge(models, rules=GUIDANCE), target, overwrite=True)
        assert (target / "samples" / "1.png").read_text() == "mine"
    with mounted(target / "vae"), pytest.raises(ExportError, match=r"vae: is another disk inside .*; unmount it, or give another name"):
        export(pipelines(models), target, overwrite=True)


@pytest.mark.parametrize(
    ("name", "said"), [("vae", "is a file where a folder is to be"), ("model_index.json/x", "is a folder where a file")]
)
def test_what_is_in_the_way_is_known_before_anything_is_written(models, target, name, said):
    (target / name).parent.mkdir(parents=True)
    (target / name).write_text("mine")
    with pytest.raises(ExportError, match=rf"{said}.*; move it away, or give another name"):
        export(pipelines(models), target, overwrite=True)
    assert tree(target) == {name: b"mine"}


def test_a_part_that_is_a_link_to_another_models_is_not_written_through(models, target, tmp_path):
    export(pipelines(models), target)
    shutil.move(target / "vae", tmp_path / "shared")
    (target / "vae").symlink_to(tmp_path / "shared")
    shared = tree(tmp_path / "shared")
    export(pipelines(models, weights=[0.2, 0.8]), target, overwrite=True)
    assert tree(tmp_path / "shared") == shared
    assert not (target / "vae").is_symlink()


def test_files_that_may_not_be_moved_leave_everything_as_it_was(models, target):
    export(flux_merge(models, rules=GUIDANCE), target, max_shard_size="10KB")
    (target / "notes.txt").write_text("mine")
    before, fixed = tree(target), sorted(target.glob("*.safetensors"))[-1]
    if not shutil.which("chattr") or subprocess.run(["chattr", "+i", fixed], capture_output=True).returncode:
        pytest.skip("no file can be made immovable here")
    try:
        with pytest.raises(ExportError, match="could not be written: Operation not permitted; nothing was left behind"):
            export(flux_merge(models, rules=GUIDANCE), target, overwrite=True)
    finally:
        subprocess.run(["chattr", "-i", fixed], check=True)
    assert tree(target) == before


# ---------------------------------------------------------------- configs


def unet(folder: Path, channels: int) -> wb.Checkpoint:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(channels)
    blocks = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
    sizes = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": 8, "attention_head_dim": 4}
    UNet2DConditionModel(sample_size=8, in_channels=channels, out_channels=4, **blocks, **sizes).save_pretrained(folder / f"{channels}")
    return wb.open(folder / f"{channels}")


def test_the_config_of_a_unet_has_the_input_channels_that_are_written(tmp_path, target):
    from diffusers import UNet2DConditionModel

    four, nine = unet(tmp_path, 4), unet(tmp_path, 9)
    before = json.loads((tmp_path / "4" / "config.json").read_text())
    result = export(average([four, nine], rules=[{"match": "conv_in.weight", "take": "models[1]"}]), target)
    written = json.loads((target / "config.json").read_text())
    assert {name for name in written if written[name] != before.get(name)} == {"in_channels"}
    assert (written["in_channels"], result.note) == (9, "")
    with silence():
        assert UNet2DConditionModel.from_pretrained(target).config.in_channels == 9


def test_the_config_of_flux_has_the_input_channels_of_fill(tmp_path, models, target):
    flux(3, in_channels=96, out_channels=16).save_pretrained(tmp_path / "fill")
    merge = average([wb.open(models / "schnell"), wb.open(tmp_path / "fill")], rules=[{"match": "x_embedder.weight", "take": "models[1]"}])
    export(merge, target)
    config = loaded(target).config
    assert (config.in_channels, config.out_channels) == (96, 16)


def test_a_config_that_cannot_be_corrected_is_said(tmp_path, target):
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text('{"_class_name": "OddTransformer", "channels": 4}')
    save_file({"x.weight": torch.ones(2, 4), "y": torch.ones(2)}, tmp_path / "odd" / "diffusion_pytorch_model.safetensors")
    odd = wb.open(tmp_path / "odd")
    assert "config.json" not in export(average([odd, odd]), target).note
    wide = Held({"x.weight": torch.ones(2, 9), "y": torch.ones(2)}, "wide")
    note = export(average([odd, wide], rules=[{"match": "x.weight", "take": "wide"}]), target, overwrite=True).note
    assert "config.json is that of other tensors ('x.weight'), and may not fit these: what shapes say of OddTransformer" in note
    assert json.loads((target / "config.json").read_text()) == {"_class_name": "OddTransformer", "channels": 4}
