"""The example in docs/sweeps.md runs as written."""

from __future__ import annotations

import os
import re
from pathlib import Path

import workbench as wb

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_in_the_documents_works(tmp_path, monkeypatch):
    source, *_ = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(source, names)
    assert wb.Recipe.from_file("best.safetensors").data.merge == names["sweep"].best("clip").recipe.data.merge
    assert sorted(os.listdir()) == ["best.safetensors", "data", "out", "ties.html"]
    assert len(list(Path("out/sweeps/ties").glob("*/cell.json"))) == 6
