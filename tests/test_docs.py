"""The examples in the documents work as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from held import Held

import workbench as wb
from workbench import families

average = wb.operators.weighted_average
DOCS = Path(__file__).resolve().parent.parent / "docs"


def examples(page: str, language: str) -> list[str]:
    """The blocks of code of a page."""
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


RECIPES = examples("recipes.md", "yaml") + examples("flux.md", "yaml")


@pytest.mark.parametrize("text", RECIPES, ids=range(len(RECIPES)))
def test_every_recipe_in_the_documents_can_be_made(text, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(text.replace("../data", str(DOCS.parent / "data")))
    found = wb.preflight(wb.Recipe.load(path).build())
    assert found.ok
    assert not found.warnings


def test_the_operator_in_the_documents_works():
    (source,) = examples("writing-an-operator.md", "python")
    module: dict = {}
    exec(source, module)
    base, one, other = (Held({"x": torch.tensor(values)}) for values in ([0.0, 0.0], [1.0, -1.0], [0.5, -3.0]))
    assert torch.equal(module["largest_change"](base, [one, other], strength=2.0)["x"], torch.tensor([2.0, -6.0]))


def test_the_flux_page_runs_from_its_first_line_to_its_last(tmp_path, monkeypatch):
    (tmp_path / "data").symlink_to(DOCS.parent / "data")
    monkeypatch.chdir(tmp_path)
    page: dict = {}
    exec("".join(examples("flux.md", "python")), page)
    kept, dropped, loaded, grid = (page[name] for name in ("kept", "dropped", "loaded", "grid"))
    assert loaded.config.guidance_embeds
    assert loaded.state_dict().keys() == set(kept)
    assert len(kept) == len(dropped) + 4
    assert wb.open("merged-fp8.safetensors").info("proj_out.weight").dtype == torch.float8_e4m3fn
    assert all(key.startswith("model.diffusion_model.") for key in wb.open("comfyui.safetensors"))
    (prompt,) = grid.request.prompts
    one, other = (grid.image("dropped", prompt, 0, steps=2, guidance=scale) for scale in (1, 3.5))
    assert one.tobytes() == other.tobytes()


def test_the_family_in_the_documents_is_told_and_ramps_by_its_blocks(monkeypatch):
    monkeypatch.setattr(families, "_registered", {})
    mixed, mine = examples("families.md", "python")
    exec(mine, {})
    names = ["my_stem.weight", *(f"layers.{i}.attn.{one}.weight" for i in range(12) for one in ("qkv", "proj"))]
    a, b = (Held({name: torch.full((3, 1), value) for name in names}, str(value)) for value in (0.0, 1.0))
    assert (a.architecture, a.structure.layout, a.block("layers.7.attn.qkv.weight")) == ("My model", "original", "layers.7")
    merged = average([a, b], weights={"ramp": {"start": [1, 0], "end": [0, 1]}})
    assert wb.preflight(merged).ok
    assert merged["layers.11.attn.qkv.weight"].unique().tolist() == [1.0]
    mixed = mixed.replace('"time_embed": [0, 1]', '"my_stem": [0, 1]')
    found = eval(mixed, {"wb": wb, "a": a, "b": b})
    assert [found[name].unique().tolist() for name in ("my_stem.weight", "layers.10.attn.qkv.weight", "layers.2.attn.qkv.weight")] == [
        [1],
        [0],
        [0.5],
    ]
