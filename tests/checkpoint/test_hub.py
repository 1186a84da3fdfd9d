"""Models from the hub, against one on this machine: only the files needed, its cache, its token, and errors with a next step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub_server import Hub, serving
from safetensors.torch import save
from typer.testing import CliRunner

import workbench as wb
from workbench.cli import app
from workbench.errors import CheckpointError, RecipeError

X, Y = torch.arange(6.0).reshape(2, 3), torch.ones(3)
INDEX = {"weight_map": {"x": "d-00001-of-00002.safetensors", "y": "d-00002-of-00002.safetensors"}, "metadata": {"total_size": 36}}
COMPONENT = {
    "transformer/config.json": b'{"_class_name": "FluxTransformer2DModel"}',
    "transformer/d.safetensors.index.json": json.dumps(INDEX).encode(),
    "transformer/d-00001-of-00002.safetensors": save({"x": X}),
    "transformer/d-00002-of-00002.safetensors": save({"y": Y}),
}
OTHERS = {"README.md": b"# a model", ".gitattributes": b"", "flux1.safetensors": save({"z": X}), "picture.png": b"png"}
PIPELINE = {
    "model_index.json": json.dumps({"transformer": ["diffusers", "F"], "vae": ["diffusers", "A"], "tokenizer": ["t", "T"]}).encode(),
    "vae/config.json": b'{"a": 1}',
    "vae/diffusion_pytorch_model.safetensors": save({"v": X}),
    "vae/diffusion_pytorch_model.fp16.safetensors": save({"v": X.half()}),
    "vae/diffusion_pytorch_model.bin": b"pickled",
    "tokenizer/vocab.json": b"{}",
    "tokenizer/merges.txt": b"a b",
    "stray/model.safetensors": save({"s": X}),
}
REPO = "org/model"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A hub on this machine, and a cache of its own; HF_ENDPOINT is read at import, so what was read is set."""
    from huggingface_hub import constants, hf_api

    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with serving(Hub()) as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", found.url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(hf_api.api, "endpoint", found.url)
        yield found


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch):
    """Called, it cuts the connection."""
    from huggingface_hub import constants

    return lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_a_component_is_fetched_with_its_shards_and_config_and_nothing_else(hub):
    commit = hub.commit(REPO, COMPONENT | OTHERS)
    model = wb.open(f"hf://{REPO}/transformer")
    assert hub.files == sorted(COMPONENT)
    assert torch.equal(model["x"], X)
    assert torch.equal(model["y"], Y)
    assert (model.name, model.address) == ("model", f"hf://{REPO}@{commit}/transformer")
    assert model.path.parent.name == "transformer"


@pytest.mark.parametrize("spelled", [f"hf://{REPO}/flux1.safetensors", f"hf://{REPO}@main/flux1.safetensors"])
def test_one_file_is_fetched_alone(hub, spelled):
    commit = hub.commit(REPO, COMPONENT | OTHERS)
    model = wb.open(spelled)
    assert hub.files == ["flux1.safetensors"]
    assert (list(model), model.name, model.address) == (["z"], "flux1", f"hf://{REPO}@{commit}/flux1.safetensors")


def test_a_path_object_that_lost_a_slash_is_still_an_address(hub):
    hub.commit(REPO, OTHERS)
    assert list(wb.open(Path(f"hf://{REPO}/flux1.safetensors"))) == ["z"]


def test_an_index_is_fetched_with_its_shards(hub):
    hub.commit(REPO, COMPONENT | OTHERS)
    assert list(wb.open(f"hf://{REPO}/transformer/d.safetensors.index.json")) == ["x", "y"]
    assert hub.files == sorted(COMPONENT)


def test_of_a_pipeline_every_component_comes_with_its_best_weights_and_small_files(hub):
    hub.commit(REPO, COMPONENT | OTHERS | PIPELINE)
    model = wb.open(f"hf://{REPO}")
    assert list(model) == ["transformer.x", "transformer.y", "vae.v"]
    assert model.name == "model"
    left = {"vae/diffusion_pytorch_model.fp16.safetensors", "vae/diffusion_pytorch_model.bin", "stray/model.safetensors"}
    assert hub.files == sorted(COMPONENT.keys() | PIPELINE.keys() - left)


