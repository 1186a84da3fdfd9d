"""The command `python -m training.measure`: has every model, and merges of them, asked and judged, and writes the table; see `quality`."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tqdm.auto import tqdm

from training.denoiser import VARIANTS
from training.files import Folder, read_pipeline, write_checkpoint
from training.flux_stages import STYLE
from training.quality import compare, held_out, summary, weakest_pairs
from training.z_image_stages import STYLE as Z_STYLE
from training.z_image_stages import read_z_image
from workbench.demo.captions import BASE_SHAPES, NEW_SHAPES, PLAIN, STYLES, Subject, subjects
from workbench.demo.exam import GUIDANCE, STEPS
from workbench.demo.judge import Judge

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from workbench.checkpoint import Checkpoint
    from workbench.render import Renderer

FLUX_GUIDANCE = 3.5  # as FluxPipeline has it
Z_STEPS, Z_GUIDANCE = 16, 2.0
_AT_LEAST = 200  # pictures per line of the table

LORA = "base + stripes LoRA"
AVERAGE = "heart + moon, average"
SUM = "heart + moon, sum of deltas"
STYLES_AVERAGE = "outline + stripes, average"

SCHNELL, KREA = "schnell", "krea"
FLUX_AVERAGE = "schnell + krea, average"  # with krea's guidance embedder
FLUX_AVERAGE_WITHOUT = "schnell + krea, average, no embedder"

SDXL = {"SDXL base": "base", "SDXL heart": "heart", "SDXL base-v": "base-v"}  # the files of that family
SDXL_STEPS = 20  # of Euler
Z_IMAGE, Z_LORA = "z-image", f"z-image + {Z_STYLE} LoRA"

_OLD = ("base shapes",)
# What Flux models are asked for, always without a word for the style: steps, and the style that is counted as right.
_FLUX_KINDS = {
    "4 steps": (4, PLAIN),
    "20 steps": (20, PLAIN),
    f"4 steps, as {STYLE}": (4, STYLE),
    f"20 steps, as {STYLE}": (20, STYLE),
}
# What Z-Image models are asked for, with the word for the style.
_Z_KINDS = {f"{Z_STEPS} steps": PLAIN, f"{Z_STEPS} steps, {Z_STYLE}": Z_STYLE}
# What each model is asked for: the base's subjects, and what else it should, or should not, know.
ASKED: dict[str, tuple[str, ...]] = {
    "base": (*_OLD, *NEW_SHAPES),
    **{name: (*_OLD, name) for name in VARIANTS},
    LORA: (*_OLD, "stripes"),
    AVERAGE: (*_OLD, *NEW_SHAPES),
    SUM: (*_OLD, *NEW_SHAPES),
    STYLES_AVERAGE: (*_OLD, "outline", "stripes"),
    SCHNELL: ("4 steps", "20 steps"),
    KREA: (f"20 steps, as {STYLE}", f"4 steps, as {STYLE}"),
    FLUX_AVERAGE: ("4 steps", "20 steps"),
    FLUX_AVERAGE_WITHOUT: ("4 steps", "20 steps"),
    "SDXL base": (*_OLD, "heart"),
    "SDXL heart": (*_OLD, "heart"),
    "SDXL base-v": _OLD,
    Z_IMAGE: tuple(_Z_KINDS),
    Z_LORA: tuple(_Z_KINDS),
}


@dataclass(frozen=True)
class Request:
    """Every subject of one kind, with as many seeds as make at least 200 pictures."""

    wanted: tuple[Subject, ...]
    steps: int = STEPS
    guidance: float = GUIDANCE
    styled: bool = True  # whether the captions name the style

    @classmethod
    def of(cls, kind: str) -> Request:
        """`kind` is "base shapes", a new shape, a style, or what a Flux or Z-Image model is asked for."""
        if kind in _FLUX_KINDS:
            steps, style = _FLUX_KINDS[kind]
            return cls(tuple(subjects(BASE_SHAPES, [style])), steps, FLUX_GUIDANCE, styled=False)
        if kind in _Z_KINDS:
            return cls(tuple(subjects(BASE_SHAPES, [_Z_KINDS[kind]])), Z_STEPS, Z_GUIDANCE)
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
        captions = [(subject if self.styled else replace(subject, style=PLAIN)).caption for subject in self.wanted]
        return renderer.images(captions, self.seeds, steps=self.steps, guidance=self.guidance, progress=False)


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


def _z_image_with_lora(folder: Folder, scratch: Path) -> Checkpoint:
    """Likewise the small Z-Image with its LoRA, as a pipeline folder."""
    import workbench as wb

    pipeline = read_z_image(folder)
    pipeline.load_lora_weights(folder.z_image / "lora", weight_name=f"{Z_STYLE}.safetensors")
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    path = scratch / "z-image-with-lora"
    pipeline.save_pretrained(path)
    return wb.open(path)


def makers(folder: Folder, scratch: Path) -> dict[str, Callable[[], Checkpoint]]:
    """How each model of the table is opened or merged."""
    import workbench as wb

    def opened(*names: str) -> list[Checkpoint]:
        return [wb.open(folder.checkpoint(name)) for name in names]

    def flux(rule: dict[str, object]) -> Checkpoint:
        pair = [wb.open(folder.flux(name)) for name in (SCHNELL, KREA)]
        return wb.operators.weighted_average(pair, rules=[{"match": "*guidance*"} | rule])

    plain = {name: (lambda name=name: opened(name)[0]) for name in ("base", *VARIANTS)}
    return plain | {
        LORA: lambda: _with_lora(folder, scratch),
        AVERAGE: lambda: wb.operators.weighted_average(opened("heart", "moon")),
        SUM: lambda: wb.operators.task_arithmetic(*opened("base"), opened("heart", "moon")),
        STYLES_AVERAGE: lambda: wb.operators.weighted_average(opened("outline", "stripes")),
        SCHNELL: lambda: wb.open(folder.flux(SCHNELL)),
        KREA: lambda: wb.open(folder.flux(KREA)),
        FLUX_AVERAGE: lambda: flux({"take": "models[1]"}),
        FLUX_AVERAGE_WITHOUT: lambda: flux({"skip": True}),
        **{name: (lambda file=file: wb.open(folder.sdxl(f"{file}.safetensors"))) for name, file in SDXL.items()},
        Z_IMAGE: lambda: wb.open(folder.z_image),
        Z_LORA: lambda: _z_image_with_lora(folder, scratch),
    }


def pipeline_folder(folder: Folder, name: str) -> Path:
    """What a model is drawn with: schnell and krea with their own pipelines, which differ in schedule; Flux merges with krea's."""
    if name in (Z_IMAGE, Z_LORA):
        return folder.z_image
    if name in (FLUX_AVERAGE, FLUX_AVERAGE_WITHOUT):
        return folder.flux(KREA)
    if name in SDXL:
        return folder.sdxl("config")
    return folder.flux(name) if name in (SCHNELL, KREA) else folder.config


