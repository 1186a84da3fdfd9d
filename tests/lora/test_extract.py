"""`extract`: the strongest directions of a change against NumPy's SVD, what limits allow, what is told, and what a picture shows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from held import Held
from safetensors.numpy import load_file

import workbench as wb
from workbench.checkpoint.views.layouts import like
from workbench.errors import InputError, MergeError, MergeWarning, NonFiniteWarning, OptionError
from workbench.lora.decomposition import SHORT, decompose, energy
from workbench.lora.sizes import pair_overhead
from workbench.places import DATA
from workbench.tensors import PIECE, Flat, Space

SHAPES = DATA / "shapes-sd"
UNET, TEXT = "model.diffusion_model.", "cond_stage_model.transformer.text_model."
LINEAR = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
CONV = f"{UNET}input_blocks.1.0.in_layers.2.weight"
NORM, BIAS = f"{UNET}input_blocks.1.0.in_layers.0.weight", f"{UNET}input_blocks.1.0.in_layers.2.bias"
PROJ = f"{TEXT}encoder.layers.0.self_attn.q_proj.weight"
TABLE = f"{TEXT}embeddings.token_embedding.weight"
VAE = "first_stage_model.decoder.conv_in.weight"
SIZES = {LINEAR: (12, 9), CONV: (6, 5, 3, 3), NORM: (7,), BIAS: (6,), PROJ: (8, 10), TABLE: (20, 4), VAE: (3, 3, 3, 3)}


@pytest.fixture
def pair() -> tuple[Held, Held]:
    """A tuned model, every tensor of which differs from its base's."""
    base = {key: torch.randn(shape) for key, shape in SIZES.items()}
    return Held({key: value + torch.randn(value.shape) for key, value in base.items()}, "tuned"), Held(base, "base")


def change(tuned: wb.Checkpoint, base: wb.Checkpoint, key: str) -> np.ndarray:
    """tuned - base, flat from the second dimension, in float64."""
    difference = tuned[key].double() - base[key].double()
    return difference.flatten(1).numpy() if difference.ndim > 1 else difference.numpy()


def truncated(matrix: np.ndarray, rank: int) -> np.ndarray:
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank]


def measured(lora: wb.Checkpoint, tuned: wb.Checkpoint, base: wb.Checkpoint, keys: list[str]) -> float:
    """The relative error of all these tensors together, from whole tensors."""
    missed = [change(tuned, base, key) - (lora[key].double().numpy().reshape(len(lora[key]), -1) if key in lora else 0) for key in keys]
    return math.sqrt(sum((one**2).sum() for one in missed) / sum((change(tuned, base, key) ** 2).sum() for key in keys))


def test_it_is_the_truncated_svd_of_numpy(pair):
    tuned, base = pair
    lora = wb.lora.extract(tuned, base, rank=3)
    assert lora.space is Space.DELTA
    assert list(lora) == [LINEAR, CONV, PROJ]
    for key in lora:
        np.testing.assert_allclose(lora[key].flatten(1), truncated(change(tuned, base, key), 3), atol=1e-5)
        up, down = lora.factors(key)
        torch.testing.assert_close(up.norm(dim=0), down.norm(dim=1))  # each bears half of a singular value


def test_two_by_two_by_hand():
    base = Held({"x.weight": torch.zeros(2, 2)}, "base")
    lora = wb.lora.extract(Held({"x.weight": torch.tensor([[3.0, 0.0], [0.0, 4.0]])}, "tuned"), base, rank=1)
    torch.testing.assert_close(lora["x.weight"], torch.tensor([[0.0, 0.0], [0.0, 4.0]]))
    assert lora.report.error == pytest.approx(3 / 5)
    row = lora.report.frame().iloc[0]
    assert row[["layer", "rank", "bytes", "note"]].tolist() == ["x.weight", 1, 8, ""]
    assert row["captured_energy"] == pytest.approx(16 / 25)


