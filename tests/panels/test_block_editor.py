"""What a person types into the block editor comes out as the option's value, exactly; presets by name where a model has their blocks."""

from __future__ import annotations

import pytest

import workbench as wb
from workbench.errors import OptionError
from workbench.merge.schedules import Depth
from workbench.operators import find
from workbench.panels.block_editor import BlockEditor
from workbench.places import DATA


@pytest.fixture(scope="module")
def depth() -> Depth:
    base = wb.open(DATA / "shapes-sd" / "base.safetensors")
    return Depth.of(base.structure.location(key) for key in base)


@pytest.fixture
def editor(depth) -> BlockEditor:
    return BlockEditor(find("ties").declaration.options["density"], depth, ["density"])


def typed(editor: BlockEditor, place: int, text: str) -> None:
    editor._drawn({"kind": "typed", "series": 0, "place": place, "text": text}, [])


def test_a_typed_number_is_kept_exactly_in_its_block_or_beside_them(editor, depth):
    typed(editor, 1, "0.3333")
    typed(editor, len(depth.blocks), "0,25")
    assert (editor.rows[0][1], editor.elsewhere[0]) == (0.3333, 0.25)
    assert editor.rows[0][0] == 0.5


@pytest.mark.parametrize(("text", "said"), [("0.3.5", "'0.3.5' is no number"), ("much", "'much' is no number"), ("3", "IN01: must be in")])
def test_what_is_no_number_is_said_and_changes_nothing(editor, text, said):
    before = editor.value
    with pytest.raises(OptionError, match=said):
        typed(editor, 1, text)
    assert editor.value == before


def test_names_of_models_are_cut_so_that_they_can_be_told_apart(depth):
    names = ["a very long name of a model, version 1", "a very long name of a model, version 2"]
    made = BlockEditor(find("ties").declaration.options["weights"], depth, names)
    assert made.series == names
    assert made.short == ["…1", "…2"]


def test_presets_are_in_the_menu_of_models_that_have_their_blocks(editor):
    assert {"MID12_50", "RING08_SOFT", "COSINE"} <= set(editor.named)
    flux = wb.open(DATA / "shapes-flux" / "schnell" / "transformer")
    other = Depth.of(flux.structure.location(key) for key in flux)
    assert BlockEditor(find("ties").declaration.options["density"], other, ["density"]).named == []
