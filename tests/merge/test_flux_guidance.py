"""The schnell/Krea merge: an average, and a rule for what only one of the two has: guidance weights, or whole blocks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import workbench as wb
from workbench.errors import MergeError

FLUX = Path(__file__).resolve().parents[1] / "vectors" / "flux_guidance"
GUIDANCE = "time_text_embed.guidance_embedder.linear_1"
average, nearest = wb.operators.weighted_average, wb.operators.nearest


@pytest.fixture
def schnell() -> wb.Checkpoint:
    return wb.open(FLUX / "schnell.safetensors")


@pytest.fixture
def krea() -> wb.Checkpoint:
    return wb.open(FLUX / "krea.safetensors")


def rule(take: object) -> list[dict[str, object]]:
    return [{"match": "*guidance*", "take": take}]


def test_taken_from_the_model_that_has_it_guidance_is_kept_bit_for_bit(schnell, krea):
    for take in (krea, "krea", "models[1]"):
        merge = average([schnell, krea], rules=rule(take))
        assert set(merge) == set(krea)
        for part in ("weight", "bias"):
            assert torch.equal(merge[f"{GUIDANCE}.{part}"], krea[f"{GUIDANCE}.{part}"])
    assert torch.equal(merge["proj_out.bias"], ((schnell["proj_out.bias"].float() + krea["proj_out.bias"].float()) / 2).bfloat16())


def test_taken_from_the_model_that_lacks_it_guidance_is_dropped_and_that_is_said_once(schnell, krea):
    merge = average([schnell, krea], rules=rule(schnell))
    assert set(merge) == set(schnell)
    found = wb.preflight(merge)
    assert found.ok
    (said,) = [finding.text for finding in found.findings if "guidance" in finding.text]
    assert said == f"weighted_average: '{GUIDANCE}.bias' and 1 more is not in the result: a rule takes it from schnell, which lacks it"


def test_without_a_rule_the_note_names_the_keys_and_the_rules_that_would_decide(schnell, krea):
    (note,) = wb.preflight(average([schnell, krea])).notes
    assert note == (
        f"weighted_average: '{GUIDANCE}.bias' and 1 more (transformer 2) is not in schnell and is merged from the others; to decide "
        f"otherwise, add the rule {{match: '{GUIDANCE}.*', take: 'models[1]'}}, or {{match: '{GUIDANCE}.*', skip: true}}"
    )


def test_a_method_that_needs_every_key_of_both_refuses_and_its_rule_mends_it(schnell, krea):
    blend = wb.operators.fft_blend
    refused = blend(krea, schnell, coefficients={"constant": 0})
    with pytest.raises(MergeError, match=rf"'{GUIDANCE}.bias' and 1 more .*is only in krea, not in schnell.*add the rule") as error:
        wb.preflight(refused).raise_errors()
    assert f"{{match: '{GUIDANCE}.*', take: 'first'}}" in str(error.value)
    mended = blend(krea, schnell, coefficients={"constant": 0}, rules=[{"match": f"{GUIDANCE}.*", "take": "first"}])
    assert wb.preflight(mended).ok
    assert torch.equal(mended[f"{GUIDANCE}.weight"], krea[f"{GUIDANCE}.weight"])


def test_an_unexpected_key_is_named_and_not_dropped_in_silence(schnell, krea):
    (warning,) = wb.preflight(wb.operators.ties(schnell, [krea])).warnings
    assert f"'{GUIDANCE}.bias' and 1 more is not in the result: it is only in krea" in warning


def test_models_of_different_depth_are_refused_block_by_block_until_a_rule_decides(krea, tmp_path):
    short = tmp_path / "short.safetensors"
    lacking = ["transformer_blocks.1.attn.to_q.weight"]
    save_file({key: krea.read(key) for key in krea if key not in lacking}, short)
    for models in ([krea, wb.open(short)], [wb.open(short), krea]):
        (error,) = wb.preflight(average(models)).errors
        assert "is of double_blocks.1, which krea has and short lacks; " in error
        assert f"{{match: '{lacking[0]}', take: 'models[{models.index(krea)}]'}}" in error
        kept = average(models, rules=[{"match": lacking[0], "take": krea}])
        assert wb.preflight(kept).ok
        assert all(torch.equal(kept[key], krea[key]) for key in lacking)
        assert wb.preflight(average(models, rules=[{"match": lacking[0], "merge": True}])).ok


def test_a_rule_brings_in_what_only_a_later_model_has_or_leaves_it_out_without_a_word(schnell, krea):
    def ties(action):
        return wb.operators.ties(schnell, [krea], density=1.0, rules=[{"match": "*guidance*"} | action])

    kept, skipped = ties({"take": krea}), ties({"skip": True})
    assert set(kept) == set(krea)
    assert torch.equal(kept[f"{GUIDANCE}.weight"], krea[f"{GUIDANCE}.weight"])
    assert set(skipped) == set(schnell)
    for merge in (kept, skipped):
        found = wb.preflight(merge)
        assert (found.errors, found.warnings) == ((), ())
    (error,) = wb.preflight(ties({"take": schnell})).errors
    assert "decides nothing" in error
