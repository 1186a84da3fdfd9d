"""The file of `keep=`: two panels that have it at once, a kernel that dies in the middle, and one that cannot be read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from workbench.errors import RecipeError
from workbench.panels import keeping
from workbench.panels.keep_file import KeepFile

ROOT = Path(__file__).parents[2]
DIES = """
import sys, threading
import workbench as wb
from workbench.places import DATA
folder = DATA / "shapes-sd"
panel = wb.MergePanel([folder / "heart.safetensors", folder / "moon.safetensors"], wb.Renderer(folder / "config"), keep="panel.yaml")
panel.show(panel.state.with_wanted(prompts=["a red heart"], steps=150, seeds=list(range(40))).with_option("weights", [1.0, 0.5]))
panel._pictures._stepped = lambda *told: print("drawing", flush=True)
threading.Event().wait()
"""


def words(panel) -> str:
    return panel._merging._words.value


def test_of_two_panels_the_one_that_changes_last_has_the_file_and_the_other_state_lies_beside(make, tmp_path):
    one, other = make(keep="panel.yaml"), make(keep="panel.yaml")
    one.show(one.state.with_seed(1))
    assert "meanwhile" not in words(one)
    other.show(other.state.with_seed(2))
    assert "panel.yaml was written by another page or notebook meanwhile" in words(other)
    assert "panel.other.yaml" in words(other)
    assert keeping.load(tmp_path / "panel.yaml").state == other.state
    assert keeping.load(tmp_path / "panel.other.yaml").state == one.state
    other.show(other.state.with_seed(3))
    assert "meanwhile" not in words(other), "said once"
    other.reopen("panel.other.yaml")
    assert other.state.seed == one.state.seed


def test_a_kernel_that_dies_in_the_middle_of_drawing_leaves_its_state_and_no_leftovers(make, tmp_path):
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-c", DIES], cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) as kernel:
        assert kernel.stdout.readline() == "drawing\n"
        kernel.send_signal(signal.SIGKILL)
    kept = keeping.load(tmp_path / "panel.yaml").state
    (tmp_path / "panel.yaml").rename(tmp_path / "mine.yaml")
    told = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    told["pictures"] |= {"steps": 2, "seeds": [0]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(told))
    panel = make([], keep="mine.yaml")
    assert panel.state.options == kept.options == {"weights": [1.0, 0.5]}
    assert panel.images["result"]
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()], "temporary files"


@pytest.mark.parametrize(("text", "told"), [("panel: 7", "a newer Workbench wrote it"), ("[", "holds no panel's state")])
def test_a_file_that_cannot_be_read_is_named_with_what_to_do(make, tmp_path, text, told):
    (tmp_path / "panel.yaml").write_text(text)
    with pytest.raises(RecipeError, match=rf"panel\.yaml: .*{told}.*; delete it, or give another name"):
        make(keep="panel.yaml")


def test_a_file_is_set_aside_under_a_name_of_its_own(tmp_path):
    for number in (1, 2):
        file = tmp_path / "panel.yaml"
        file.write_text(str(number))
        assert KeepFile(file).set_aside() == tmp_path / f"panel.unread-{number}.yaml"
    assert (tmp_path / "panel.unread-1.yaml").read_text() == "1"
    assert not file.exists()
