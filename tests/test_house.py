"""Promises of the package as a whole: its floors, its names, and what an import costs."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

import workbench

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(module.name for module in pkgutil.walk_packages(workbench.__path__, "workbench."))


def test_imports_go_down_only(tmp_path):
    found = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "0 broken" in found.stdout


def test_no_modules_import_each_other_in_a_circle():
    # at any level: in functions, and for types alone; only the front door, whose names load when they are used, is a way up
    graph = grimp.build_graph("workbench", cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) - {"workbench"} for name in graph.modules}
    TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("name", ["workbench", *(name for name in MODULES if name != "workbench.__main__")])
def test_no_module_shares_its_name_with_something_public_beside_it(name):
    # the name would mean the function until the module is imported, and the module ever after
    package = importlib.import_module(name)
    if not hasattr(package, "__path__"):
        return
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    declared = set(getattr(package, "__all__", ())) | set(getattr(package, "_HOMES", ()))
    declared |= {key for key, value in vars(package).items() if callable(value)}
    if name == "workbench":
        # the packages are meant: wb.operators.NAME
        declared -= {"analysis", "conditioning", "errors", "figures", "lora", "merge", "operators", "render"}
    if name == "workbench.operators":
        declared |= set(package.own())
    assert not modules & declared


def test_no_two_public_classes_share_a_name():
    homes = defaultdict(list)
    for path in sorted((ROOT / "workbench").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(path.relative_to(ROOT).as_posix())
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def test_importing_the_package_loads_no_heavy_library():
    heavy = {"torch", "diffusers", "transformers", "pandas", "numpy", "plotly", "PIL", "pydantic", "ipywidgets", "huggingface_hub"}
    code = "import sys, workbench; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    assert not heavy & set(loaded)


@pytest.mark.parametrize(("given", "then"), [(None, "1000"), ("7", "7")])
def test_threads_of_torch_are_told_not_to_spin_unless_somebody_said_otherwise(given, then):
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"} | (
        {"GOMP_SPINCOUNT": given} if given else {}
    )
    code = "import workbench, os; print(os.environ['GOMP_SPINCOUNT'])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=environment).stdout.strip()
        == then
    )


def test_the_command_says_what_it_can_before_it_loads_a_heavy_library():
    code = "import sys, workbench.cli; workbench.cli.app(['--help'], standalone_mode=False); print('loaded', *sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    loaded = said[said.index("loaded ") :].split()
    assert not {"torch", "numpy", "diffusers", "transformers", "pandas", "huggingface_hub", "yaml"} & set(loaded)
    assert {name for name in loaded if name.startswith("workbench.")} == {
        *("workbench.cli", "workbench.errors", "workbench.places", "workbench.tensors", "workbench.wording")
    }
    assert "lora" in said


def test_a_file_is_inspected_without_a_heavy_library():
    code = "import sys, workbench.cli; workbench.cli.app(['inspect', sys.argv[1]], standalone_mode=False); print('loaded', *sys.modules)"
    command = [sys.executable, "-c", code, str(ROOT / "data" / "shapes-sd" / "base.safetensors")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    heavy = {"torch", "numpy", "diffusers", "transformers", "pandas", "huggingface_hub", "plotly", "PIL", "ipywidgets"}
    assert not heavy & set(said[said.index("loaded ") :].split())
    assert "architecture: SD 1.x" in said


@pytest.mark.parametrize("name", workbench.__all__)
def test_every_public_name_is_there(name):
    assert getattr(workbench, name) is not None


def test_a_module_begins_with_what_lives_in_it():
    for name in MODULES:
        if name != "workbench.__main__":  # importing it runs the command
            assert (importlib.import_module(name).__doc__ or "").strip(), f"{name} has no first sentence"


def test_torch_is_pinned_to_the_version_that_everything_was_measured_with():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "torch>=2.13,<2.14" in project["dependencies"]


def _not_typed_yet() -> list[str]:
    overrides = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]["overrides"]
    return [module for one in overrides if one.get("ignore_errors") for module in one["module"]]


def test_what_a_merge_runs_through_is_typed_strictly():
    mypy = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    assert mypy["strict"]
    assert mypy["packages"] == ["workbench"]
    typed = {"families", "checkpoint", "merge", "recipe", "engine", "operators", "analysis", "conditioning", "figures", "sweeps"}
    assert not typed & {module.split(".")[1] for module in _not_typed_yet()}
    assert not any(module.count(".") < 2 for module in _not_typed_yet()), "the front door, or a package as a whole"


def test_the_list_of_what_is_not_typed_yet_only_gets_shorter():
    assert set(_not_typed_yet()) <= set(MODULES)
    assert len(_not_typed_yet()) <= 13  # lower it with the list


def _in_the_machines_own_encoding(call: ast.Call) -> bool:
    """Whether a call reads or writes text, and leaves it to the machine in which encoding."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    modes = [one.value for one in (*call.args, *(word.value for word in call.keywords)) if isinstance(one, ast.Constant)]
    texts = [mode for mode in modes if isinstance(mode, str) and mode and not set(mode) - set("rwaxt+")]
    if any(word.arg == "encoding" for word in call.keywords):
        return False
    return name in ("read_text", "write_text") or (name in ("open", "fdopen", "NamedTemporaryFile", "TemporaryFile") and bool(texts))


@pytest.mark.parametrize("line", ["path.read_text()", "open(p, 'w')", "p.open(mode='rt')", "os.fdopen(h, 'a+')", "p.write_text(x)"])
def test_a_call_without_an_encoding_would_be_found(line):
    assert _in_the_machines_own_encoding(ast.parse(line).body[0].value)
    assert not _in_the_machines_own_encoding(ast.parse(f"{line[:-1]}, encoding='utf-8')".replace("(,", "(")).body[0].value)


def test_text_files_are_read_and_written_in_utf_8_on_every_machine():
    for path in sorted((ROOT / "workbench").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                assert not _in_the_machines_own_encoding(node), f"{path.name}:{node.lineno}: give encoding='utf-8'"


def test_nothing_committed_names_a_place_on_somebodys_machine():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if listed.returncode:
        pytest.skip("not a git clone")
    places = [os.sep.join(["", *parts]).encode() for parts in (("root", ""), ("home", ""), ("work", ""), ("Users", ""))]
    texts = {".py", ".md", ".yaml", ".yml", ".toml", ".ipynb", ".json", ".txt", ".csv", ""}
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        if path.suffix in texts and path.is_file():
            content = path.read_bytes()
            assert not [place for place in places if b" " + place in content or b'"' + place in content], name
