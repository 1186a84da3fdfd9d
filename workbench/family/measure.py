"""Has every model of the family, and merges of them, asked and judged, and writes the table; see `quality`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from workbench.family.denoiser import VARIANTS
from workbench.family.files import Folder, read_pipeline
from workbench.family.quality import Judge, generate, held_out, judge_row, rows_of, summary, weakest_pairs

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from diffusers import StableDiffusionPipeline

    Weights = dict[str, torch.Tensor]

AVERAGE, SUM, STYLES_AVERAGE, LORA = (
    "heart + moon, average",
    "heart + moon, sum of deltas",
    "outline + stripes, average",
    "base + stripes LoRA",
)
MODELS = ("base", *VARIANTS, LORA, AVERAGE, SUM, STYLES_AVERAGE)


def _average(one: Weights, other: Weights) -> Weights:
    return {key: (one[key] + other[key]) / 2 for key in one}


def _sum(base: Weights, one: Weights, other: Weights) -> Weights:
    return {key: one[key] + other[key] - base[key] for key in base}


def models(folder: Folder, names: list[str]) -> Iterator[tuple[str, StableDiffusionPipeline]]:
    """The pipeline, with the U-Net of each model in turn in it."""
    pipeline = read_pipeline(folder)

    def weights(name: str) -> Weights:
        return read_pipeline(folder, name).unet.state_dict()

    merges = {
        AVERAGE: lambda: _average(weights("heart"), weights("moon")),
        SUM: lambda: _sum(weights("base"), weights("heart"), weights("moon")),
        STYLES_AVERAGE: lambda: _average(weights("outline"), weights("stripes")),
    }
    for name in names:
        if name == LORA:
            pipeline.unet.load_state_dict(weights("base"))
            pipeline.load_lora_weights(str(folder.lora("stripes").parent), weight_name="stripes.safetensors")
            yield name, pipeline
            pipeline.unload_lora_weights()
        else:
            pipeline.unet.load_state_dict(merges[name]() if name in merges else weights(name))
            yield name, pipeline


def measure(folder: Folder, names: list[str] | None = None) -> pd.DataFrame:
    """One line per generated picture, of every model and everything it is asked for."""
    import pandas as pd

    judge = Judge(folder.clip)
    judged, names = [], list(names or MODELS)
    for name, pipeline in tqdm(models(folder, names), total=len(names), desc="measure"):
        judged += [judge_row(row, generate(pipeline, row.wanted, row.seeds), judge) for row in rows_of(name)]
    return pd.concat(judged, ignore_index=True)


def as_markdown(table: pd.DataFrame) -> str:
    """A Markdown table, shares in per cent with one decimal."""
    cells = [
        [f"{100 * value:.1f}" if isinstance(value, float) else str(value) for value in line]
        for line in table.itertuples(index=False)
    ]
    lines = [list(table.columns), ["---"] * len(table.columns), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def report(folder: Folder, judged: pd.DataFrame) -> str:
    """The tables of `data/README.md`: the models, the base's weakest pairs, and the scorer itself."""
    scorer = held_out(Judge(folder.clip))
    by_style = scorer.groupby("style", sort=False).mean().add_suffix(" right").reset_index()
    base = judged[(judged["model"] == "base") & (judged["asked"] == "base shapes")]
    parts = [as_markdown(summary(judged))]
    if len(base):
        parts.append(
            "The base's weakest pairs (shape, colour and background all right):\n\n" + as_markdown(weakest_pairs(base))
        )
    parts.append("The scorer on drawn pictures it has not seen:\n\n" + as_markdown(by_style))
    return "\n\n".join(parts) + "\n"


def write(out: Path, judged: pd.DataFrame, text: str) -> None:
    """`quality.csv`, one line per picture and model, and `quality.md`."""
    out.mkdir(parents=True, exist_ok=True)
    judged.to_csv(out / "quality.csv", index=False)
    (out / "quality.md").write_text(text)