@pytest.mark.parametrize("shape", [(SHORT + 100, 700), (900, SHORT + 60), (450, 50, 3, 3), (200, 800)])
def test_a_change_of_low_rank_is_found_exactly(shape):
    # the first three are looked for from random directions, the last comes from its Gram matrix
    up, down = torch.randn(shape[0], 12), torch.randn(12, *shape[1:])
    base = Held({"x.weight": torch.randn(shape)}, "base")
    planted = torch.einsum("or,r...->o...", up, down)
    lora = wb.lora.extract(Held({"x.weight": base["x.weight"] + planted}, "tuned"), base, rank=12)
    assert (lora["x.weight"] - planted).norm() < 1e-5 * planted.norm()
    assert lora.report.error < 1e-5
    more = wb.lora.extract(Held({"x.weight": planted}, "tuned"), Held({"x.weight": torch.zeros(shape)}, "base"), rank=40)
    assert (more["x.weight"] - planted).norm() < 1e-5 * planted.norm()


@pytest.mark.parametrize("falls", ["slowly", "steeply", "as far as noise"])
def test_a_large_layers_error_is_within_a_hundredth_of_the_least_there_could_be(falls):
    rows, others, rank = SHORT + 200, 1200, 32
    left, right = (torch.linalg.qr(torch.randn(size, rows))[0] for size in (rows, others))
    steps = torch.arange(rows) + 1.0
    values = {"slowly": steps**-0.7, "steeply": 0.8**steps, "as far as noise": 1 / steps.clamp(max=48)}[falls]
    matrix = (left * values) @ right.T
    found = decompose("x", matrix, energy(matrix), rank)
    least = float((values[rank:].double() ** 2).sum().sqrt())
    missed = float((matrix.double() - found.up.double() @ found.down.double()).norm())
    assert missed < 1.01 * least + 1e-6
    assert math.sqrt(found.left[-1]) == pytest.approx(missed, rel=1e-4, abs=1e-6)


def test_the_error_that_is_told_is_the_error_that_is_measured(pair):
    tuned, base = pair
    lora = wb.lora.extract(tuned, base, rank=3)
    frame = lora.report.frame().set_index("layer")
    for key in lora:
        assert frame.loc[key, "relative_error"] == pytest.approx(measured(lora, tuned, base, [key]), rel=1e-5)
        assert frame.loc[key, "captured_energy"] == pytest.approx(1 - measured(lora, tuned, base, [key]) ** 2, rel=1e-5)
    assert lora.report.error == frame.loc["all", "relative_error"] == pytest.approx(measured(lora, tuned, base, list(lora)), rel=1e-5)
    assert frame["block"].tolist() == ["IN01", "IN01", "text_encoder", "all"]
    assert frame["bytes"].tolist()[:3] == [3 * 2 * size for size in (12 + 9, 6 + 45, 8 + 10)]


def test_a_target_gives_every_layer_the_least_rank_that_reaches_it(pair):
    tuned, base = pair
    lora = wb.lora.extract(tuned, base, target_error=0.4)
    ranks = lora.report.frame().set_index("layer")["rank"]
    for key in lora:
        squares = np.linalg.svd(change(tuned, base, key), compute_uv=False) ** 2
        errors = np.sqrt((1 - squares.cumsum() / squares.sum()).clip(0))
        assert ranks[key] == np.argmax(errors <= 0.4) + 1
        assert measured(lora, tuned, base, [key]) <= 0.4


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("whole", [False, True])
def test_a_size_is_kept_and_used_and_does_better_than_one_rank(dtype, whole, tmp_path):
    tuned, base = (wb.open(SHAPES / f"{name}.safetensors") for name in ("heart", "base"))
    options = {"whole": whole, "dtype": dtype, "progress": False}
    one_rank = wb.lora.extract(tuned, base, rank=6, **options)
    size = wb.lora.export(one_rank, tmp_path / "one-rank.safetensors", dtype=dtype).stat().st_size
    allotted = wb.lora.extract(tuned, base, max_bytes=size, **options)
    for form in ("kohya", "peft")[: 1 if whole else 2]:
        written = wb.lora.export(allotted, tmp_path / f"{form}.safetensors", format=form, dtype=dtype).stat().st_size
        assert written <= size
    assert (tmp_path / "kohya.safetensors").stat().st_size > 0.97 * size
    keys = list(one_rank.report.frame()["layer"][:-1])
    told = [lora.report.error for lora in (allotted, one_rank)]
    assert told[0] < 0.95 * told[1]
    matrices = [key for key in keys if len(base.info(key).shape) > 1]
    assert measured(allotted, tuned, base, matrices) < 0.95 * measured(one_rank, tuned, base, matrices)


