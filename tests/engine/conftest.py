"""What the tests of `engine` share: models in files, and a hash cache of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_models import tensors

import workbench as wb


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """The folder in which hashes are remembered for the length of one test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: folder / name)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., wb.Checkpoint]:
    """Writes a model and opens it: `model("a")`, with a seed from its name, or with tensors of one's own."""

    def make(name: str, given: Mapping[str, torch.Tensor] | None = None, metadata: Mapping[str, str] | None = None) -> wb.Checkpoint:
        path = tmp_path / "models" / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        save_file(dict(tensors(sum(name.encode())) if given is None else given), path, dict(metadata or {"format": "pt"}))
        return wb.open(path)

    return make


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where to write: in an empty folder."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "merged.safetensors"
