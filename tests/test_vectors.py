"""The original programs' own results: through Python, through a recipe file, and through `workbench merge`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import workbench as wb
from workbench import cli
from workbench.operators import registry

VECTORS = Path(__file__).resolve().parent / "vectors"


@dataclass(frozen=True)
class Vector:
    """An operator's call that a program of old answered: `inputs` and `expected` are files in `folder`."""

    folder: str
    expected: str
    operator: str
    inputs: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    rules: list[dict[str, Any]] | None = None
    exact: bool = False

    def opened(self) -> dict[str, Any]:
        """The inputs as checkpoints."""
        files = {slot: [self._open(name) for name in given] for slot, given in self.inputs.items() if isinstance(given, list)}
        return {slot: files.get(slot) or self._open(given) for slot, given in self.inputs.items()}

    def _open(self, name: str) -> wb.Checkpoint:
        return wb.open(VECTORS / self.folder / f"{name}.safetensors")


LOSSLESS = {"anchor": "a", "first": "b", "second": "c"}
DELTAS = {"base": "a", "models": ["b_prefixed", "c"]}
THREE, TWO = {"models": ["a", "b_prefixed", "c"]}, {"models": ["a", "b_prefixed"]}
FLUX = {"models": ["schnell", "krea"]}
GUIDANCE = [{"match": "*guidance*", "take": "models[0]"}]
A_TO_B = {"ramp": {"start": [1, 0], "end": [0, 1], "first": 1, "last": 4, "elsewhere": [0.5, 0.5]}}
ALL_BLOCKS = {"ramp": {"start": [0.9, 0.1], "end": [0.25, 0.75], "elsewhere": [0.5, 0.5]}}
ALL = [
    Vector("losslessmix", "nearest", "nearest", LOSSLESS, exact=True),
    Vector("losslessmix", "nearest_alpha095_beta11", "nearest", LOSSLESS, {"alpha": 0.95, "beta": 1.1}, exact=True),
    Vector("losslessmix", "nearest_with_vae", "nearest", LOSSLESS, rules=[], exact=True),
    Vector("losslessmix", "farthest", "farthest", LOSSLESS, exact=True),
    Vector("mergeflux", "average_3", "weighted_average", THREE),
    Vector("mergeflux", "ratios_3", "weighted_average", THREE, {"weights": [0.2, 0.5, 0.3]}),
    Vector("mergeflux", "blocks_a_to_b", "weighted_average", TWO, {"weights": A_TO_B}),
    Vector("mergeflux", "blocks_default_range", "weighted_average", TWO, {"weights": ALL_BLOCKS}),
    Vector("mergeflux", "ties_density05", "ties", DELTAS, {"density": 0.5}),
    Vector("mergeflux", "ties_density05", "delta_merge", DELTAS),
    Vector(
        "mergeflux",
        "ties_density03_weights_frequency",
        "ties",
        DELTAS,
        {"density": 0.3, "weights": [0.7, 1.2], "majority_sign": "frequency"},
    ),
    Vector("mergeflux", "none_mean", "delta_merge", DELTAS, {"prune": "none", "combine": "mean"}),
    Vector("mergeflux", "none_sum_weights", "task_arithmetic", DELTAS, {"weights": [0.4, 0.6]}),
    Vector("mergeflux", "none_sum_weights", "delta_merge", DELTAS, {"prune": "none", "combine": "sum", "weights": [0.4, 0.6]}),
    Vector("mergeflux", "magnitude_sum_density02", "magnitude_prune", DELTAS, {"density": 0.2}),
    Vector("mergeflux", "none_disjoint", "delta_merge", DELTAS, {"prune": "none"}),
    Vector("flux_guidance", "guidance_from_schnell", "weighted_average", FLUX, rules=GUIDANCE, exact=True),
]
every_vector = pytest.mark.parametrize("vector", ALL, ids=[f"{one.operator}-{one.expected}" for one in ALL])


