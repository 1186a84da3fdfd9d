"""The demo's report: one HTML file that holds all it shows and opens offline. What it says is counted in `exam`."""

from __future__ import annotations

import base64
import html
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING

from workbench.demo import exam
from workbench.demo.judge import ASPECTS

if TYPE_CHECKING:
    import pandas as pd

    from workbench.recipe import Recipe
    from workbench.render import Grid

_STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1f2328; --faint: #59636e; --line: #d1d9e0; --paper: #ffffff; --card: #f6f8fa; --bar: #a6cfe8;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --faint: #9198a1; --line: #3d444d; --paper: #0d1117; --card: #161b22; --bar: #0b5785; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
body { max-width: 84rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.25; margin: 2rem 0 .5rem; }
p, li { max-width: 48rem; }
.faint { color: var(--faint); font-size: .875rem; }
img { max-width: 100%; border: 1px solid var(--line); border-radius: 6px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, .word { text-align: left; }
td.share { background: linear-gradient(to right, var(--bar) var(--share), transparent var(--share)); min-width: 5rem; }
td.share { border-left: 3px solid var(--paper); }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .75rem 1rem; }
pre { overflow-x: auto; font-size: .8125rem; }
.recipes { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 0 1rem; }
summary { cursor: pointer; }
"""


def as_html(grid: Grid, picture: bytes, scores: pd.DataFrame, shares: pd.DataFrame, recipes: Mapping[str, Recipe]) -> str:
    """The whole page; `picture` is the grid as a PNG."""
    shown = scores[scores["part"] == "grid"].drop(columns="part")
    body = [
        "<h1>Three merges, drawn beside what they were made of</h1>",
        "<p>Small Stable Diffusion models, trained for this project, draw coloured shapes. <b>heart</b> and <b>moon</b> each "
        "learned a shape that <b>base</b> does not know, <b>outline</b> and <b>stripes</b> a style. <b>average</b> is the mean of "
        "heart and moon; <b>skills</b> adds what both learned to base; <b>ramp</b> goes from outline to stripes through the depth "
        "of the network.</p>",
        "<ul>" + "".join(f"<li>{html.escape(sentence)}.</li>" for sentence in exam.findings(shares)) + "</ul>",
        "<h2>The pictures</h2>",
        f'<img alt="A row of pictures for each prompt, a column for each model" src="{_data_url(picture)}">',
        "<p class=faint>Every model starts from the same noise: pictures in one row differ by the weights alone.</p>",
        "<h2>How many are right</h2>",
        _share_table(shares),
        f"<p class=faint>Shares of pictures in which a zero-shot CLIP, choosing among every caption the models were trained with, "
        f"names what was asked; {len(scores) - len(shown)} pictures besides the grid. “Base's” columns are about circles, squares, "
        "triangles and stars. Empty: not asked. A merge keeps a skill that it has at least three quarters as often as the parent. "
        "One row for each picture is in <a href=scores.csv>scores.csv</a>.</p>",
        f"<details><summary>The scores of the {len(shown)} pictures in the grid</summary>{_score_table(shown)}</details>",
        "<h2>The recipes</h2>",
        "<p>Each file carries its own: <code>workbench.Recipe.from_file(path)</code> reads it back, and "
        "<code>workbench merge recipe.yaml --out again.safetensors</code> makes the same weights again.</p>",
        f"<div class=recipes>{''.join(_recipe(*named) for named in recipes.items())}</div>",
        f"<p class=faint>{html.escape(_made_with(grid))}</p>",
    ]
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>Workbench: demo</title><style>{_STYLE}</style>"
    return "\n".join(["<!doctype html>", f"<html lang=en><head>{head}</head><body>", *body, "</body></html>\n"])


def _data_url(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def _share_table(shares: pd.DataFrame) -> str:
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in ["model", *shares.columns])
    rows = []
    for model, row in shares.iterrows():
        cells = [f"<td class=word>{html.escape(str(model))}</td>"]
        for name, value in row.items():
            if name == "pictures":
                cells.append(f"<td>{value:.0f}</td>")
            elif value != value:
                cells.append("<td></td>")
            else:
                cells.append(f'<td class=share style="--share: {value:.0%}">{value:.0%}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<div class=wide><table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"


def _score_table(scores: pd.DataFrame) -> str:
    """What was drawn and what it was named; a name that is not what was asked is marked."""
    heads = "".join(f"<th>{name}</th>" for name in ["model", "prompt", "seed", "clip", *ASPECTS])
    rows = []
    for _, row in scores.iterrows():
        cells = [f"<td class=word>{html.escape(row['model'])}</td><td class=word>{html.escape(row['prompt'])}</td>"]
        cells.append(f"<td>{row['seed']}</td><td>{row['clip']:.1f}</td>")
        cells += [f"<td class=word>{row[aspect]}{'' if row[f'{aspect}_right'] else ' ✗'}</td>" for aspect in ASPECTS]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<div class=wide><table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"


def _recipe(name: str, recipe: Recipe) -> str:
    return f"<div><h3>{html.escape(name)}</h3><pre>{html.escape(recipe.to_yaml())}</pre></div>"


def _made_with(grid: Grid) -> str:
    asked = grid.request
    libraries = ", ".join(f"{name} {version(name)}" for name in ("workbench", "torch", "diffusers", "transformers"))
    sampler = asked.sampler or "the scheduler of the models' own config"
    drawn = f"{sampler}, {asked.steps} steps, guidance {asked.guidance:g}, seeds {', '.join(map(str, asked.seeds))}"
    made = f"Made with {libraries}, Python {platform.python_version()}, by the command workbench demo."
    yours = "Models of your own are drawn alike, by any text-to-image pipeline of diffusers: workbench.MergePanel(folder)."
    return f"Drawn with {drawn}. {made} {yours}"
