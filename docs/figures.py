"""Makes figures of README.md and docs/methods.md from the embedded models: `python docs/figures.py`. Needs kaleido and a Chrome."""

from __future__ import annotations

from pathlib import Path

import workbench as wb
from workbench.analysis import similarity
from workbench.places import DATA

IMAGES = Path(__file__).parent / "images"
NAMES = ["base", "outline", "stripes", "heart", "moon", "pastel"]
RAMP = {"ramp": {"start": [1, 0], "end": [0, 1], "elsewhere": [0.5, 0.5]}}


def main() -> None:
    models = {name: wb.open(DATA / "shapes-sd" / f"{name}.safetensors") for name in NAMES}
    base, outline, stripes = models["base"], models["outline"], models["stripes"]
    merges = {
        "heart + moon": wb.operators.task_arithmetic(base, [models["heart"], models["moon"]], weights=1.0),
        "average of styles": wb.operators.weighted_average([outline, stripes]),
    }
    ramp = wb.operators.weighted_average([outline, stripes], weights=RAMP)
    figures = {
        "similarity": similarity(models | merges, base=base).plot(),
        "recover": wb.recover(ramp, {"outline": outline, "stripes": stripes}).plot(),
        "methods": wb.analysis.methods_compared().plot(),
    }
    for name, figure in figures.items():
        figure.update_layout(paper_bgcolor="white").write_image(IMAGES / f"{name}.png", width=800, scale=1.5)


if __name__ == "__main__":
    main()
