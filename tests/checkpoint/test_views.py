"""Views: what they read is what is there, bit for bit; a part is a part of the whole; a source pays only for what is asked."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from held import Held
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import workbench as wb
from workbench.checkpoint.views.layouts import incomplete, like
from workbench.checkpoint.views.matching import match
from workbench.errors import CheckpointError, InputError
from workbench.tensors import Calculation, Flat, Rows, Space, elements

SMALL = {
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "in_channels": 4,
    "joint_attention_dim": 8,
    "pooled_projection_dim": 8,
    "axes_dims_rope": (2, 2, 4),
}
QKV = "double_blocks.0.img_attn.qkv.weight"
QUERY, KEY, VALUE = (f"transformer_blocks.0.attn.to_{one}.weight" for one in "qkv")
OURS = {"x_embedder.bias": torch.zeros(1), "time_text_embed.timestep_embedder.linear_1.bias": torch.zeros(1)}  # what tells a Flux
CLIP = "conditioner.embedders.1.model."


def flux(guidance: bool = True, seed: int = 0) -> dict[str, torch.Tensor]:
    """A small Flux in diffusers' names, of random numbers."""
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        names = FluxTransformer2DModel(**SMALL, guidance_embeds=guidance).state_dict()
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(tensor.shape, generator=generator) for name, tensor in names.items()}


def sdxl_text() -> dict[str, torch.Tensor]:
    """Some tensors of SDXL in single-file names: a fused attention, a transposed projection, a VAE's attention."""
    shapes = {
        f"{CLIP}transformer.resblocks.0.attn.in_proj_weight": (12, 4),
        f"{CLIP}transformer.resblocks.0.attn.in_proj_bias": (12,),
        f"{CLIP}text_projection": (4, 6),
        f"{CLIP}logit_scale": (),
        "first_stage_model.decoder.mid.attn_1.q.weight": (4, 4, 1, 1),
        "model.diffusion_model.label_emb.0.0.weight": (4, 3),
    }
    return {name: torch.randn(shape, generator=torch.Generator().manual_seed(len(name))) for name, shape in shapes.items()}


def copy(view: wb.Checkpoint, name: str = "copy") -> Held:
    """A checkpoint that holds what a view reads."""
    return Held(dict(view), name)


def identical(found: wb.Checkpoint, expected: dict[str, torch.Tensor]) -> bool:
    return set(found) == set(expected) and all(torch.equal(found[key], tensor) for key, tensor in expected.items())


