"""sd-mecha's recipes: each text has the numbers of the merge written in our own way; what has no exact counterpart is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import workbench as wb
from workbench.errors import RecipeError

ops = wb.operators
SPACE = 'model_config="sd1-ldm" merge_space="weight"'
MODELS = "\n".join(f'model "{name}.safetensors" {SPACE}' for name in ("base", "a", "b"))  # &0 &1 &2
DELTAS = '\nmerge "subtract" &1 &0\nmerge "subtract" &2 &0\n'  # &3 &4
BLOCKS = [*(f"IN{at:02}" for at in range(12)), "M00", *(f"OUT{at:02}" for at in range(12))]
WEIGHTS = [round(0.02 * at, 2) for at in range(1, 26)]
BY_BLOCK = "dict BASE=0.9 " + " ".join(f"{block}={weight}" for block, weight in zip(BLOCKS, WEIGHTS, strict=True))
LITERAL = 'literal &3 model_config="sd1-supermerger_blocks" merge_space="param"\nmerge "convert_sd1_blocks_to_ldm" &4'


@pytest.fixture
def load(sd_models: Callable[..., Path]) -> Callable[..., wb.Recipe]:
    """Writes a recipe beside three models, and loads it."""
    folder = sd_models()

    def make(text: str) -> wb.Recipe:
        (folder / "merge.mecha").write_text(f"version 0.1.0\n{text}")
        return wb.Recipe.load(folder / "merge.mecha")

    return make


def models(folder: Path) -> list[wb.Checkpoint]:
    return [wb.open(folder / f"{name}.safetensors") for name in ("base", "a", "b")]


def same(made: wb.Checkpoint, ours: wb.Checkpoint) -> bool:
    return list(made) == list(ours) and all(torch.equal(made[key], ours[key]) for key in ours)


def blocks(change: Callable[[float], list[float] | float]) -> dict[str, object]:
    values = {("MID" if name == "M00" else name): change(weight) for name, weight in zip(BLOCKS, WEIGHTS, strict=True)}
    return {"blocks": values | {"out": change(WEIGHTS[-1]), "default": change(0.9)}}


CASES: dict[str, tuple[str, Callable[..., wb.Merge]]] = {
    "a model": ("", lambda c, a, b: ops.weighted_average([b])),
    "weighted_sum": ('merge "weighted_sum" &0 &1 alpha=0.3', lambda c, a, b: ops.weighted_average([c, a], weights=[0.7, 0.3])),
    "weighted_sum by place": ('merge "weighted_sum" &0 &1', lambda c, a, b: ops.weighted_average([c, a])),
    "a literal number": (
        'literal 0.3 model_config="singleton-mecha" merge_space="param"\nmerge "weighted_sum" &0 &1 &3',
        lambda c, a, b: ops.weighted_average([c, a], weights=[0.7, 0.3]),
    ),
    "a number of one key": (
        'dict key=0.3\nliteral &3 model_config="singleton-mecha"\nmerge "weighted_sum" &0 &1 alpha=&4',
        lambda c, a, b: ops.weighted_average([c, a], weights=[0.7, 0.3]),
    ),
    "n_average": ('merge "n_average" &0 &1 &2', lambda c, a, b: ops.weighted_average([c, a, b])),
    "n_average of changes": (
        DELTAS + 'merge "n_average" &3 &4\nmerge "add_difference" &0 &5 alpha=0.8',
        lambda c, a, b: ops.task_arithmetic(c, [a, b], weights=[0.4, 0.4]),
    ),
    "add_difference": (DELTAS + 'merge "add_difference" &2 &3 alpha=0.5', lambda c, a, b: ops.add_difference(b, a, c, strength=0.5)),
    "merges in each other": (
        'merge "slerp" &0 &1 alpha=0.25\nmerge "geometric_sum" &3 &2 alpha=0.5',
        lambda c, a, b: ops.geometric_sum(ops.slerp(c, a, t=0.25, renormalise=True), b, t=0.5),
    ),
    "add_cosine_a": ('merge "add_cosine_a" &0 &1 alpha=0.35', lambda c, a, b: ops.add_cosine_a(c, a, share=0.35)),
    "add_cosine_b": ('merge "add_cosine_b" &0 &1', lambda c, a, b: ops.add_cosine_b(c, a, share=1.0)),
    "train_difference": (
        DELTAS + 'merge "train_difference_mask" &2 &1 &0 alpha=0.7\nmerge "add_difference" &2 &3 alpha=&5',
        lambda c, a, b: ops.train_difference(b, a, c, strength=0.7),
    ),
    "add_opposite": ('merge "add_opposite" &2 &1 &0 alpha=0.7', lambda c, a, b: ops.add_opposite(b, a, c, strength=0.7)),
    "add_strict_opposite": (
        DELTAS + 'merge "add_strict_opposite_mask" &2 &1 &0\nmerge "add_difference" &2 &3 alpha=&5',
        lambda c, a, b: ops.add_strict_opposite(b, a, c),
    ),
    "add_perpendicular": (
        DELTAS + 'merge "perpendicular_component" &4 &3\nmerge "add_difference" &2 &5 alpha=0.7',
        lambda c, a, b: ops.add_perpendicular(b, a, c, strength=0.7),
    ),
    "multiply_quotient": ('merge "multiply_quotient" &2 &1 &0 alpha=0.7', lambda c, a, b: ops.multiply_quotient(b, a, c, strength=0.7)),
    "crossover": ('merge "crossover" &0 &1 alpha=0.37 tilt=0.6', lambda c, a, b: ops.crossover(c, a, t=0.37, tilt=0.6)),
    "clamp": ('merge "clamp" &2 &0 &1 stiffness=0.5', lambda c, a, b: ops.clamp(b, [c, a], stiffness=0.5)),
    "tensor_sum": ('merge "tensor_sum" &0 &1 width=0.4 offset=0.3', lambda c, a, b: ops.tensor_sum(c, a, width=0.4, offset=0.3)),
    "top_k_tensor_sum": ('merge "top_k_tensor_sum" &0 &1 width=0.4', lambda c, a, b: ops.top_k_tensor_sum(c, a, width=0.4)),
    "rotate": ('merge "rotate" &0 &1 alpha=0.25', lambda c, a, b: ops.rotate(c, a, t=0.25)),
    "geometric_median": (
        'merge "geometric_median" &0 &1 &2 maxiter=7 eps=1e-5',
        lambda c, a, b: ops.geometric_median([c, a, b], iterations=7, epsilon=1e-5),
    ),
    "ties_sum": (
        DELTAS + 'merge "ties_sum" &3 &4 vote_sgn=true\nmerge "add_difference" &0 &5 alpha=0.9',
        lambda c, a, b: ops.ties(c, [a, b], density=1.0, strength=0.9),
    ),
    "by block": (
        f'{BY_BLOCK}\n{LITERAL}\nmerge "weighted_sum" &0 &1 alpha=&5',
        lambda c, a, b: ops.weighted_average([c, a], weights=blocks(lambda x: [round(1 - x, 2), x])),
    ),
    "some blocks, and one number for the others": (
        'dict IN00=0.25 M00=0.75\nliteral &3 model_config="sd1-supermerger_blocks"\nmerge "convert_sd1_blocks_to_ldm" &4\n'
        'merge "fallback" &5 0.5\nmerge "slerp" &0 &1 alpha=&6',
        lambda c, a, b: ops.slerp(c, a, t={"blocks": {"IN00": 0.25, "MID": 0.75, "default": 0.5}}, renormalise=True),
    ),
    "cast": (
        '# half precision\n\nmerge "weighted_sum" &0 &1 alpha=5e-1\nmerge "cast" &3 device="cpu" dtype="float16"\n',
        lambda c, a, b: ops.weighted_average([c, a], dtype="float16"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_text_gives_the_merge_that_is_ours(load, tmp_path, case):
    text, ours = CASES[case]
    recipe = load(f"{MODELS}\n{text.lstrip()}")
    made = recipe.build()
    assert same(made, ours(*models(tmp_path)))
    recipe.save(tmp_path / "ours.yaml")
    again = wb.Recipe.load(tmp_path / "ours.yaml")
    assert again == recipe.relative_to(again.folder)
    assert same(again.build(), made)


def test_a_lora_is_a_change_and_quoted_paths_may_hold_anything(load, tmp_path):
    golden = Path(__file__).resolve().parents[1] / "golden"
    shutil.copy(golden / "lora.safetensors", tmp_path / 'a "lora" = 1.safetensors')
    for name in ("base", "a"):
        shutil.copy(golden / f"{name}.safetensors", tmp_path)
    lora = 'model "a \\"lora\\" = 1.safetensors" model_config="sd1-kohya" merge_space="weight"\nmerge "convert_sd1_kohya_to_ldm" &1\n'
    recipe = load(f'model "base.safetensors" {SPACE}\n{lora}merge "add_difference" &0 &2 alpha=0.5')
    base, change = wb.open(tmp_path / "base.safetensors"), wb.open(tmp_path / 'a "lora" = 1.safetensors')
    assert same(recipe.build(), ops.add_delta(base, [change], strengths=[0.5]))


def test_the_header_of_a_merged_file_is_read_and_what_is_left_out_is_told(load, tmp_path):
    text = f'version 0.1.0\n{MODELS}\n{DELTAS}merge "ties_sum" &3 &4 k=0.5 vote_sgn=true\nmerge "add_difference" &0 &5'
    load(MODELS)
    save_file({"x": torch.ones(1)}, tmp_path / "merged.safetensors", {"mecha_recipe": text})
    recipe = wb.Recipe.from_file(tmp_path / "merged.safetensors")
    base, a, b = models(tmp_path)
    assert same(recipe.build(), ops.ties(base, [a, b], density=0.5))
    assert any("keeps one or two elements of each tensor more than ties" in note for note in wb.preflight(recipe.build()).notes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('merge "truncate_rank" &1', "'truncate_rank' has no exact counterpart.*; instead: truncate_rank keeps a rank, not a share"),
        ('merge "model_stock" &1 &2', "'model_stock' has no exact counterpart"),
        ('merge "my_own_method" &1 &2', "'my_own_method' has no exact counterpart .there are: weighted_sum"),
        ('merge "weighted_sum" &0 &1 beta=1', r"weighted_sum: got an unexpected keyword argument 'beta'; it takes \(a, b, alpha=0.5\)"),
        ('merge "weighted_sum" &0 0.5', "weighted_sum of 0.5 has no counterpart; it takes models"),
        ('merge "weighted_sum" &0 &1 alpha=&2', "alpha is a model or a mask; write a number"),
        ('merge "weighted_sum" &0 &9', "line 5: &9 is no earlier result; there are 3 before it"),
        ('merge "subtract" &1 &0', "its last instruction makes no whole model; add a change to a model at the end"),
        ('merge "add_difference" &0 &1', "add_difference adds what is no change of a model; subtract the model"),
        (DELTAS + 'merge "train_difference_mask" &2 &0 &1\nmerge "add_difference" &2 &3 alpha=&5',
         "train_difference_mask is of other models than what it masks"),
        (DELTAS + 'merge "weighted_sum" &3 &4', "weighted_sum of a change has no counterpart"),
        (DELTAS + 'merge "n_average" &3 &4\nmerge "add_difference" &2 &5', "n_average is read of differences from the model it is"),
        (DELTAS + 'merge "ties_sum" &3 &4\nmerge "add_difference" &0 &5', "ties_sum with vote_sgn false leaves out what is tied"),
        ('merge "rotate" &0 &1 alignment=0.5', "rotate with alignment 0.5 goes along another way here; write 0 or 1"),
        ('merge "fallback" &0 &1', "'fallback' has no exact counterpart; instead: a rule"),
        ('dict IN00=0.5\nliteral &3 model_config="sd1-supermerger_blocks"\nmerge "weighted_sum" &0 &1 &4', "lack BASE, IN01, IN02"),
        ('dict IN99=0.5\nliteral &3 model_config="sd1-supermerger_blocks"\nmerge "weighted_sum" &0 &1 &4', "has the key 'IN99'"),
        ('dict BASE=0 VAE=1\nliteral &3 model_config="sdxl-supermerger_blocks"\nmerge "fallback" &4 0\nmerge "weighted_sum" &0 &1 &5',
         "VAE is 1, and BASE 0: .* write a rule"),
        ('dict x=1\nliteral &3 model_config="flux-flux"', "a literal of the model_config 'flux-flux' has no counterpart"),
        ('merge "cast" &0 dtype="int8"', "cast to dtype 'int8', which is not written; it can be float32"),
        ('merge "cast" &0 dtype="float16"\nmerge "weighted_sum" &3 &1', "weighted_sum takes a model that was cast"),
        ('recipe "x"', "line 5 begins with 'recipe'; what is read: dict, literal, model, merge"),
        ('model "x', "line 5 has a quote that does not end"),
        ('"', "line 5 has a quote that does not end"),
        ("model 3", "line 5: model 3.0 is no path"),
        ("merge", "line 5: merge is of nothing"),
        ("\n".join(f'merge "weighted_sum" &{at + 2} &{at + 2}' for at in range(40)), "to a file: a recipe has at most 10,000"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_refused_with_its_line_or_method(load, text, said):
    with pytest.raises(RecipeError, match=said) as found:
        load(f"{MODELS}\n{text.lstrip()}")
    assert "merge.mecha: sd-mecha's recipe: " in str(found.value)


def test_another_version_is_refused(load, tmp_path):
    load(MODELS)
    (tmp_path / "old.mecha").write_text("version 0.0.9\nmodel x")
    with pytest.raises(RecipeError, match=r"it begins with 'version 0\.0\.9'; what is read begins with 'version 0\.1\.0'"):
        wb.Recipe.load(tmp_path / "old.mecha")
