"""`apply`, `merge` and `resize`: against sums and SVDs of whole tensors, in all dialects, and what does not fit together."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from held import Held

import workbench as wb
from workbench.checkpoint.views.in_memory import InMemory
from workbench.checkpoint.views.layouts import like
from workbench.checkpoint.views.low_rank import LowRank
from workbench.errors import CheckpointError, InputError, MergeError, MergeWarning, OptionError
from workbench.places import DATA

SHAPES = DATA / "shapes-sd"
QUERY, CONV = (f"unet.down_blocks.0.{rest}" for rest in ("attentions.0.transformer_blocks.0.attn1.to_q", "resnets.0.conv1"))
LDM = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q"


def lora(name: str, **tensors: torch.Tensor) -> LowRank:
    return LowRank(InMemory(tensors, name))


def linear(module: str, rows: int, others: int, rank: int, alpha: float | None = None) -> dict[str, torch.Tensor]:
    tensors = {f"{module}.lora_up.weight": torch.randn(rows, rank), f"{module}.lora_down.weight": torch.randn(rank, others)}
    return tensors | ({} if alpha is None else {f"{module}.alpha": torch.tensor(alpha)})


def convolution(module: str, rank: int, middle: bool) -> dict[str, torch.Tensor]:
    down = {"lora_down": (rank, 5, 1, 1), "lora_mid": (rank, rank, 3, 3)} if middle else {"lora_down": (rank, 5, 3, 3)}
    return {f"{module}.{name}.weight": torch.randn(shape) for name, shape in {"lora_up": (6, rank, 1, 1), **down}.items()}


def flat(found: wb.Checkpoint, key: str) -> np.ndarray:
    return found[key].double().flatten(1).numpy()


def truncated(matrix: np.ndarray, rank: int) -> np.ndarray:
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank]


@pytest.fixture
def pair() -> tuple[LowRank, LowRank]:
    """Two LoRAs that share a linear layer, which they scale and name differently, and a convolution."""
    first = lora("a", **linear(QUERY, 12, 9, 3, alpha=1.5), **convolution(CONV, 2, middle=False))
    names = [f"lora_unet_input_blocks_1_{rest}" for rest in ("1_transformer_blocks_0_attn1_to_q", "0_in_layers_2")]
    return first, lora("b", **linear(names[0], 12, 9, 2), **convolution(names[1], 3, middle=False), **linear("text_encoder.x", 4, 4, 1))


def test_a_merge_is_the_sum_exactly(pair):
    first, second = pair
    found = wb.lora.merge([first, second], [0.5, -2.0])
    assert list(found) == [f"{QUERY}.weight", f"{CONV}.weight", "text_encoder.x.weight"]  # named as in the first
    for key in first:
        torch.testing.assert_close(found[key], 0.5 * first[key] - 2 * like(second, first)[key], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["text_encoder.x.weight"], -2 * second["text_encoder.x.weight"])
    assert found.report.frame()["rank"].tolist()[:-1] == [5, 5, 1]
    assert found.report.error == 0


def test_a_merge_with_a_rank_is_numpys_truncated_sum_and_tells_its_error(pair):
    exact, found = wb.lora.merge(pair, 0.7), wb.lora.merge(pair, 0.7, rank=2)
    missed = total = 0.0
    frame = found.report.frame().set_index("layer")
    for key in exact:
        whole = flat(exact, key)
        best = truncated(whole, 2)
        np.testing.assert_allclose(flat(found, key), best, atol=1e-5)
        error = np.linalg.norm(whole - best) / np.linalg.norm(whole)
        assert frame.loc[key, "relative_error"] == pytest.approx(error, abs=1e-6)
        missed, total = missed + np.linalg.norm(whole - best) ** 2, total + np.linalg.norm(whole) ** 2
    assert found.report.error == pytest.approx(math.sqrt(missed / total))


def test_what_is_in_both_takes_no_more_room():
    one = lora("a", **linear(QUERY, 12, 9, 3))
    found = wb.lora.merge([one, one], [1.0, 0.5])
    assert found.report.frame()["rank"].tolist()[:-1] == [3]
    torch.testing.assert_close(found[f"{QUERY}.weight"], 1.5 * one[f"{QUERY}.weight"])
    with pytest.raises(MergeError, match=r"merge: a changes nothing: everything in it is zero, or cancels"):
        wb.lora.merge([one, one], 0.0)


def test_what_cancels_is_nothing_though_rounding_is_left_of_it(tmp_path):
    one = lora("a", **linear(QUERY, 12, 9, 3))
    with pytest.raises(MergeError, match=r"merge: a changes nothing: everything in it is zero, or cancels"):
        wb.lora.merge([one, one], [1.0, -1.0])
    with pytest.raises(MergeError, match=r"changes nothing"):  # the same change of other factors
        wb.lora.merge([one, wb.lora.resize(one, rank=3)], [0.7, -0.7])
    other = lora("b", **linear(key := QUERY.replace("to_q", "to_k"), 12, 9, 2))
    assert list(wb.lora.merge([one, other, one], [1.0, 1.0, -1.0])) == [f"{key}.weight"]


def test_embedded_loras_merge_as_they_add():
    base, stripes = wb.open(SHAPES / "base.safetensors"), wb.open(SHAPES / "lora" / "stripes.safetensors")
    heart = wb.lora.extract(wb.open(SHAPES / "heart.safetensors"), base, rank=4)
    both = wb.lora.apply(base, [(stripes, 1.0), (heart, 0.5)])
    one = wb.lora.apply(base, [(wb.lora.merge([stripes, heart], [1.0, 0.5]), 1.0)])
    assert {key for key in base if not torch.equal(both[key], base[key])} == {key for key in base if not torch.equal(one[key], base[key])}
    for key in base:
        torch.testing.assert_close(one[key], both[key], atol=1e-3, rtol=1e-3)  # both are rounded to fp16


def test_a_middle_is_multiplied_out(tmp_path):
    locon, plain = lora("a", **convolution(CONV, 2, middle=True)), lora("b", **convolution(CONV, 1, middle=False))
    key = f"{CONV}.weight"
    found = wb.lora.merge([locon, plain], [1.0, 2.0])
    torch.testing.assert_close(found[key], locon[key] + 2 * plain[key], atol=1e-5, rtol=1e-5)
    smaller = wb.lora.resize(locon, rank=1)
    np.testing.assert_allclose(flat(smaller, key), truncated(flat(locon, key), 1), atol=1e-5)
    again = wb.open(wb.lora.export(smaller, tmp_path / "x.safetensors", format="peft", dtype="float32"))  # which knows no middle
    torch.testing.assert_close(next(iter(again.values())), smaller[key])


def test_whole_changes_are_added_and_stay_whole():
    first = lora("a", **{f"{QUERY}.diff": torch.randn(4, 3), f"{QUERY}.diff_b": torch.ones(4)})
    second = lora("b", **linear(QUERY, 4, 3, 1), **{f"{QUERY}.diff_b": torch.ones(4)})
    found = wb.lora.merge([first, second], [1.0, 0.5], rank=1)
    torch.testing.assert_close(found[f"{QUERY}.weight"], first[f"{QUERY}.weight"] + 0.5 * second[f"{QUERY}.weight"])
    assert found[f"{QUERY}.bias"].tolist() == [1.5] * 4
    assert found.report.frame()["note"].tolist() == ["kept whole", "kept whole", ""]
    assert wb.lora.resize(found, rank=1)[f"{QUERY}.bias"].tolist() == [1.5] * 4


@pytest.mark.parametrize("limit", [{"rank": 2}, {"target_error": 0.3}, {"max_bytes": 60_000}])
def test_resizing_keeps_the_strongest_directions(limit, tmp_path):
    stripes = wb.open(SHAPES / "lora" / "stripes.safetensors")
    found = wb.lora.resize(stripes, **limit)
    frame = found.report.frame().set_index("layer")
    missed = total = 0.0
    for key in stripes:
        whole, rank = flat(stripes, key), int(frame.loc[key, "rank"])
        best = truncated(whole, rank)
        np.testing.assert_allclose(flat(found, key) if rank else 0 * whole, best, atol=1e-6)
        squares = np.linalg.svd(whole, compute_uv=False) ** 2
        assert frame.loc[key, "relative_error"] == pytest.approx(math.sqrt(squares[rank:].sum() / squares.sum()), abs=1e-4)
        if "target_error" in limit:
            assert squares[rank:].sum() <= 0.09 * squares.sum() < squares[rank - 1 :].sum()
        missed, total = missed + np.linalg.norm(whole - best) ** 2, total + (whole**2).sum()
    assert found.report.error == pytest.approx(math.sqrt(missed / total), abs=1e-4)
    size = wb.lora.export(found, tmp_path / "x.safetensors").stat().st_size
    if "max_bytes" in limit:
        assert 0.95 * limit["max_bytes"] < size <= limit["max_bytes"]
        wb.lora.export(wb.lora.resize(stripes, rank=2), tmp_path / "rank.safetensors")
        same = wb.lora.resize(stripes, max_bytes=(tmp_path / "rank.safetensors").stat().st_size)
        assert same.report.error < wb.lora.resize(stripes, rank=2).report.error


def test_a_lora_keeps_its_rank_where_that_is_below_the_one_asked_for(pair):
    found = wb.lora.resize(pair[0], rank=64)
    assert found.report.frame()[["rank", "note"]].values.tolist()[:-1] == [[3, "has no more directions"], [2, "has no more directions"]]
    torch.testing.assert_close(found[f"{QUERY}.weight"], pair[0][f"{QUERY}.weight"])


def test_loras_of_different_models_are_refused_with_the_keys(pair):
    flux = lora("flux", **linear("transformer.double_blocks.0.img_mod.lin", 6, 6, 1))
    said = (
        rf"merge: a is unknown, of a unet \('{QUERY}.weight'.*flux is Flux, of a transformer \('transformer.double_blocks.*one architecture"
    )
    with pytest.raises(MergeError, match=said):
        wb.lora.merge([pair[0], flux])
    wide = lora("wide", **linear(QUERY, 12, 5, 1))
    with pytest.raises(
        MergeError, match=rf"merge: these LoRAs are of different models: '{QUERY}.weight' is \[12, 9\] in a, \[12, 5\] in wide"
    ):
        wb.lora.merge([pair[0], wide])


def test_nan_is_refused_with_its_place(pair):
    pair[0].holder.entries[f"{QUERY}.lora_up.weight"][1, 1] = math.nan
    for made in (lambda: wb.lora.merge(pair), lambda: wb.lora.resize(pair[0], rank=1)):
        with pytest.raises(MergeError, match=rf"(merge|resize): a: '{QUERY}.weight' holds NaN or infinity; mend the file, or leave it out"):
            made()


def test_bad_input_is_refused(pair):
    base = Held({f"{LDM}.weight": torch.ones(12, 9)}, "base")
    for given, said in (([], "one or more LoRAs in a list"), (pair[0], "one or more LoRAs in a list"), ([pair[0], base], "takes LoRAs")):
        with pytest.raises(InputError, match=f"merge takes.*{said.removeprefix('takes ')}" if said[:5] != "takes" else f"merge {said}"):
            wb.lora.merge(given)
    for strengths, said in (
        ([1.0], r"strengths needs one number or 2, one per LoRA, got 1: \[1.0\]"),
        ([1.0, "much"], "strengths must be finite numbers, got 'much'"),
        (math.inf, "strengths must be finite numbers, got inf"),
    ):
        with pytest.raises(OptionError, match=f"merge: {said}"):
            wb.lora.merge(pair, strengths)
    with pytest.raises(OptionError, match="merge: rank must be a whole number from 1, got 0"):
        wb.lora.merge(pair, rank=0)
    with pytest.raises(OptionError, match="resize: give one of rank, target_error and max_bytes, got none"):
        wb.lora.resize(pair[0])
    with pytest.raises(OptionError, match="resize: max_bytes=700 is too little: no direction fits"):
        wb.lora.resize(pair[0], max_bytes=700)
    with pytest.raises(InputError, match=r"resize takes LoRAs \(see workbench.open and workbench.lora.extract\), got <Held 'base'"):
        wb.lora.resize(base, rank=1)


def model() -> Held:
    """Four blocks and a tensor in none, all zero."""
    keys = [
        f"model.diffusion_model.{at}.transformer_blocks.0.attn1.to_q.weight"
        for at in ("input_blocks.1.1", "input_blocks.2.1", "middle_block.1", "output_blocks.3.1")
    ]
    return Held({key: torch.zeros(2, 2) for key in (*keys, "model.diffusion_model.out.2.weight")}, "base")


def ones(base: wb.Checkpoint, name: str) -> LowRank:
    """A LoRA that adds 1 to every number of a model."""
    tensors = {}
    for key in base:
        module = key.removesuffix(".weight")
        tensors |= {f"{module}.lora_up.weight": torch.ones(2, 1), f"{module}.lora_down.weight": torch.ones(1, 2)}
    return lora(name, **tensors)


@pytest.mark.parametrize(
    ("strengths", "expected", "written"),
    [
        ([0.5, 0.25], [0.75] * 5, [0.5, 0.25]),
        ([{"blocks": {"IN*": 1.0, "default": 0.5}}], [1, 1, 0.5, 0.5, 0.5], {"blocks": {"IN*": 1.0, "default": 0.5}}),
        ([{"blocks": {"IN*": 1, "default": 0}}] * 2, [2, 2, 0, 0, 0], {"blocks": {"IN*": 1, "default": 0}}),
        ([{"blocks": {"IN*": 1.0, "default": 0.0}}, {"blocks": {"IN01": 0.5, "MID": 2, "default": 0.1}}], [1.5, 1.1, 2, 0.1, 0.1], None),
        ([{"ramp": {"start": 0, "end": 1, "first": "IN01", "last": "MID", "elsewhere": 2}}, -1], [-1, 1 / 11 - 1, 0, 0, 1], None),
    ],
)
def test_strengths_may_differ_by_lora_and_block(strengths, expected, written):
    base = model()
    loras = [ones(base, name) for name in "ab"[: len(strengths)]]
    merge = wb.lora.apply(base, list(zip(loras, strengths, strict=True)))
    assert merge.call.operator.name == "add_delta"
    assert [merge[key][0, 0].item() for key in base] == pytest.approx(expected, abs=1e-6)
    if written is not None:
        assert merge.options["strengths"] == written


def test_applied_loras_are_written_into_a_recipe(tmp_path):
    base, stripes = wb.open(SHAPES / "base.safetensors"), wb.open(SHAPES / "lora" / "stripes.safetensors")
    merge = wb.lora.apply(base, [(stripes, {"blocks": {"OUT*": 0.5, "default": 1}}), (stripes, 0.25)])
    merge.recipe.save(tmp_path / "recipe.yaml")
    again = wb.Recipe.load(tmp_path / "recipe.yaml").build()
    for key in list(merge)[::50]:
        assert torch.equal(again[key], merge[key])


def test_a_lora_that_does_not_fit_is_never_a_silent_no_op():
    base = Held({f"{LDM}.weight": torch.zeros(12, 9)}, "base")
    second = lora("second", **linear(QUERY, 12, 9, 1), **linear("text_encoder.x", 4, 4, 1))
    with pytest.warns(
        MergeWarning, match=r"'cond_stage_model\.transformer\.text_model\.x\.weight' is not in the result: it is only in second"
    ):
        wb.lora.apply(base, [(second, 1.0)])
    flux = lora("flux", **linear("transformer.double_blocks.0.img_mod.lin", 6, 6, 1))
    with pytest.raises(MergeError, match=r"base is SD 1\.x, flux is Flux; only models of one architecture"):
        wb.lora.apply(base, [(flux, 1.0)])
    wide = lora("wide", **linear(QUERY, 12, 5, 1))
    with pytest.raises(MergeError, match=rf"'{LDM}.weight' has different shapes: \[12, 9\] in base, \[12, 5\] in wide"):
        wb.lora.apply(base, [(wide, 1.0)])


def test_what_is_no_pair_of_lora_and_strength_is_refused():
    base = model()
    one = ones(base, "a")
    for given in ([], one, [one], [(one,)], [(one, 1.0, 2.0)], {"a": 1.0}, "a"):
        with pytest.raises(InputError, match=r"apply takes pairs of a LoRA and its strength in a list, such as \[\(lora, 0.8\)\]; got"):
            wb.lora.apply(base, given)
    for strength, said in (
        ([1.0, 0.5], r"apply: a LoRA has one strength, a number or one by block; got \[1.0, 0.5\]"),
        (30.0, r"add_delta: strengths must be a?.*in \[-20, 20\], got 30.0"),
        ("much", "apply: a LoRA has one strength"),
        ({"IN*": 1.0}, "must be a value, {'blocks'"),
    ):
        with pytest.raises(OptionError, match=said):
            wb.lora.apply(base, [(one, strength), (one, 1.0)])
    with pytest.raises(InputError, match="add_delta: deltas takes checkpoints"):
        wb.lora.apply(base, [(1.0, 1.0)])
    with pytest.raises(CheckpointError, match=r"a\.safetensors: there is no such file"):
        wb.lora.apply(base, [("a.safetensors", 1.0)])
    with pytest.raises(OptionError, match=r"apply: a strength no block matches 'IN99'"):
        wb.lora.apply(base, [(one, {"blocks": {"IN99": 1.0}}), (one, 1.0)])
