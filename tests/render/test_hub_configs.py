"""Where configs come from: the shipped folder that fits a checkpoint, and a hub on this machine, of which no weights are fetched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_server import Hub, serving

from workbench.errors import RenderError
from workbench.families import registry
from workbench.render.sources import hub_folder, shipped_folder
from workbench.render.vocabulary import SHIPPED

REPO = "org/pipeline"
INDEX = {"_class_name": "P", "unet": ["diffusers", "U"], "tokenizer": ["transformers", "T"], "safety_checker": [None, None], "flag": True}
SETTINGS = {
    "model_index.json": json.dumps(INDEX).encode(),
    "unet/config.json": b'{"a": 1}',
    "tokenizer/tokenizer_config.json": b"{}",
    "tokenizer/merges.txt": b"a b",
    "tokenizer/spiece.model": b"model",
    "tokenizer/chat_template.jinja": b"{{ x }}",
}
OTHERS = {
    "unet/diffusion_pytorch_model.safetensors": b"weights",
    "unet/diffusion_pytorch_model.safetensors.index.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors.index.fp16.json": b"{}",
    "unet/diffusion_pytorch_model.bin": b"weights",
    "whole.safetensors": b"weights",
    "README.md": b"# a model",
}


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
def offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Called, it cuts the connection."""
    from huggingface_hub import constants

    return lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(
    ("family", "names", "prediction", "folder"),
    [
        ("SD 1.x", (), "epsilon", "sd1"),
        ("SD 1.x", (), "v", "sd1"),
        ("SD 2.x", (), "v", "sd2"),
        ("SD 2.x", (), "unknown", "sd2"),
        ("SD 2.x", (), "epsilon", "sd2-base"),
        ("SDXL", (), "v", "sdxl"),
        ("SDXL refiner", (), "epsilon", "sdxl-refiner"),
        ("Flux", ("double_blocks.0.img_mod.lin.weight",), "flow", "flux-schnell"),
        ("Flux", ("model.diffusion_model.guidance_in.in_layer.weight",), "flow", "flux-dev"),
        ("Flux", ("time_text_embed.guidance_embedder.linear_1.weight",), "flow", "flux-dev"),
    ],
)
def test_the_folder_that_fits_is_chosen(family, names, prediction, folder):
    assert family in registry()  # called as it is there
    assert shipped_folder(family, names, prediction) == SHIPPED / folder
    assert (SHIPPED / folder / "model_index.json").is_file()


@pytest.mark.parametrize("family", ["SD 3", "Flux.2", "generic", "Qwen-Image"])
def test_of_other_families_nothing_ships(family):
    assert shipped_folder(family, (), "flow") is None


def test_configs_and_tokenizers_are_fetched_and_no_weights(hub):
    hub.commit(REPO, SETTINGS | OTHERS)
    folder = hub_folder(f"hf://{REPO}", False)
    assert hub.files == sorted(SETTINGS)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == sorted(SETTINGS)


def test_what_is_in_the_cache_needs_no_hub(hub, offline):
    hub.commit(REPO, SETTINGS | OTHERS)
    folder = hub_folder(f"hf://{REPO}", False)
    hub.asked.clear()
    assert hub_folder(f"hf://{REPO}", False) == folder
    assert hub.asked == []
    offline()
    assert hub_folder(f"hf://{REPO}", False) == folder


def test_a_cache_that_lacks_a_part_is_filled(hub):
    import shutil

    hub.commit(REPO, SETTINGS | OTHERS)
    folder = hub_folder(f"hf://{REPO}", False)
    (folder / "unet" / "config.json").unlink()
    for trees in folder.parents[1].glob("trees"):  # as a library that keeps no list of files leaves it
        shutil.rmtree(trees)
    assert hub_folder(f"hf://{REPO}", False) == folder
    assert (folder / "unet" / "config.json").is_file()


def test_a_folder_and_a_revision_of_a_repository_may_be_named(hub):
    commit = hub.commit(REPO, {f"inner/{name}": data for name, data in (SETTINGS | OTHERS).items()} | SETTINGS, "other")
    folder = hub_folder(f"hf://{REPO}@other/inner", False)
    assert (folder.name, folder.parent.name) == ("inner", commit)
    assert all(name.startswith("inner/") for name in hub.files)


@pytest.mark.parametrize("progress", [True, False])
def test_bars_are_shown_when_they_are_wanted(hub, capsys, monkeypatch, progress):
    monkeypatch.setenv("TQDM_POSITION", "-1")  # the library shows them where there is no terminal as well
    hub.commit(REPO, SETTINGS)
    hub_folder(f"hf://{REPO}", progress)
    assert bool(capsys.readouterr().err) == progress


def _refusal(address: str) -> str:
    with pytest.raises(RenderError) as caught:
        hub_folder(address, False)
    return str(caught.value)


def test_a_gated_repository_says_how_to_get_in_and_what_else_can_be_done(hub):
    hub.commit(REPO, SETTINGS)
    hub.gated.add(REPO)
    told = _refusal(f"hf://{REPO}")
    for part in (f"hf://{REPO}: is gated", f"accept its terms at {hub.url}/{REPO}", "hf auth login", "config=folder", "model_index.json"):
        assert part in told
    assert f"hf download {REPO}" in told


def test_a_repository_that_is_not_there_is_named(hub):
    told = _refusal("hf://org/nothing")
    assert "hf://org/nothing: is not there, or private" in told
    assert "config=folder" in told


def test_without_a_connection_the_cache_is_named(hub, offline):
    from huggingface_hub import constants

    offline()
    told = _refusal(f"hf://{REPO}")
    assert "cannot be reached" in told
    assert "config=folder" in told
    assert constants.HF_HUB_CACHE in told


def test_a_repository_that_is_no_pipeline_is_refused(hub):
    hub.commit(REPO, {"config.json": b"{}"})
    assert "has no model_index.json" in _refusal(f"hf://{REPO}")
