"""Values that differ by block, as bars and back."""

from __future__ import annotations

import pytest

import workbench as wb
from workbench.merge.schedules import Depth
from workbench.operators import find
from workbench.panels.bars import PRESETS, Bars, differs_by_block
from workbench.places import DATA


@pytest.fixture(scope="module")
def depth() -> Depth:
    base = wb.open(DATA / "shapes-sd" / "base.safetensors")
    return Depth.of(base.structure.location(key) for key in base)


def bars(value, depth, operator="ties", option="density", series=1) -> Bars:
    return Bars.of(value, find(operator).declaration.options[option], depth, series)


def rows(value, depth, **which) -> Bars:
    return bars(value, depth, **which).rows


def test_one_value_is_as_high_everywhere(depth):
    found = bars(0.3, depth)
    assert found.rows == ((0.3,) * len(depth.blocks),)
    assert found.elsewhere == (0.3,)
    assert found.painted(0, found.rows[0], 0.3) == 0.3


def test_only_blocks_that_differ_are_named(depth):
    flat = bars(0.5, depth)
    values = [0.5] * len(depth.blocks)
    values[1] = 0.2499
    assert flat.painted(0, values, 0.5) == {"blocks": {"IN01": 0.25, "default": 0.5}}


def test_what_is_painted_is_what_is_read(depth):
    values = [i / 10 for i in range(len(depth.blocks))]
    told = bars(0.5, depth).painted(0, values, 0.0)
    assert rows(told, depth) == (tuple(values),)


def test_paint_stays_within_bounds(depth):
    assert bars(0.5, depth).painted(0, [9.0] * len(depth.blocks), 9.0) == 1


def test_a_ramp_is_a_ramp_drawn_either_way(depth):
    flat = bars(0.5, depth)
    told = flat.ramped(0, (1, len(depth.blocks) - 1), (0.1, 0.9))
    assert told == {"ramp": {"start": 0.1, "end": 0.9, "first": "IN01", "last": depth.blocks[-1].name, "elsewhere": 0.5}}
    assert flat.ramped(0, (len(depth.blocks) - 1, 1), (0.9, 0.1)) == told


def test_a_ramp_in_one_block_is_a_step(depth):
    (row,) = rows(bars(0.5, depth).ramped(0, (2, 2), (0.2, 0.2)), depth)
    assert set(row) == {0.2}


def test_a_ramp_of_one_model_leaves_the_others_flat(depth):
    told = bars([1, 0.5], depth, option="weights", series=2).ramped(1, (0, 3), (0.0, 1.0))
    assert told["ramp"]["start"] == [1, 0.0]
    assert told["ramp"]["end"] == [1, 1.0]


def test_a_ramp_beside_a_painted_model_is_painted(depth):
    which = {"option": "weights", "series": 2}
    painted = bars(1.0, depth, **which).painted(0, [0.0, *[1.0] * (len(depth.blocks) - 1)], 1.0)
    told = bars(painted, depth, **which).ramped(1, (0, 3), (0.0, 1.0))
    first, second = rows(told, depth, **which)
    assert first[0] == 0
    assert second[0] == 0
    assert second[-1] == 1


@pytest.mark.parametrize("option", ["density", "weights"])
@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_values_that_the_operator_takes(depth, name, option):
    declared = find("ties").declaration.options[option]
    told = bars(declared.default, depth, option=option).preset(0, name)
    assert differs_by_block(told, declared) == (name != "flat")
    for value in rows(told, depth, option=option)[0]:
        declared.check("ties", value, 1)


def test_whole_numbers_stay_whole(depth):
    from dataclasses import replace

    option = find("ties").declaration.options["density"]
    whole = replace(option, default=3, constraint=replace(option.constraint, low=0, high=8, step=1, whole=True))
    told = Bars.of(3, whole, depth, 1).painted(0, [2.4] * len(depth.blocks), 3)
    assert {type(value) for value in told["blocks"].values()} == {int}


def test_a_module_beside_the_blocks_keeps_its_value_when_bars_are_painted(depth):
    found = bars({"blocks": {"time_embed": 0.1, "default": 0.5}}, depth)
    painted = found.painted(0, [0.5] * (len(depth.blocks) - 1) + [0.9], 0.5)
    assert painted == {"blocks": {depth.blocks[-1].name: 0.9, "time_embed": 0.1, "default": 0.5}}
    ramped = found.ramped(0, (0, len(depth.blocks) - 1), (0.5, 1.0))
    assert ramped["blocks"]["time_embed"] == 0.1
