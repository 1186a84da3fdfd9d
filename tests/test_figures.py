"""Figures carry the numbers and the words they were given, in the order they were given."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch
from held import Held

import workbench as wb
from workbench import figures

if TYPE_CHECKING:
    import plotly.graph_objects as go

TIDY = pd.DataFrame(
    {
        "block": ["IN01", "MID", "IN00"] * 2,
        "model": ["zebra"] * 3 + ["apple"] * 3,
        "cosine": [0.9, 0.8, np.nan, 0.7, 0.6, 0.5],
        "steps": [1, 2, 4] * 2,
    }
)
TABLE = pd.DataFrame(
    [[0.25, 0.5], [0.125, np.nan]], index=pd.Index(["MID", "IN00"], name="block"), columns=pd.Index(["b", "a"], name="model")
)


def texts(figure: go.Figure) -> tuple[str, str, str]:
    return figure.layout.title.text, figure.layout.xaxis.title.text, figure.layout.yaxis.title.text


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance of `#rrggbb`."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_a_line_for_each_value_of_the_colour_column_in_order():
    figure = figures.lines(TIDY, x="block", y="cosine", colour="model", title="How alike")
    assert [line.name for line in figure.data] == ["zebra", "apple"]
    assert [list(line.x) for line in figure.data] == [["IN01", "MID", "IN00"]] * 2
    np.testing.assert_array_equal(figure.data[0].y, [0.9, 0.8, np.nan])
    assert figure.layout.showlegend
    assert figure.layout.legend.title.text == "model"
    assert len({(line.line.color, line.marker.symbol) for line in figure.data}) == 2


def test_bars_go_as_far_as_the_spread_column_says():
    frame = pd.DataFrame({"x": [1, 2], "y": [3.0, 4.0], "sd": [0.5, math.nan]})
    (line,) = figures.lines(frame, x="x", y="y", spread="sd", title="t").data
    assert line.error_y.array[0] == 0.5
    assert not figures.lines(frame, x="x", y="y", title="t").data[0].error_y.visible


def test_words_on_an_axis_keep_their_order_and_numbers_lie_to_scale():
    words = figures.lines(TIDY, x="block", y="cosine", colour="model", title="")
    assert (words.layout.xaxis.type, words.layout.xaxis.categoryarray) == ("category", ("IN01", "MID", "IN00"))
    numbers = figures.lines(TIDY, x="steps", y="cosine", colour="model", title="")
    assert numbers.layout.xaxis.type is None
    assert list(numbers.data[0].x) == [1, 2, 4]
    truths = figures.lines(pd.DataFrame({"x": [True, False], "y": [1, 2]}), x="x", y="y", title="")
    assert truths.layout.xaxis.categoryarray == ("True", "False")


def test_axes_are_titled_with_names_unless_told_otherwise():
    assert texts(figures.lines(TIDY[:3], x="block", y="cosine", title="T")) == ("T", "block", "cosine")
    assert texts(figures.lines(TIDY[:3], x="block", y="cosine", title="T", x_title="depth", y_title="1")) == ("T", "depth", "1")
    assert texts(figures.heat(TABLE, title="T")) == ("T", "model", "block")
    assert texts(figures.heat(TABLE, title="T", x_title="who", y_title="where")) == ("T", "who", "where")
    assert texts(figures.lines(TIDY[:3], x="block", y="cosine", title="T", x_title="", y_title="")) == ("T", "", "")
    assert texts(figures.heat(TABLE, title="T", x_title="", y_title="")) == ("T", "", "")


def test_one_line_needs_no_legend():
    assert figures.lines(TIDY[:3], x="block", y="cosine", title="").layout.showlegend is False


def test_many_long_names_get_room_between_title_and_plot():
    names = [f"a model with a rather long name, number {i}" for i in range(30)]
    many = figures.lines(pd.DataFrame({"model": names, "x": 0, "y": 1}), x="x", y="y", colour="model", title="")
    few = figures.lines(TIDY, x="block", y="cosine", colour="model", title="")
    assert len({(line.line.color, line.line.dash, line.marker.symbol) for line in many.data}) == 30
    assert many.layout.margin.t > few.layout.margin.t
    assert many.layout.height - many.layout.margin.t == few.layout.height - few.layout.margin.t


def test_a_column_that_is_not_there_is_named_with_those_that_are():
    frame = TIDY.set_index(["block", "model"])
    with pytest.raises(ValueError, match=r"no column 'block'; it has 'cosine', 'steps'; 'block', 'model' become columns by frame.reset"):
        figures.lines(frame, x="block", y="cosine", title="")


def test_cells_carry_the_numbers_with_index_and_columns_in_order():
    (cells,) = figures.heat(TABLE, title="").data
    np.testing.assert_array_equal(cells.z, TABLE.to_numpy())
    assert (cells.y, cells.x) == (("MID", "IN00"), ("b", "a"))
    assert figures.heat(TABLE, title="").layout.yaxis.autorange == "reversed"  # the first row is on top


def test_numbers_are_written_where_there_is_room():
    (few,) = figures.heat(TABLE, title="").data
    assert [list(row) for row in few.text] == [["0.25", "0.50"], ["0.12", ""]]
    assert few.texttemplate == "%{text}"
    (many,) = figures.heat(pd.DataFrame(np.random.default_rng(0).random((3, 40))), title="").data
    assert many.texttemplate is None


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([506, 38], ["506", "38"]),
        ([0.9999, 0.9936], ["0.9999", "0.9936"]),
        ([1.5, 100.25], ["2", "100"]),
        ([1e-7, 3e-7], ["1e-07", "3e-07"]),
        ([0.125, 0.125], ["0.125", "0.125"]),
        ([math.nan, math.nan], ["", ""]),
        ([math.inf, 0.5], ["inf", "0.5"]),
    ],
)
def test_numbers_have_the_decimals_that_tell_them_apart(values, written):
    assert list(figures.heat(pd.DataFrame([values]), title="").data[0].text[0]) == written


def test_zero_is_pale_in_the_middle_where_numbers_go_both_ways():
    (both,) = figures.heat(pd.DataFrame([[-1.0, 3.0]]), title="").data
    assert (both.zmin, both.zmax, both.colorscale[1][1]) == (-3.0, 3.0, "#f7f7f7")
    assert figures.heat(TABLE, title="").data[0].zmin is None


def test_rows_of_one_name_are_refused_and_levels_are_joined():
    with pytest.raises(ValueError, match="names of their own, but 'MID' is there more than once"):
        figures.heat(TABLE.rename({"IN00": "MID"}), title="")
    stacked = TIDY.set_index(["model", "block"])[["steps"]]
    figure = figures.heat(stacked, title="")
    assert figure.data[0].y[0] == "zebra · IN01"
    assert figure.layout.yaxis.title.text == "model · block"


def test_what_is_written_can_be_read_on_light_and_on_dark_pages():
    figure = figures.heat(TABLE, title="")
    look = figure.layout.template.layout
    assert look.paper_bgcolor == look.plot_bgcolor == "rgba(0, 0, 0, 0)"
    assert min(contrast(look.font.color, page) for page in ("#ffffff", "#111111")) > 4
    for cells in (figure.data[0], figures.heat(TABLE - 0.3, title="").data[0]):
        assert all(contrast(cells.textfont.color, colour) > 4.5 for _, colour in cells.colorscale)


def test_a_comparison_can_be_drawn_as_it_comes():
    base, tuned = (Held({"input_blocks.0.0.bias": torch.ones(1), "out.0.bias": torch.full((1,), i)}, f"m{i:g}") for i in (1.0, 2.0))
    frame = wb.compare([base, tuned])
    figure = figures.lines(frame.reset_index(), x="block", y="distance", colour="model", title="")
    assert figure.layout.xaxis.categoryarray == ("IN00", "unet", "all")
    assert list(figure.data[0].y) == frame["distance"].tolist()
    assert figures.heat(frame["distance"].unstack(), title="").data[0].x == ("m2",)


def test_heats_share_their_colours_and_are_pale_at_the_middle():
    frame = pd.DataFrame([[0.5, 0.75]], index=pd.Index(["MID"], name="block"), columns=pd.Index([0.0, 1.0], name="frequency"))
    figure = figures.heats({"a prompt": frame, "another": frame + 0.125}, title="Shares", unit="share", middle=0.5)
    assert [cells.z.tolist() for cells in figure.data] == [[[0.5, 0.75]], [[0.625, 0.875]]]
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0.125, 0.875)
    assert [note.text for note in figure.layout.annotations] == ["a prompt", "another"]
    assert figure.layout.xaxis2.title.text == "frequency"


def test_losses_have_a_line_for_each_kind_and_a_picture_over_its_step():
    from PIL import Image

    frame = pd.DataFrame({"step": [10, 20], "loss": [0.5, 0.25], "held_out": [np.nan, 0.125]})
    figure = figures.losses(frame, [(10, Image.new("RGB", (8, 8))), (20, Image.new("RGB", (8, 8)))], title="20 steps")
    assert {line.name: list(line.y) for line in figure.data} == {"loss": [0.5, 0.25], "held_out": [0.125]}
    assert sorted(image.x for image in figure.layout.images) == [10, 20]
    assert figure.layout.yaxis.type == "log"


def test_labels_of_a_map_cover_neither_each_other_nor_a_point():
    near = np.random.default_rng(0).normal(0, 0.03, (20, 2))
    frame = pd.DataFrame([*near, [1.0, 0.5]], columns=["x", "y"])
    frame = frame.assign(label=[f"method_{i}" for i in range(21)], told=[f"told {i}" for i in range(21)], right=np.linspace(0, 1, 21))
    figure = figures.labelled_map(frame, colour="right", title="A map", told="Near is alike")
    points = figure.data[0]
    assert list(points.customdata) == list(frame["told"])
    assert [note.text for note in figure.layout.annotations] == list(frame["label"])
    across, up = np.ptp(points.x) / np.ptp(frame["x"]), np.ptp(points.y) / np.ptp(frame["y"])
    assert across == pytest.approx(up)  # one scale
    boxes = [(note.x, note.y, 6.0 * len(note.text), 14.0) for note in figure.layout.annotations]
    for number, one in enumerate(boxes):
        for x, y, width, height in [*boxes[number + 1 :], *((x, y, 0, 0) for x, y in zip(points.x, points.y, strict=True))]:
            assert abs(one[0] - x) >= (one[2] + width) / 2 - 1e-9 or abs(one[1] - y) >= (one[3] + height) / 2 - 1e-9
