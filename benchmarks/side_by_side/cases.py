"""Each operator as it is measured: its options, its inputs, its recipe, and what is wanted of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.side_by_side.files import Files
from benchmarks.side_by_side.references import WEIGHTS
from workbench.operators import own, singular
from workbench.sweeps.by_method import placed
from workbench.tensors import Scope

# Multiples of the floor, in a running kernel
WANTED: Mapping[str, float] = {
    "weighted_average": 1.4,
    "add_difference": 2,
    "task_arithmetic": 2,
    "nearest": 2.2,
    "dare_linear": 2.5,
    "slerp": 2.5,
    "model_stock": 2.5,
    "dare_ties": 3,
    "ties": 3.5,
    "weighted_similarity": 3,
    "fft_blend": 4,
}
# Weights that tell the models apart; defaults that leave out what costs, or that do not exist
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "weighted_average": {"weights": list(WEIGHTS)},
    "sce": {"density": 0.5},  # at 1 nothing is selected
    "fft_blend": {"coefficients": [0.5, -0.5, 0.25]},
}
# Inputs that a method's name does not place: what corrects a merge gets a model instead of one, so that one operator is measured,
# and a median of two has nothing to look for
_INPUTS: Mapping[str, Mapping[str, Any]] = {
    "clamp": {"model": "base", "bounds": ["first", "second"]},
    "svc": {"base": "base", "merged": "first", "models": ["first", "second"]},
    "truncate_rank": {"base": "base", "tuned": "first"},
    "geometric_median": {"models": ["base", "first", "second"]},
}


@dataclass(frozen=True)
class Case:
    """An operator as it is measured."""

    operator: str
    options: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    @property
    def name(self) -> str:
        return self.label or self.operator

    @property
    def files(self) -> str:
        """On which it is measured: singular vectors of every matrix take minutes on any but light ones."""
        if self.name in WANTED:
            return "large"
        return "light" if own()[self.operator].declaration.function.__module__ == singular.__name__ else "small"

    @property
    def inputs(self) -> dict[str, Any]:
        """Which model goes into which input, by name."""
        if self.operator in _INPUTS:
            return dict(_INPUTS[self.operator])
        return placed(own()[self.operator].declaration, "base", ["first", "second"])  # type: ignore[arg-type,list-item]  # it only deals them out

    @property
    def models(self) -> list[str]:
        """Every input's, once."""
        return list(dict.fromkeys(name for given in self.inputs.values() for name in ([given] if isinstance(given, str) else given)))

    def paths(self, where: Files, files: str) -> list[Path]:
        """Of each model that it takes."""
        return [where.path(files, model) for model in self.models]

    def recipe(self, where: Files, files: str) -> Path:
        """Its recipe beside the files, without the rules that some operators have by default, so that every tensor is calculated."""
        merge = {"operator": self.operator, "inputs": self.inputs, "options": dict(self.options), "rules": []}
        named = {model: where.path(files, model).name for model in self.models}
        found = where.folder / f"{files}-{''.join(letter for letter in self.name if letter.isalnum() or letter == '_')}.yaml"
        found.write_text(yaml.safe_dump({"workbench": 1, "models": named, "merge": merge}, sort_keys=False), encoding="utf-8")
        return found


_WHOLE: Mapping[str, Any] = {"over": "model"}


def cases() -> list[Case]:
    """Every operator, and those that can look at the whole model also so."""
    found = []
    for name, operator in own().items():
        found.append(Case(name, _OPTIONS.get(name, {})))
        if operator.declaration.scope_for(_WHOLE) is Scope.MODEL:
            found.append(Case(name, _WHOLE, f'{name}, over="model"'))
    return found
