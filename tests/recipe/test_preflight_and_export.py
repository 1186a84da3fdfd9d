"""Preflight says what export does: over random models, rules and weights, one is fine exactly when the other succeeds."""

from __future__ import annotations

import warnings

import torch
from held import Held
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import workbench as wb
from workbench.errors import WorkbenchError

operators = wb.operators
UNET, VAE = "model.diffusion_model.", "first_stage_model."
KEYS = [
    *(f"{UNET}{name}" for name in ("out.2.weight", "middle_block.0.x", "input_blocks.4.0.x", "time_embed.0.weight")),
    f"{VAE}decoder.conv_in.weight", "decoder.conv_in.weight", "cond_stage_model.transformer.text_model.embeddings.position_ids",
    "x.extra1", "x.extra2", "v_pred", "alphas_cumprod", "model_ema.decay", "loss.logvar",
]  # fmt: skip
PATTERNS = [*KEYS, "*", "x.*", f"{UNET}*", "*block*", "model_ema.*"]
NUMBERS = st.sampled_from([-1.0, 0.0, 0.5, 1.0])


@st.composite
def models(draw, name: str) -> Held:
    tensors = {}
    for key in draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=len(KEYS), unique=True)):
        integers = key.endswith("position_ids") and draw(st.booleans())
        size = draw(st.sampled_from([2, 2, 2, 3, 0]))
        tensors[key] = (
            torch.arange(size)
            if integers
            else torch.full((size,), draw(NUMBERS), dtype=draw(st.sampled_from([torch.float16, torch.float32])))
        )
    return Held(tensors, name)


rules = st.lists(
    st.builds(
        lambda which, action, optional: which | action | optional,
        st.one_of(
            st.sampled_from(PATTERNS).map(lambda pattern: {"match": pattern}),
            st.sampled_from(["unet", "vae", "text_encoder", "other"]).map(lambda component: {"component": component}),
        ),
        st.sampled_from([{"skip": True}, {"merge": True}, *({"take": one} for one in "abc")]),
        st.sampled_from([{}, {"optional": True}]),
    ),
    max_size=3,
)


def weights() -> st.SearchStrategy[object]:
    values = st.lists(NUMBERS, min_size=2, max_size=2)
    blocks = st.builds(lambda one, other: {"blocks": {"MID": one, "default": other}}, values, values)
    ramp = st.builds(lambda one, other: {"ramp": {"start": one, "end": other, "first": "IN04", "last": "MID"}}, values, values)
    return st.one_of(NUMBERS, values, blocks, ramp)


def merges(a: Held, b: Held, c: Held, chosen: list[object], given: object, name: str) -> wb.Merge:
    if name == "weighted_average":
        return operators.weighted_average([a, b, c] if not isinstance(given, dict) else [a, b], rules=chosen, weights=given)
    if name in ("add_difference", "nearest"):
        return getattr(operators, name)(a, b, c, rules=chosen)
    return getattr(operators, name)(a, [b, c], rules=chosen, weights=given)


@given(
    a=models("a"), b=models("b"), c=models("c"), chosen=rules, given_weights=weights(),
    name=st.sampled_from(["weighted_average", "weighted_average", "add_difference", "nearest", "task_arithmetic", "ties", "dare_linear"]),
    dtype=st.sampled_from([None, "float8_e4m3fn"]),
)  # fmt: skip
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_preflight_is_fine_exactly_when_export_succeeds(tmp_path, a, b, c, chosen, given_weights, name, dtype):
    try:
        merge = merges(a, b, c, chosen, given_weights, name)
    except WorkbenchError:  # refused when it is called
        return
    found = wb.preflight(merge)
    with warnings.catch_warnings(action="ignore"):
        try:
            for key in merge:  # export asks preflight itself: what it would write is read here
                merge[key]
            read = bool(merge.plan.entries)
        except WorkbenchError:
            read = False
        try:
            wb.export(merge, tmp_path / "out.safetensors", dtype=dtype, overwrite=True, progress=False)
            written = True
        except WorkbenchError:
            written = False
    assert found.ok is written
    assert read or not found.ok


def test_options_are_judged_for_the_tensors_that_no_rule_takes():
    a, b = Held({"k": torch.ones(1)}, "a"), Held(dict.fromkeys(("k", "x.one", "x.two"), torch.ones(1)), "b")
    average = operators.weighted_average
    (error,) = wb.preflight(average([a, b], weights=[1, 0], rules=[{"match": "x.one", "take": "models[1]"}])).errors
    assert "weights must not sum to 0" in error
    assert "'x.two'" in error
    assert wb.preflight(average([a, b], weights=[1, 0], rules=[{"match": "x.*", "take": "models[1]"}])).ok
