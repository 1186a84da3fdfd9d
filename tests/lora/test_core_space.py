"""`merge` by any method: against the operators on whole matrices, and the paper's definition on whole bases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from workbench.checkpoint.views.in_memory import InMemory
from workbench.checkpoint.views.low_rank import LowRank
from workbench.errors import InputError, MergeError, OptionError
from workbench.merge import Deltas, Random, Scope, Weight, decorator, operator
from workbench.places import DATA

SHAPES = DATA / "shapes-sd"
QUERY, KEY, CONV = (
    f"unet.down_blocks.0.{rest}"
    for rest in ("attentions.0.transformer_blocks.0.attn1.to_q", "attentions.0.transformer_blocks.0.attn1.to_k", "resnets.0.conv1")
)
ELEMENTWISE = {
    "ties": {"density": 0.4},
    "dare_linear": {"density": 0.6},
    "dare_ties": {},
    "magnitude_prune": {"density": 0.3},
    "breadcrumbs": {"density": 0.6, "gamma": 0.2},
}
SPECTRAL = {"tsv_merge": {}, "iso_c": {"strength": 0.8}}


def lora(name: str, ranks: dict[str, int], seed: int, alpha: float = 1.0, rows: int = 14, others: int = 11) -> LowRank:
    """A LoRA of linear layers and convolutions, each of its own rank."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for module, rank in ranks.items():
        ones = (1, 1) if "conv" in module else ()
        down = (3, 2, 2) if "conv" in module else (others,)
        tensors |= {
            f"{module}.lora_up.weight": torch.randn(rows, rank, *ones, generator=generator),
            f"{module}.lora_down.weight": torch.randn(rank, *down, generator=generator),
            f"{module}.alpha": torch.tensor(alpha * rank),
        }
    return LowRank(InMemory(tensors, name), None)


def three() -> list[LowRank]:
    """Of different ranks and alphas; not all have all layers."""
    return [
        lora("a", {QUERY: 2, KEY: 3, CONV: 2}, 1, alpha=0.5),
        lora("b", {QUERY: 4, CONV: 1}, 2, alpha=2.0),
        lora("c", {QUERY: 1, KEY: 2}, 3),
    ]


def changes(loras: list[LowRank], key: str, strengths: list[float]) -> list[torch.Tensor]:
    """The whole matrices in float64, zero where a LoRA has none."""
    shape = next(lora for lora in loras if key in lora)[key].flatten(1).shape
    found = [lora[key].double().flatten(1) if key in lora else torch.zeros(shape, dtype=torch.float64) for lora in loras]
    return [change * strength for change, strength in zip(found, strengths, strict=True)]


def bases(loras: list[LowRank], key: str) -> tuple[np.ndarray, np.ndarray]:
    """The reference bases, by numpy, from whole matrices: of all balanced factors side by side."""
    ups, downs = [], []
    for one in loras:
        if key in one:
            left, values, right = np.linalg.svd(one[key].double().flatten(1).numpy(), full_matrices=False)
            kept = int((values > 1e-6 * values[0]).sum())
            ups.append(left[:, :kept] * np.sqrt(values[:kept]))
            downs.append(np.sqrt(values[:kept])[:, None] * right[:kept])
    left = np.linalg.svd(np.concatenate(ups, 1), full_matrices=False)
    right = np.linalg.svd(np.concatenate(downs), full_matrices=False)
    rank = lambda values: int((values > 1e-6 * values[0]).sum())  # noqa: E731
    return left[0][:, : rank(left[1])], right[2][: rank(right[1])].T