@pytest.mark.parametrize("layout", ["BFL", "ComfyUI"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_flux_comes_back_bit_for_bit(layout, dtype):
    tensors = {name: tensor.to(dtype) for name, tensor in flux().items()}
    there = wb.in_layout(Held(tensors), layout)
    assert there.structure.layout == "BFL"
    assert identical(wb.in_layout(there, "diffusers"), tensors)
    assert identical(wb.in_layout(copy(there), "diffusers"), tensors)


def test_sdxls_text_encoder_and_vae_come_back_bit_for_bit():
    tensors = sdxl_text()
    there = wb.in_layout(Held(tensors), "diffusers")
    assert there["text_encoder_2.text_projection.weight"].tolist() == tensors[f"{CLIP}text_projection"].T.tolist()
    assert there["vae.decoder.mid_block.attentions.0.to_q.weight"].shape == (4, 4)
    assert there["text_encoder_2.text_model.encoder.layers.0.self_attn.v_proj.bias"].tolist() == [
        *tensors[f"{CLIP}transformer.resblocks.0.attn.in_proj_bias"][8:]
    ]
    assert identical(wb.in_layout(copy(there), "LDM"), tensors)


def test_fusions_by_hand():
    names = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    rows = {"attn.to_q": [[1.0]], "attn.to_k": [[2.0]], "attn.to_v": [[3.0]], "proj_mlp": [[4.0], [5.0], [6.0], [7.0]]}
    tensors = {f"single_transformer_blocks.3.{name}.weight": torch.tensor(rows[name]) for name in reversed(names)}
    tensors |= {"norm_out.linear.bias": torch.tensor([1.0, 2.0, 3.0, 4.0])}
    found = wb.in_layout(Held(tensors | OURS), "BFL")
    ours = ("img_in.bias", "time_in.in_layer.bias")
    assert {key: tensor.flatten().tolist() for key, tensor in found.items() if key not in ours} == {
        "single_blocks.3.linear1.weight": [1, 2, 3, 4, 5, 6, 7],
        "final_layer.adaLN_modulation.1.bias": [3, 4, 1, 2],
    }


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_a_part_of_a_view_is_a_part_of_the_whole(data):
    tensors = data.draw(st.sampled_from([flux(), sdxl_text()]))
    source = Held(tensors)
    layout = data.draw(st.sampled_from(["BFL", "diffusers"] if "norm_out.linear.bias" in tensors else ["LDM", "diffusers"]))
    view = wb.in_layout(wb.in_layout(source, layout), data.draw(st.sampled_from(["diffusers", layout])))
    key = data.draw(st.sampled_from(list(view)))
    whole = view.read(key)
    assert (whole.shape, whole.dtype) == (view.info(key).shape, view.info(key).dtype)
    if not whole.shape:
        return
    kind = data.draw(st.sampled_from([Rows, Flat]))
    count = whole.shape[0] if kind is Rows else whole.numel()
    start = data.draw(st.integers(0, count))
    part = kind(start, data.draw(st.integers(start, count)))
    expected = whole[part.start : part.stop] if kind is Rows else whole.reshape(-1)[part.start : part.stop]
    assert torch.equal(view.read(key, part), expected)
    assert torch.equal(view.calculate(key, part, Calculation("float64")), expected.double())


def test_only_what_a_part_needs_is_read():
    source = Held(flux())
    view = wb.in_layout(source, "BFL")
    view.read(QKV, Rows(20, 30))  # of 16 + 16 + 16
    assert source.reads == [(KEY, Flat(4 * 16, 14 * 16))]
    source.reads.clear()
    view.read(QKV, Flat(16 * 16 - 3, 16 * 16 + 5))
    assert source.reads == [(QUERY, Flat(16 * 16 - 3, 16 * 16)), (KEY, Flat(0, 5))]
    source.reads.clear()
    assert wb.in_layout(view, "diffusers").info(KEY).shape == (16, 16)
    assert not source.reads


def test_what_is_read_is_the_callers_to_keep():
    tensors = sdxl_text()
    for layout in ("diffusers", "LDM"):
        view = wb.in_layout(Held(tensors), layout)
        for key in view:
            before = view[key].clone()
            view[key].zero_()
            assert torch.equal(view[key], before)


def test_untouched_tensors_pass_through_and_woven_ones_come_from_the_view(tmp_path):
    save_file(flux(), tmp_path / "flux.safetensors")
    source = wb.open(tmp_path / "flux.safetensors")
    view = wb.in_layout(source, "BFL")
    assert view.origin("img_in.weight") == (source, "x_embedder.weight")
    assert view.fingerprint("img_in.weight") == source.fingerprint("x_embedder.weight")
    assert view.origin(QKV) == (view, QKV)
    assert view.fingerprint(QKV) == wb.in_layout(source, "BFL").fingerprint(QKV) != view.fingerprint(QKV.replace("img", "txt"))
    assert (view.sources(), view.name, view.path, view.nbytes) == (source.sources(), "flux", source.path, source.nbytes)
    assert view.replaced() == ()
    save_file(flux(seed=1) | {"more": torch.zeros(1)}, tmp_path / "flux.safetensors")
    assert view.replaced() == (tmp_path / "flux.safetensors",)


def test_a_view_of_a_merge_is_calculated_and_unrounded():
    one, other = Held(flux(seed=1), "one"), Held(flux(seed=2), "other")
    merge = wb.operators.weighted_average([one, other], dtype="float16")
    view = wb.in_layout(merge, "BFL")
    assert view.origin(QKV) is None
    assert torch.equal(view.read(QKV), torch.cat([merge.read(name) for name in (QUERY, KEY, VALUE)]))
    exact = view.calculate(QKV, None, Calculation())
    assert exact.dtype == torch.float32
    assert not torch.equal(exact, view.read(QKV).float())


def test_the_converted_transformer_computes_the_same():
    from diffusers import FluxTransformer2DModel
    from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers

    tensors = flux()
    config = SMALL | {"guidance_embeds": True}
    bfl = dict(wb.in_layout(Held(tensors), "BFL"))
    states = {"plain": tensors, "view": dict(wb.in_layout(copy(Held(bfl)), "diffusers"))}
    # diffusers' converter knows only the published width: its cut of linear1 is given the one of this model
    double = {key: tensor for key, tensor in bfl.items() if "linear1" not in key}
    wide = {key: torch.zeros(21504, *tensor.shape[1:]) for key, tensor in bfl.items() if "linear1" in key}
    by_diffusers = convert_flux_transformer_checkpoint_to_diffusers(double | wide)
    states["diffusers"] = {key: states["view"][key] if len(tensor) in (3072, 12288) else tensor for key, tensor in by_diffusers.items()}
    found = {}
    for name, state in states.items():
        model = FluxTransformer2DModel(**config)
        model.load_state_dict(state)
        generator = torch.Generator().manual_seed(0)
        inputs = {
            "hidden_states": torch.randn(1, 6, 4, generator=generator),
            "encoder_hidden_states": torch.randn(1, 5, 8, generator=generator),
            "pooled_projections": torch.randn(1, 8, generator=generator),
            "timestep": torch.tensor([0.5]),
            "guidance": torch.tensor([3.5]),
            "img_ids": torch.randint(0, 3, (6, 3), generator=generator).float(),
            "txt_ids": torch.zeros(5, 3),
        }
        with torch.inference_mode():
            found[name] = model(**inputs).sample
    assert found["plain"].abs().sum() > 0
    assert torch.equal(found["plain"], found["view"])
    assert torch.equal(found["plain"], found["diffusers"])


@pytest.mark.parametrize(
    ("names", "layout", "said"),
    [
        (
            ["double_blocks.0.img_mod.lin.bias"],
            "LDM",
            r"held is Flux, which has no layout 'LDM'; choose 'diffusers' or 'original' or 'BFL'",
        ),
        (["middle_block.0.x"], "BFL", r"held is SD 1.x, which has no layout 'BFL'; choose 'diffusers' or 'original' or 'LDM'"),
        (["img_in.weight"], "kohya", r"which has no layout 'kohya'"),
        (["a", "b"], "diffusers", r"held, in layout 'diffusers': its names \('a', ...\) are of no known layout"),
    ],
)
def test_a_layout_that_there_is_not_is_refused(names, layout, said):
    with pytest.raises(CheckpointError, match=said):
        wb.in_layout(Held({name: torch.zeros(1) for name in names}), layout)


def test_what_is_no_checkpoint_is_refused():
    with pytest.raises(InputError, match="in_layout takes a checkpoint"):
        wb.in_layout("flux.safetensors", "diffusers")


def test_a_fusion_that_lacks_a_tensor_names_the_block_and_the_tensor():
    tensors = flux()
    del tensors[KEY]
    with pytest.raises(
        CheckpointError, match=rf"'{QKV}' cannot be had: held has '{QUERY}', '{VALUE}', and not '{KEY}'; get the whole model"
    ):
        wb.in_layout(Held(tensors), "BFL")
    view = like(Held(tensors), wb.in_layout(Held(flux()), "BFL"))
    assert list(incomplete(view)) == [QKV]
    assert set(view) == set(wb.in_layout(Held(flux()), "BFL")) - {QKV}  # what is convertible stays


@pytest.mark.parametrize("shape", [(16, 3), (15, 16)])
def test_a_fusion_of_tensors_that_do_not_go_together_is_refused(shape):
    with pytest.raises(CheckpointError, match=rf"'{KEY}' of shape \[{shape[0]}, {shape[1]}\], .* do not go together"):
        wb.in_layout(Held(flux() | {KEY: torch.zeros(shape)}), "BFL")


def test_a_fused_tensor_that_cannot_be_cut_evenly_is_refused():
    broken = Held({QKV: torch.zeros(5, 2), "double_blocks.0.img_mod.lin.bias": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=rf"the 5 rows of '{QKV}' are not 3 equal parts"):
        wb.in_layout(broken, "diffusers")
    assert set(incomplete(like(broken, Held({QUERY: torch.zeros(2, 2)} | OURS)))) == {QUERY, KEY, VALUE}


def test_a_change_that_is_not_there_is_zero():
    change = torch.randn(16, 16)
    lora = Held({f"transformer.{KEY}": change}, space=Space.DELTA)
    found = like(lora, wb.in_layout(Held(flux()), "BFL"))
    assert found.space is Space.DELTA
    assert torch.equal(found[QKV], torch.cat([torch.zeros(16, 16), change, torch.zeros(16, 16)]))


@pytest.mark.parametrize("layout", ["BFL", "diffusers"])
@given(order=st.permutations([QKV, QUERY, KEY, VALUE, "x_embedder.bias", "txt_in.bias"]))
@settings(max_examples=20, deadline=None)
def test_a_tensor_that_is_there_in_both_layouts_hides_nothing(layout, order):
    shapes = {QKV: (6, 2), QUERY: (2, 2), KEY: (2, 2), VALUE: (2, 2)}
    both = {key: torch.full(shapes.get(key, (1,)), float(len(key))) for key in order}
    mark = {"double_blocks.0.img_mod.lin.bias": torch.zeros(1)}
    found = dict(wb.in_layout(Held(both | mark), layout))
    del found["double_blocks.0.img_mod.lin.bias" if layout == "BFL" else "transformer_blocks.0.norm1.linear.bias"]
    others = {"BFL": {"img_in.bias": "x_embedder.bias", "txt_in.bias": "txt_in.bias"},
              "diffusers": {"x_embedder.bias": "x_embedder.bias", "context_embedder.bias": "txt_in.bias"}}[layout]  # fmt: skip
    expected = {key: both[others.get(key, key)] for key in [*shapes, *others]}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


def test_pieces_of_several_dtypes_go_into_one_that_holds_all():
    tensors = {QUERY: torch.randn(2, 2).half(), KEY: torch.randn(2, 2).bfloat16(), VALUE: torch.randn(2, 2).half()}
    found = wb.in_layout(Held(tensors | OURS), "BFL")
    assert found.info(QKV).dtype == torch.float32
    assert torch.equal(found[QKV], torch.cat([tensors[name].float() for name in (QUERY, KEY, VALUE)]))


def test_a_view_of_what_needs_whole_tensors_is_cut_right():
    base = Held(flux(seed=0), "base")
    merge = wb.operators.ties(base, [Held(flux(seed=1), "a"), Held(flux(seed=2), "b")], density=0.3)
    view = wb.in_layout(merge, "BFL")
    back = wb.in_layout(view, "diffusers")
    for key in (QUERY, "norm_out.linear.weight", "single_transformer_blocks.0.proj_mlp.bias"):
        assert torch.equal(back.read(key), merge.read(key))
        assert torch.equal(back.calculate(key, Flat(3, 7), Calculation()), merge.read(key).reshape(-1)[3:7])
    assert elements(Rows(1, 2), view.info(QKV).shape) == (16, 32)
    assert dataclasses.is_dataclass(view.entries[QKV])


def test_what_training_left_behind_is_not_compared():
    a, b = ({"x": torch.ones(2), "model_ema.x": torch.full((2,), value), "loss.logvar": torch.zeros(1)} for value in (1.0, 9.0))
    matched, left_out = match({"a": Held(a, "a"), "b": Held(b, "b")}, "test")
    assert [next(iter(one.names.values())) for one in matched] == ["x"]
    assert not left_out
