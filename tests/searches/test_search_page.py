"""The example of docs/search.md works as it stands, with fewer trials, seeds and steps."""

from __future__ import annotations

import re

import workbench as wb
from workbench.places import DATA

PAGE = DATA.parent / "docs" / "search.md"


def test_the_page_finds_a_merge_and_writes_it(tmp_path, monkeypatch):
    (tmp_path / "data").symlink_to(DATA)
    monkeypatch.chdir(tmp_path)
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    page: dict = {}
    exec(source.replace("trials=32,", "trials=1, seeds=(0,), steps=1, progress=False,"), page)
    assert page["found"].headline
    assert wb.Recipe.from_file("best.safetensors").to_dict()["merge"]["operator"] == "task_arithmetic"
