"""The examples in the documents work as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from held import Held

import workbench as wb

DOCS = Path(__file__).resolve().parent.parent / "docs"
RECIPES = re.findall(r"```yaml\n(.*?)```", (DOCS / "recipes.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("text", RECIPES, ids=range(len(RECIPES)))
def test_every_recipe_in_the_documents_can_be_made(text, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(text.replace("../data", str(DOCS.parent / "data")))
    found = wb.preflight(wb.Recipe.load(path).build())
    assert found.ok
    assert not found.warnings


def test_the_operator_in_the_documents_works():
    (source,) = re.findall(r"```python\n(.*?)```", (DOCS / "writing-an-operator.md").read_text(), re.DOTALL)
    module: dict = {}
    exec(source, module)
    base, one, other = (Held({"x": torch.tensor(values)}) for values in ([0.0, 0.0], [1.0, -1.0], [0.5, -3.0]))
    assert torch.equal(module["largest_change"](base, [one, other], strength=2.0)["x"], torch.tensor([2.0, -6.0]))