def test_a_repository_with_one_file_of_weights_is_that_model(hub):
    hub.commit(REPO, OTHERS)
    assert list(wb.open(f"hf://{REPO}")) == ["z"]


def test_a_revision_is_a_branch_a_commit_or_a_pull_request(hub):
    old = hub.commit(REPO, {"m.safetensors": save({"old": X})})
    new = hub.commit(REPO, {"m.safetensors": save({"new": X})})
    hub.refs[REPO, "refs/pr/1"] = old
    found = {revision: wb.open(f"hf://{REPO}@{revision}/m.safetensors") for revision in (old, new, "main", "refs/pr/1")}
    assert [list(model) for model in found.values()] == [["old"], ["new"], ["new"], ["old"]]
    assert found["main"].address == f"hf://{REPO}@{new}/m.safetensors"
    assert found["refs/pr/1"].address == f"hf://{REPO}@{old}/m.safetensors"


def test_a_second_time_nothing_is_fetched_and_offline_it_opens_from_the_cache(hub, offline):
    hub.commit(REPO, COMPONENT | OTHERS)
    address = wb.open(f"hf://{REPO}/transformer").address
    hub.asked.clear()
    assert torch.equal(wb.open(address)["x"], X)
    assert not hub.asked
    wb.open(f"hf://{REPO}/transformer")
    assert not hub.files
    offline()
    hub.asked.clear()
    assert wb.open(f"hf://{REPO}/transformer").address == address
    assert not hub.asked


def test_a_recipe_keeps_the_commit_and_the_sha256_and_opens_the_same_next_year(hub, tmp_path):
    old = hub.commit(REPO, {"m.safetensors": save({"x": X})})
    model = wb.open(f"hf://{REPO}/m.safetensors")
    wb.export(wb.operators.weighted_average([model, model]), tmp_path / "out.safetensors", progress=False)
    hub.commit(REPO, {"m.safetensors": save({"x": X + 1})})
    recipe = wb.Recipe.from_file(tmp_path / "out.safetensors")
    (told,) = recipe.data.models.values()
    assert told.path == f"hf://{REPO}@{old}/m.safetensors"
    assert len(told.sha256) == 64
    recipe.save(tmp_path / "recipe.yaml")
    again = wb.Recipe.load(tmp_path / "recipe.yaml").build()
    assert torch.equal(again["x"], X)
    assert again.recipe.data.models == {"m": told.model_copy(update={"sha256": None})}
    (tmp_path / "recipe.yaml").write_text((tmp_path / "recipe.yaml").read_text().replace(told.sha256, "a" * 64))
    with pytest.raises(RecipeError, match="is not the file the recipe was made with"):
        wb.Recipe.load(tmp_path / "recipe.yaml").build()


def test_the_token_opens_what_is_gated(hub, monkeypatch):
    hub.commit(REPO, OTHERS)
    hub.gated.add(REPO)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert list(wb.open(f"hf://{REPO}/flux1.safetensors")) == ["z"]
    assert hub.tokens == {f"Bearer {hub.token}"}


def test_without_access_the_error_says_how_to_get_it(hub):
    hub.commit(REPO, OTHERS)
    hub.gated.add(REPO)
    with pytest.raises(
        CheckpointError, match=rf"hf://{REPO}: is gated; accept its terms at {hub.url}/{REPO}, then log in with `hf auth login`"
    ):
        wb.open(f"hf://{REPO}/flux1.safetensors")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("hf://org/nothing/m.safetensors", r"hf://org/nothing: is not there, or private; see .*/org/nothing; if it is private, log in"),
        (f"hf://{REPO}@v9/flux1.safetensors", rf"hf://{REPO}: has no revision 'v9'; give a branch, a tag or a commit"),
        (f"hf://{REPO}/no.safetensors", rf"hf://{REPO}/no\.safetensors: there is no such file or folder; {REPO} has .*flux1\.safetensors"),
        (f"hf://{REPO}/unet", rf"hf://{REPO}/unet: there is no such file or folder; {REPO} has .*transformer"),
        (f"hf://{REPO}/transformer/no.safetensors", r"no such file or folder"),
        (f"hf://{REPO}/README.md", "no suffix|not known"),
        ("hf://", "is no address on the hub"),
        ("hf://org", "is no address on the hub.*Write hf://org/repo"),
        ("hf://datasets/org/data/x.safetensors", "names a dataset; only models"),
        (f"hf://{REPO}@", "is no address on the hub"),
    ],
)
def test_what_is_not_there_is_named_with_the_next_step(hub, address, said):
    hub.commit(REPO, COMPONENT | OTHERS)
    with pytest.raises(CheckpointError, match=said):
        wb.open(address)


