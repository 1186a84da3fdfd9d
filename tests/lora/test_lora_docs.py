"""The example in docs/loras.md runs as written; and what is made in memory is exported, with a word on the recipe it cannot have."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from held import Held

import workbench as wb
from workbench.errors import ExportError, RecipeError

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_in_the_documents_works(tmp_path, monkeypatch):
    (source,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "loras.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(source, names)
    assert sorted(os.listdir()) == ["both.safetensors", "data", "stripes-16.safetensors"]
    both, written = names["both"], wb.open("both.safetensors")
    assert all(torch.equal(written.read(key), both.read(key)) for key in list(both)[::50])


def test_a_merge_of_what_lies_in_no_file_is_written_without_a_recipe_and_says_so(tmp_path):
    held = Held({"x": torch.ones(2)}, "made")
    done = wb.export(wb.operators.weighted_average([held, held]), tmp_path / "merged.safetensors", progress=False)
    assert "without a recipe, for made lies in no file" in str(done)
    assert done.open().read("x").tolist() == [1, 1]
    with pytest.raises(RecipeError):
        wb.Recipe.from_file(done.path)


def test_changes_are_not_written_as_a_model(tmp_path):
    style = wb.open(ROOT / "data" / "shapes-sd" / "lora" / "stripes.safetensors")
    with pytest.raises(ExportError, match=r"stripes holds changes, not a model: workbench\.lora\.export writes a LoRA"):
        wb.export(style, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())
