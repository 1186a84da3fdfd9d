"""What a renderer reads when the next checkpoint comes, and how work that is not wanted any more ends."""

from __future__ import annotations

import itertools

import pytest
from held import Held

import workbench as wb
from workbench.errors import Cancelled, RenderError

PROMPT, QUICK = "a red star on a black background", {"steps": 4}
ops = wb.operators


def counted(checkpoint: wb.Checkpoint) -> Held:
    """The same tensors in memory, where reads are counted."""
    return Held({key: checkpoint.read(key) for key in checkpoint}, checkpoint.name)


def test_the_same_checkpoint_is_not_read_twice(renderer, base):
    model = counted(base)
    renderer.load(model)
    first, reads = renderer.images([PROMPT], **QUICK)[0].tobytes(), len(model.reads)
    renderer.load(model)
    assert len(model.reads) == reads
    assert renderer.images([PROMPT], **QUICK)[0].tobytes() == first


def test_an_option_that_changed_for_one_block_calculates_that_block_and_reads_no_input_again(renderer, base, heart, monkeypatch):
    model, other = counted(base), counted(heart)
    calculated, parts = [], renderer._stage.parts
    monkeypatch.setattr(parts, "_read", lambda view, name, real=parts._read: (calculated.append(name), real(view, name))[1])
    for share in (0.2, 0.8):
        merge = ops.add_difference(model, other, model, strength={"blocks": {"MID": share, "default": 0.5}})
        for seen in (model.reads, other.reads, calculated):
            seen.clear()
        renderer.load(merge)
    assert {name.partition(".")[0] for name in calculated} == {"mid_block"}
    assert not model.reads
    assert not other.reads
    incremental = renderer.images([PROMPT], **QUICK)[0].tobytes()
    fresh = wb.Renderer(renderer.config)
    fresh.load(merge)
    assert fresh.images([PROMPT], **QUICK)[0].tobytes() == incremental


def test_what_another_checkpoint_has_overwritten_is_read_again(renderer, base, heart):
    renderer.load(base)
    first = renderer.images([PROMPT], **QUICK)[0].tobytes()
    renderer.load(heart)
    assert renderer.images([PROMPT], **QUICK)[0].tobytes() != first
    renderer.load(base)
    assert renderer.images([PROMPT], **QUICK)[0].tobytes() == first


@pytest.mark.parametrize("tensors", [0, 1, 40])
def test_loading_that_is_given_up_leaves_nothing_to_draw_with_and_the_next_load_is_whole(renderer, base, heart, tensors):
    renderer.load(base)
    asked = itertools.count()
    with pytest.raises(Cancelled):
        renderer.load(heart, cancelled=lambda: next(asked) >= tensors)
    with pytest.raises(RenderError, match="holds no checkpoint yet"):
        renderer.images([PROMPT], **QUICK)
    renderer.load(heart)
    fresh = wb.Renderer(renderer.config)
    fresh.load(heart)
    assert renderer.images([PROMPT], **QUICK)[0].tobytes() == fresh.images([PROMPT], **QUICK)[0].tobytes()


def test_drawing_that_is_given_up_ends_at_the_next_step(renderer, base):
    renderer.load(base)
    asked = []
    with pytest.raises(Cancelled):
        renderer.images([PROMPT], steps=30, cancelled=lambda: asked.append(0) or len(asked) == 3)
    assert len(asked) == 3
    assert len(renderer.images([PROMPT], **QUICK)) == 1
