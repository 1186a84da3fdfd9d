"""Operators and sources from elsewhere: a notebook's cells, a package's modules, an installed package's entry points."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from held import Held

import workbench as wb
from workbench.errors import PluginWarning, UnknownOperatorError, WorkbenchError
from workbench.merge import operator, sources
from workbench.plugins import Registry
from workbench.tensors import Scope, Weight

pytestmark = pytest.mark.usefixtures("forgotten")
ROOT = Path(__file__).resolve().parent.parent
BLENDS = '''
from workbench.merge import operator
from workbench.merge.sources import source
from workbench.tensors import Scope, Weight

@operator(scope=Scope.ELEMENT, keys="base", source="a test")
def my_blend(base: Weight) -> Weight:
    """Negate it."""
    return -base

@source(files=["table"])
def drawn(drawn: float, table: str = "") -> list[float]:
    """Numbers."""
    return [drawn, -drawn]
'''


def define(factor: float, name: str = "scaled", module: str = "__main__") -> None:
    """Run a notebook's cell that defines an operator."""
    names = {"operator": operator, "Scope": Scope, "Weight": Weight, "__name__": module}
    cell = f"@operator(scope=Scope.ELEMENT, keys='base', source='a test')\ndef {name}(base: Weight) -> Weight:\n    'Scale it.'\n"
    exec(f"{cell}    return base * {factor}", names)


def run(code: str, place: Path, *options: str) -> dict[str, object]:
    """What a new process prints as JSON, with `place` on its path."""
    path = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(place)!r}]\n"
    ended = subprocess.run([sys.executable, *options, "-c", path + code], capture_output=True, text=True, cwd=place)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with a package that defines an operator and a source, and nothing that says so."""
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text("", encoding="utf-8")
    (tmp_path / "my_package" / "blends.py").write_text(BLENDS, encoding="utf-8")
    wb.export(Held({"x": torch.ones(2)}), tmp_path / "a.safetensors", progress=False)
    recipe = {"models": {"a": "a.safetensors"}, "merge": {"operator": "my_blend", "module": "my_package.blends", "inputs": {"base": "a"}}}
    (tmp_path / "r.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    return tmp_path


@pytest.fixture
def installed(package: Path) -> Path:
    """The same as an installed package, with an entry point more that is broken."""
    points = "[workbench.operators]\nblends = my_package.blends\nbroken = my_package.gone\n[workbench.sources]\ndrawn = my_package.blends\n"
    info = package / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
    return package


def test_all_operators_are_known_whichever_module_is_imported_first(tmp_path):
    names = json.dumps(list(wb.operators.own()))
    code = "from workbench.operators.combine import ties\nimport json, workbench as wb\n"
    code += f"found = [getattr(wb.operators, name).declaration.name for name in {names}]\n"
    found = run(f"{code}print(json.dumps([found, list(wb.operators.own())]))", tmp_path)
    assert found == [json.loads(names)] * 2


def test_an_operator_of_a_cell_is_known_and_defined_again_it_is_the_new_one():
    base = Held({"x": torch.ones(1)})
    define(2)
    before = wb.operators.scaled(base)
    define(3)
    assert wb.operators.scaled(base)["x"].item() == 3
    assert before["x"].item() == 2
    assert list(wb.operators.registry()).count("scaled") == 1


def test_operators_of_one_name_in_two_modules_are_told_apart():
    base = Held({"x": torch.ones(1)})
    for factor, module in ((2, "one.blends"), (3, "other.blends")):
        define(factor, module=module)
    assert wb.operators.find("scaled", "one.blends")(base)["x"].item() == 2
    assert wb.operators.scaled(base)["x"].item() == 3


@pytest.mark.parametrize("name", ["ties", "fft_blend"])
def test_the_name_of_one_of_our_own_is_taken(name):
    with pytest.raises(
        WorkbenchError, match=rf"__main__: operator '{name}' has the name of one in workbench\.operators\.\w+; give it another"
    ):
        define(2, name)
    assert wb.operators.find(name).declaration.module is None


def test_the_name_of_a_source_of_our_own_is_taken():
    with pytest.raises(WorkbenchError, match=r"source 'curve' has the name of one in workbench\.merge\.sources"):

        @sources.source
        def curve(curve: float) -> list[float]:
            return [curve]


def test_the_methods_table_and_the_menu_of_a_panel_begin_with_our_own():
    define(2)
    assert list(wb.operators.registry())[: len(wb.operators.own())] == list(wb.operators.own())
    assert "scaled" not in wb.operators.own()
    assert "scaled" in wb.operators.registry()


def test_nothing_is_imported_on_a_recipes_word(package, monkeypatch):
    monkeypatch.syspath_prepend(str(package))
    recipe = wb.Recipe.load(package / "r.yaml")
    with pytest.raises(UnknownOperatorError, match=r"no operator 'my_blend' here, .* not Workbench's own: import my_package\.blends first"):
        recipe.build()
    assert "my_package" not in sys.modules


def test_an_operator_of_a_notebook_is_missed_in_words():
    with pytest.raises(UnknownOperatorError, match="run the cell or script that defines it first"):
        wb.operators.find("scaled", "__main__")


def test_an_installed_package_adds_operators_and_sources_and_one_that_is_broken_is_told_of(installed):
    code = """
import json, warnings
import workbench as wb
from workbench.merge import sources
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    made = wb.Recipe.load("r.yaml").build()
    numbers = sources.resolve({"drawn": 2.0, "table": "t.csv"})
    moved = sources.relocated({"drawn": 2.0, "table": "t.csv"}, lambda path: f"there/{path}")
    list(wb.operators.registry())
told = [[one.category.__name__, str(one.message)] for one in caught]
again = made.recipe.to_dict()["merge"]
print(json.dumps([made["x"].tolist(), numbers, moved, told, again["module"]]))
"""
    values, numbers, moved, told, module = run(code, installed)
    assert values == [-1, -1]
    assert numbers == [2, -2]
    assert moved == {"drawn": 2, "table": "there/t.csv"}
    assert module == "my_package.blends"
    ((category, text),) = told
    assert category == PluginWarning.__name__
    assert text.startswith("my-package: its entry point 'broken' in workbench.operators (my_package.gone) cannot be loaded: ModuleNotFound")


def test_a_registry_is_complete_when_it_is_looked_at_and_loads_entry_points_once(monkeypatch):
    asked = []
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: asked.append(group) or ())
    known: Registry[int] = Registry("number", home="workbench.places", group="workbench.numbers")
    known.add("one", "workbench.places", 1)
    assert known["one"] == 1
    assert asked == []
    assert (list(known), len(known), known.find("two"), "two" in known) == (["one"], 1, None, False)
    assert asked == ["workbench.numbers"]


def test_no_module_hides_an_operator_of_its_name():
    assert not set(wb.operators.own()) & {module.name for module in pkgutil.iter_modules(wb.operators.__path__)}
