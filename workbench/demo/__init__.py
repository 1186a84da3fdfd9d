"""`workbench demo`: three merges of the embedded models, drawn beside what they were made of, scored, and told in ten lines.

What the models are asked, and how answers are counted, is in `exam`; the page that shows it all is in `report`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from workbench import operators
from workbench.checkpoint import Checkpoint
from workbench.checkpoint import open as open_checkpoint
from workbench.checkpoint.files.writing import replacing
from workbench.demo import exam, report
from workbench.demo.exam import STEPS
from workbench.engine import export
from workbench.errors import ExportError
from workbench.merge import Merge
from workbench.places import DATA, in_clone
from workbench.recipe import Recipe

TRAINED = ("base", "heart", "moon", "outline", "stripes")
SEEDS = (0, 1)


def run(out: Path, *, seeds: Sequence[int] = SEEDS, steps: int = STEPS) -> None:
    """Write the merges, the grid of pictures, the scores and the report into the folder `out`, and say so.

    Raises NotInCloneError when the embedded models are not there, ExportError when `out` cannot be written.
    """
    from workbench.render import Renderer

    began = time.monotonic()
    models = trained()
    made = {name: _export(name, merge, _folder(out)) for name, merge in merges(models).items()}
    renderer = Renderer(DATA / "shapes-sd" / "config")
    grid, scores = exam.sit(models | made, renderer, DATA / "shapes-clip", seeds, steps)
    shares = exam.shares(scores)
    print(f"drawn    {len(scores)} pictures, the same prompts and the same noise for every model; {time.monotonic() - began:.0f} s so far")
    for sentence in exam.findings(shares):
        print(f"found    {sentence}")
    recipes = {name: Recipe.from_file(out / f"{name}.safetensors") for name in made}
    grid.save(out / "grid.png", **exam.LAYOUT)
    with replacing(out / "scores.csv") as temporary:
        scores.to_csv(temporary, index=False, float_format="%.4g")
    with replacing(out / "report.html") as temporary:
        picture = (out / "grid.png").read_bytes()
        temporary.write_text(report.as_html(grid, picture, scores, shares, recipes), encoding="utf-8")
    print(f"written  {_near(out / 'grid.png')}: the pictures side by side")
    print(f"written  {_near(out / 'scores.csv')}: one row for each picture")
    print(f"written  {_near(out / 'report.html')}: all of it on one page; open it in a browser")


def trained() -> dict[str, Checkpoint]:
    """The embedded models. Raises NotInCloneError when the package lies without them."""
    folder = in_clone(DATA / "shapes-sd")
    return {name: open_checkpoint(folder / f"{name}.safetensors") for name in TRAINED}


def merges(models: Mapping[str, Checkpoint]) -> dict[str, Merge]:
    """Two ways to put two skills together, and a walk through the depth of the network from one style to another."""
    skills, styles = [models["heart"], models["moon"]], [models["outline"], models["stripes"]]
    ramp = {"ramp": {"start": [1, 0], "end": [0, 1], "elsewhere": [0.5, 0.5]}}
    return {
        "average": operators.weighted_average(skills),
        "skills": operators.task_arithmetic(models["base"], skills),
        "ramp": operators.weighted_average(styles, weights=ramp),
    }


def _folder(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{out}: cannot be made a folder ({error.strerror}); give another with --out") from error
    return out


def _export(name: str, merge: Merge, folder: Path) -> Checkpoint:
    """The merge's file, opened: what is drawn is what was written."""
    written = export(merge, folder / f"{name}.safetensors", overwrite=True)
    print(f"merged   {name:8} {_in_words(merge)}: {_near(written.path)}, {written.nbytes / 1e6:.1f} MB")
    return written.open()


def _in_words(merge: Merge) -> str:
    """`task_arithmetic(base, [heart, moon])`"""
    called = merge.call
    inputs = [[called.names[at] for at in called.slots[slot.name]] for slot in called.operator.inputs]
    told = (f"[{', '.join(names)}]" if slot.many else names[0] for slot, names in zip(called.operator.inputs, inputs, strict=True))
    return f"{merge.name}({', '.join(told)})"


def _near(path: Path) -> Path:
    """As seen from the current folder, where it is below it."""
    path = path.resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
