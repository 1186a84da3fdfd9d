"""`diff`: numbers by hand and against NumPy, what is only in one, what headers say, and what is shown of it."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from held import Held
from safetensors.numpy import load_file
from safetensors.torch import save_file

import workbench as wb
from workbench.demo import merges
from workbench.engine.reading import PART
from workbench.errors import InputError, MergeError
from workbench.places import DATA
from workbench.tensors import Flat, Space

average = wb.operators.weighted_average
UNET, VAE = "model.diffusion_model.", "first_stage_model."
SHAPES = DATA / "shapes-sd"


def held(name: str = "held", **tensors: object) -> Held:
    return Held({key: torch.as_tensor(value) for key, value in tensors.items()}, name)


def test_a_tensor_by_hand():
    found = wb.diff(held("a", x=[[3.0, 0.0], [0.0, 4.0]], y=[1.0]), held("b", x=[[3.0, 1.0], [0.0, 2.0]], y=[1.0]))
    frame = found.frame().set_index("tensor")
    assert frame["status"].to_dict() == {"x": "changed", "y": "equal"}
    assert frame.loc["x", ["distance", "max_change", "changed"]].tolist() == pytest.approx([math.sqrt(5) / 5, 2.0, 0.5])
    assert frame.loc["y", ["distance", "max_change", "changed"]].tolist() == [0.0, 0.0, 0.0]
    assert found.blocks().loc["all"].tolist() == pytest.approx([2, 1, math.sqrt(5 / 26), 2.0, 0.4])
    assert found.headline == "a and b: 1 of 2 tensors changed, by 44 % of a's norm"


def test_every_number_is_that_of_numpy_on_whole_models(family):
    found = wb.diff(family["base"], family["heart"])
    a, b = (load_file(SHAPES / f"{name}.safetensors") for name in ("base", "heart"))
    frame = found.frame().set_index("tensor")
    assert list(frame.index) == list(family["base"])
    for key in a:
        one, other = a[key].astype(np.float64).ravel(), b[key].astype(np.float64).ravel()
        expected = [np.linalg.norm(one - other) / np.linalg.norm(one), np.abs(one - other).max(), np.mean(one != other)]
        np.testing.assert_allclose(frame.loc[key, ["distance", "max_change", "changed"]].astype(float), expected, rtol=1e-12)
        assert frame.loc[key, "status"] == ("changed" if (one != other).any() else "equal")
    for place in [*found.order, "all"]:
        keys = [key for key in a if place in ("all", frame.loc[key, "block"])]
        one, other = (np.concatenate([file[key].ravel() for key in keys]).astype(np.float64) for file in (a, b))
        expected = [len(keys), (frame.loc[keys, "status"] == "changed").sum()]
        expected += [np.linalg.norm(one - other) / np.linalg.norm(one), np.abs(one - other).max(), np.mean(one != other)]
        np.testing.assert_allclose(found.blocks().loc[place].astype(float), expected, rtol=1e-9)


def test_the_embedded_variants_differ_from_the_base_in_the_unet_alone(family):
    found = wb.diff(family["base"], family["heart"])
    blocks = found.blocks()
    assert blocks.loc[["text_encoder", "vae"], "differing"].tolist() == [0, 0]
    assert blocks.loc[["text_encoder", "vae"], "distance"].tolist() == [0, 0]
    assert (blocks["distance"].drop(["text_encoder", "vae"]) > 0.005).all()
    most = found.most(5)
    assert most["distance"].is_monotonic_decreasing
    assert most["distance"].iloc[0] == found.frame()["distance"].max()
    assert "286 of 507 tensors changed, by 4.8 % of base's norm, most in MID (7.1 %)" in found.headline


def test_two_identical_files_are_said_to_be_so(family):
    again = wb.open(SHAPES / "base.safetensors")
    found = wb.diff(family["base"], again)
    assert found.identical
    assert found.headline == "base and base-2 are identical: the same 507 tensors"
    assert str(found) == found.headline
    assert set(found.frame()["status"]) == {"equal"}


def test_the_same_numbers_in_another_dtype_are_not_called_identical():
    a, b = held("a", x=[1.0, 2.0], n=[1]), held("b", x=torch.tensor([1.0, 2.0], dtype=torch.float16), n=[1])
    found = wb.diff(a, b)
    assert not found.identical
    assert found.headline == "a and b: the same numbers in 2 tensors; 1 of another dtype"
    assert found.frame()[["dtype_first", "dtype_second"]].to_numpy().tolist() == [["float32", "float16"], ["int64", "int64"]]
    assert "float32 and float16" in str(found)


def test_what_only_one_has_and_shapes_are_said():
    a = held("a", x=[1.0], shape=[1.0, 2.0], mine=[1.0])
    b = held("b", x=[1.0], shape=[[1.0], [2.0]], yours=[1.0], too=[1.0])
    found = wb.diff(a, b)
    assert found.headline == "a and b: the same numbers in 1 tensor; 1 only in a; 2 only in b; 1 of another shape"
    assert [found.keys(status) for status in ("only in first", "only in second", "another shape")] == [
        ["mine"],
        ["yours", "too"],
        ["shape"],
    ]
    row = found.frame().set_index("tensor").loc["shape"]
    assert (row["shape_first"], row["shape_second"]) == ((2,), (2, 1))
    assert math.isnan(row["distance"])
    assert "[2] and [2, 1]" in str(found)
    assert "'yours', 'too'" in str(found)
    assert [read[0] for read in a.reads] == ["x"]


def test_tensors_match_by_name_without_prefix():
    full, unet = held("full", **{f"{UNET}out.2.bias": [1.0]}), held("unet", **{"out.2.bias": [2.0]})
    found = wb.diff(full, unet)
    assert found.frame()[["tensor", "block", "status", "distance"]].to_numpy().tolist() == [
        [f"{UNET}out.2.bias", "transformer", "changed", 1.0]
    ]


def test_different_architectures_have_keys_but_no_numbers():
    sd = held("sd", **{f"{UNET}input_blocks.0.0.bias": [1.0]})
    flux = held("flux", **{"double_blocks.0.img_mod.lin.x": [1.0], "img_in.bias": [1.0]})
    found = wb.diff(sd, flux)
    assert found.headline == "sd and flux: SD 1.x against Flux; no tensor that could be compared; 1 only in sd; 2 only in flux"
    assert [(said.what, said.first, said.second) for said in found.kinds][:2] == [
        ("architecture", "SD 1.x", "Flux"),
        ("layout", "LDM", "BFL"),
    ]
    assert found.frame()["status"].tolist() == ["only in first", "only in second", "only in second"]
    assert found.blocks().index.tolist() == ["IN00", "double_blocks.0", "transformer", "all"]
    assert found.blocks()["distance"].isna().all()
    assert found.plot().layout.title.text.startswith("How far flux is from sd")
    assert not sd.reads


def test_integers_markers_and_empty_tensors_are_compared_too():
    a = held("a", n=[1, 2, 3], v_pred=[1.0], empty=torch.empty(0), bool=[True, False])
    b = held("b", n=[1, 2, 4], v_pred=[1.0], empty=torch.empty(0), bool=[True, True])
    frame = wb.diff(a, b).frame().set_index("tensor")
    assert frame["status"].to_dict() == {"n": "changed", "v_pred": "equal", "empty": "equal", "bool": "changed"}
    assert frame.loc["n", "changed"] == pytest.approx(1 / 3)
    assert frame.loc["empty", ["distance", "max_change", "changed"]].isna().all()


def test_nan_is_equal_to_nan_and_has_no_distance():
    nan, inf = math.nan, math.inf
    a = held("a", same=[nan, inf, 1.0], other=[nan, 3.0, 4.0, 1.0], sign=[inf, 1.0])
    b = held("b", same=[nan, inf, 1.0], other=[1.0, 3.0, 5.0, nan], sign=[-inf, 1.0])
    frame = wb.diff(a, b).frame().set_index("tensor")
    assert frame["status"].tolist() == ["equal", "changed", "changed"]
    assert frame.loc["other", ["distance", "max_change", "changed"]].tolist() == [0.2, 1.0, 0.75]
    assert frame.loc["other", "note"] == "2 elements are NaN or infinite, which have no distance"
    assert frame.loc["sign", ["distance", "changed"]].tolist() == [0, 0.5]


def test_from_nothing_there_is_no_relative_distance():
    found = wb.diff(held("a", x=[0.0, 0.0], y=[1.0]), held("b", x=[0.0, 1.0], y=[2.0]))
    row = found.most().iloc[0]
    assert (row["tensor"], row["max_change"], row["changed"], row["note"]) == ("x", 1.0, 0.5, "the first is all zero")
    assert math.isnan(row["distance"])
    assert "undefined" in str(found)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16])
def test_narrow_floats_are_compared_by_value(dtype):
    a = held("a", x=torch.tensor([1.0, -0.5, 2.0]))
    assert wb.diff(a, held("b", x=a["x"].to(dtype))).frame()["changed"].tolist() == [0]
    assert wb.diff(a, held("b", x=torch.tensor([1.0, 0.5, 2.0]).to(dtype))).frame()["max_change"].tolist() == [1]


def test_a_single_number_without_dimensions_is_compared():
    assert wb.diff(held("a", x=2.0), held("b", x=3.0)).frame()["distance"].tolist() == [0.5]


def test_weights_and_changes_have_no_distance():
    weights, changes = held("weights", x=[1.0]), Held({"x": torch.ones(1)}, "changes", Space.DELTA)
    found = wb.diff(weights, changes)
    assert found.frame()[["status", "note"]].to_numpy().tolist() == [["not compared", "the first holds weights, the second deltas"]]
    assert found.headline == "weights and changes: no tensor that could be compared; 1 not compared"
    assert not weights.reads


def test_metadata_that_differs_is_told(tmp_path):
    for name, metadata in (("a", {"title": "one", "same": "x"}), ("b", {"title": "two", "same": "x", "more": "<i>" + "y" * 99})):
        save_file({"x": torch.ones(1)}, tmp_path / f"{name}.safetensors", metadata=metadata)
    found = wb.diff(*(wb.open(tmp_path / f"{name}.safetensors") for name in "ab"))
    assert {said.what: (said.first, said.second) for said in found.metadata} == {"title": ("one", "two"), "more": (None, "<i>" + "y" * 99)}
    assert found.identical
    assert found.headline == "a and b are identical: the same 1 tensor, though they say different things of themselves"
    assert "<i>yyy" in str(found)
    assert "&lt;i&gt;yyy" in found._repr_mimebundle_()["text/html"]
    assert "y" * 60 not in str(found)


def test_recipes_are_compared_part_by_part(family, tmp_path):
    for name, weights in (("a", [0.5, 0.5]), ("b", [0.3, 0.7])):
        (tmp_path / name).mkdir()
        merge = average([family["heart"], family["moon"]], weights=weights)
        wb.export(merge, tmp_path / name / f"{name}.safetensors", progress=False)
    a, b = (wb.open(tmp_path / name / f"{name}.safetensors") for name in "ab")
    (said,) = wb.diff(a, b).recipes
    assert (said.what, said.first, said.second) == ("merge.options.weights", "[0.5, 0.5]", "[0.3, 0.7]")
    assert not wb.diff(a, average([family["heart"], family["moon"]], weights=[0.5, 0.5])).recipes  # the file knows hashes, too
    (alone,) = wb.diff(a, family["base"]).recipes
    assert (alone.what, alone.first, alone.second) == ("recipe", "weighted_average of heart and moon", None)
    assert "merge.options.weights  [0.5, 0.5]  [0.3, 0.7]" in str(wb.diff(a, b))


def test_another_programs_recipe_is_told_and_a_damaged_one_is_metadata(tmp_path):
    headers = {"webui": json.dumps({"type": "webui", "multiplier": 0.3}), "damaged": "{"}
    for name, header in headers.items():
        save_file({"x": torch.ones(1)}, tmp_path / f"{name}.safetensors", metadata={"sd_merge_recipe": header})
    webui, damaged = (wb.open(tmp_path / f"{name}.safetensors") for name in headers)
    found = wb.diff(webui, damaged)
    assert [(said.what, said.first, said.second) for said in found.recipes] == [("recipe", "of type webui", None)]
    assert [(said.what, said.first, said.second) for said in found.metadata] == [("sd_merge_recipe", None, "{")]


def test_a_merge_is_compared_as_it_would_be_written(family, made):
    merge = merges(family)["average"]
    found = wb.diff(merge, made["average"])
    assert found.identical
    a, b = held("a", x=[1.0], y=[1.0]), held("b", x=[1.0])
    with pytest.raises(MergeError, match="'y' is only in a"):
        wb.diff(a, wb.operators.add_difference(a, b, a))
    assert not wb.diff(a, average([a, a])).recipes  # it lies in no file, so there is none
    assert [read[0] for read in b.reads] == []


def test_each_tensor_is_read_once_in_pieces_and_threads_do_not_matter():
    tensors = [{"long": torch.randn(3, PART // 2 + 1), "short": torch.randn(7)} for _ in range(2)]
    threads, frames = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            models = [Held(one, name) for one, name in zip(tensors, "ab", strict=True)]
            frames.append(wb.diff(*models).frame())
            count = tensors[0]["long"].numel()
            parts = [("long", Flat(start, min(start + PART, count))) for start in range(0, count, PART)]
            assert [sorted(model.reads, key=repr) for model in models] == [sorted([*parts, ("short", None)], key=repr)] * 2
    finally:
        torch.set_num_threads(threads)
    assert frames[0].equals(frames[1])


class Cells(HTMLParser):
    """The texts of a page's table cells."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self.inside = tag in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.cells.append(data)


