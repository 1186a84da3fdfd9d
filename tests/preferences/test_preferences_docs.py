"""The page about choices by eye runs from its first line to its last."""

from __future__ import annotations

import re
from pathlib import Path

import workbench as wb

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_runs_and_its_best_merge_is_the_recipe_it_saves(tmp_path, monkeypatch):
    (tmp_path / "data").symlink_to(DOCS.parent / "data")
    monkeypatch.chdir(tmp_path)
    begin, ending, proposing = re.findall(r"```python\n(.*?)```", (DOCS / "preferences.md").read_text(encoding="utf-8"), re.DOTALL)
    page: dict = {}
    exec(begin, page)
    first = page["panel"]
    assert first.wait(120)
    first.choose("left")
    assert first.wait(120)
    exec(ending, page)
    assert wb.Recipe.load("best.yaml").data.merge == first.best.recipe.data.merge
    assert len(Path("choices.csv").read_text(encoding="utf-8").splitlines()) == 2
    exec(proposing, page)
    second = page["panel"]
    second.close()
    assert second.wait(120)
    assert second.problems == {}
    first.close()
