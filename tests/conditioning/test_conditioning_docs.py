"""The example in docs/prompt-steering.md runs as written, and the file it writes makes itself again."""

from __future__ import annotations

import re
from pathlib import Path

import torch

import workbench as wb

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_runs_and_its_file_makes_itself_again(tmp_path, monkeypatch):
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    (source,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "prompt-steering.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(source, {})
    exported = wb.open("green-heart.safetensors")
    again = wb.Recipe.from_file("green-heart.safetensors").build()
    key = next(key for key in exported if key.endswith("attn2.to_k.weight"))
    assert torch.equal(again.read(key), exported.read(key))
    assert "steer.safetensors" in again.recipe.to_yaml()
