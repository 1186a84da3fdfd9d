"""Headers of AUTOMATIC1111, SuperMerger and SD.Next: each merge has the numbers of ours, and models are found by name and hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from strange_values import changed

import workbench as wb
from workbench.errors import RecipeError
from workbench.recipe import of_supermerger, siblings
from workbench.untrusted import Refused

ops = wb.operators
BLOCKS = [*(f"IN{at:02}" for at in range(12)), "MID", *(f"OUT{at:02}" for at in range(12))]
ALPHA = [round(0.02 * at, 2) for at in range(1, 26)]
BETA = [round(0.5 - 0.01 * at, 2) for at in range(25)]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """The folder in which hashes are remembered for the length of one test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: folder / name)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def write(sd_models: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a merged file whose header has a recipe of these fields, as the programs write it."""

    def make(kind: str, sdxl: bool = False, **fields: Any) -> Path:
        folder = sd_models(sdxl)
        known = {name: sha256(folder / f"{name}.safetensors") for name in ("base", "a", "b")}
        recipe = {"type": kind} | {key: known.get(str(value), value) for key, value in fields.items()}
        names = {"base": "base.safetensors", "a": "a.safetensors [0123456789]", "b": "sub\\b.safetensors"}
        entry = {"legacy_hash": hashlib.sha256(b"").hexdigest()[:8], "sd_merge_recipe": None}  # as of every small file
        models = {known[name]: {"name": shown} | entry for name, shown in names.items()}
        header = {"format": "pt", "sd_merge_recipe": json.dumps(recipe), "sd_merge_models": json.dumps(models)}
        save_file({"x": torch.ones(1)}, folder / "merged.safetensors", header)
        return folder / "merged.safetensors"

    return make


def models(path: Path) -> list[wb.Checkpoint]:
    return [wb.open(path.parent / f"{name}.safetensors") for name in ("base", "a", "b")]


def same(made: wb.Checkpoint, ours: wb.Checkpoint) -> bool:
    return list(made) == list(ours) and all(torch.equal(made[key], ours[key]) for key in ours)


def webui(method: str, **changes: Any) -> dict[str, Any]:
    return {
        "primary_model_hash": "base", "secondary_model_hash": "a", "tertiary_model_hash": "b", "interp_method": method,
        "multiplier": 0.3, "save_as_half": False, "custom_name": "", "config_source": 0, "bake_in_vae": "None", "discard_weights": "",
        "is_inpainting": False, "is_instruct_pix2pix": False,
    } | changes  # fmt: skip


def supermerger(mode: str, **changes: Any) -> dict[str, Any]:
    return {
        "weights_alpha": None, "weights_beta": None, "weights_alpha_orig": None, "weights_beta_orig": None, "model_a": "base",
        "model_b": "a", "model_c": "b", "base_alpha": 0.4, "base_beta": 0.2, "mode": mode, "mbw": False, "elemental_merge": "",
        "calcmode": "normal", "Off": [""],
    } | changes  # fmt: skip


def sdnext(mode: str, **changes: Any) -> dict[str, Any]:
    return {
        "primary_model_hash": "base", "secondary_model_hash": "a", "tertiary_model_hash": "b", "merge_mode": mode, "alpha": 0.4,
        "beta": 0.2, "precision": "fp16", "custom_name": "x",
    } | changes  # fmt: skip


SUM, ADD = "Weight sum:A*(1-alpha)+B*alpha", "Add difference:A+(B-C)*alpha"
TRIPLE, TWICE = "Triple sum:A*(1-alpha-beta)+B*alpha+C*beta", "sum Twice:(A*(1-alpha)+B*alpha)*(1-beta)+C*beta"
MBW = {"mbw": True, "weights_alpha": ALPHA, "weights_beta": BETA}


def by_block(change: Callable[[float, float], list[float] | float], base: Any) -> dict[str, Any]:
    """What 25 weights each come to, written in our own way."""
    values = [change(*pair) for pair in zip(ALPHA, BETA, strict=True)]
    return {"blocks": dict(zip(BLOCKS, values, strict=True)) | {"time_embed": values[0], "out": values[-1], "default": base}}


CASES: dict[str, tuple[str, dict[str, Any], Callable[..., wb.Merge]]] = {
    "webui weighted sum": ("webui", webui("Weighted sum"), lambda a, b, c: ops.weighted_average([a, b], weights=[0.7, 0.3])),
    "webui add difference in half": (
        "webui", webui("Add difference", save_as_half=True), lambda a, b, c: ops.add_difference(a, b, c, strength=0.3, dtype="float16"),
    ),
    "webui no interpolation": (
        "webui", webui("No interpolation", secondary_model_hash=None, tertiary_model_hash=None), lambda a, b, c: ops.weighted_average([a]),
    ),
    "webui inpainting": (
        "webui", webui("Weighted sum", is_inpainting=True), lambda a, b, c: ops.task_arithmetic(a, [b], weights=[0.3]),
    ),
    "webui without weights": (
        "webui", webui("Weighted sum", discard_weights=r"first_stage_model\.|time_embed"),
        lambda a, b, c: ops.weighted_average(
            [a, b], weights=[0.7, 0.3], rules=[{"component": "vae", "skip": True}, {"match": "*time_embed*", "skip": True}]
        ),
    ),
    "webui baked": (
        "webui", webui("Add difference", bake_in_vae="b.safetensors"),
        lambda a, b, c: ops.add_difference(a, b, c, strength=0.3, rules=[{"component": "vae", "take": "original"}]),
    ),
    "supermerger sum": ("sd-webui-supermerger", supermerger(SUM), lambda a, b, c: ops.weighted_average([a, b], weights=[0.6, 0.4])),
    "supermerger add": ("sd-webui-supermerger", supermerger(ADD), lambda a, b, c: ops.add_difference(a, b, c, strength=0.4)),
    "supermerger train": (
        "sd-webui-supermerger", supermerger("Add", calcmode="trainDifference"), lambda a, b, c: ops.train_difference(a, b, c, strength=0.4),
    ),
    "supermerger triple": (
        "sd-webui-supermerger", supermerger(TRIPLE), lambda a, b, c: ops.weighted_average([a, b, c], weights=[0.4, 0.4, 0.2]),
    ),
    "supermerger twice": (
        "sd-webui-supermerger", supermerger(TWICE), lambda a, b, c: ops.weighted_average([a, b, c], weights=[0.48, 0.32, 0.2]),
    ),
    "supermerger by block": (
        "sd-webui-supermerger", supermerger(SUM, **MBW),
        lambda a, b, c: ops.weighted_average([a, b], weights=by_block(lambda x, y: [round(1 - x, 2), x], [0.6, 0.4])),
    ),
    "supermerger by block as text, the base first": (
        "sd-webui-supermerger", supermerger(ADD, mbw=True, weights_alpha="0.9," + ",".join(map(str, ALPHA))),
        lambda a, b, c: ops.add_difference(a, b, c, strength=by_block(lambda x, y: x, 0.9)),
    ),
    "supermerger triple by block": (
        "sd-webui-supermerger", supermerger(TRIPLE, **MBW),
        lambda a, b, c: ops.weighted_average([a, b, c], weights=by_block(lambda x, y: [round(1 - x - y, 4), x, y], [0.4, 0.4, 0.2])),
    ),
    "sdnext sum": ("SDNext", sdnext("weighted_sum"), lambda a, b, c: ops.weighted_average([a, b], weights=[0.6, 0.4], dtype="float16")),
    "sdnext subtraction": (
        "SDNext", sdnext("weighted_subtraction", precision="fp32"), lambda a, b, c: ops.weighted_average([a, b], weights=[1, -0.08]),
    ),
    "sdnext triple": (
        "SDNext", sdnext("triple_sum", precision="fp32"), lambda a, b, c: ops.weighted_average([a, b, c], weights=[0.4, 0.4, 0.2]),
    ),
    "sdnext add": ("SDNext", sdnext("add_difference", precision=None), lambda a, b, c: ops.add_difference(a, b, c, strength=0.4)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_header_gives_the_merge_that_is_ours(write, case):
    kind, fields, ours = CASES[case]
    path = write(kind, **fields)
    assert same(wb.Recipe.load(path).build(), ours(*models(path)))


def test_an_sdxl_models_embeddings_stay_as_in_the_first_model(write):
    xl = [*([0.5] * 18), 0.75]
    path = write("sd-webui-supermerger", sdxl=True, **supermerger(SUM, mbw=True, weights_alpha=[*xl, 0]))
    recipe = wb.Recipe.from_file(path)
    blocks = {"OUT08": [0.25, 0.75], "out": [0.25, 0.75], "time_embed": [1, 0], "label_emb": [1, 0], "default": [0.6, 0.4]}
    half = {name: [0.5, 0.5] for name in (*BLOCKS[:9], "MID", *BLOCKS[13:21])}
    base, a, _ = models(path)
    assert same(recipe.build(), ops.weighted_average([base, a], weights={"blocks": half | blocks}))
    sd1 = [*xl[:9], 0.1, 0.1, 0.1, *xl[9:], 0.9, 0.9, 0.9]  # of which it takes those of blocks that SDXL has
    of_sd1 = write("sd-webui-supermerger", sdxl=True, **supermerger(SUM, mbw=True, weights_alpha=sd1))
    assert same(wb.Recipe.from_file(of_sd1).build(), recipe.build())
    plain = wb.Recipe.from_file(write("sd-webui-supermerger", sdxl=True, **supermerger(SUM))).build()
    untouched = {"time_embed": [1, 0], "label_emb": [1, 0], "default": [0.6, 0.4]}
    assert same(plain, ops.weighted_average([base, a], weights={"blocks": untouched}))
    assert any("leaves an SDXL model's time_embed and label_emb as in model A, and so does this recipe" in note for note in recipe.notes)


def test_blocks_that_a_model_does_not_have_count_for_nothing(write, tmp_path):
    path = write("sd-webui-supermerger", **supermerger(SUM, **MBW))
    for name in ("base", "a"):
        tensors = {key: tensor for key, tensor in wb.open(tmp_path / f"{name}.safetensors").items() if "_blocks.11." not in key}
        save_file(tensors, tmp_path / f"{name}.safetensors")
    header = wb.open(path).metadata
    changed = {f"model_{slot}": sha256(tmp_path / f"{name}.safetensors") for slot, name in (("a", "base"), ("b", "a"))}
    recipe = json.loads(header["sd_merge_recipe"]) | changed
    entries = {recipe["model_a"]: {"name": "base.safetensors"}, recipe["model_b"]: {"name": "a.safetensors"}}
    save_file({"x": torch.ones(1)}, path, {"sd_merge_recipe": json.dumps(recipe), "sd_merge_models": json.dumps(entries)})
    found = wb.Recipe.from_file(path)
    base, a, _ = models(path)
    ours = by_block(lambda x, y: [round(1 - x, 2), x], [0.6, 0.4])
    ours["blocks"] = {name: value for name, value in ours["blocks"].items() if name not in ("IN11", "OUT11")}
    assert same(found.build(), ops.weighted_average([base, a], weights=ours))
    assert "IN11, OUT11 are no blocks of base: what is told for them counts for nothing" in found.notes


def test_models_are_found_by_hash_under_another_name_and_checked_under_their_own(write, tmp_path):
    path = write("webui", **webui("Weighted sum"))
    (tmp_path / "a.safetensors").rename(tmp_path / "renamed.safetensors")
    recipe = wb.Recipe.from_file(path)
    assert recipe.data.models["a"].path == "renamed.safetensors"
    assert any("a: renamed.safetensors is taken, found by its sha256" in note for note in recipe.notes)
    assert list(recipe.data.models) == ["base", "a"]
    (tmp_path / "base.safetensors").write_bytes((tmp_path / "b.safetensors").read_bytes())
    with pytest.raises(RecipeError, match="is not the file the recipe was made with"):
        recipe.build()


def test_the_json_alone_is_read_from_a_file_and_saved_as_ours(write, tmp_path):
    path = write("webui", **webui("Add difference"))
    header = wb.open(path).metadata
    (tmp_path / "both.json").write_text(json.dumps({key: header[key] for key in ("sd_merge_recipe", "sd_merge_models")}))
    (tmp_path / "recipe.json").write_text(header["sd_merge_recipe"])
    both, alone = wb.Recipe.load(tmp_path / "both.json"), wb.Recipe.load(tmp_path / "recipe.json")
    assert same(both.build(), alone.build())
    assert any("is told by its hash alone" in note for note in alone.notes)
    both.save(tmp_path / "ours.yaml")
    again = wb.Recipe.load(tmp_path / "ours.yaml")
    assert again == both.relative_to(again.folder)
    assert again.notes == ()


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("webui", webui("Sigmoid"), "interp_method 'Sigmoid' is not known; what is read: No interpolation, Weighted sum, Add difference"),
        ("webui", webui("Weighted sum", secondary_model_hash=None), "secondary_model_hash names no model, got None"),
        ("webui", webui("Weighted sum", multiplier="much"), "multiplier must be a number, got 'much'"),
        ("webui", webui("Weighted sum", discard_weights="^model(?!x)"), "is more than patterns can say .* write rules"),
        ("webui", webui("Weighted sum", speed=1), "the recipe has the key 'speed'"),
        ("webui", webui("Weighted sum", save_as_half="no"), "save_as_half must be true or false, got 'no'"),
        ("sd-webui-supermerger", supermerger("Quadruple"), "mode 'Quadruple' is not known; what is read: Weight sum"),
        ("sd-webui-supermerger", supermerger(SUM, calcmode="cosineA"), "calcmode 'cosineA' has no exact counterpart .*: add_cosine_a"),
        ("sd-webui-supermerger", supermerger(SUM, calcmode="tensor"), "calcmode 'tensor' .* which rounds where SuperMerger cuts"),
        ("sd-webui-supermerger", supermerger(ADD, calcmode="smoothAdd"), "calcmode 'smoothAdd' has no exact counterpart"),
        (
            "sd-webui-supermerger",
            supermerger(SUM, elemental_merge=["IN01:attn:0.5"]),
            r"elemental_merge \['IN01:attn:0.5'\] chooses tensors",
        ),
        ("sd-webui-supermerger", supermerger(SUM, Include=["IN00"]), "Include .'IN00'. chooses tensors"),
        ("sd-webui-supermerger", supermerger(SUM, mbw=True), "mbw is true, and weights_alpha is None; write 25 numbers"),
        ("sd-webui-supermerger", supermerger(SUM, mbw=True, weights_alpha="0.1,0.2"), "weights_alpha has 2 numbers; it must have 25"),
        ("sd-webui-supermerger", supermerger(SUM, base_alpha=None), "base_alpha must be a number, got None"),
        ("SDNext", sdnext("ties_add_difference"), "merge_mode 'ties_add_difference' has no exact counterpart; what is read: weighted_sum"),
        ("SDNext", sdnext("weighted_sum", alpha="GRAD_V"), "alpha 'GRAD_V' is a preset, or differs by block"),
        ("SDNext", sdnext("weighted_sum", precision="fp4"), "precision 'fp4' is not known"),
    ],
)
def test_what_has_no_counterpart_is_refused_with_its_key_and_value(write, kind, fields, said):
    path = write(kind, **fields)
    with pytest.raises(RecipeError, match=said) as found:
        wb.Recipe.from_file(path)
    assert "merged.safetensors: " in str(found.value)


def test_what_is_no_recipe_says_so(write, tmp_path):
    path = write("webui", **webui("Weighted sum"))
    save_file({"x": torch.ones(1)}, path, {"sd_merge_recipe": "{"})
    with pytest.raises(RecipeError, match="the recipe in its header is damaged"):
        wb.Recipe.load(path)
    with pytest.raises(RecipeError, match="carries no Workbench recipe, nor one of another program"):
        wb.Recipe.load(tmp_path / "base.safetensors")


def test_the_header_does_not_say_what_else_was_done_and_preflight_tells(write):
    merge = wb.Recipe.load(write("sd-webui-supermerger", **supermerger(SUM))).build()
    notes = wb.preflight(merge).notes
    assert any("SuperMerger's recipe: does not record a baked VAE" in note for note in notes)


def test_of_flux_models_it_is_refused_for_it_leaves_parts_of_them(write):
    with pytest.raises(RecipeError, match="its models are Flux, of which it leaves parts as in model A; write a recipe with rules"):
        of_supermerger.read({"type": "sd-webui-supermerger"} | supermerger(SUM), {}, "Flux")


def test_a_model_that_is_nowhere_is_named_when_the_recipe_is_built(write, tmp_path):
    path = write("webui", **webui("Weighted sum"))
    (tmp_path / "a.safetensors").unlink()
    recipe = wb.Recipe.from_file(path)
    with pytest.raises(RecipeError, match=r"model 'a': .*a\.safetensors: there is no such file"):
        recipe.build()


def test_very_large_headers_are_refused(write):
    path = write("webui", **webui("Weighted sum"))
    for field in ("sd_merge_recipe", "mecha_recipe"):
        save_file({"x": torch.ones(1)}, path, {field: '"' + "x" * (1 << 20) + '"'})
        with pytest.raises(RecipeError, match="has more than 1,048,576 characters"):
            wb.Recipe.load(path)


@pytest.mark.parametrize("case", ["webui baked", "supermerger triple by block", "sdnext triple"])
def test_whatever_stands_in_a_header_is_read_or_refused(case, tmp_path):
    kind, fields, _ = CASES[case]
    models = {name: {"name": f"{name}.safetensors", "legacy_hash": None} for name in ("base", "a", "b")}
    for found in changed({"sd_merge_recipe": {"type": kind} | fields, "sd_merge_models": models}):
        if isinstance(found, dict):
            with suppress(RecipeError, Refused):
                siblings.of_header({key: json.dumps(value) for key, value in found.items()}, tmp_path)
