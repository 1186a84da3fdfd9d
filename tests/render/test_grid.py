from __future__ import annotations

import base64
import io
import json
import re
from itertools import pairwise

import numpy as np
import pytest
import yaml
from PIL import Image

import workbench as wb
from workbench.errors import RenderError
from workbench.render import Grid, ParentDistance, ab_grid
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
    with pytest.raises(RenderError, match=r"no picture of model 'moon'.*models \['base', 'half'\]"):
        grid.image("moon", PROMPTS[0], 0)


def test_saved_png_carries_recipes_and_settings(grid, tmp_path, family):
    (tmp_path / "out").mkdir()
    path = grid.save(tmp_path / "out" / "grid.png")
    with Image.open(path) as picture:
        told = json.loads(picture.text["workbench"])
    assert told["prompts"] == PROMPTS
    assert (told["seeds"], told["steps"], told["sampler"]) == ([0, 5], 3, None)
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


def test_a_grid_is_saved_only_as_png_or_page_into_a_folder_that_exists(grid, tmp_path):
    with pytest.raises(RenderError, match=r"saved as a PNG or an HTML page; name it grid.png"):
        grid.save(tmp_path / "grid.jpg")
    with pytest.raises(RenderError, match=r"folder .*missing does not exist"):
        grid.save(tmp_path / "missing" / "grid.png")
    assert not list(tmp_path.iterdir())


