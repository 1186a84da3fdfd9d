"""Block weights as text: what people paste comes out on the blocks that their tools mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import OptionError
from workbench.families import Block, Location
from workbench.merge.schedules import Depth, parse
from workbench.operators import find
from workbench.panels.bars import Bars
from workbench.panels.block_text import read_weights, write_weights

DENSITY = find("ties").declaration.options["density"]


def depth(inputs: int, modules: tuple[str, ...] = ("time_embed", "out")) -> Depth:
    names = [*(f"IN{i:02}" for i in range(inputs)), "MID", *(f"OUT{i:02}" for i in range(inputs))]
    return Depth(tuple(Block(name, name, name[:2], i, (0, i)) for i, name in enumerate(names)), modules)


SD1, SDXL = depth(12), depth(9, ("time_embed", "label_emb", "out"))
FLUX = Depth(tuple(Block(f"double_blocks.{i}", f"double_blocks.{i}", "double_blocks", i, (0, i)) for i in range(3)))


def row(count: int) -> str:
    """0.01, 0.02, ...: each number tells its place, from 1."""
    return ",".join(f"{(i + 1) / 100}" for i in range(count))


def test_26_numbers_are_base_and_the_25_blocks_of_sd_1():
    found = read_weights(row(26), SD1)
    assert (found["default"], found["IN00"], found["IN11"], found["MID"], found["OUT00"], found["OUT11"]) == (
        0.01,
        0.02,
        0.13,
        0.14,
        0.15,
        0.26,
    )
    assert (found["time_embed"], found["out"]) == (0.02, 0.26)


def test_25_numbers_leave_base_as_it_is():
    found = read_weights(row(25).replace(",", " \n"), SD1)
    assert (found["IN00"], found["MID"], found["OUT11"]) == (0.01, 0.13, 0.25)
    assert "default" not in found


def test_20_and_19_numbers_are_sdxls():
    found = read_weights(row(20), SDXL)
    assert (found["default"], found["IN08"], found["MID"], found["OUT08"]) == (0.01, 0.1, 0.11, 0.2)
    assert (found["time_embed"], found["label_emb"], found["out"]) == (0.02, 0.02, 0.2)
    assert read_weights(row(19), SDXL)["OUT08"] == 0.19


def test_17_and_12_numbers_are_the_blocks_that_a_lora_has():
    found = read_weights(row(17), SD1)
    assert {name: value for name, value in found.items() if value} == {
        "default": 0.01, "IN01": 0.02, "IN02": 0.03, "IN04": 0.04, "IN05": 0.05, "IN07": 0.06, "IN08": 0.07, "MID": 0.08,
        **{f"OUT{i:02}": (i + 6) / 100 for i in range(3, 12)},
    }  # fmt: skip
    found = read_weights(row(12), SDXL)
    assert {name: value for name, value in found.items() if value} == {
        "default": 0.01, "IN04": 0.02, "IN05": 0.03, "IN07": 0.04, "IN08": 0.05, "MID": 0.06,
        **{f"OUT{i:02}": (i + 7) / 100 for i in range(6)},
    }  # fmt: skip


def test_other_models_take_a_number_for_each_block():
    assert read_weights("1, 0.5, 0", FLUX) == {"double_blocks.0": 1, "double_blocks.1": 0.5, "double_blocks.2": 0}
    assert read_weights("0.2, 1, 0.5, 0", FLUX)["default"] == 0.2


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        (row(24), SD1, "24 numbers are no weights of these 25 blocks, which take 26 or 25 or 17"),
        (row(26), SDXL, "which take 20 or 19 or 12"),
        ("", FLUX, "0 numbers"),
        ("1, x, 0", FLUX, "'x' is no number"),
        ("1, nan, 0", FLUX, "'nan' is no number"),
        ("GRAD_Z", SD1, "did you mean 'GRAD_V'"),
        ("GRAD_A", SDXL, "a preset of the 25 blocks of SD 1.x"),
        ("0..", FLUX, "'' is no number"),
    ],
)
def test_what_is_no_weights_is_told_with_what_would_be(text, where, said):
    with pytest.raises(OptionError, match=said):
        read_weights(text, where)


def test_presets_go_by_name():
    found = read_weights("grad_v", SD1)
    assert (found["IN00"], found["IN06"], found["MID"], found["OUT11"]) == (1, 0.5, 0, 1)
    wrap = read_weights("WRAP08", SD1)
    assert [name for name in SD1.names if wrap[name]] == ["IN00", "IN01", "IN02", "IN03", "OUT08", "OUT09", "OUT10", "OUT11"]
    smooth = read_weights("REVERSE-SMOOTHSTEP", SD1)
    assert (smooth["IN00"], smooth["MID"], smooth["OUT11"]) == (1, 0.5, 0)


def test_presets_have_the_values_of_the_published_list():
    for name, told in {
        "MID12_50": "0,0,0,0,0,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0,0,0,0,0,0",
        "OUT12_5": "0,0,0,0,0,0,0,0,0,0,0,0,0.5,1,1,1,1,1,1,1,1,1,1,1,1",
        "RING08_SOFT": "0,0,0,0,0,0.5,1,1,1,0.5,0,0,0,0,0,0.5,1,1,1,0.5,0,0,0,0,0",
        "RING08_5": "0,0,0,0,0,0,1,1,1,1,0,0,0,0,0,1,1,1,1,0,0,0,0,0,0",
        "RING10_5": "0,0,0,0,0,1,1,1,1,1,0,0,0,0,0,1,1,1,1,1,0,0,0,0,0",
        "RING10_3": "0,0,0,0,0,0,1,1,1,1,1,0,0,0,1,1,1,1,1,0,0,0,0,0,0",
    }.items():
        assert read_weights(name, SD1) == read_weights(told, SD1), name
    cosine = read_weights("COSINE", SD1)
    assert [round(cosine[name], 6) for name in ("IN00", "IN06", "MID", "OUT11")] == [1, 0.853553, 0.5, 0]
    assert read_weights("REVERSE_COSINE", SD1)["IN00"] == 0


def test_a_curve_goes_from_the_first_block_to_the_last():
    found = read_weights("0..1..0", SD1)
    assert (found["IN00"], found["IN06"], found["MID"], found["OUT11"]) == (0, 0.5, 1, 0)


@pytest.mark.parametrize("where", [SD1, SDXL, FLUX])
@given(data=st.data())
def test_what_is_copied_is_what_is_pasted(where, data):
    numbers = st.floats(-2, 2).map(lambda value: round(value, 3))
    weights = {name: data.draw(numbers) for name in ("default", *where.names)}
    found = read_weights(write_weights(weights, where), where)
    assert {name: found[name] for name in weights} == weights


def test_pasted_numbers_are_kept_exactly_and_written_out_in_the_recipe():
    bars = Bars.of(0.5, DENSITY, SD1, 1)
    value = bars.pasted(0, read_weights("0.3333333333, " + row(25), SD1))
    at = parse(value, DENSITY).bind(SD1)
    assert at(Location()) == 0.3333333333
    assert at(Location(SD1.blocks[3])) == 0.04
    assert (at(Location(module="time_embed")), at(Location(module="out"))) == (0.01, 0.25)
    assert set(value["blocks"]) == {*SD1.names, "time_embed", "out", "default"}


def test_pasted_numbers_have_to_be_allowed():
    with pytest.raises(OptionError, match=r"MID: must be in \[0, 1\], got 3"):
        Bars.of(0.5, DENSITY, FLUX, 1).pasted(0, {"MID": 3.0})