def test_a_size_buys_the_most_squared_error_that_its_bytes_could():
    values = {"x.weight": 3 * 0.5 ** torch.arange(8), "y.weight": 0.55 ** torch.arange(6)}
    sides = {"x.weight": (40, 60), "y.weight": (90, 30)}
    base = Held({key: torch.zeros(shape) for key, shape in sides.items()}, "base")
    tuned = Held({key: torch.zeros(shape) for key, shape in sides.items()}, "tuned")
    for key, one in values.items():
        tuned.tensors[key].diagonal()[: len(one)] = one
    squares = [(one**2).numpy() for one in values.values()]
    for size in range(1600, 5000, 100):
        cost = [[0, *(pair_overhead(base, size, key) + 2 * sum(shape) * (rank + 1) for rank in range(8))] for key, shape in sides.items()]
        ranks = [int(rank) for rank in wb.lora.extract(tuned, base, max_bytes=size).report.frame()["rank"].iloc[:-1]]
        spent = sum(prices[rank] for prices, rank in zip(cost, ranks, strict=True))
        assert spent <= size
        ways = {(i, j): squares[0][:i].sum() + squares[1][:j].sum() for i in range(9) for j in range(7) if cost[0][i] + cost[1][j] <= spent}
        assert ways[tuple(ranks)] == max(ways.values())


def test_only_what_is_asked_for_is_taken(pair):
    tuned, base = pair
    for include, keys in (
        ("text_encoder", [PROJ]),
        ("*to_q*", [LINEAR]),
        (["unet", "*q_proj.weight"], [LINEAR, CONV, PROJ]),
        ("input_blocks.1.0.*", [CONV]),
        ("vae", [VAE]),
        ("*", [LINEAR, CONV, PROJ, TABLE, VAE]),
    ):
        assert list(wb.lora.extract(tuned, base, rank=1, include=include)) == keys
    for include, said in (
        ("text_encoder_2", "'text_encoder_2' fits no"),
        ("*to_z*", "fits no tensor"),
        (3, "takes components or"),
        ([], "takes"),
    ):
        with pytest.raises(InputError, match=rf"extract: include.*{said}.*components unet, text_encoder, vae"):
            wb.lora.extract(tuned, base, rank=1, include=include)
    with pytest.raises(InputError, match=r"'\*to_z\*' fits no tensor"):
        wb.lora.extract(tuned, base, rank=1, include=["*to_q*", "*to_z*"])


def test_norms_and_biases_are_kept_whole_when_asked(pair, tmp_path):
    tuned, base = pair
    lora = wb.lora.extract(tuned, base, rank=2, whole=True)
    assert list(lora) == [LINEAR, CONV, PROJ, NORM, BIAS]
    for key in (NORM, BIAS):
        np.testing.assert_array_equal(lora[key].numpy(), (tuned[key] - base[key]).numpy())
    told = lora.report.frame().set_index("layer")
    assert told.loc[NORM, ["relative_error", "bytes", "note"]].tolist() == [0, 14, "kept whole"]
    assert math.isnan(told.loc[NORM, "rank"])
    names = set(load_file(wb.lora.export(lora, tmp_path / "x.safetensors")))
    assert "lora_unet_down_blocks_0_resnets_0_norm1.diff" in names
    assert "lora_unet_down_blocks_0_resnets_0_conv1.diff_b" in names


