"""What the demo asks the models to draw, how a zero-shot CLIP names the pictures, and what the counts say in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.checkpoint import Checkpoint
from workbench.demo.captions import BACKGROUNDS, BASE_SHAPES, COLOURS, PLAIN, SHAPES, STYLES, Subject, subjects
from workbench.demo.judge import ASPECTS, Judge

if TYPE_CHECKING:
    import pandas as pd

    from workbench.render import Grid, Renderer

STEPS, GUIDANCE = 12, 3.0  # enough for the embedded models
# The picture: prompts whose answers the eye tells at once, and the models that are worth seeing side by side
SHOWN = (
    "a red heart on a white background",
    "a yellow moon on a black background",
    "a blue star on a pink background",
    "a green circle on a black background, outline",
    "a red triangle on a white background, stripes",
)
COLUMNS = ("heart", "moon", "average", "skills", "outline", "stripes", "ramp")
LAYOUT: dict[str, Any] = {"seeds": "down"}
# What a merge ought to keep: the question, and the parent that was trained for it
HERITAGE = {
    "average": {"hearts": "heart", "moons": "moon"},
    "skills": {"hearts": "heart", "moons": "moon"},
    "ramp": {"outlines": "outline", "stripes": "stripes"},
}
COLOURS_KEPT = "base's colours"
_SUBJECTS = {subject.caption: subject for subject in subjects(SHAPES, (PLAIN, *STYLES))}


def questions() -> dict[tuple[str, ...], list[Subject]]:
    """What each group of models is asked to draw, besides the grid: of a parent its skill, of a merge all that it ought to keep."""
    return {
        ("heart", "average", "skills"): subjects(["heart"]),
        ("moon", "average", "skills"): subjects(["moon"]),
        ("average", "skills"): _every_pair(PLAIN),
        ("outline", "ramp"): _every_pair("outline"),
        ("stripes", "ramp"): _every_pair("stripes"),
    }


def sit(models: Mapping[str, Checkpoint], renderer: Renderer, clip: Path, seeds: Sequence[int], steps: int) -> tuple[Grid, pd.DataFrame]:
    """The grid of `SHOWN` prompts, and one scored row for each picture, the grid's (`part` is "grid") and the exam's."""
    from workbench.render import ab_grid

    def draw(names: Sequence[str], prompts: Sequence[str]) -> Grid:
        chosen = {name: models[name] for name in names}
        return ab_grid(chosen, prompts, seeds, renderer=renderer, steps=steps, guidance=GUIDANCE, scorers=())

    grid = draw(COLUMNS, SHOWN)
    exams = [draw(names, [one.caption for one in asked]) for names, asked in questions().items()]
    parts = ["grid"] * len(grid.images) + ["exam"] * sum(len(one.images) for one in exams)
    return grid, scored([grid, *exams], clip).assign(part=parts)


def scored(grids: Sequence[Grid], clip: Path) -> pd.DataFrame:
    """The grids' frames, with the `clip` score of each picture, what the CLIP names it, and whether the prompt says so too."""
    import pandas as pd

    from workbench.render import ClipScorer

    frame = pd.concat([grid.frame() for grid in grids], ignore_index=True)
    images, prompts = [image for grid in grids for image in grid.images], list(frame["prompt"])
    asked, seen = [_SUBJECTS[prompt] for prompt in prompts], Judge(clip).name(images)
    for aspect in ASPECTS:
        frame[aspect] = [getattr(one, aspect) for one in seen]
        frame[f"{aspect}_right"] = frame[aspect] == [getattr(one, aspect) for one in asked]
    return frame.assign(**ClipScorer(clip)(images, prompts))


def shares(scores: pd.DataFrame) -> pd.DataFrame:
    """By model, the share of pictures that show what was asked: hearts, moons, outline, stripes; and of base's shapes
    the share with the right shape, colour and background. NaN where a model was not asked.
    """
    import pandas as pd

    asked = scores[scores["part"] == "exam"]
    prompt = asked["prompt"]

    def share(rows: pd.Series, aspect: str) -> pd.Series:
        return asked[rows].groupby("model", sort=False)[f"{aspect}_right"].mean()

    based = prompt.str.contains(f" (?:{'|'.join(BASE_SHAPES)}) ")
    columns = {f"{shape}s": share(prompt.str.contains(f" {shape} "), "shape") for shape in ("heart", "moon")}
    columns |= {f"{style.removesuffix('s')}s": share(prompt.str.endswith(f", {style}"), "style") for style in ("outline", "stripes")}
    columns |= {f"base's {aspect}s": share(based, aspect) for aspect in ("shape", "colour", "background")}
    order = sorted(asked["model"].unique(), key=COLUMNS.index)
    return pd.DataFrame(columns).reindex(order).assign(pictures=asked.groupby("model").size())


def findings(shares: pd.DataFrame) -> list[str]:
    """A sentence for each merge: which of its parents' skills it keeps, that is, has at least three quarters of."""
    return [_finding(shares, name, heritage) for name, heritage in HERITAGE.items()]


def _finding(shares: pd.DataFrame, name: str, heritage: Mapping[str, str]) -> str:
    own, parents = shares.loc[name], {skill: shares.loc[parent, skill] for skill, parent in heritage.items()}
    kept = [skill for skill, before in parents.items() if own[skill] >= 0.75 * before > 0]
    verdict = {0: "neither of its parents' skills", len(parents): "both of its parents' skills"}
    told = " and ".join(f"{own[skill]:.0%} of the {skill} ({heritage[skill]} alone: {before:.0%})" for skill, before in parents.items())
    keeps = verdict.get(len(kept), f"one of its parents' skills, the {''.join(kept)}")
    return f"{name} keeps {keeps}: {told}; {own[COLOURS_KEPT]:.0%} of base's shapes have the right colour"


def _every_pair(style: str) -> list[Subject]:
    """Every colour on every background, the base's shapes taking turns."""
    pairs = [(colour, background) for colour in range(len(COLOURS)) for background in range(len(BACKGROUNDS))]
    shapes = len(BASE_SHAPES)
    return [Subject(BASE_SHAPES[(c + b) % shapes], COLOURS[c], BACKGROUNDS[b], style) for c, b in pairs]
