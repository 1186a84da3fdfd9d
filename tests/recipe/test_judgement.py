"""Preflight: everything that matters is said before a weight is read, and nothing is dropped in silence."""

from __future__ import annotations

import pytest
import torch
from held import Held

import workbench as wb
from workbench.errors import MergeError

average, add_difference = wb.operators.weighted_average, wb.operators.add_difference
UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."
SD1 = {
    f"{UNET}input_blocks.1.1.proj_in.weight": (2, 2, 1, 1),
    f"{UNET}middle_block.0.x": (2,),
    f"{UNET}time_embed.0.bias": (2,),
    f"{VAE}a": (1,),
    f"{VAE}b": (1,),
    f"{TEXT}c": (2,),
}
SDXL = {
    f"{UNET}label_emb.0.0.weight": (2, 2),
    f"{UNET}input_blocks.1.1.proj_in.weight": (2, 2),
    "conditioner.embedders.0.transformer.text_model.c": (2,),
}


def held(shapes: dict[str, tuple[int, ...]], name: str, *without: str) -> Held:
    return Held({key: torch.zeros(shape) for key, shape in shapes.items() if not key.startswith(without or ("-",))}, name)


def test_models_of_two_architectures_are_named_and_nothing_is_read():
    one, other = held(SD1, "photo"), held(SDXL, "paint")
    found = wb.preflight(average([one, other]))
    assert found.errors == ("weighted_average: photo is SD 1.x, paint is SDXL; only models of one architecture can be merged",)
    with pytest.raises(MergeError, match=r"photo is SD 1\.x, paint is SDXL"):
        found.raise_errors()
    assert not one.reads
    assert not other.reads


def test_models_without_a_name_in_common_are_strangers():
    found = wb.preflight(average([Held({"x": torch.ones(1)}, "a"), Held({"y": torch.ones(1)}, "b")]))
    assert found.errors[0].startswith(
        "weighted_average: a (generic, plain names) and b (generic, plain names) have no tensor name in common"
    )


def test_a_whole_component_that_is_missing_is_one_error_with_one_rule():
    base = held(SD1, "base")
    found = wb.preflight(add_difference(base, held(SD1, "tuned", VAE), base))
    assert len(found.errors) == 1
    assert "the whole vae (2 tensors) is only in base and base-2, not in tuned" in found.errors[0]
    assert "add the rule {component: 'vae', take: 'base'}" in found.errors[0]
    mended = add_difference(base, held(SD1, "tuned", VAE), base, rules=[{"component": "vae", "take": "base"}])
    assert wb.preflight(mended).ok


def test_single_tensors_that_are_missing_are_counted_by_block():
    shapes = SD1 | {f"{UNET}middle_block.0.y": (2,)}
    base = held(shapes, "base")
    (error,) = wb.preflight(add_difference(base, held(shapes, "tuned", f"{UNET}middle_block.0.x", f"{UNET}time"), base)).errors
    assert f"'{UNET}middle_block.0.x' and 1 more (MID 1, unet 1) is only in base" in error
    assert error.endswith(f"{{match: '{UNET}middle_block.0.x', skip: true}}, for each of them")  # a pattern would fit healthy ones too


def test_every_shape_that_differs_is_an_error_with_both_shapes():
    other = SD1 | {f"{TEXT}c": (3,)}
    (error,) = wb.preflight(average([held(SD1, "a"), held(other, "b")])).errors
    assert "has different shapes: [2] in a, [3] in b" in error


def test_what_the_operator_answers_itself_is_a_note():
    found = wb.preflight(average([held(SD1, "a"), held(SD1, "b", VAE)]))
    assert found.ok
    (note,) = found.notes
    assert note.startswith("weighted_average: the whole vae (2 tensors) is not in b and is merged from the others; ")
    assert note.endswith("add the rule {component: 'vae', take: 'models[0]'}, or {component: 'vae', skip: true}")


def test_tensors_only_a_later_model_has_are_not_dropped_in_silence():
    found = wb.preflight(wb.operators.task_arithmetic(held(SD1, "base", VAE), [held(SD1, "tuned")]))
    assert f"task_arithmetic: '{VAE}a' and 1 more is not in the result: it is only in tuned, and the result has the tensors of base" in (
        found.warnings
    )


def test_models_that_predict_different_things_are_a_warning():
    v = Held({**{key: torch.zeros(shape) for key, shape in SD1.items()}, "v_pred": torch.empty(0)}, "v")
    assert "eps predicts epsilon, v predicts v" in wb.preflight(average([held(SD1, "eps"), v])).warnings[0]


def test_two_vaes_are_merged_with_a_note():
    assert any("the VAEs of a, b are merged too" in note for note in wb.preflight(average([held(SD1, "a"), held(SD1, "b")])).notes)


def test_a_block_pattern_that_fits_nothing_is_an_error():
    found = wb.preflight(average([held(SD1, "a")], weights={"blocks": {"IN7*": 1, "IN01": 2}}))
    (error,) = found.errors
    assert "weighted_average: weights: no block matches 'IN7*'; the blocks are IN01, MID; the modules beside them" in error


def test_a_rule_that_decides_nothing_is_an_error_unless_it_is_optional():
    def judged(*rules):
        return wb.preflight(average([held(SD1, "a"), held(SD1, "b")], rules=list(rules)))

    guidance = {"match": "*guidance*", "take": "models[0]"}
    why = "decides nothing: no tensor fits it, or an earlier rule goes first; mend it, or add optional: true to it"
    assert judged(guidance).errors == (f"weighted_average: the rule {{match: '*guidance*'}} {why}",)
    assert judged({"match": "*weight", "merge": True}, guidance | {"match": "*weight"}).errors == (
        f"weighted_average: the rule {{match: '*weight'}} {why}",
    )
    assert judged(guidance | {"optional": True}).ok


def test_a_block_that_is_not_there_is_an_error():
    found = wb.preflight(average([held(SD1, "a")], weights={"ramp": {"start": 1, "end": 2, "first": "IN09"}}))
    assert "weights: there is no block 'IN09'" in found.errors[0]


def test_merges_inside_merges_are_judged_too():
    inner = average([held(SD1, "a"), held(SD1 | {f"{TEXT}c": (3,)}, "b")])
    assert "different shapes" in wb.preflight(average([inner, held(SD1, "c")])).errors[0]


def test_a_plain_checkpoint_has_nothing_to_report():
    found = wb.preflight(held(SD1, "a"))
    assert found.ok
    assert found.frame().loc[0, ["model", "architecture", "layout", "components"]].tolist() == [
        "a",
        "SD 1.x",
        "LDM",
        "unet, vae, text_encoder",
    ]


def test_it_shows_itself_as_words_and_as_html():
    found = wb.preflight(average([held(SD1, "a"), held(SDXL, "<b>")]))
    assert "error: weighted_average: a is SD 1.x" in str(found)
    assert "&lt;b&gt; is SDXL" in found._repr_html_()


def test_rules_that_leave_nothing_are_an_error():
    found = wb.preflight(average([held(SD1, "a")], rules=[{"match": "*", "skip": True}]))
    assert found.errors[0].startswith("weighted_average: no tensor is left")


def test_what_names_do_not_tell_is_unknown():
    assert wb.preflight(Held({f"{VAE}a": torch.ones(1)}, "vae")).models[0]["prediction"] == "unknown"
