"""A plain install from a wheel: everything runs on people's own files, and what comes with a clone alone is said to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from thin_models import write_thin

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "workbench"
LEFT_OUT = shutil.ignore_patterns(".*", "data", "out", "build", "*.egg-info", "__pycache__", "*.safetensors")
KEY = "model.diffusion_model.input_blocks.1.1.proj_in.weight"
RECIPE = """
workbench: 1
models: {a: a.safetensors, b: b.safetensors}
merge: {operator: weighted_average, inputs: {models: [a, b]}, options: {weights: [1, 3]}}
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built of a copy: a build leaves files behind, and takes in those that an earlier one left."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=LEFT_OUT)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    done = subprocess.run([*pip, str(folder / "source")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel) -> Path:
    """A folder that stands for `site-packages`: the package lies in it as it does after an install."""
    folder = wheel.parent / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def run(installed, tmp_path):
    """Python where only the installed package is found, in a folder with two models and a recipe of them."""
    for number, name in enumerate("ab"):
        save_file({KEY: torch.full((2, 2, 1, 1), float(number)).half()}, tmp_path / f"{name}.safetensors")
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        return subprocess.run([sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


def test_the_wheel_holds_the_package_with_all_its_files_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    kinds = (".py", ".css", ".js", ".typed")
    shipped = {path.relative_to(ROOT).as_posix() for path in (PACKAGE / "render" / "shipped").rglob("*") if path.is_file()}
    shipped |= {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.json")}
    ours = shipped | {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*") if path.suffix in kinds}
    assert {"workbench/py.typed", "workbench/panels/panel.css", "workbench/panels/compare.js"} <= ours
    assert {"workbench/render/shipped/clip_merges.txt", "workbench/render/shipped/sd1/unet/config.json"} <= shipped
    assert ours == {name for name in names if name.startswith("workbench/")}
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"workbench"}


def test_what_only_training_needs_is_not_required(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA")]
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert any("safetensors" in line for line in required)
    assert not any("peft" in line for line in required)


def test_people_open_merge_look_and_export_their_own_files(run, installed):
    done = run(
        "-c",
        f"""
import workbench as wb
assert wb.__file__.startswith({str(installed)!r}), wb.__file__
a, b = wb.open("a.safetensors"), wb.open("b.safetensors")
merge = wb.operators.weighted_average([a, b], weights=[1, 3])
assert wb.preflight(merge).ok
assert wb.analysis.similarity([a, b]).frame().shape[0]
written = wb.export(merge, "out.safetensors", progress=False).open()
again = wb.Recipe.from_file("out.safetensors").build()
assert written[{KEY!r}].unique().tolist() == again[{KEY!r}].unique().tolist() == [0.75]
panel = wb.MergePanel(["a.safetensors", "b.safetensors"])
assert panel.merge[{KEY!r}].unique().tolist() == [0.5]
assert "wb-panel" in str(panel._root.children[0].value)  # its style
panel.show(panel.state.with_wanted(prompts=("a star",)))
assert panel.wait(60)
assert "lacks" in panel._pictures.status.value
""",
    )
    assert done.returncode == 0, done.stderr


def test_peoples_own_files_are_drawn_with_the_configs_in_the_wheel(run, tmp_path):
    write_thin("sd1", tmp_path / "thin.safetensors")
    done = run(
        "-c", "import workbench as wb; print(wb.Renderer('thin.safetensors').images(['a cat'], width=64, height=64, steps=1)[0].size)"
    )
    assert done.returncode == 0, done.stderr
    assert "(64, 64)" in done.stdout


def test_the_commands_work_on_peoples_own_files(run, tmp_path):
    inspected = run("-m", "workbench", "inspect", "a.safetensors", "b.safetensors")
    assert inspected.returncode == 0, inspected.stderr
    assert "SD 1.x" in inspected.stdout
    merged = run("-m", "workbench", "merge", "recipe.yaml", "--out", "merged.safetensors")
    assert merged.returncode == 0, merged.stderr
    assert (tmp_path / "merged.safetensors").exists()


@pytest.mark.parametrize("command", ["demo", "lab"])
def test_a_command_that_needs_the_clone_says_so(run, tmp_path, command):
    before = sorted(tmp_path.iterdir())
    done = run("-m", "workbench", command)
    assert done.returncode == 1
    assert "come with a clone of the repository" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("call", "instead"),
    [
        ("wb.MergePanel()", "give a list of your own checkpoints"),
    ],
)
def test_what_the_embedded_models_would_be_for_says_what_to_give_instead(run, call, instead):
    done = run("-c", f"import workbench as wb\ntry:\n  {call}\nexcept wb.errors.WorkbenchError as error:\n  print(error)")
    assert done.returncode == 0, done.stderr
    assert "come with a clone of the repository" in done.stdout
    assert instead in done.stdout
    assert "pip install -e ." in done.stdout
