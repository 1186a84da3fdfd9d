"""The lazy merge: what it reads, what it computes, which tensors it has, and how options and rules are judged."""

import gc
import weakref

import pytest
import torch
from held import Held

import workbench as wb
from workbench.errors import InputError, MergeError, MissingTensorError, OptionError, UnknownOperatorError
from workbench.merge import operator
from workbench.tensors import Calculation, Delta, Deltas, Flat, Rows, Scope, Space, Weight

average, task_arithmetic, add_difference = (
    getattr(wb.operators, name) for name in ("weighted_average", "task_arithmetic", "add_difference")
)
UNET = "model.diffusion_model."


def held(name: str = "held", **tensors: list[float]) -> Held:
    return Held({key: torch.tensor(value) for key, value in tensors.items()}, name)


def test_nothing_is_read_until_somebody_reads():
    a, b = held("a", x=[1.0], y=[1.0]), held("b", x=[3.0], y=[3.0])
    merge = average([a, b])
    assert (list(merge), merge.info("x").shape, len(merge), "y" in merge) == (["x", "y"], (1,), 2, True)
    assert not a.reads
    assert torch.equal(merge["x"], torch.tensor([2.0]))
    assert a.reads == [("x", None)]


def test_options_leave_the_plan_as_it_is_and_all_else_makes_another():
    a, b, c = held("a", x=[1.0]), held("b", x=[3.0]), held("c", x=[5.0], y=[1.0])
    plan = average([a, b], weights=[0.2, 0.8]).plan
    assert average([a, b], weights=[0.5, 0.5], dtype="float16").plan is plan
    for other in (average([a, b], rules=[{"match": "x", "skip": True}]), average([a, c]), average([a, b, c]), wb.operators.slerp(a, b)):
        assert other.plan is not plan
    assert [*average([a, c]).plan.entries] == ["x", "y"]
    b.name = "renamed"
    assert average([a, b]).plan is not plan, "problems are told by the models' names"


def test_a_plan_does_not_hold_on_to_its_models():
    a, b = held("a", x=[1.0]), held("b", x=[3.0])
    gone = [weakref.ref(a), weakref.ref(b)]
    assert average([a, b]).plan
    del a, b
    gc.collect()
    assert [one() for one in gone] == [None, None]


def test_merges_nest_and_only_the_last_step_rounds():
    a, b = (Held({"x": torch.tensor([value]).half()}) for value in (1.0, 1.0009765625))
    inner = average([a, b])  # between two neighbours in float16
    outer = task_arithmetic(a, [inner], weights=2.0)
    assert torch.equal(outer["x"], b["x"])
    assert inner["x"].dtype == torch.float16


def test_the_result_has_each_tensor_in_the_dtype_of_the_first_model_that_holds_it():
    a, b = Held({"x": torch.ones(1).half()}), Held({"x": torch.ones(1), "y": torch.ones(1).bfloat16()})
    merge = average([a, b])
    assert [merge[key].dtype for key in merge] == [torch.float16, torch.bfloat16]
    assert average([a, b], dtype="float32")["x"].dtype == torch.float32


def test_float64_calculation_keeps_what_float32_loses():
    a, b = Held({"x": torch.tensor([1e8], dtype=torch.float64)}), Held({"x": torch.tensor([1e8 + 1], dtype=torch.float64)})
    assert average([a, b], precision="float64")["x"].item() == 1e8 + 0.5
    assert average([a, b])["x"].item() != 1e8 + 0.5


@pytest.mark.parametrize("key", ["v_pred", "edm_vpred.sigma_max", "alphas_cumprod", "denoiser.sigmas", "edm_mean"])
def test_markers_come_from_the_first_model_that_holds_them(key):
    a, b = Held({key: torch.ones(2), "x": torch.ones(1)}), Held({key: torch.zeros(2), "x": torch.ones(1)})
    assert torch.equal(average([a, b])[key], torch.ones(2))


def test_integers_and_empty_tensors_are_never_averaged():
    a, b = (Held({"steps": torch.tensor([n]), "empty": torch.empty(0)}) for n in (3, 6))
    merge = average([a, b])
    assert torch.equal(merge["steps"], torch.tensor([3]))
    assert merge["empty"].numel() == 0


def test_tensors_match_by_name_without_prefix():
    full = held("full", **{f"{UNET}input_blocks.0.0.bias": [0.0], "first_stage_model.decoder.conv_in.bias": [5.0]})
    unet = held("unet", **{"input_blocks.0.0.bias": [2.0]})
    assert torch.equal(average([full, unet])[f"{UNET}input_blocks.0.0.bias"], torch.tensor([1.0]))
    assert list(average([unet, full])) == ["input_blocks.0.0.bias", "first_stage_model.decoder.conv_in.bias"]


