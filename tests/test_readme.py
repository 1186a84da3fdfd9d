"""The README keeps its word: its example runs as written, its table is the operators', its links and commands exist."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import workbench as wb
from workbench import families
from workbench.checkpoint.changes.kinds import KINDS
from workbench.checkpoint.stored.formats import FORMATS
from workbench.checkpoint.stored.refused import REFUSED
from workbench.cli import app
from workbench.doc_tables import families_table, lora_kinds_table, marks, methods_table, with_tables
from workbench.errors import WorkbenchError

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder in which the example ran, and what it printed."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "data", folder / "data")
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", EXAMPLE], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_the_example_has_about_ten_lines():
    assert 8 <= len([line for line in EXAMPLE.splitlines() if line.strip()]) <= 10


def test_the_example_runs_as_written(ran):
    folder, printed = ran
    assert wb.open(folder / "skills.safetensors").architecture == "SD 1.x"
    with Image.open(folder / "skills.png") as picture:
        assert "task_arithmetic" in picture.text["workbench"]
    assert printed.endswith(wb.Recipe.from_file(folder / "skills.safetensors").to_yaml() + "\n")


def test_the_printed_recipe_makes_the_same_weights_again(ran, monkeypatch):
    folder, printed = ran
    (folder / "skills.yaml").write_text(printed[printed.index("workbench: 1") :])
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(app, ["merge", "skills.yaml", "--out", "again.safetensors"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    first, again = wb.open("skills.safetensors"), wb.open("again.safetensors")
    assert list(first) == list(again)
    assert all(first[key].equal(again[key]) for key in first)


def test_the_methods_table_is_the_operators():
    assert with_tables(README) == README, "run: python -m workbench.doc_tables README.md"
    assert methods_table() in README
    assert all(f"`{name}(" in methods_table() for name in wb.operators.own())


def test_the_options_table_is_the_declarations():
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert with_tables(text) == text, "run: python -m workbench.doc_tables docs/methods.md"
    assert all(f"`{option.told[0]}`" in text for one in wb.operators.own().values() for option in one.declaration.options.values())


def test_the_families_table_is_the_registrys():
    text = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    assert with_tables(text) == text, "run: python -m workbench.doc_tables docs/families.md"
    assert all(f"| {family.name} |" in families_table() for family in families.registry().values() if family.is_model)


def test_the_tables_of_loras_are_the_kinds_and_names_that_are_read():
    text = (ROOT / "docs" / "loras.md").read_text(encoding="utf-8")
    assert with_tables(text) == text, "run: python -m workbench.doc_tables docs/loras.md"
    assert all(f"| {kind.name} |" in lora_kinds_table() for kind in KINDS)


def test_the_table_of_quantised_formats_is_those_that_are_read():
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    assert with_tables(text) == text, "run: python -m workbench.doc_tables docs/formats.md"
    assert all(f"| {one.name} |" in text for one in (*FORMATS, *REFUSED))


BEGIN, END = marks("methods")


@pytest.mark.parametrize("text", ["no marks", BEGIN, f"{END} {BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"])
def test_a_table_without_its_place_is_refused(text):
    with pytest.raises(WorkbenchError, match="add both"):
        with_tables(text)


def test_what_the_readme_points_at_is_there():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(targets) >= 5
    assert not [target for target in targets if not (ROOT / target).exists()]


def test_the_picture_is_light():
    path = ROOT / "docs" / "images" / "grid.png"
    assert path.stat().st_size < 400_000


def test_the_commands_it_names_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {"demo", "test", "lab"} <= set(re.findall(r"(?:^|`)make ([a-z]+)", README, flags=re.MULTILINE)) <= targets
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert {"demo", "lab", "merge", "inspect"} <= set(re.findall(r"(?:^|`)workbench ([a-z]+)", README, flags=re.MULTILINE)) <= commands