def test_what_differs_and_is_left_behind_is_told(pair):
    lora = wb.lora.extract(*pair, rank=2)
    assert lora.report.notes == (f"3 more tensors differ and are left out ({NORM!r}, {BIAS!r}, {TABLE!r})",)  # nobody asks for a VAE
    assert lora.report.notes[0] in lora.report.headline
    assert lora.report.headline in repr(lora)
    assert lora._repr_mimebundle_()["text/plain"] == repr(lora)
    assert lora.report.frame()["note"].iloc[-1] == lora.report.notes[0]


def test_what_does_not_differ_is_left_out(pair):
    tuned, base = pair
    tuned.tensors[CONV] = base.tensors[CONV]
    assert list(wb.lora.extract(tuned, base, rank=1)) == [LINEAR, PROJ]
    with pytest.raises(MergeError, match=r"extract: base-2 and base do not differ in any tensor that is asked for"):
        wb.lora.extract(base, base, rank=1)


def test_text_encoders_are_taken_where_they_differ_and_come_back(tmp_path):
    base = wb.open(SHAPES / "base.safetensors")
    tensors = {key: base[key] for key in base}
    keys = [key for key in base if key.startswith(TEXT) and "layers" in key and base.info(key).shape[1:]]
    for key in keys:
        rows, others = tensors[key].shape
        tensors[key] = tensors[key].float() + 0.01 * torch.randn(rows, 2) @ torch.randn(2, others)
    lora = wb.lora.extract(Held(tensors, "tuned"), base, rank=2)
    assert list(lora) == keys
    assert lora.report.error < 1e-3
    assert {key.rsplit(".", 2)[0] for key in load_file(wb.lora.export(lora, tmp_path / "x.safetensors")) if "alpha" not in key} <= {
        f"lora_te_text_model_{key.removeprefix(TEXT).removesuffix('.weight').replace('.', '_')}" for key in keys
    }
    again = wb.lora.apply(base, [(wb.open(tmp_path / "x.safetensors"), 1.0)])
    for key in keys:
        torch.testing.assert_close(again[key].float(), tensors[key], atol=2e-3, rtol=0)


def test_a_few_layers_of_a_model_keep_its_names(tmp_path):
    # the names of some attentions alone do not tell how many layers a level has; the model does
    tuned, base = (wb.open(SHAPES / f"{name}.safetensors") for name in ("stripes", "base"))
    lora = wb.lora.extract(tuned, base, rank=2, include="*input_blocks*attn1.to_q*")
    assert [key.partition(".")[0] for key in load_file(wb.lora.export(lora, tmp_path / "x.safetensors")) if "alpha" in key] == [
        f"lora_unet_down_blocks_{level}_attentions_0_transformer_blocks_0_attn1_to_q" for level in (0, 1)
    ]


def test_merges_are_taken_as_they_are_calculated():
    base = wb.open(SHAPES / "base.safetensors")
    stripes = wb.open(SHAPES / "lora" / "stripes.safetensors")
    lora = wb.lora.extract(wb.lora.apply(base, [(stripes, 0.5)]), base, rank=8)
    found = like(lora, stripes)
    assert set(found) == set(stripes)
    for key in stripes:  # unrounded: in fp16 the rank would not be 8
        torch.testing.assert_close(found[key], 0.5 * stripes[key], atol=2e-6, rtol=0)


