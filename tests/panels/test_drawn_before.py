"""A panel that is opened again shows what its gallery has, to the bit, where it would draw the same now; else it draws."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file

import workbench as wb
from workbench.merge import operator
from workbench.panels.studio import Studio
from workbench.places import DATA
from workbench.render import circumstances
from workbench.sweeps.picture_store import PictureStore
from workbench.tensors import Scope, Weight

FAMILY = DATA / "shapes-sd"
BEFORE = "Drawn before, and kept in the gallery."


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two models with the configs beside them; the current folder is the one above."""
    folder = tmp_path / "models"
    shutil.copytree(FAMILY / "config", folder / "config", ignore=shutil.ignore_patterns("*.safetensors"))
    for name in ("heart", "moon"):
        shutil.copy(FAMILY / f"{name}.safetensors", folder)
    monkeypatch.chdir(tmp_path)
    return folder


def opened(checkpoints, change=lambda state: state):
    """A panel that has shown two steps of one prompt, and been closed: its pictures, and what it said."""
    panel = wb.MergePanel(checkpoints)
    panel.show(change(panel.state.with_wanted(prompts=["a red heart"], steps=2)))
    assert panel.wait(60)
    found = {name: [image.tobytes() for image in images] for name, images in panel.images.items()}, panel._pictures.status.value
    panel.close()
    return found


def test_what_was_drawn_before_is_shown_to_the_bit_and_not_drawn_again(folder, monkeypatch):
    drawn, said = opened(folder)
    assert said.startswith("Drawn in")
    monkeypatch.setattr(Studio, "draw", lambda *_: pytest.fail("drawn"))
    assert opened(folder) == (drawn, BEFORE)


def test_a_new_process_shows_them_before_it_loads_what_draws(folder):
    opened(folder)
    program = """
import sys
import workbench as wb
from workbench.panels.pictures_view import PicturesView
loaded, put = [], PicturesView._put
def watched(*given):
    loaded.append("diffusers" in sys.modules or "transformers" in sys.modules)
    put(*given)
PicturesView._put = watched
panel = wb.MergePanel("models")
panel.show(panel.state.with_wanted(prompts=["a red heart"], steps=2))
panel.wait(120)
print(loaded, panel._pictures.status.value, len(panel._pictures.studio.renderers), "diffusers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == f"[False, False, False] {BEFORE} 1 True", done.stderr


def changed_file(folder, monkeypatch):
    path = folder / "moon.safetensors"
    tensors = load_file(path)
    save_file({key: tensor * 1.5 for key, tensor in tensors.items()}, path, metadata={"format": "pt"})


def same_size_and_another_time(folder, monkeypatch):
    path = folder / "moon.safetensors"
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))


def another_config(folder, monkeypatch):
    path = folder / "config" / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace('"beta_end": 0.012', '"beta_end": 0.013'))


def another_library(folder, monkeypatch):
    circumstances._code.cache_clear()
    monkeypatch.setattr(circumstances, "version", lambda library: "0.0.0")


def deleted_picture(folder, monkeypatch):
    store = PictureStore("out/gallery")
    store.delete(store.find())


def damaged_picture(folder, monkeypatch):
    for one in PictureStore("out/gallery").find():
        one.path.write_bytes(one.path.read_bytes()[:-20])


@pytest.mark.parametrize(
    "change", [changed_file, same_size_and_another_time, another_config, another_library, deleted_picture, damaged_picture]
)
def test_what_may_be_drawn_otherwise_now_is_drawn_anew(folder, monkeypatch, change):
    opened(folder)
    change(folder, monkeypatch)
    assert opened(folder)[1].startswith("Drawn in")
    circumstances._code.cache_clear()


@pytest.mark.parametrize("asked", [{"steps": 1}, {"seeds": [1]}, {"prompts": ["a yellow moon"]}, {"dtype": "bfloat16"}])
def test_what_is_asked_otherwise_is_drawn(folder, asked):
    opened(folder)
    assert opened(folder, lambda state: state.with_wanted(**asked))[1].startswith("Drawn in")


def test_a_method_that_is_not_workbenchs_own_is_drawn_anew_for_its_code_may_have_changed(folder, forgotten):
    @operator(scope=Scope.ELEMENT, keys="base", source="none")
    def as_it_is(base: Weight) -> Weight:
        """Change nothing."""
        return base

    change = lambda state: state.with_operator("as_it_is")  # noqa: E731
    opened(folder, change)
    assert opened(folder, change)[1].startswith("Drawn in")


def test_a_model_that_another_lends_its_vae_is_drawn_anew_for_another_may_lend_it_next_time(folder):
    path = folder / "moon.safetensors"
    tensors = load_file(path)
    save_file({key: one.contiguous() for key, one in tensors.items() if not key.startswith("first_stage")}, path, metadata={"format": "pt"})
    opened(folder)
    assert opened(folder)[1].startswith("Drawn in")


def test_what_was_warned_of_is_drawn_and_warned_of_again(folder):
    change = lambda state: state.with_wanted(prompts=["a red heart " * 40])  # noqa: E731
    for _ in range(2):
        said = opened(folder, change)[1]
        assert said.startswith("Drawn in")
        assert "its end is ignored" in said


def test_pictures_of_a_renderer_that_is_given_are_drawn(folder):
    for _ in range(2):
        panel = wb.MergePanel(folder, wb.Renderer(folder / "config"))
        panel.show(panel.state.with_wanted(prompts=["a red heart"], steps=2))
        assert panel.wait(60)
        assert panel._pictures.status.value.startswith("Drawn in")
        panel.close()


def test_a_view_of_a_file_is_not_taken_for_the_file(folder):
    heart = wb.open(folder / "heart.safetensors")
    plain, _ = opened({"heart": heart, "moon": wb.open(folder / "moon.safetensors")})
    rounded, said = opened({"heart": heart.with_dtype("float8_e4m3fn"), "moon": wb.open(folder / "moon.safetensors")})
    assert said.startswith("Drawn in")
    assert rounded["heart"] != plain["heart"]
