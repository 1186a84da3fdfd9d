"""Has every model of the family, and merges of them, asked and judged, and writes the table; see `quality`."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from workbench.family.captions import BASE_SHAPES, NEW_SHAPES, STYLES, Subject, subjects
from workbench.family.denoiser import VARIANTS
from workbench.family.files import Folder, read_pipeline, write_checkpoint
from workbench.family.quality import Judge, compare, held_out, summary, weakest_pairs

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from workbench.checkpoint import Checkpoint
    from workbench.render import Renderer

STEPS = 12
GUIDANCE = 3.0
_AT_LEAST = 200  # pictures per line of the table

LORA = "base + stripes LoRA"
AVERAGE = "heart + moon, average"
SUM = "heart + moon, sum of deltas"
STYLES_AVERAGE = "outline + stripes, average"

_OLD = ("base shapes",)
# What each model is asked for: the base's subjects, and what else it should, or should not, know.
ASKED: dict[str, tuple[str, ...]] = {
    "base": (*_OLD, *NEW_SHAPES),
    **{name: (*_OLD, name) for name in VARIANTS},
    LORA: (*_OLD, "stripes"),
    AVERAGE: (*_OLD, *NEW_SHAPES),
    SUM: (*_OLD, *NEW_SHAPES),
    STYLES_AVERAGE: (*_OLD, "outline", "stripes"),
}


@dataclass(frozen=True)
class Request:
    """Every subject of one kind, with as many seeds as make at least 200 pictures."""

    wanted: tuple[Subject, ...]

    @classmethod
    def of(cls, kind: str) -> Request:
        """`kind` is "base shapes", a new shape, or a style."""
        if kind in NEW_SHAPES:
            return cls(tuple(subjects([kind])))
        return cls(tuple(subjects(BASE_SHAPES, [kind])) if kind in STYLES else tuple(subjects(BASE_SHAPES)))

    @property
    def seeds(self) -> range:
        return range(-(-_AT_LEAST // len(self.wanted)))

    @property
    def asked(self) -> list[Subject]:
        """The subject of each picture, in the renderer's order."""
        return [subject for subject in self.wanted for _ in self.seeds]

    def draw(self, renderer: Renderer) -> list[Image.Image]:
        captions = [subject.caption for subject in self.wanted]
        return renderer.images(captions, self.seeds, steps=STEPS, guidance=GUIDANCE, progress=False)


def _with_lora(folder: Folder, scratch: Path) -> Checkpoint:
    """The base with the LoRA added to its weights, by diffusers, in a file for as long as it is needed."""
    import workbench as wb

    pipeline = read_pipeline(folder)
    pipeline.load_lora_weights(str(folder.lora("stripes").parent), weight_name="stripes.safetensors")
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    path = scratch / "base-with-lora.safetensors"
    write_checkpoint(path, pipeline.unet, pipeline.vae, pipeline.text_encoder)
    return wb.open(path)


def makers(folder: Folder, scratch: Path) -> dict[str, Callable[[], Checkpoint]]:
    """How each model of the table is opened or merged."""
    import workbench as wb

    def opened(*names: str) -> list[Checkpoint]:
        return [wb.open(folder.checkpoint(name)) for name in names]

    plain = {name: (lambda name=name: opened(name)[0]) for name in ("base", *VARIANTS)}
    return plain | {
        LORA: lambda: _with_lora(folder, scratch),
        AVERAGE: lambda: wb.operators.weighted_average(opened("heart", "moon")),
        SUM: lambda: wb.operators.task_arithmetic(*opened("base"), opened("heart", "moon")),
        STYLES_AVERAGE: lambda: wb.operators.weighted_average(opened("outline", "stripes")),
    }


def measure(folder: Folder, names: list[str] | None = None) -> pd.DataFrame:
    """One line per generated picture, of every model and everything it is asked for."""
    import pandas as pd

    from workbench.render import Renderer

    judge, renderer = Judge(folder.clip), Renderer(folder.config)
    names = names or list(ASKED)
    judged = []
    with tempfile.TemporaryDirectory() as scratch, tqdm(total=sum(len(ASKED[name]) for name in names)) as bar:
        make = makers(folder, Path(scratch))
        for name in names:
            bar.set_description(name)
            renderer.load(make[name](), progress=False)
            for kind in ASKED[name]:
                request = Request.of(kind)
                compared = compare(request.asked, request.draw(renderer), judge)
                compared.insert(0, "model", name)
                compared.insert(1, "asked", kind)
                judged.append(compared)
                bar.update()
    return pd.concat(judged, ignore_index=True)


def as_markdown(table: pd.DataFrame) -> str:
    """A Markdown table, shares in per cent with one decimal."""
    cells = [[f"{100 * value:.1f}" if isinstance(value, float) else str(value) for value in line] for line in table.itertuples(index=False)]
    lines = [list(table.columns), ["---"] * len(table.columns), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def files_table(root: Path) -> str:
    """Size and sha256 of every weight file, as Markdown."""
    lines = ["| file | bytes | sha256 |", "| --- | --- | --- |"]
    for path in sorted(root.glob("shapes-*/**/*.safetensors")):
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        lines.append(f"| `{path.relative_to(root).as_posix()}` | {len(content)} | `{digest}` |")
    return "\n".join(lines)


def report(folder: Folder, judged: pd.DataFrame) -> str:
    """The tables of `data/README.md`: the models, the base's weakest pairs, the scorer itself, and the files."""
    base = judged[(judged["model"] == "base") & (judged["asked"] == "base shapes")]
    parts = {"Per cent right, by model and by what was asked": as_markdown(summary(judged))}
    if len(base):
        parts["The base's weakest pairs (shape, colour and background all right)"] = as_markdown(weakest_pairs(base))
    parts["The scorer, on drawn pictures it was not trained on"] = as_markdown(summary(held_out(Judge(folder.clip))))
    parts["Files"] = files_table(folder.root)
    return "\n\n".join(f"{title}:\n\n{table}" for title, table in parts.items()) + "\n"


def write(out: Path, judged: pd.DataFrame, text: str) -> None:
    """`quality.csv`, one line per picture and model, and `quality.md`."""
    out.mkdir(parents=True, exist_ok=True)
    judged.to_csv(out / "quality.csv", index=False)
    (out / "quality.md").write_text(text)