def test_a_lora_of_stripes_draws_stripes():
    from workbench.demo.captions import BASE_SHAPES, subjects
    from workbench.demo.exam import GUIDANCE, STEPS
    from workbench.demo.judge import Judge

    tuned, base = (wb.open(SHAPES / f"{name}.safetensors") for name in ("stripes", "base"))
    asked = subjects(BASE_SHAPES, ["stripes"])[::8]
    renderer, judge = wb.Renderer(SHAPES / "config"), Judge(DATA / "shapes-clip")
    seen = {}
    for name, model in {"base": base, "with": wb.lora.apply(base, [(wb.lora.extract(tuned, base, rank=16), 1.0)])}.items():
        renderer.load(model, progress=False)
        pictures = renderer.images([one.caption for one in asked], [0], steps=STEPS, guidance=GUIDANCE, progress=False)
        seen[name] = np.mean([one.style == "stripes" for one in judge.name(pictures)])
    assert seen["with"] >= 0.8
    assert seen["base"] <= 0.2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float64])
def test_dtypes_may_differ(dtype, pair):
    tuned, base = pair
    rounded = Held({key: value.to(dtype) for key, value in tuned.tensors.items()}, "tuned")
    lora = wb.lora.extract(rounded, base, rank=2)
    exact = rounded[LINEAR].double() - base[LINEAR].double()
    np.testing.assert_allclose(lora[LINEAR], truncated(exact.numpy(), 2), atol=1e-5)


def test_nan_and_infinity_are_left_out_and_said(pair):
    tuned, base = pair
    tuned.tensors[CONV][0, 0, 0, 0], base.tensors[PROJ][1, 1] = math.nan, math.inf
    with pytest.warns(NonFiniteWarning, match=f"extract leaves out what holds NaN or infinity: '{PROJ}' in base; '{CONV}' in tuned; mend"):
        lora = wb.lora.extract(tuned, base, rank=1)
    assert list(lora) == [LINEAR]


def test_what_one_of_them_lacks_is_left_out_and_said(pair):
    tuned, base = pair
    del base.tensors[PROJ], tuned.tensors[VAE]  # nobody asks for the VAE
    tuned.tensors[CONV] = torch.randn(6, 5, 1, 1)
    with pytest.warns(MergeWarning) as caught:
        lora = wb.lora.extract(tuned, base, rank=1)
    (said,) = (str(one.message) for one in caught)
    assert said == f"extract, with base as base, leaves tensors out: 1 of another shape in tuned ({CONV!r}); 1 only in tuned ({PROJ!r})"
    assert list(lora) == [LINEAR]


def test_models_of_different_kinds_are_refused(pair):
    tuned, base = pair
    flux = Held({"double_blocks.0.img_mod.lin.weight": torch.ones(3, 1)}, "flux")
    with pytest.raises(MergeError, match=r"extract: base \(SD 1\.x, LDM names\) and flux \(Flux, BFL names\) have no tensor in common"):
        wb.lora.extract(flux, base, rank=1)
    with pytest.raises(InputError, match=r"extract takes checkpoints \(see workbench.open\), got 'tuned.safetensors'"):
        wb.lora.extract("tuned.safetensors", base, rank=1)
    with pytest.raises(InputError, match="base holds weights and lora holds deltas"):
        wb.lora.extract(Held(tuned.tensors, "lora", Space.DELTA), base, rank=1)
    assert not base.reads
    assert not tuned.reads