def test_text_encoders_of_old_and_new_transformers_match():
    old, new = (held(**{f"text_encoder.{prefix}final_layer_norm.bias": [value]}) for prefix, value in (("text_model.", 1.0), ("", 3.0)))
    assert torch.equal(average([old, new])["text_encoder.text_model.final_layer_norm.bias"], torch.tensor([2.0]))


def test_an_operator_without_an_answer_refuses_a_missing_tensor_with_the_rule_that_mends_it():
    a, b = held("a", x=[1.0], y=[1.0]), held("b", x=[1.0])
    merge = add_difference(a, b, a)
    with pytest.raises(MergeError, match=r"'y' is only in a and a-2, not in b.*add the rule \{match: 'y', take: 'base'\}"):
        merge["y"]
    mended = add_difference(a, b, a, rules=[{"match": "y", "take": "base"}])
    assert torch.equal(mended["y"], torch.tensor([1.0]))


def test_different_shapes_are_refused_with_both_named():
    merge = average([held("a", x=[1.0]), held("b", x=[1.0, 2.0])])
    with pytest.raises(MergeError, match=r"'x' has different shapes: \[1\] in a, \[2\] in b"):
        merge["x"]


def test_a_rule_takes_a_tensor_untouched_by_slot_name_or_checkpoint():
    a, b = held("a", x=[1.0], y=[0.0]), held("b", x=[3.0], y=[2.0])
    for take in ("models[1]", "b", b):
        merge = average([a, b], rules=[{"match": "x", "take": take}])
        assert torch.equal(merge["x"], torch.tensor([3.0]))
        assert torch.equal(merge["y"], torch.tensor([1.0]))


def test_untouched_means_every_bit():
    odd = torch.tensor([1.0 + 2**-40], dtype=torch.float64)
    merge = average([Held({"x": odd}), Held({"x": odd})], rules=[{"match": "x", "take": "models[0]"}])
    assert torch.equal(merge["x"], odd)


def test_rules_go_by_component_and_the_first_that_fits_decides():
    a, b = (held(name, **{"first_stage_model.x": [v], f"{UNET}out.0.bias": [v]}) for name, v in (("a", 1.0), ("b", 3.0)))
    rules = [{"match": "*out.0*", "merge": True}, {"component": "unet", "skip": True}, {"component": "vae", "take": "a"}]
    merge = average([a, b], rules=rules)
    assert torch.equal(merge[f"{UNET}out.0.bias"], torch.tensor([2.0]))
    assert torch.equal(merge["first_stage_model.x"], torch.tensor([1.0]))


def test_a_pattern_may_leave_the_prefix_out():
    a = held("a", **{f"{UNET}out.0.bias": [1.0], f"{UNET}out.2.bias": [1.0]})
    assert list(average([a, a], rules=[{"match": "out.0.*", "skip": True}])) == [f"{UNET}out.2.bias"]


def test_taking_from_a_model_that_lacks_the_tensor_drops_it_and_says_so_once():
    a, b = held("a", x=[1.0], y=[1.0], z=[1.0]), held("b", x=[1.0])
    merge = average([a, b], rules=[{"match": "*", "take": "b"}])
    assert list(merge) == ["x"]
    assert wb.preflight(merge).notes == ("weighted_average: 'y' and 1 more is not in the result: a rule takes it from b, which lacks it",)
    with pytest.raises(MissingTensorError, match="'y' is not in the merge: a rule takes it from b, which lacks it"):
        merge["y"]


def test_changes_alone_can_be_merged_and_one_that_lacks_a_tensor_counts_as_zeros():
    @operator(scope=Scope.ELEMENT, keys="union", source="a test")
    def mean_of_changes(deltas: Deltas) -> Delta:
        """Average them."""
        return torch.stack(list(deltas)).mean(0)

    one, other = Held({"x": torch.ones(2)}, "one", Space.DELTA), Held({"y": torch.full((4,), 3.0)}, "other", Space.DELTA)
    merge = mean_of_changes([one, other])
    assert torch.equal(merge["y"], torch.full((4,), 1.5))
    assert torch.equal(merge.read("y", Flat(1, 3)), torch.full((2,), 1.5))
    assert torch.equal(merge["x"], torch.full((2,), 0.5))


def test_changes_are_no_weights():
    change = Held({"x": torch.ones(1)}, "change", Space.DELTA)
    with pytest.raises(InputError, match="models takes weights, but change holds changes"):
        average([change, change])


def test_changes_are_added_as_they_are():
    base, change = held(x=[1.0]), Held({"x": torch.tensor([5.0])}, "change", Space.DELTA)
    assert torch.equal(task_arithmetic(base, [change], weights=0.1)["x"], torch.tensor([1.5]))