def test_a_sum_is_the_sum_in_the_core_space_too():
    loras, strengths = three(), [0.5, -1.0, 2.0]
    plain, core = (wb.lora.merge(loras, strengths, method=method) for method in ("linear", "task_arithmetic"))
    assert list(plain) == list(core)
    for key in plain:
        torch.testing.assert_close(core[key], plain[key], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(plain[key].double().flatten(1), sum(changes(loras, key, strengths)), atol=1e-5, rtol=1e-5)
    assert core.report.frame()["rank"].tolist()[:-1] == plain.report.frame()["rank"].tolist()[:-1] == [7, 5, 3]


@pytest.mark.parametrize("method", SPECTRAL)
def test_methods_of_singular_vectors_equal_the_operator_on_whole_matrices(method):
    loras, strengths = three(), [0.5, -1.0, 2.0]
    found = wb.lora.merge(loras, strengths, method=method, **SPECTRAL[method])
    used = wb.operators.find(method)
    for key in found:
        deltas = changes(loras, key, strengths)
        whole = used.function(torch.zeros_like(deltas[0]), deltas, **SPECTRAL[method])
        torch.testing.assert_close(found[key].double().flatten(1), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", SPECTRAL)
def test_they_equal_the_operator_called_with_the_loras_on_a_model(method, tmp_path):
    base, stripes = wb.open(SHAPES / "base.safetensors"), wb.open(SHAPES / "lora" / "stripes.safetensors")
    heart = wb.lora.extract(wb.open(SHAPES / "heart.safetensors"), base, rank=3, include="*attn*", progress=False)
    options = {"convolutions": "matrix"}
    whole = wb.operators.find(method)(base, [stripes, heart], **options, dtype="float32")
    applied = wb.lora.apply(base, [(wb.lora.merge([stripes, heart], method=method, progress=False), 1.0)]).with_dtype("float32")
    changed = [key for key in base if "attn" in key and base.info(key).numel > 1 and not torch.equal(applied[key], base[key].float())]
    assert len(changed) > 20
    for key in changed[::5]:
        torch.testing.assert_close(applied[key], whole[key], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ELEMENTWISE)
def test_methods_that_choose_elements_are_the_papers_definition_on_whole_bases(method):
    """U method(U^T C V) V^T: for these, the elements are those of the cores."""
    loras, strengths, options = three(), [0.5, -1.0, 2.0], ELEMENTWISE[method]
    found = wb.lora.merge(loras, strengths, method=method, seed=5, **options)
    used = wb.operators.find(method)
    for key in found:
        left, right = (torch.from_numpy(np.ascontiguousarray(side)) for side in bases(loras, key))
        ours = torch.linalg.svd(torch.cat([_factor(one, key) for one in loras if key in one], 1), full_matrices=False)[0]
        assert torch.allclose((ours[:, : left.shape[1]].T @ left).abs(), torch.eye(left.shape[1], dtype=torch.float64), atol=1e-4)
        cores = [left.T @ change @ right for change in changes(loras, key, strengths)]
        asked = {"random": Random(5, key)} if "dare" in method else {}
        merged = used.function(torch.zeros_like(cores[0]), cores, **options, **asked)
        torch.testing.assert_close(found[key].double().flatten(1), left @ merged @ right.T, atol=1e-4, rtol=1e-4)


def _factor(one: LowRank, key: str) -> torch.Tensor:
    left, values, _ = torch.linalg.svd(one[key].double().flatten(1), full_matrices=False)
    kept = values > 1e-6 * values[0]
    return left[:, kept] * values[kept].sqrt()


def test_ties_by_hand():
    """Cores in the common space of one change along the first axes and one along the second: the axes themselves."""
    first = LowRank(InMemory({f"{QUERY}.lora_up.weight": torch.tensor([[3.0], [0.0]]), f"{QUERY}.lora_down.weight": torch.eye(2)[:1]}, "a"))
    second = LowRank(
        InMemory({f"{QUERY}.lora_up.weight": torch.tensor([[0.0, 2.0], [5.0, 0.0]]), f"{QUERY}.lora_down.weight": torch.eye(2)}, "b")
    )
    # [[3, 0], [0, 0]] and [[0, 2], [5, 0]]: of 4 elements 1 is kept, 3 and 5
    found = wb.lora.merge([first, second], method="ties", density=0.25)
    torch.testing.assert_close(found[f"{QUERY}.weight"], torch.tensor([[3.0, 0.0], [5.0, 0.0]]), atol=1e-5, rtol=1e-5)


@given(st.integers(0, 1000), st.floats(0.05, 20), st.sampled_from([*ELEMENTWISE, *SPECTRAL]))
def test_a_result_does_not_depend_on_how_a_file_divides_a_change(seed, scale, method):
    """The same change by other factors, another alpha and a rank with nothing in it."""
    one, other = lora("a", {QUERY: 2}, seed), lora("b", {QUERY: 3}, seed + 1)
    up, down = one.factors(f"{QUERY}.weight")
    mixed = torch.tensor([[1.0, 0.5], [0.0, 2.0]])
    tensors = {
        f"{QUERY}.lora_up.weight": torch.cat([up @ mixed * scale, torch.zeros(14, 1)], 1),
        f"{QUERY}.lora_down.weight": torch.cat([torch.linalg.inv(mixed) @ down, torch.ones(1, 11)]),
        f"{QUERY}.alpha": torch.tensor(3.0 / scale),
    }
    twin = LowRank(InMemory(tensors, "a"))
    torch.testing.assert_close(twin[f"{QUERY}.weight"], one[f"{QUERY}.weight"], atol=1e-4, rtol=1e-4)
    key = f"{QUERY}.weight"
    found, again = (wb.lora.merge([which, other], method=method, progress=False)[key] for which in (one, twin))
    torch.testing.assert_close(found, again, atol=2e-3, rtol=2e-3)


def test_no_matrix_of_a_layers_size_is_made(monkeypatch):
    """Layers of 30,000 x 20,000 would take 2.4 GB each."""
    loras = [lora(name, {QUERY: rank}, seed, rows=30_000, others=20_000) for name, rank, seed in (("a", 2, 1), ("b", 3, 2))]
    monkeypatch.setattr(LowRank, "read", lambda *_: pytest.fail("a whole change was read"))
    found = wb.lora.merge(loras, [1.0, 0.5], method="ties", rank=2)
    assert found.report.frame()["rank"].tolist()[:-1] == [2]


def test_a_middle_is_merged_as_the_convolution_that_it_is():
    generator = torch.Generator().manual_seed(0)
    sizes = {"lora_up": (14, 2, 1, 1), "lora_down": (2, 3, 1, 1), "lora_mid": (2, 2, 2, 2)}
    tucker = LowRank(InMemory({f"{CONV}.{name}.weight": torch.randn(size, generator=generator) for name, size in sizes.items()}, "t"))
    other = lora("b", {CONV: 2}, 1)
    found = wb.lora.merge([tucker, other], [1.0, 0.5], method="iso_c")
    key = f"{CONV}.weight"
    deltas = changes([tucker, other], key, [1.0, 0.5])
    whole = wb.operators.iso_c.function(torch.zeros_like(deltas[0]), deltas)
    torch.testing.assert_close(found[key].double().flatten(1), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", [*ELEMENTWISE, *SPECTRAL])
def test_what_is_changed_whole_is_merged_whole_by_the_same_method(method):
    """Norms and biases, and a layer that one LoRA holds whole and the other as factors."""
    generator = torch.Generator().manual_seed(0)
    drawn = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    whole = {f"{QUERY}.diff": drawn(14, 11), f"{QUERY}.diff_b": drawn(14), f"{KEY}.diff_b": drawn(14)}
    loras = [LowRank(InMemory(whole, "a")), lora("b", {QUERY: 2}, 1)]
    loras[1] = LowRank(InMemory({**loras[1].holder, f"{QUERY}.diff_b": drawn(14)}, "b"))
    found = wb.lora.merge(loras, [1.0, 0.5], method=method, rank=1, seed=3)
    assert found.report.frame()["note"].tolist()[:-1] == ["kept whole"] * 3
    used = wb.operators.find(method)
    for key in found:
        deltas = [
            (one[key] * strength if key in one else torch.zeros(found[key].shape)) for one, strength in zip(loras, [1.0, 0.5], strict=True)
        ]
        asked = {"random": Random(3, key)} if "dare" in method else {}
        expected = used.function(torch.zeros_like(deltas[0]), deltas, **asked)
        torch.testing.assert_close(found[key], expected, atol=1e-5, rtol=1e-5)


def test_a_lora_of_strength_0_has_no_part_in_it():
    loras = three()
    found = wb.lora.merge(loras, [1.0, 0.5, 0.0], method="ties")
    alone = wb.lora.merge(loras[:2], [1.0, 0.5], method="ties")
    for key in alone:
        torch.testing.assert_close(found[key], alone[key], atol=1e-5, rtol=1e-5)
    assert len(found) == len(alone)


@pytest.mark.parametrize("limit", [{"rank": 2}, {"target_error": 0.4}, {"max_bytes": 1500}])
def test_the_rank_is_given_as_for_extract(limit, tmp_path):
    exact, found = (wb.lora.merge(three(), method="ties", **asked) for asked in ({}, limit))
    frame = found.report.frame().set_index("layer")
    for key in found:
        error = (found[key] - exact[key]).norm() / exact[key].norm()
        assert frame.loc[key, "relative_error"] == pytest.approx(float(error), abs=1e-4)
    assert 0 < found.report.error < 1
    if "rank" in limit:
        assert set(frame["rank"].dropna()) == {2}
    if "target_error" in limit:
        assert (frame["relative_error"] <= 0.4).all()
    if "max_bytes" in limit:
        assert wb.lora.export(found, tmp_path / "x.safetensors").stat().st_size <= 1500
    for method in ("linear", "ties"):
        with pytest.raises(OptionError, match="merge: give one of rank, target_error and max_bytes, got rank and target_error"):
            wb.lora.merge(three(), method=method, rank=2, target_error=0.5)


def test_random_methods_give_the_same_for_a_seed_on_any_number_of_threads(monkeypatch):
    key = f"{QUERY}.weight"
    once = wb.lora.merge(three(), method="dare_ties", seed=1)
    monkeypatch.setattr("workbench.engine.pool.usual_threads", lambda: 1)
    assert torch.equal(wb.lora.merge(three(), method="dare_ties", seed=1)[key], once[key])
    assert not torch.equal(wb.lora.merge(three(), method="dare_ties", seed=2)[key], once[key])


def test_how_it_was_merged_is_told_and_what_came_to_nothing_too():
    found = wb.lora.merge(three(), method="ties", density=0.3)
    assert "merged by ties (density=0.3) in the core space" in found.report.headline
    one, other = lora("a", {QUERY: 1, KEY: 1}, 1), lora("b", {QUERY: 1}, 2)
    opposite = LowRank(InMemory({name: (-t if name.startswith(KEY) and "up" in name else t) for name, t in one.holder.items()}, "c"))
    assert f"1 changes come to nothing ('{KEY}.weight')" in wb.lora.merge([one, opposite, other], method="iso_c").report.headline
    with pytest.raises(MergeError, match=r"merge: a\+b changes nothing: everything in it is zero"):
        wb.lora.merge([one, other], method="ties", density=0.0)


def test_tsv_tells_where_it_leaves_nothing_of_a_layer_with_fewer_rows_than_loras():
    """min(2 rows, 11) // 3 LoRAs = 0 directions each, as in the paper."""
    loras = [lora(name, {QUERY: 1}, seed, rows=2) for seed, name in enumerate("abc")]
    with pytest.raises(MergeError, match="changes nothing"):
        wb.lora.merge(loras, method="tsv_merge")
    assert wb.lora.merge(loras, method="tsv_merge", directions=1).report.frame()["rank"][0] == 2


def test_methods_of_ones_own_merge_loras_too(monkeypatch):
    monkeypatch.setattr(decorator.registry, "_things", dict(decorator.registry._things))

    @operator(scope=Scope.ELEMENT, keys="base", source="made up for this test")
    def halved_sum(base: Weight, models: Deltas) -> Weight:
        """Half of the sum.

        Shapes: all are of one shape.
        """
        return base + sum(models) / 2

    found = wb.lora.merge(three(), method="halved_sum")
    torch.testing.assert_close(found[f"{QUERY}.weight"], wb.lora.merge(three(), 0.5)[f"{QUERY}.weight"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": "tis"}, r"merge: there is no method 'tis' for LoRAs; did you mean 'ties'\? \(there are: linear, .*tsv_merge"),
        ({"method": "weighted_average"}, "merge: there is no method 'weighted_average' for LoRAs"),
        ({"method": None}, "merge: there is no method None for LoRAs"),
        ({"method": "ties", "density": 3}, r"ties: density must be in \[0, 1\], got 3"),
        ({"method": "ties", "denisty": 0.3}, "ties: there is no option 'denisty'; did you mean 'density'"),
        ({"method": "ties", "weights": [1, 2]}, "merge: ties has no option 'weights' here: strengths= says how much of each LoRA"),
        ({"method": "iso_c", "convolutions": "plain"}, "merge: iso_c has no option 'convolutions' here: the convolutions of a LoRA are"),
        ({"density": 0.3}, r"merge: linear has no option 'density' here: it is the sum of strength \* change"),
        ({"method": "ties", "density": {"blocks": {"default": 0.5}}}, "merge: ties: density cannot differ by block for LoRAs"),
        ({"method": "dare_ties", "seed": -1}, r"merge: seed must be a whole number from 0 to 2\*\*64 - 1, got -1"),
        ({"dtype": "int8"}, "merge: dtype must be one of"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_read(given, said, monkeypatch):
    loras = three()
    monkeypatch.setattr(InMemory, "read", lambda *_: pytest.fail("a factor was read"))
    with pytest.raises(OptionError, match=said):
        wb.lora.merge(loras, **given)


def test_nan_is_refused_by_every_method():
    loras = three()
    loras[1].holder.entries[f"{QUERY}.lora_up.weight"][1, 1] = math.nan
    with pytest.raises(MergeError, match=rf"merge: b: '{QUERY}.weight' holds NaN or infinity"):
        wb.lora.merge(loras, method="tsv_merge")


def hadamard(seed: int) -> LowRank:
    """A LoHa of rank 2, whose change has rank 4 at most."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {"hada_w1_a": (14, 2), "hada_w1_b": (2, 11), "hada_w2_a": (14, 2), "hada_w2_b": (2, 11)}
    return LowRank(InMemory({f"{QUERY}.{name}": torch.randn(size, generator=generator) for name, size in sizes.items()}, "loha"))


@pytest.mark.parametrize("method", ["linear", "tsv_merge"])
def test_loras_of_different_kinds_are_merged_by_their_directions(method):
    loras, key = [hadamard(0), lora("b", {QUERY: 2}, 1)], f"{QUERY}.weight"
    found = wb.lora.merge(loras, [1.0, 0.5], method=method)
    deltas = changes(loras, key, [1.0, 0.5])
    zero = torch.zeros_like(deltas[0])
    whole = sum(deltas) if method == "linear" else wb.operators.tsv_merge.function(zero, deltas)
    torch.testing.assert_close(found[key].double().flatten(1), whole, atol=1e-4, rtol=1e-4)
    assert found.report.frame()["rank"].tolist()[:-1] == [6]
    assert wb.lora.resize(loras[0], rank=2).report.frame()["rank"].tolist()[:-1] == [2]


def test_changes_that_depend_on_a_model_are_refused_with_what_to_do():
    plain = lora("a", {QUERY: 2}, 1)
    dora = LowRank(InMemory({**plain.holder, f"{QUERY}.dora_scale": torch.ones(14, 1)}, "dora"))
    told = rf"dora: '{QUERY}.weight' is changed by a DoRA, which depends on the model.*wb.lora.extract\(wb.lora.apply\(base, \[\(lora"
    for made in (lambda: wb.lora.merge([plain, dora]), lambda: wb.lora.project(dora, plain), lambda: wb.lora.resize(dora, rank=1)):
        with pytest.raises(InputError, match=told):
            made()