def _renderer(folder: Folder, config: Path) -> Renderer:
    """What draws with a pipeline folder; to SDXL's U-Nets that lie alone the family's base lends the rest."""
    import workbench as wb
    from workbench.render import Renderer

    lender = wb.open(folder.sdxl("base.safetensors")) if config == folder.sdxl("config") else None
    return Renderer(config, fallback=lender)


def measure(folder: Folder, names: list[str] | None = None) -> pd.DataFrame:
    """One line per generated picture, of every model and everything it is asked for."""
    import pandas as pd

    names = names or list(ASKED)
    judge = Judge(folder.clip)
    renderers = {path: _renderer(folder, path) for path in dict.fromkeys(pipeline_folder(folder, name) for name in names)}
    judged = []
    with tempfile.TemporaryDirectory() as scratch, tqdm(total=sum(len(ASKED[name]) for name in names)) as bar:
        make = makers(folder, Path(scratch))
        for name in names:
            bar.set_description(name)
            renderer = renderers[pipeline_folder(folder, name)]
            renderer.load(make[name](), progress=False)
            for kind in ASKED[name]:
                request = replace(Request.of(kind), steps=SDXL_STEPS) if name in SDXL else Request.of(kind)
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
    (out / "quality.md").write_text(text, encoding="utf-8")


def main(
    folder: Annotated[Path, typer.Option("--in", help="Folder that holds shapes-clip and the families.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="Folder for quality.csv and quality.md.")] = Path("out/quality"),
    only: Annotated[list[str] | None, typer.Option(help="Measure this model only; may be repeated.")] = None,
) -> None:
    """Generate pictures with every embedded model, judge them, and print the quality table."""
    if unknown := [name for name in only or () if name not in ASKED]:
        raise typer.BadParameter(f"--only must be one of {', '.join(map(repr, ASKED))}, got {unknown[0]!r}")
    judged = measure(Folder(folder), only)
    text = report(Folder(folder), judged)
    write(out, judged, text)
    typer.echo(text)


if __name__ == "__main__":
    typer.run(main)
