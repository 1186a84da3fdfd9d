"""Every case of the published programs' answers, through the function on float64 and float32, and through a merge of the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.tensors import Space

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "methods"
TOLD = json.loads((VECTORS / "cases.json").read_text())
CASES = {case["name"]: case for case in TOLD["cases"]}


class Given:
    """The numbers that the programs drew."""

    def __init__(self, models: list[Any], key: str) -> None:
        self._models, self._key = models, key

    def uniform(self, like: torch.Tensor, model: int = 0) -> torch.Tensor:
        return self._models[model][self._key].to(like).reshape(like.shape)


def opened(name: str) -> Any:
    return wb.open(VECTORS / f"{name}.safetensors")


def asked(case: dict[str, Any], key: str, dtype: torch.dtype, size: float = 1.0) -> list[Any]:
    """The inputs of a case for one tensor, as the function takes them; changes `size` as large."""
    declaration = wb.operators.find(case["operator"]).declaration
    base = opened(case["inputs"]["base"])[key].to(dtype) if "base" in case["inputs"] else None
    given = []
    for slot in declaration.inputs:
        names = case["inputs"][slot.name]
        tensors = [opened(name)[key].to(dtype) for name in (names if slot.many else [names])]
        if slot.space is Space.DELTA:
            tensors = [(tensor - base) * size for tensor in tensors]
        elif size != 1 and slot.name != "base":
            tensors = [base + (tensor - base) * size for tensor in tensors]
        given.append(tensors if slot.many else tensors[0])
    return given


def plain(case: dict[str, Any]) -> bool:
    """Whether its options are the same in every block, as the function takes them."""
    return not any(isinstance(value, dict) for value in case["options"].values())


def of_function(case: dict[str, Any], key: str, dtype: torch.dtype, size: float = 1.0) -> torch.Tensor:
    extra = {"random": Given([opened(name) for name in case["uniform"]], key)} if "uniform" in case else {}
    return wb.operators.find(case["operator"]).function(*asked(case, key, dtype, size), **case["options"], **extra)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if plain(case)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_the_function_answers_as_the_published_program(name, dtype):
    case, expected = CASES[name], opened(f"expected_{name}")
    for key in opened("base"):
        found = of_function(case, key, dtype)
        assert found.isfinite().all(), key
        if key not in case.get("left_out", ()):
            known = expected[key].double()
            assert (found - known).abs().max() <= case["tolerance"] * known.abs().max(), key


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "uniform" not in case])
def test_a_merge_of_the_files_answers_as_the_published_program(name):
    case, expected = CASES[name], opened(f"expected_{name}")
    inputs = {slot: [opened(one) for one in given] if isinstance(given, list) else opened(given) for slot, given in case["inputs"].items()}
    merge = wb.operators.find(case["operator"])(**inputs, **case["options"])
    for key in set(expected) - set(case.get("left_out", ())):
        known = expected[key].double()
        assert (merge[key] - known).abs().max() <= case["tolerance"] * known.abs().max(), key


@pytest.mark.parametrize("name", TOLD["small"])
def test_changes_a_thousandth_as_large_give_a_thousandth_of_the_change(name):
    case, expected = CASES[name], opened(f"expected_{name}")
    for key in set(expected) - set(case.get("left_out", ())):
        base = opened("base")[key].double()
        change, known = (of_function(case, key, torch.float64, 1e-3) - base) * 1e3, expected[key].double() - base
        assert (change - known).abs().max() <= 10 * case["tolerance"] * max(known.abs().max(), 1e-3), key


def test_della_keeps_elements_as_often_as_the_published_probabilities():
    told = TOLD["della_keep_probability"]
    expected = opened("expected_della_keep_probability")
    base, model = opened("base"), opened(told["model"])
    for key in expected:
        likely = expected[key].double()
        delta = model[key].double() - base[key].double()
        kept = torch.zeros_like(likely)
        for seed in range(400):
            options = {"density": told["density"], "epsilon": told["epsilon"], "rescale": "probability"}
            one = wb.operators.della_linear.function(torch.zeros_like(delta), [delta], **options, random=wb.merge.Random(seed, key))
            kept += one != 0
        error = (kept / 400 - likely).abs() / (likely * (1 - likely) / 400).sqrt()
        assert error.max() < 5, key
        assert np.isclose(float((kept / 400).mean()), float(likely.mean()), atol=0.02)


@pytest.mark.parametrize("name", TOLD["signatures"])
def test_inputs_and_options_are_called_as_the_vectors_call_them(name):
    signature = TOLD["signatures"][name]
    declaration = wb.operators.find(name).declaration
    positional, _, named = signature[len(name) + 1 : -1].partition("*")
    assert [slot.name for slot in declaration.inputs] == [one.strip() for one in positional.split(",") if one.strip()]
    told = [one.strip().split("=") for one in named.split(",") if "=" in one]
    assert list(declaration.options)[: len(told)] == [option for option, _ in told]
    for option, default in told:
        assert declaration.options[option].default == eval(default)  # of the pinned file
