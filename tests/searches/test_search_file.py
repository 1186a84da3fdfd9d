"""Searches that a file describes: what they hand to `search`, and what is refused where the file makes no sense."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import workbench as wb
from workbench.cli import app
from workbench.errors import SearchError, SweepError
from workbench.places import DATA
from workbench.searches.search_file import SearchFields, draw_search

pytest.importorskip("optuna")


@pytest.fixture
def written(tmp_path):
    """Writes a file beside a recipe."""
    base, heart, moon = (wb.open(DATA / "shapes-sd" / f"{name}.safetensors") for name in ("base", "heart", "moon"))
    wb.operators.ties(base, [heart, moon], density=0.4).recipe.relative_to(tmp_path).save(tmp_path / "merge.yaml")

    def write(**fields) -> Path:
        told = {"workbench_search": 1, "recipe": "merge.yaml", "space": {"density": {"low": 0.2}}, "trials": 2, "seeds": [0, 1], "steps": 1}
        told |= {"prompts": "a red heart on a white background", "objective": {"clip": str(DATA / "shapes-clip")}}
        told = {name: value for name, value in (told | fields).items() if value is not None}
        (tmp_path / "look.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
        return tmp_path / "look.yaml"

    return write


def test_the_command_finds_what_the_call_finds(written, tmp_path):
    file = written(objective={"distance": "heart", "least": True}, space={"density": {"low": 0.2}, "majority_sign": ["total", "frequency"]})
    done = CliRunner().invoke(
        app, ["search", str(file), "--page", str(tmp_path / "unseen.html"), "--out", str(tmp_path / "best.safetensors")]
    )
    assert done.exit_code == 0, done.output
    base, heart, moon = (wb.open(DATA / "shapes-sd" / f"{name}.safetensors") for name in ("base", "heart", "moon"))

    def make(base, models, density, majority_sign):
        return wb.operators.ties(base, models, density=density, majority_sign=majority_sign)

    called = wb.search(
        make,
        {"density": (0.2, 1.0), "majority_sign": ["total", "frequency"]},
        inputs={"base": base, "models": [heart, moon]},
        objective=wb.SearchObjective(wb.render.ParentDistance("heart"), least=True),
        prompts=["a red heart on a white background"],
        seeds=[0, 1],
        steps=1,
        trials=2,
        name="look",
        folder=tmp_path / "out" / "sweeps",
        progress=False,
    )
    assert called.unseen.drawn == 0  # the command has drawn the same
    assert called.headline.split(" has ")[0].removeprefix("no winner: ") in done.output.replace("\n", "")
    found = wb.Recipe.from_file(tmp_path / "best.safetensors").data.merge
    assert (found.operator, found.options["density"]) == ("ties", called.unseen.cells[0].recipe.data.merge.options["density"])
    assert (tmp_path / "unseen.html").stat().st_size > 1000


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"space": {"dense": {}}}, SweepError, r"look.yaml: space: ties has no option 'dense'.*it has density"),
        ({"space": {"density": 0.5}}, SearchError, r"look.yaml: space.density: must be a list of choices, or a mapping such as"),
        ({"space": {"density": {"low": 0.9, "high": 0.1}}}, SearchError, "low must be below high"),
        ({"space": None}, SweepError, "look.yaml: space: Field required"),
        ({"objective": {"column": "clip"}}, SweepError, "objective.0: a scorer is one of clip:, choice: or distance:"),
        ({"objective": []}, SweepError, "objective: .* at least 1 item"),
        ({"sampler": "Euler"}, SweepError, "sampler: Input should be 'tpe' or 'cmaes'"),
        ({"trials": 0}, SweepError, "trials: Input should be greater than or equal to 1"),
        ({"steps": [1, 2]}, SearchError, "steps takes one value in a search"),
        ({"workbench_sweep": 1}, SweepError, "workbench_sweep: Extra inputs are not permitted"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(written, fields, error, message):
    with pytest.raises(error, match=message):
        draw_search(written(**fields))


def test_the_file_in_the_documents_can_be_read():
    page = Path(__file__).resolve().parents[2] / "docs" / "scaling.md"
    _, second = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    fields = SearchFields.model_validate(yaml.safe_load(second))
    assert list(fields.prompts) == list(fields.unseen_prompts) == ["heart", "moon"]
    assert fields.objective[0].weakest