def test_a_failed_save_keeps_the_old_file_and_leaves_nothing_else(grid, tmp_path, monkeypatch):
    path = tmp_path / "grid.png"
    path.write_bytes(b"old")
    monkeypatch.setattr("os.fsync", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
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
def test_a_sheet_that_cannot_be_drawn_is_refused_as_picture_and_as_page(grid, tmp_path, change, message):
    with pytest.raises(RenderError, match=message):
        grid.plot(**change)
    with pytest.raises(RenderError, match=message):
        grid.save(tmp_path / "grid.html", **change)


def test_every_model_is_checked_before_the_first_is_drawn(base, held, renderer):
    import torch

    with pytest.raises(RenderError, match="'flux' is Flux"):
        ab_grid({"a": base, "b": held({"double_blocks.0.img_mod.lin.w": torch.zeros(1)}, "flux")}, PROMPTS, renderer=renderer)
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


def test_steps_and_guidance_are_axes_of_a_grid(base, renderer):
    grid = ab_grid({"base": base}, PROMPTS[:1], steps=[2, 3], guidance=[1.0, 4.0], renderer=renderer, scorers=bright)
    frame = grid.frame()
    assert list(zip(frame["steps"], frame["guidance"], strict=True)) == [(2, 1.0), (2, 4.0), (3, 1.0), (3, 4.0)]
    renderer.load(base)
    assert (
        grid.image("base", PROMPTS[0], 0, steps=3, guidance=1.0).tobytes()
        == renderer.images(PROMPTS[:1], steps=3, guidance=1.0)[0].tobytes()
    )
    sheet = np.asarray(grid.plot(x="steps", y="guidance", edge=64))
    places = [find(sheet, np.asarray(image)) for image in grid.images]
    assert places[0][0] == places[1][0] < places[2][0] == places[3][0]
    assert places[0][1] == places[2][1] < places[1][1] == places[3][1]
    assert (grid.settings()["steps"], grid.settings()["guidance"]) == ([2, 3], [1.0, 4.0])


def test_what_is_on_no_axis_is_shown_in_panels_of_its_own(grid):
    sheet = np.asarray(grid.plot(x="seed", y="prompt", edge=64))
    places = [find(sheet, np.asarray(image)) for image in grid.images]
    assert len(set(places)) == 8
    assert max(top for _, top in places[:4]) < min(top for _, top in places[4:])


def test_every_cell_tells_its_scores_and_their_spread_over_seeds(grid):
    values = grid.scores["bright"][:2]
    assert grid.note([0, 1]) == f"bright {values.mean():.2f} ± {values.std(ddof=1):.2f}".replace(" ", "\xa0")
    assert "±" not in grid.note([0])


def test_distance_is_taken_to_the_picture_of_the_same_prompt_and_seed(base, heart, renderer):
    models = {"base": base, "heart": heart}
    found = ab_grid(models, PROMPTS[:1], [0, 1], steps=2, renderer=renderer, scorers=ParentDistance("base")).frame()["from_base"]
    assert list(found[:2]) == [0, 0]
    assert (found[2:] > 0).all()
    with pytest.raises(RenderError, match="no pictures of 'moon' to compare with; there are those of 'base', 'heart'"):
        ab_grid(models, PROMPTS[:1], steps=1, renderer=renderer, scorers=ParentDistance("moon"))


def test_labels_of_small_pictures_do_not_touch(grid):
    (sheet,) = grid._sheets(16, {})
    lefts = sheet._lefts
    assert min(right - left for left, right in pairwise(lefts)) > sheet._small.getlength("seed 0")


def test_the_page_holds_every_picture_and_asks_for_nothing_else(grid, tmp_path):
    text = grid.save(tmp_path / "grid.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=.?(https?:)?//|@import|url\(", text)
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    shown = {Image.open(io.BytesIO(base64.b64decode(data))).tobytes() for data in found}
    assert shown == {image.tobytes() for image in grid.images}
    assert "bright\xa0" in text
    (carried,) = re.findall(r"id=workbench>(.*?)</script>", text)
    assert json.loads(carried) == json.loads(json.dumps(grid.settings(tmp_path)))


@pytest.mark.parametrize("seeds", ["across", "down"])
def test_the_page_has_the_seeds_of_a_cell_together(grid, tmp_path, seeds):
    text = grid.save(tmp_path / "grid.html", seeds=seeds).read_text(encoding="utf-8")
    cells = re.findall(r"<td><div class='seeds( down)?'>(.*?)</div>", text)
    assert {down for down, _ in cells} == {" down" if seeds == "down" else ""}
    told = [re.findall(r'alt="(\w+) · (.*?) · seed (\d)', cell) for _, cell in cells]
    assert told == [[(model, prompt, str(seed)) for seed in grid.request.seeds] for prompt in PROMPTS for model in ("base", "half")]


def test_no_prompt_can_end_the_page_s_script(renderer, base, tmp_path):
    grid = ab_grid({"base": base}, ["</script><b>x"], steps=1, renderer=renderer, scorers=())
    text = grid.save(tmp_path / "grid.html").read_text(encoding="utf-8")
    assert "</script><b>" not in text
    assert "<b>x" not in text


def test_open_grid_gives_back_recipes_and_settings(grid, models, tmp_path):
    opened = wb.open_grid(grid.save(tmp_path / "grid.png"))
    again = opened.recipes["half"].build()
    key = next(iter(again))
    assert again[key].equal(models["half"][key])
    assert [path.resolve() for path in opened.files["base"]] == list(models["base"].sources())
    assert opened.settings == grid.request.settings
    assert "weighted_average" in opened._repr_html_()


def test_open_grid_says_what_is_no_grid(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("no picture")
    for name, message in (("plain", "carries no grid"), ("text", "it is no picture"), ("none", "No such file")):
        with pytest.raises(RenderError, match=rf"{name}.png: .*{message}"):
            wb.open_grid(tmp_path / f"{name}.png")


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"x": "density"}, "no axis 'density'; these pictures have model, prompt, seed"),
        ({"x": "seed", "y": "seed"}, "one axis only"),
        ({"w": "seed"}, "x, y, z"),
    ],
)
def test_an_axis_that_there_is_not_is_refused(grid, layout, message):
    with pytest.raises(RenderError, match=message):
        grid.plot(**layout)


def find(sheet: np.ndarray, picture: np.ndarray) -> tuple[int, int] | None:
    """Left and top of a picture on a sheet."""
    height, width = picture.shape[:2]
    tops, lefts = np.nonzero((sheet[: 1 - height, : 1 - width] == picture[0, 0]).all(axis=2))
    for top, left in zip(tops.tolist(), lefts.tolist(), strict=True):
        if np.array_equal(sheet[top : top + height, left : left + width], picture):
            return left, top
    return None
