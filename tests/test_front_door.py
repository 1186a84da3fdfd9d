"""`workbench demo`: the files it writes, what it says about them, and that the merge called `skills` has both skills."""

from __future__ import annotations

import base64
import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import workbench as wb
from workbench import demo
from workbench.demo import exam
from workbench.demo.exam import GUIDANCE, STEPS
from workbench.errors import ExportError, NotInCloneError
from workbench.places import DATA

CONFIG = DATA / "shapes-sd" / "config"
MERGES = {"average": "weighted_average", "skills": "task_arithmetic", "ramp": "weighted_average"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder that a short run wrote (one seed, few steps), and the lines it printed."""
    out = tmp_path_factory.mktemp("front-door") / "out" / "demo"
    printed = io.StringIO()
    with redirect_stdout(printed), pytest.MonkeyPatch.context() as patch:
        patch.chdir(out.parents[1])
        demo.run(Path("out/demo"), seeds=[0], steps=2)
    return out, printed.getvalue().splitlines()


@pytest.fixture(scope="module")
def scores(ran):
    return pd.read_csv(ran[0] / "scores.csv")


def test_it_writes_the_merges_the_grid_the_scores_and_the_report(ran):
    names = sorted(path.name for path in ran[0].iterdir())
    assert names == ["average.safetensors", "grid.png", "ramp.safetensors", "report.html", "scores.csv", "skills.safetensors"]


def test_it_says_what_it_did_in_ten_lines_that_name_every_file(ran):
    out, lines = ran
    assert len(lines) == 10
    for path in out.iterdir():
        assert any(f"out/demo/{path.name}" in line for line in lines)


@pytest.mark.parametrize("name", MERGES)
def test_a_merge_carries_its_recipe(ran, name):
    recipe = wb.Recipe.from_file(ran[0] / f"{name}.safetensors")
    assert recipe.data.merge.operator == MERGES[name]
    again = recipe.build()
    written = wb.open(ran[0] / f"{name}.safetensors")
    assert all(written[key].equal(again[key]) for key in list(written)[::50])


def test_the_ramp_goes_from_outline_to_stripes(ran):
    ramp, outline, stripes = (wb.open(path) for path in (ran[0] / "ramp.safetensors", *(style_file(s) for s in ("outline", "stripes"))))
    blocks = [block for block in map(ramp.block, ramp) if block]
    last = max(blocks)
    for block, parent in (("IN00", outline), (last, stripes)):
        keys = [key for key in ramp if ramp.block(key) == block]
        assert keys
        assert all(ramp[key].equal(parent[key]) for key in keys)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own, with numpy 2
def test_diffusers_loads_skills_and_draws_what_the_renderer_draws(ran):
    from diffusers import StableDiffusionPipeline

    path, prompt = ran[0] / "skills.safetensors", exam.SHOWN[0]
    pipeline = StableDiffusionPipeline.from_single_file(str(path), config=str(CONFIG), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    renderer = wb.Renderer(CONFIG)
    renderer.load(wb.open(path))
    (ours,) = renderer.images([prompt], [7], steps=4, guidance=4.0)
    made = pipeline(prompt, num_inference_steps=4, guidance_scale=4.0, generator=torch.Generator().manual_seed(7))
    assert np.abs(np.asarray(made.images[0], int) - np.asarray(ours, int)).max() <= 1


def test_the_grid_shows_parents_and_merges_and_carries_their_recipes(ran):
    with Image.open(ran[0] / "grid.png") as picture:
        told = json.loads(picture.text["workbench"])
    assert [model["name"] for model in told["models"]] == list(exam.COLUMNS)
    assert set(MERGES) | {"heart", "moon"} <= set(exam.COLUMNS)
    assert told["prompts"] == list(exam.SHOWN)


def test_there_is_one_score_row_for_each_picture(scores):
    counts = scores.groupby("part").size()
    assert counts["grid"] == len(exam.COLUMNS) * len(exam.SHOWN)
    assert counts["exam"] == sum(len(models) * len(asked) for models, asked in exam.questions().items())
    assert not scores.duplicated(["part", "model", "prompt", "seed"]).any()
    assert scores["clip"].between(-100, 100).all()
    for aspect in exam.ASPECTS:
        assert set(scores[f"{aspect}_right"]) <= {0, 1}


def test_a_score_row_is_right_where_the_clip_names_what_the_prompt_asks_for(scores):
    for row in scores.sample(40, random_state=0).itertuples():
        assert row.colour_right == (f" {row.colour} " in row.prompt)
        assert row.background_right == (f" {row.background} background" in row.prompt)


def test_the_report_opens_offline_and_shows_the_grid_and_the_recipes(ran):
    text = (ran[0] / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=.?(https?:)?//|@import|<script", text)
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    with Image.open(io.BytesIO(base64.b64decode(data))) as embedded, Image.open(ran[0] / "grid.png") as saved:
        assert np.array_equal(np.asarray(embedded), np.asarray(saved))
    for operator in set(MERGES.values()):
        assert f"operator: {operator}" in text
    assert "prefers-color-scheme: dark" in text


def test_the_report_says_what_was_found(ran):
    text = (ran[0] / "report.html").read_text(encoding="utf-8").replace("&#x27;", "'")
    found = [line.partition("found")[2].strip() for line in ran[1] if line.startswith("found")]
    assert len(found) == 3
    assert all(sentence in text for sentence in found)


def made_up(**of_skills: float) -> pd.DataFrame:
    """Shares of parents that can all, and of merges that can nothing but what is given for skills."""
    columns = ["hearts", "moons", "outlines", "stripes", exam.COLOURS_KEPT]
    parents = dict.fromkeys(columns, 1.0)
    rows = dict.fromkeys(("heart", "moon", "outline", "stripes"), parents) | dict.fromkeys(MERGES, dict.fromkeys(columns, 0.0))
    return pd.DataFrame(rows | {"skills": rows["skills"] | of_skills}).T


@pytest.mark.parametrize(
    ("drawn", "kept"),
    [
        ({"hearts": 0.9, "moons": 0.75}, "both of its parents' skills:"),
        ({"moons": 0.8, "hearts": 0.7}, "one of its parents' skills, the moons:"),
        ({"hearts": 0.5}, "neither of its parents' skills:"),
    ],
)
def test_findings_follow_the_numbers(drawn, kept):
    average, skills, ramp = exam.findings(made_up(**drawn))
    assert skills.startswith(f"skills keeps {kept}")
    assert average.startswith("average keeps neither of")
    assert ramp.startswith("ramp keeps neither of")


def test_a_skill_nobody_has_is_not_kept():
    assert "neither" in exam.findings(made_up() * 0)[1]


def test_skills_draws_hearts_and_moons_and_keeps_the_base_colours():
    merge = demo.merges(demo.trained())["skills"]
    asked = [subject for models, subjects in exam.questions().items() if "skills" in models for subject in subjects]
    grid = wb.ab_grid({"skills": merge}, [subject.caption for subject in asked], demo.SEEDS, steps=STEPS, guidance=GUIDANCE, progress=False)
    assert len(grid.images) >= 96
    share = exam.shares(exam.scored([grid], DATA / "shapes-clip").assign(part="exam")).loc["skills"]
    assert share["hearts"] >= 0.6
    assert share["moons"] >= 0.6
    assert share[exam.COLOURS_KEPT] >= 0.85


def test_without_the_embedded_models_it_says_where_they_would_be(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "DATA", tmp_path)
    with pytest.raises(NotInCloneError, match=r"shapes-sd: is not there; the embedded models .* come with a clone"):
        demo.run(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_an_error_in_words(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="file: cannot be made a folder"):
        demo.run(tmp_path / "file")


def style_file(name: str) -> Path:
    return DATA / "shapes-sd" / f"{name}.safetensors"
