"""`HyperModel`: an average, LoRAs, and what to multiply them with for each model. How they are found is not decided here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.views.low_rank import LowRank
from workbench.engine.inputs import checkpoint as judged
from workbench.engine.inputs import matched
from workbench.engine.reading import Tensors, measured
from workbench.errors import MergeError, OptionError
from workbench.figures.results import Result
from workbench.lora.formats import lora_of
from workbench.lora.hyper_export import rank_of, write
from workbench.lora.hyper_layers import ReducedLayer
from workbench.lora.hyper_solver import MultiplierFit, Solution, on_threads
from workbench.lora.laying import apart
from workbench.merge import Merge
from workbench.tensors import SavedDtype

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    import torch

_WHO = "multipliers_for"


@dataclass(frozen=True, repr=False, eq=False)
class HyperModel(Result):
    """Models as one and a few LoRAs: model = average + sum of multiplier * LoRA.

    - `average`: the mean of the models, as a merge of them; `export` makes it a file of its own.
    - `loras`: changes of low rank, in memory, under the first model's names.
    - `multipliers`: models x LoRAs. The largest of each LoRA is 1; each LoRA's sum to 0.
    - `losses`: a row for each `model` and number of `loras`: 0, and after the first was found, the second, ... all. Columns:
      `mean_squared_residual` over all elements of all tensors compared; `relative_error`, the residual's norm over that of the
      model's difference from the average (below 0.0003 it is rounding); `first_alone`, the relative error with the first so many of
      the LoRAs as they are now (`joint` improved them when more had come); `beyond_loras`, the share of the squared residual that
      lies in tensors which no LoRA can carry; `note`, why a number is missing.
    """

    average: Merge
    loras: list[LowRank]
    multipliers: pd.DataFrame
    losses: pd.DataFrame

    def reconstruct(self, model: int | str) -> Merge:
        """A model, by place or name, from average and LoRAs: `add_delta`, with its multipliers as strengths. Raises OptionError."""
        names = list(self.multipliers.index)
        number = isinstance(model, int) and not isinstance(model, bool) and -len(names) <= model < len(names)
        if not number and model not in names:
            raise OptionError(f"reconstruct: model must be a number below {len(names)} or one of {', '.join(names)}, got {model!r}")
        row = self.multipliers.iloc[model] if number else self.multipliers.loc[model]
        from workbench import operators

        return operators.add_delta(self.average, self.loras, strengths=row.tolist())

    def multipliers_for(self, checkpoint: Checkpoint) -> pd.Series:
        """What to multiply the LoRAs with to come as near as can be to another model: the least squares over all their layers.

        The result's `attrs["relative_error"]` is the norm of what is left over that of the model's difference from the average, over
        all tensors of both. Reads the model and, for the average, all models once. Raises InputError for what is no
        checkpoint, MergeError for one that has none of the layers.
        """
        import pandas as pd

        average = apart(self.average.with_dtype("float32"))
        models = {"average": average, judged(checkpoint, _WHO).name or "model": checkpoint}
        if len(models) < 2:
            models = {"average": average, "model": checkpoint}
        found = measured(models, matched(models, _WHO), self._products, who=_WHO, copies=2)
        square, along, inner = (sum(one[i] for one in found) for i in range(3))
        if not np.any(inner):
            raise MergeError(f"{_WHO}: {checkpoint.name} has none of the layers that the LoRAs change; use a model of their architecture")
        values = np.linalg.pinv(inner, 1e-12, hermitian=True) @ along
        multipliers = pd.Series(values, self.multipliers.columns, name=checkpoint.name)
        multipliers.attrs["relative_error"] = float(np.sqrt(max(1 - values @ along / square, 0))) if square else np.nan
        return multipliers

    def frame(self) -> pd.DataFrame:
        """A row for each model and LoRA: `model`, `lora`, `rank`, `multiplier`, and the losses with it and those before it."""
        import pandas as pd

        rows = self.losses[self.losses["loras"] > 0].reset_index(drop=True)
        names = [self.multipliers.columns[count - 1] for count in rows["loras"]]
        numbers = [self.multipliers.at[model, name] for model, name in zip(rows["model"], names, strict=True)]
        more = pd.DataFrame({"model": rows["model"], "lora": names, "rank": [rank_of(name) for name in names], "multiplier": numbers})
        return pd.concat([more, rows.drop(columns=["model", "loras"])], axis=1)

    @property
    def headline(self) -> str:
        last = self.losses[self.losses["loras"] == len(self.loras)].set_index("model")["relative_error"]
        ranks = ", ".join(str(rank_of(name)) for name in self.multipliers.columns)
        return (
            f"{len(self.multipliers)} models as one and {len(self.loras)} LoRA{'s' * (len(self.loras) > 1)} (rank {ranks}): of the "
            f"difference from the average {last.min():.1%} ({last.idxmin()}) to {last.max():.1%} ({last.idxmax()}) is left"
        )

    def plot(self) -> go.Figure:
        """The relative error of each model over the number of LoRAs."""
        from workbench import figures

        steps = ["average", *(f"{count}: rank {rank_of(name)}" for count, name in enumerate(self.multipliers.columns, 1))]
        frame = self.losses.assign(step=[steps[count] for count in self.losses["loras"]])
        title = "What is left of each model's difference from the average"
        figure = figures.lines(frame, x="step", y="relative_error", colour="model", title=title, x_title="LoRAs", y_title="relative error")
        return figure.update_yaxes(rangemode="tozero")

    def export(self, folder: str | os.PathLike[str], dtype: SavedDtype = "float16") -> Path:
        """Write everything into a new folder, or one that such an export wrote, and return where it lies.

        `NAME.safetensors` is the average and `NAME-1-128.safetensors` the first LoRA, of rank 128, in kohya's format; NAME is the
        folder's. `multipliers.csv` has the multipliers, `prompts.txt` what A1111 takes for each model, `README.md` how good it is.
        The folder is whole or not there. Raises ExportError for a folder that holds anything else or one of the models, for an
        unknown dtype, and for models whose LoRAs have no names outside.
        """
        return write(Path(folder).expanduser(), self.average, self.loras, self.multipliers, self.losses, dtype)

    def _products(self, tensors: Tensors) -> tuple[float, np.ndarray, np.ndarray]:
        """Of one tensor of average and model: the square of their difference, its products with the LoRAs, and those of the LoRAs."""
        import torch

        count = len(self.loras)
        along, inner = np.zeros(count), np.zeros((count, count))
        if len(tensors.names) < 2:
            return 0.0, along, inner
        average, other = tensors.matrices()
        change = other - average
        pairs = {k: lora.factors(tensors.key) for k, lora in enumerate(self.loras) if tensors.key in lora}
        for k, (up, down) in pairs.items():
            along[k] = float(torch.sum((up.double().T @ change) * down.double()))
            for other_k, (other_up, other_down) in pairs.items():
                inner[k, other_k] = float(torch.sum((up.T.double() @ other_up.double()) * (down.double() @ other_down.T.double())))
        return float(change.square().sum()), along, inner


def hyper_model(
    average: Merge,
    model: Checkpoint,
    names: Sequence[str],
    turn: np.ndarray,
    layers: list[ReducedLayer],
    solution: Solution,
    ranks: Sequence[int],
    beyond: np.ndarray,
    numel: int,
) -> HyperModel:
    """The result, from a solution for the changes that `turn` (models x changes) makes of the models.

    `beyond` are the squares of each model's difference from the average in tensors that LoRAs cannot carry, `numel` the number of
    all elements; `model` has the layers. They are used up.
    """
    import pandas as pd

    multipliers = turn @ (solution.fit.multipliers * (solution.fit.inner.diagonal() > 0))  # of a LoRA that is zero, 0
    most = multipliers[np.abs(multipliers).argmax(0), range(len(ranks))]
    scales = np.where(most == 0, 1, most)
    labels = [f"lora-{k}-{rank}" for k, rank in enumerate(ranks, 1)]
    frame = pd.DataFrame(multipliers / scales + 0.0, pd.Index(names, name="model"), pd.Index(labels, name="lora"))  # + 0: no -0
    losses = _losses(names, turn, solution.fits, beyond, numel)
    return HyperModel(average, _loras(layers, solution, scales, labels, model), frame, losses)


def _loras(layers: list[ReducedLayer], solution: Solution, scales: np.ndarray, labels: Sequence[str], model: Checkpoint) -> list[LowRank]:
    def expanded(at: int) -> tuple[str, list[tuple[torch.Tensor, torch.Tensor]]]:
        layer, small = layers[at], solution.loras[at]
        layers[at] = solution.loras[at] = None  # type: ignore[assignment]  # the LoRAs take the room of what they are made of
        return layer.key, [layer.expanded(*_balanced(up * float(scale), down)) for (up, down), scale in zip(small, scales, strict=True)]

    found = dict(on_threads(expanded, len(layers)))
    return [lora_of({key: pairs[k] for key, pairs in found.items()}, {}, label, model) for k, label in enumerate(labels)]


def _balanced(up: torch.Tensor, down: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two matrices with the same product, of which the second was orthonormal, each with the roots of its singular values."""
    import torch

    left, values, right = torch.linalg.svd(up, full_matrices=False)
    roots = values.sqrt()
    return left * roots, roots[:, None] * (right @ down)


def _losses(names: Sequence[str], turn: np.ndarray, fits: Sequence[MultiplierFit], beyond: np.ndarray, numel: int) -> pd.DataFrame:
    import pandas as pd

    def squares(fit: MultiplierFit, count: int | None = None) -> np.ndarray:
        return np.einsum("ij,jk,ik->i", turn, fit.left(count), turn).clip(0) + beyond

    whole = squares(fits[0], 0)
    rows = [
        {
            "model": name,
            "loras": count,
            "mean_squared_residual": left / numel,
            "relative_error": np.sqrt(left / full) if full else np.nan,
            "first_alone": np.sqrt(alone / full) if full else np.nan,
            "beyond_loras": outside / left if left else np.nan,
            "note": "" if left else "nothing is left" if full else "the model is the average",
        }
        for count, fit in enumerate(fits)
        for name, left, alone, full, outside in zip(names, squares(fit), squares(fits[-1], count), whole, beyond, strict=True)
    ]
    return pd.DataFrame(rows)