def assert_equal(vector: Vector, result: wb.Checkpoint) -> None:
    expected = wb.open(VECTORS / vector.folder / f"expected_{vector.expected}.safetensors")
    assert set(result) == set(expected)
    for key in expected:
        tolerance = 0 if vector.exact else 1e-6
        torch.testing.assert_close(result.read(key), expected.read(key), rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def quantum() -> Vector:
    """The FFT merge with the original's coefficients and no mask of our own; its mask came from a hash that no run repeats."""
    coefficients = wb.open(VECTORS / "quantum" / "conditioning.safetensors")["hyper_out"]
    options = {"coefficients": coefficients.flatten().tolist(), "decoherence_factor": 0.0, "entanglement_strength": 0.7714}
    return Vector("quantum", "", "fft_blend", {"first": "a", "second": "b"}, options)


def assert_equal_where_unmasked(result: wb.Checkpoint) -> None:
    """Within two fp16 units in the last place of the larger of first, second and result, wherever the original's mask was 0."""
    a, b, given, expected = (wb.open(VECTORS / "quantum" / f"{name}.safetensors") for name in ("a", "b", "conditioning", "expected"))
    assert set(result) == set(expected)
    for key in expected:
        read = [checkpoint.read(key).float() for checkpoint in (a, b, expected, result)]
        unit = torch.exp2(torch.stack([tensor.abs() for tensor in read]).amax(0).clamp_min(2**-14).log2().floor() - 10)
        masked = given[f"mask.{key}"].bool() if f"mask.{key}" in given else torch.zeros_like(unit).bool()
        assert masked.float().mean() < 0.3
        assert bool(((read[3] - read[2]).abs() <= 2 * unit)[~masked].all()), key


def write_recipe(vector: Vector, path: Path) -> Path:
    names = [name for given in vector.inputs.values() for name in (given if isinstance(given, list) else [given])]
    node = {"operator": vector.operator, "inputs": vector.inputs, "options": vector.options}
    if vector.rules is not None:
        node["rules"] = vector.rules
    files = {name: str(VECTORS / vector.folder / f"{name}.safetensors") for name in names}
    path.write_text(yaml.safe_dump({"workbench": 1, "models": files, "merge": node}))
    return path


def run_command(vector: Vector, folder: Path, monkeypatch: pytest.MonkeyPatch) -> wb.Checkpoint:
    """What `workbench merge` writes."""
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: folder / "cache" / name)
    recipe, out = write_recipe(vector, folder / "recipe.yaml"), folder / "out.safetensors"
    monkeypatch.setattr("sys.argv", ["workbench", "merge", str(recipe), "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    return wb.open(out)


@every_vector
def test_the_operator_gives_what_the_original_gave(vector):
    assert_equal(vector, registry()[vector.operator](**vector.opened(), **vector.options, rules=vector.rules))


@every_vector
def test_a_recipe_file_gives_what_the_original_gave(vector, tmp_path):
    merge = wb.Recipe.load(write_recipe(vector, tmp_path / "recipe.yaml")).build()
    assert_equal(vector, merge)
    merge.recipe.save(tmp_path / "again.yaml")
    again = wb.Recipe.load(tmp_path / "again.yaml").build()
    assert all(torch.equal(again.read(key), merge.read(key)) for key in merge)


@every_vector
@pytest.mark.filterwarnings("ignore:.*the result has the tensors of base:workbench.errors.MergeWarning")
def test_the_command_gives_what_the_original_gave(vector, tmp_path, monkeypatch):
    merged = run_command(vector, tmp_path, monkeypatch)
    assert_equal(vector, merged)
    assert json.loads(merged.metadata["sd_merge_recipe"])["recipe"]["merge"]["operator"] == vector.operator


def test_the_fft_merge_gives_what_the_original_gave_where_it_was_not_masked(quantum, tmp_path, monkeypatch):
    assert_equal_where_unmasked(wb.operators.fft_blend(**quantum.opened(), **quantum.options))
    assert_equal_where_unmasked(wb.Recipe.load(write_recipe(quantum, tmp_path / "recipe.yaml")).build())
    assert_equal_where_unmasked(run_command(quantum, tmp_path, monkeypatch))
