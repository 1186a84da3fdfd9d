"""Measures how far prompts steer an FFT merge, for docs/prompt-steering.md: `python docs/steering.py`. Needs kaleido.

Takes about half an hour on two cores; what was fitted and drawn is kept in `--out`, and a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

import workbench as wb
from workbench.checkpoint import Checkpoint
from workbench.conditioning import Hypernetwork, Objective, TextEncoder, fit, from_prompt, shares
from workbench.demo.captions import BACKGROUNDS, COLOURS, SHAPES, Subject
from workbench.operators import fft_blend, ties, weighted_average
from workbench.places import DATA

PAGE = Path(__file__).parent / "prompt-steering.md"
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
CONCEPTS = ("heart", "moon")
LEARNT = list(itertools.product(COLOURS[:4], BACKGROUNDS[:2]))
UNSEEN = list(itertools.product(COLOURS[4:], BACKGROUNDS[2:]))  # neither the colours nor the backgrounds were learnt from
SETTINGS = {"steps": 12, "guidance": 3.0}
WHOLE = {"smooth": True, "over": "row", "entanglement_strength": 1.0, "decoherence_factor": 0.0}
FITS, RANDOM, DRAWN = 3, 20, 12  # seeds of fits, of random networks, and of the pictures of one prompt and merge
STEPS = {"prompt": 150, "together": 200}


def prompts(concept: str, pairs: Sequence[tuple[str, str]]) -> list[str]:
    return [Subject(concept, *pair).caption for pair in pairs]


class Exam:
    """Draws merges, and counts the pictures that show the shape that was asked for; every count is kept in a file."""

    def __init__(self, out: Path) -> None:
        self.renderer = wb.Renderer(DATA / "shapes-sd" / "config")
        self.shape = wb.render.ClipChoice(wb.render.ClipScorer(DATA / "shapes-clip"), "shape", SHAPES)
        self.path = out / "scores.csv"
        self.known = pd.read_csv(self.path) if self.path.exists() else pd.DataFrame(columns=["merge", "seed", "asked", "prompt", "right"])

    def __call__(self, name: str, seed: int, merge: Callable[[str], Checkpoint], drawn: int = DRAWN, others: bool = False) -> None:
        """Score the merge that each unseen prompt asks for on that prompt; with `others`, on the other concept's as well."""
        if ((self.known["merge"] == name) & (self.known["seed"] == seed)).any():
            return
        rows = []
        for concept, other in (CONCEPTS, CONCEPTS[::-1]):
            for prompt, opposite in zip(prompts(concept, UNSEEN), prompts(other, UNSEEN), strict=True):
                self.renderer.load(merge(prompt), progress=False)
                for drawn_of, own in ((concept, prompt), *([(other, opposite)] if others else [])):
                    pictures = self.renderer.images([own], list(range(drawn)), progress=False, **SETTINGS)
                    right = 100 * self.shape(pictures, [own] * drawn)["shape_right"].mean()
                    rows.append({"merge": name, "seed": seed, "asked": concept, "prompt": drawn_of, "right": right})
        self.known = pd.concat([self.known, pd.DataFrame(rows)], ignore_index=True) if len(self.known) else pd.DataFrame(rows)
        self.known.to_csv(self.path, index=False)


def measure(out: Path) -> pd.DataFrame:
    """A row for every merge, seed and prompt: `right`, per cent of the pictures of `prompt` by the merge `asked` for."""
    base, heart, moon = (wb.open(DATA / "shapes-sd" / f"{name}.safetensors") for name in ("base", *CONCEPTS))
    encoder, exam = TextEncoder(heart), Exam(out)
    average, elected = weighted_average([heart, moon]), ties(base, [heart, moon])
    for name, model in (("heart", heart), ("moon", moon), ("average", average), ("TIES", elected)):
        exam(name, 0, lambda prompt, model=model: model)
    for label, options in (("random", {}), ("random, whole blend", WHOLE)):
        for seed in tqdm(range(RANDOM), desc=label):
            merge = lambda prompt, seed=seed, options=options: fft_blend(  # noqa: E731
                heart, moon, **options, coefficients=from_prompt(prompt, encoder=encoder, seed=seed)
            )
            exam(label, seed, merge, drawn=2, others=True)
    for seed in range(FITS):
        for label, options in (("fitted", {}), ("fitted, vector", {"hypernetwork": Hypernetwork(encoder.width, count=16, seed=seed)})):
            exam(label, seed, fitted(out, label, seed, exam, heart, moon, STEPS["prompt"], **options).merge, others=True)
        one = fitted(out, "together", seed, exam, heart, moon, STEPS["together"], together=True).merge()
        exam("fitted together", seed, lambda prompt, one=one: one)
    return exam.known


