from __future__ import annotations

import io
import json

import numpy as np
import pytest
import yaml
from PIL import Image

import workbench as wb
from workbench.errors import RenderError
from workbench.render.grid import Grid, ab_grid
from workbench.render.sheet import font, wrapped

PROMPTS = ["a red star on a black background", "a blue circle on a white background"]


def bright(images, prompts):
    return {"bright": np.array([np.asarray(image).mean() for image in images])}


@pytest.fixture(scope="module")
def models(base, heart):
    return {"base": base, "half": wb.operators.weighted_average([base, heart])}


@pytest.fixture(scope="module")
def grid(models) -> Grid:
    return ab_grid(models, prompts=PROMPTS, seeds=[0, 5], steps=3, scorers=bright)


def test_the_pinned_call_needs_no_renderer(grid):
    assert repr(grid) == "<Grid of 8 pictures: 2 models x 2 prompts x 2 seeds>"
    assert len(grid.images) == 8


def test_frame_has_one_row_per_picture_with_its_scores(grid):
    frame = grid.frame()
    assert list(frame.columns) == ["model", "prompt", "seed", "bright"]
    assert list(frame["model"]) == ["base"] * 4 + ["half"] * 4
    assert list(frame["seed"]) == [0, 5] * 4
    row = frame.iloc[6]
    picture = grid.image(row["model"], row["prompt"], int(row["seed"]))
    assert row["bright"] == pytest.approx(np.asarray(picture).mean())


def test_the_embedded_familys_pictures_are_scored_unless_told_otherwise(base):
    prompts = ["a red star on a black background"]
    frame = ab_grid({"base": base}, prompts).frame()
    assert frame["clip"].notna().all()
    assert "clip" not in ab_grid({"base": base}, prompts, steps=3, scorers=()).frame()


def test_pictures_are_the_renderers(grid, renderer, models):
    renderer.load(models["half"])
    assert [p.tobytes() for p in renderer.images(PROMPTS, [0, 5], steps=3)] == [p.tobytes() for p in grid.images[4:]]


def test_an_unknown_picture_is_answered_with_what_there_is(grid):
    with pytest.raises(RenderError, match=r"no picture of 'moon'.*models \['base', 'half'\]"):
        grid.image("moon", PROMPTS[0], 0)


def test_saved_png_carries_recipes_and_settings(grid, tmp_path, family):
    (tmp_path / "out").mkdir()
    path = grid.save(tmp_path / "out" / "grid.png")
    with Image.open(path) as picture:
        told = json.loads(picture.text["workbench"])
    assert told["prompts"] == PROMPTS
    assert (told["seeds"], told["steps"], told["sampler"]) == ([0, 5], 3, "DPM++ 2M Karras")
    plain, merged = told["models"]
    assert (path.parent / plain["files"][0]).resolve() == family / "base.safetensors"
    assert plain["components"] == {"unet": "base", "vae": "base", "text_encoder": "base"}
    recipe = yaml.safe_load(merged["recipe"])
    assert recipe["merge"]["operator"] == "weighted_average"
    assert (path.parent / recipe["models"]["heart"]).resolve() == family / "heart.safetensors"
    assert [found.name for found in path.parent.iterdir()] == ["grid.png"]


def test_shows_itself_as_png(grid):
    with Image.open(io.BytesIO(grid._repr_png_())) as picture:
        assert picture.size == grid.plot().size


def test_a_grid_is_saved_only_as_png_into_a_folder_that_exists(grid, tmp_path):
    with pytest.raises(RenderError, match=r"saved as a PNG; name it grid.png"):
        grid.save(tmp_path / "grid.jpg")
    with pytest.raises(RenderError, match=r"folder .*missing does not exist"):
        grid.save(tmp_path / "missing" / "grid.png")
    assert not list(tmp_path.iterdir())


def test_a_failed_save_keeps_the_old_file_and_leaves_nothing_else(grid, tmp_path, monkeypatch):
    path = tmp_path / "grid.png"
    path.write_bytes(b"old")
    monkeypatch.setattr("pathlib.Path.write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(RenderError, match=r"grid.png: cannot be written \(No space left on device\)"):
        grid.save(path)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_every_picture_stands_on_the_sheet_in_its_row_and_column(grid):
    for seeds, across, down in (("across", 4, 2), ("down", 2, 4)):
        sheet = np.asarray(grid.plot(edge=64, seeds=seeds))
        places = [place for image in grid.images if (place := find(sheet, np.asarray(image)))]
        assert len(places) == 8
        assert (len({left for left, _ in places}), len({top for _, top in places})) == (across, down)


def test_small_pictures_are_enlarged_by_whole_pixels(grid):
    assert find(np.asarray(grid.plot()), np.asarray(grid.images[0]).repeat(2, axis=0).repeat(2, axis=1))


@pytest.mark.parametrize(("change", "message"), [({"edge": 4}, r"edge must be in \[16, 4096\]"), ({"seeds": "up"}, "'across' or 'down'")])
def test_a_wrong_layout_is_refused(grid, change, message):
    with pytest.raises(RenderError, match=message):
        grid.plot(**change)


def test_every_model_is_checked_before_the_first_is_drawn(base, held, renderer):
    import torch

    with pytest.raises(RenderError, match="'flux' is Flux"):
        ab_grid({"a": base, "b": held({"double_blocks.0.w": torch.zeros(1)}, "flux")}, PROMPTS, renderer=renderer)
    assert renderer.loaded is None


def test_something_else_than_named_checkpoints_is_refused(base, renderer):
    for wrong in (base, {}, [base]):
        with pytest.raises(RenderError, match="mapping of one or more names"):
            ab_grid(wrong, PROMPTS, renderer=renderer)


def test_labels_wrap_at_spaces_and_underscores_and_never_overflow():
    face = font(14)
    lines = wrapped("a_very_long_checkpoint_name of heart and moon at 0.5", face, 90)
    assert all(face.getlength(line) <= 90 for line in lines)
    assert lines[0] == "a_very_long_"
    assert lines[-1].endswith("0.5")
    assert wrapped("", face, 90) == []


def find(sheet: np.ndarray, picture: np.ndarray) -> tuple[int, int] | None:
    """Left and top of a picture on a sheet."""
    height, width = picture.shape[:2]
    tops, lefts = np.nonzero((sheet[: 1 - height, : 1 - width] == picture[0, 0]).all(axis=2))
    for top, left in zip(tops.tolist(), lefts.tolist(), strict=True):
        if np.array_equal(sheet[top : top + height, left : left + width], picture):
            return left, top
    return None