def test_a_rank_that_no_layer_has_is_told_and_reduced(pair):
    tuned, base = pair
    with pytest.warns(MergeWarning, match="extract: rank 64 is above the smaller dimension of every tensor, and is reduced to 9 or less"):
        lora = wb.lora.extract(tuned, base, rank=64)
    assert lora.report.frame()["rank"].tolist()[:-1] == [9, 6, 8]
    assert set(lora.report.frame()["note"][:-1]) == {"has no more directions"}
    np.testing.assert_allclose(lora[LINEAR], change(tuned, base, LINEAR), atol=1e-5)
    assert lora.report.error < 1e-5
    notes = wb.lora.extract(tuned, base, rank=8).report.frame()["note"].tolist()[:-1]  # some have it: nothing to warn of
    assert notes == ["", "has no more directions", ""]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give one of rank, target_error and max_bytes, got none"),
        ({"rank": 4, "max_bytes": 10000}, "give one of rank, target_error and max_bytes, got rank and max_bytes"),
        ({"rank": 0}, "rank must be a whole number from 1, got 0"),
        ({"rank": 2.5}, "rank must be a whole number from 1, got 2.5"),
        ({"rank": True}, "rank must be a whole number from 1, got True"),
        ({"target_error": 0}, ".* must be above 0 and below 1, got 0"),
        ({"target_error": 1.0}, ".* must be above 0 and below 1, got 1.0"),
        ({"target_error": "low"}, ".* must be above 0 and below 1, got 'low'"),
        ({"max_bytes": -1}, "max_bytes must be a whole number from 1, got -1"),
        ({"max_bytes": 700}, "max_bytes=700 is too little: no direction fits beside the names in the file; allow more"),
        ({"max_bytes": 700, "whole": True}, r"max_bytes=700 is too little: \d+ bytes go to names and whole changes; allow more"),
        ({"rank": 1, "dtype": "int8"}, "dtype must be one of 'float32', 'float16', .*, got 'int8'"),
    ],
)
def test_limits_that_make_no_sense_are_refused(options, said, pair):
    with pytest.raises(OptionError, match=f"extract: {said}"):
        wb.lora.extract(*pair, **options)


def test_each_tensor_is_read_once_in_parts():
    shape = (3, PIECE // 2)
    base, tuned = (
        Held({"x.weight": torch.zeros(shape), "y.weight": torch.zeros(2, 2)}, "base"),
        Held({"x.weight": torch.ones(shape)}, "tuned"),
    )
    with pytest.warns(MergeWarning, match="1 not in tuned"):
        wb.lora.extract(tuned, base, rank=1)
    count = math.prod(shape)
    parts = [("x.weight", Flat(start, min(start + PIECE, count))) for start in range(0, count, PIECE)]
    assert base.reads == parts
    assert tuned.reads == parts


def test_the_same_bits_come_on_any_number_of_threads(monkeypatch):
    base = {f"{name}.weight": torch.randn(SHORT + 50, 500) for name in "abc"}
    models = Held({key: value + torch.randn(value.shape) for key, value in base.items()}, "tuned"), Held(base, "base")
    found = []
    for threads in (1, 3):
        monkeypatch.setattr("workbench.engine.pool.usual_threads", lambda threads=threads: threads)
        found.append(wb.lora.extract(*models, rank=16))
        found.append(wb.lora.extract(*models, max_bytes=60_000))
    for one, other in zip(found[:2], found[2:], strict=True):
        assert list(one) == list(other)
        assert all(torch.equal(one[key], other[key]) for key in one)
        assert one.report.frame().equals(other.report.frame())


def test_the_figure_has_a_panel_for_error_rank_and_size_by_block():
    tuned, base = (wb.open(SHAPES / f"{name}.safetensors") for name in ("stripes", "base"))
    report = wb.lora.extract(tuned, base, rank=4).report
    figure = report.plot()
    frame = report.frame().iloc[:-1]
    errors, ranks, sizes = figure.data
    assert list(errors.x) == ["IN01", "IN02", "IN03", "MID", "OUT00", "OUT01", "OUT02", "OUT03"]
    assert list(ranks.y) == [frame.loc[frame["block"] == block, "rank"].mean() for block in ranks.x]
    assert sum(sizes.y) == pytest.approx(frame["bytes"].sum() / 1e3)
    keys = list(frame.loc[frame["block"] == "MID", "layer"])
    lora = wb.lora.extract(tuned, base, rank=4, include=keys)
    assert errors.y[3] == pytest.approx(lora.report.error)