def fitted(out: Path, label: str, seed: int, exam: Exam, heart: Checkpoint, moon: Checkpoint, steps: int, **options: object):
    """A fit from its state file, or a new one; its network is saved beside."""
    learnt = [prompt for concept in CONCEPTS for prompt in prompts(concept, LEARNT)]
    judge = lambda pictures, asked: exam.shape(pictures, asked)["shape_right"]  # noqa: E731
    objective = Objective(scorer=judge, pictures=2, lessons=64, **SETTINGS)
    held_out = [prompts(concept, UNSEEN)[0] for concept in CONCEPTS]
    state = out / f"{label.replace(', ', '-')}-{seed}.pt"
    settings = {"renderer": exam.renderer, "objective": objective, "held_out": held_out, "state": state, "seed": seed}
    found = fit(heart, moon, learnt, steps=steps, **settings, **options)
    found.hypernetwork.save(state.with_suffix(".safetensors"))
    return found


def table(known: pd.DataFrame) -> str:
    """The page's table: means over prompts, with the standard deviation between seeds where there are several."""
    own = known[known["asked"] == known["prompt"]]
    lines = ["| merge | seeds | hearts | moons | mean |", "| --- | --- | --- | --- | --- |"]
    for name in dict.fromkeys(own["merge"]):
        rows = own[own["merge"] == name]
        each = rows.groupby(["seed", "prompt"])["right"].mean().unstack()
        cells = [_spread(each[concept]) for concept in CONCEPTS] + [_spread(each.mean(axis=1))]
        lines.append(f"| {name} | {len(each)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def steering(known: pd.DataFrame) -> str:
    """How much better a concept is drawn by the merge that its prompt asks for than by the one the other's prompt asks for."""
    lines = ["| merge | seeds | steering |", "| --- | --- | --- |"]
    both = known.groupby("merge").filter(lambda rows: (rows["asked"] != rows["prompt"]).any())
    for name in dict.fromkeys(both["merge"]):
        rows = both[both["merge"] == name]
        own = rows["asked"] == rows["prompt"]
        gain = rows[own].groupby("seed")["right"].mean() - rows[~own].groupby("seed")["right"].mean()
        lines.append(f"| {name} | {len(gain)} | {_spread(gain, sign='+')} |")
    return "\n".join(lines)


def _spread(values: pd.Series, sign: str = "") -> str:
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0
    return f"{np.mean(values):{sign}.1f}" + (f" ± {deviation:.1f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/steering"), help="where fits and scores are kept")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    known = measure(out)
    before, rest = PAGE.read_text().split(BEGIN)
    text = f"{BEGIN}\n\n{table(known)}\n\n{steering(known)}\n\n{END}"
    PAGE.write_text(before + text + rest.split(END)[1])
    print(text)
    draw(out)


def draw(out: Path) -> None:
    """The README's figure: what the first fit takes for a heart, for a moon, and for what it was not taught."""
    heart, moon = (wb.open(DATA / "shapes-sd" / f"{name}.safetensors") for name in CONCEPTS)
    asked = {f"a {shape}": Subject(shape, *UNSEEN[0]).caption for shape in (*CONCEPTS, "star")}
    network = out / "fitted-0.safetensors"
    coefficients = {name: from_prompt(prompt, encoder=TextEncoder(heart), hypernetwork=network) for name, prompt in asked.items()}
    figure = shares({name: fft_blend(heart, moon, **WHOLE, coefficients=own) for name, own in coefficients.items()}).plot()
    figure.update_layout(paper_bgcolor="white").write_image(PAGE.parent / "images" / "steering.png", width=800, scale=1.5)


if __name__ == "__main__":
    main()