def test_options_of_a_block_reach_that_block():
    names = [f"{UNET}input_blocks.{i}.0.bias" for i in range(3)]
    a, b = (held(name, **{key: [value] for key in names}) for name, value in (("a", 0.0), ("b", 1.0)))
    merge = average([a, b], weights={"ramp": {"start": [1, 0], "end": [0, 1]}})
    assert [merge[name].item() for name in names] == [0.0, 0.5, 1.0]


def test_a_part_is_asked_of_the_inputs_too():
    a = held("a", x=[[1.0], [2.0], [3.0]])
    average([a, a]).calculate("x", Rows(1, 3), Calculation())
    assert a.reads == [("x", Rows(1, 3))] * 2


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda a: average(a), "models takes a list of one or more checkpoints, got <Held"),
        (lambda a: average([]), r"models takes a list of one or more checkpoints, got \[\]"),
        (lambda a: average(["a.safetensors"]), "models takes checkpoints .* got 'a.safetensors'"),
        (lambda a: average([a], [a]), "takes models; got 2 inputs"),
        (lambda a: add_difference(a, a), "takes base, tuned, original; got 2 inputs"),
        (lambda a: average([a], rules={"match": "x"}), "rules must be a list"),
        (lambda a: average([a], rules=[{"match": "x"}]), "is no rule"),
        (lambda a: average([a], rules=[{"match": "x", "take": "models[0]", "skip": True}]), "is no rule"),
        (lambda a: average([a], rules=[{"take": "models[0]"}]), "is no rule"),
        (lambda a: average([a], rules=[{"match": "x", "take": "models[7]"}]), r"none of its inputs: models\[0\] \(held\)"),
        (lambda a: average([a], rules=[{"component": "unett", "skip": True}]), "must be one of unet, transformer"),
    ],
)
def test_wrong_inputs_and_rules_say_what_is_wrong(make, said):
    with pytest.raises(InputError, match=said):
        make(held(x=[1.0]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weight": 1}, r"there is no option 'weight'; did you mean 'weights'\?"),
        ({"weights": 99}, r"weights must be in \[-10, 10\], got 99"),
        ({"weights": float("nan")}, r"weights must be in \[-10, 10\], got nan"),
        ({"weights": "half"}, r"weights must be a number in \[-10, 10\], got 'half'"),
        ({"weights": True}, "weights must be a number"),
        ({"weights": None}, "weights must be a number"),
        ({"weights": [1, 2, 3]}, r"weights needs one value or 2, one per model, got 3: \[1, 2, 3\]"),
        ({"weights": [1, 99]}, r"got 99"),
        ({"weights": {"blocks": {"IN*": 99}}}, "got 99"),
        ({"weights": {"ramp": {"start": 0, "end": [1]}}}, "one per model, got 1"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"precision": "float16"}, "precision must be one of 'float32', 'float64', got 'float16'"),
        ({"dtype": "int8"}, "dtype must be one of"),
    ],
)
def test_wrong_options_say_what_is_allowed(options, said):
    with pytest.raises(OptionError, match=said):
        average([held(x=[1.0]), held(x=[1.0])], **options)


def test_one_value_options_take_no_list():
    with pytest.raises(OptionError, match="strength takes one value, not a list"):
        add_difference(*[held(x=[1.0])] * 3, strength=[1, 2])


def test_an_unknown_operator_names_those_there_are():
    with pytest.raises(UnknownOperatorError, match="did you mean 'weighted_average'"):
        wb.operators.weighted_avarage  # noqa: B018


@pytest.mark.parametrize(
    ("settings", "lost"), [({"dtype": "bfloat16"}, "dtype='bfloat16'"), ({"precision": "float64"}, "precision='float64'")]
)
def test_an_inner_merge_may_not_ask_for_what_only_the_outermost_decides(settings, lost):
    a = held(x=[1.0])
    inner = average([a, a], **settings)
    with pytest.raises(InputError, match=rf"models\[0\] is a merge with {lost}; give"):
        average([inner, a])
    assert average([average([a, a]), a], **settings)["x"].item() == 1.0


def test_an_operator_of_ones_own_merges_like_the_others():
    @operator(scope=Scope.ELEMENT, keys="base", source="a test", rules=[{"match": "y", "take": "base"}])
    def negative(base: Weight) -> Weight:
        """Turn the sign."""
        return -base

    merge = negative(held(x=[1.0], y=[1.0]))
    assert (merge["x"].item(), merge["y"].item()) == (-1.0, 1.0)
    assert negative(held(x=[1.0], y=[1.0]), rules=[])["y"].item() == -1.0


def test_a_tensor_that_lies_twice_in_a_file_is_not_lost():
    twice = held("twice", **{"model.diffusion_model.out.0.bias": [1.0], "out.0.bias": [2.0]})
    merge = average([twice, twice])
    assert [merge[key].item() for key in merge] == [1.0, 2.0]