def test_a_folder_of_several_models_asks_for_one(hub):
    hub.commit(REPO, {"a.safetensors": save({"x": X}), "b.safetensors": save({"x": X})})
    with pytest.raises(CheckpointError, match=rf"hf://{REPO}: holds 2 models, name one: a\.safetensors, b\.safetensors"):
        wb.open(f"hf://{REPO}")
    assert not hub.files


def test_a_shard_that_the_repository_lacks_is_named(hub):
    hub.commit(REPO, {name: data for name, data in COMPONENT.items() if "00002-of" not in name})
    with pytest.raises(CheckpointError, match=r"shard 'd-00002-of-00002\.safetensors' is missing"):
        wb.open(f"hf://{REPO}/transformer")


def test_offline_and_not_in_the_cache_says_so(hub, offline):
    hub.commit(REPO, COMPONENT | OTHERS)
    offline()
    with pytest.raises(CheckpointError, match=rf"hf://{REPO}: cannot be reached .*HF_HUB_OFFLINE is set: unset it"):
        wb.open(f"hf://{REPO}/transformer")


def test_half_in_the_cache_is_not_enough_offline(hub, offline):
    hub.commit(REPO, COMPONENT | OTHERS)
    wb.open(f"hf://{REPO}/flux1.safetensors")
    offline()
    with pytest.raises(CheckpointError, match=rf"hf://{REPO}: cannot be reached .*not whole in the cache"):
        wb.open(f"hf://{REPO}/transformer")


def test_a_hub_that_is_not_there_is_named(hub, monkeypatch):
    from huggingface_hub import constants, hf_api

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hf_api.api, "endpoint", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match=rf"hf://{REPO}: cannot be reached at http://127\.0\.0\.1:9, .*go online once"):
        wb.open(f"hf://{REPO}/transformer")


def test_a_hub_that_is_down_is_not_reached(hub):
    hub.commit(REPO, OTHERS)
    hub.broken = True
    with pytest.raises(CheckpointError, match=rf"hf://{REPO}: cannot be reached .*go online once"):
        wb.open(f"hf://{REPO}/flux1.safetensors")


def test_the_command_says_what_lies_at_an_address(hub):
    hub.commit(REPO, COMPONENT | OTHERS)
    found = CliRunner().invoke(app, ["inspect", f"hf://{REPO}/transformer"])
    assert found.exit_code == 0
    assert "model: model" in found.output
    assert "tensors: 2" in found.output


def test_the_command_opens_an_address_by_the_endpoint_of_the_environment(hub, tmp_path):
    commit = hub.commit(REPO, COMPONENT | OTHERS)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"workbench: 1\nmodels: {{a: 'hf://{REPO}/transformer'}}\nmerge: {{operator: weighted_average, inputs: {{models: [a]}}}}\n"
    )
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    environment.pop("HF_TOKEN", None)
    command = [sys.executable, "-m", "workbench", "merge", recipe, "--out", tmp_path / "out.safetensors"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(wb.__file__).parents[1])
    assert found.returncode == 0, found.stderr
    (told,) = wb.Recipe.from_file(tmp_path / "out.safetensors").data.models.values()
    assert told.path == f"hf://{REPO}@{commit}/transformer"
    assert (tmp_path / "home" / "hub").is_dir()
