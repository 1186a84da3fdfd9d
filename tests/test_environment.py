"""Ways to install, kept equal: environment.yml and the Makefile say what pyproject.toml says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PYTHON = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]


def test_conda_takes_the_python_that_the_project_needs_and_leaves_the_rest_to_pip():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    assert environment["dependencies"] == [f"python{PYTHON}", "pip", {"pip": ["-e ."]}]


def test_the_makefile_asks_for_the_same_python():
    (bound,) = re.findall(r"sys\.version_info < \((\d+), (\d+)\)", (ROOT / "Makefile").read_text())
    assert f">={'.'.join(bound)}" == PYTHON


def planned(*arguments: str) -> str:
    """What make would do."""
    if shutil.which("make") is None:
        pytest.skip("make is not here")
    return subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("target", ["setup", "demo", "lab", "test"])
def test_every_target_installs_first_when_the_project_file_is_newer(target):
    lines = planned("-W", "pyproject.toml", target).splitlines()
    assert any("-m venv .venv" in line for line in lines)
    assert any("pip install" in line and "-e '.[dev]'" in line for line in lines)


def test_make_test_runs_style_types_imports_and_pytest():
    commands = planned("test")
    for command in ("ruff check", "ruff format --check", "/mypy", "lint-imports", "-m pytest"):
        assert command in commands


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_ci_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "make test"