def test_it_shows_tables_in_a_notebook_and_in_a_terminal(made):
    found = wb.diff(made["average"], made["skills"])
    shown = found._repr_mimebundle_()
    assert shown["text/plain"] == repr(found) == f"<Difference: {found.headline}>"
    cells = Cells(shown["text/html"]).cells
    for words in ("merge.operator", "weighted_average", "task_arithmetic", "modelspec.title", "MID", "elements changed"):
        assert words in cells
        assert words in str(found)
    assert found.most(1)["tensor"].item() in cells
    assert max(map(len, str(found).splitlines())) < 150


def test_the_figure_has_a_bar_for_each_block_or_else_for_each_tensor(family):
    found = wb.diff(family["base"], family["heart"])
    (bars,) = found.plot().data
    assert list(bars.y) == list(found.order)
    np.testing.assert_allclose(bars.x, 100 * found.blocks().drop(index="all")["distance"])
    (alone,) = wb.diff(held("a", x=[1.0], y=[1.0]), held("b", x=[1.5], y=[3.0])).plot().data
    assert (list(alone.y), list(alone.x)) == (["y", "x"], [200, 50])


@pytest.mark.parametrize("given", ["base.safetensors", None, [1]])
def test_what_is_no_checkpoint_is_refused(given):
    with pytest.raises(InputError, match=r"diff takes checkpoints \(see workbench.open\), got"):
        wb.diff(held(x=[1.0]), given)


def test_numbers_that_were_only_rounded_to_another_dtype_are_noted():
    values = {"x": torch.randn(50), "y": torch.randn(50)}
    other = {"x": values["x"].half(), "y": (values["y"] + 1).half()}
    notes = wb.diff(Held(values, "one"), Held(other, "two")).frame().set_index("tensor")["note"]
    assert notes["x"] == "the same numbers, rounded to float32 and float16"
    assert notes["y"] == ""
